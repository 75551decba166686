"""Objective: a task, a model and what normalizes its images as pure functions of arrays, for the steps."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn.tasks.task import Batch, Records, Sums, Task, Variables
from jaxcnn.train.batch_norm import NormGroup, grouped
from jaxcnn.train.step import LossFn

Normalizer = Callable[[jax.Array], jax.Array]
EvaluationStep = Callable[[Any, Any, Any, Batch], tuple[Sums, Records]]


def make_loss(task: Task, model: nn.Module, normalize: Normalizer, bn_group: NormGroup = "global") -> LossFn:
    """(params, stats, frozen, batch, key) -> the task's loss, and (new statistics, sums).

    Batch norm takes its statistics over `bn_group` examples in a row, or over the whole batch. `frozen` are variables
    that get no gradient: collections of their own (a teacher), or parts of the model's (a trunk).
    """

    def loss_fn(params, stats, frozen, batch, key):
        variables = merged({"params": params, **stats}, frozen)
        batch = batch | {"image": normalize(batch["image"])}
        with contextlib.nullcontext() if bn_group == "global" else grouped(bn_group):
            loss, updated, sums = task.loss(model, variables, batch, train=True, rngs={"dropout": key})
        return loss, (trained(updated, stats), sums)

    return loss_fn


def make_evaluation_step(task: Task, model: nn.Module, normalize: Normalizer) -> EvaluationStep:
    """(params, stats, frozen, batch with "valid" [B] bool) -> (sums over the valid examples, records of each)."""

    def step(params, stats, frozen, batch):
        variables = merged({"params": params, **stats}, frozen)
        return task.outputs(model, variables, batch | {"image": normalize(batch["image"])})

    return step


def merged(variables: Variables, frozen: Variables) -> dict[str, Any]:
    """All variables of a model: those that training changes and those that it does not."""
    result = dict(variables)
    for collection, values in frozen.items():
        own = flatten_dict(result.get(collection, {}))
        result[collection] = unflatten_dict(own | flatten_dict(values))
    return result


def trained(updated: Variables, stats: Variables) -> Variables:
    """Of updated collections what the state holds: not what is frozen."""
    kept = {name: flatten_dict(values) for name, values in stats.items()}
    return {
        name: unflatten_dict({path: value for path, value in flatten_dict(updated[name]).items() if path in kept[name]})
        for name in kept
    }
