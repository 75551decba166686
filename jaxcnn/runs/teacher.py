"""Teacher: the weights that a student learns from, read from the run that has them; no checkpoint holds them."""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs import checkpoint as checkpoints
from jaxcnn.runs.initial_state import abstract_state
from jaxcnn.runs.member import Member
from jaxcnn.runs.restore import load_experiment, load_run
from jaxcnn.runs.run_directory import open_run
from jaxcnn.runs.setup import Plan
from jaxcnn.runs.stepper import Stepper
from jaxcnn.tasks.distillation import distillation_of
from jaxcnn.tasks.task import TEACHER


def check_teacher(plan: Plan) -> None:
    """Checks, before anything is compiled, that a run can learn from its teacher; of weights it reads shapes alone.

    Raises:
      UserError: there is no such run or checkpoint, its net is another one, or it was trained with other classes or on
        images that were prepared otherwise.
    """
    given = distillation_of(plan.experiment.task)
    if given is None or given.run is None:
        return
    directory = open_run(pathlib.Path(given.run))
    if not checkpoints.steps(directory.checkpoints):
        raise UserError(f"distillation: the teacher's run {given.run} has no checkpoint yet")
    experiment = load_experiment(directory)
    here, there = plan.experiment.data.normalize, experiment.data.normalize
    if here != there:
        raise UserError(
            f"distillation: the teacher of {given.run} was trained with data.normalize {there}, and the student reads "
            f"the same images with {here}; give both the teacher's"
        )
    ours, theirs = plan.classes, tuple(directory.environment()["dataset"]["classes"])
    # Weights of others may have names of their own (import-weights); of the same names another order is a mistake.
    if set(ours) & set(theirs) and ours != theirs:
        raise UserError(f"distillation: the teacher of {given.run} has other classes, or another order, than the data")
    _variables(plan.experiment, abstract_state(experiment, plan.mesh))


def load_frozen(plan: Plan) -> tuple[Any, str | None]:
    """What the train step takes as `frozen`, on the host, and a digest of it; ({}, None) for most runs.

    Random weights have none: the experiment says what they are, and on another machine they may differ in the last bit.
    """
    given = distillation_of(plan.experiment.task)
    if given is None:
        return {}, None
    if given.run is None:
        return {TEACHER: jax.jit(given.init, static_argnums=0)(plan.experiment.data.image_shape)}, None
    variables = _variables(plan.experiment, load_run(given.run, given.checkpoint).state)
    variables = jax.tree.map(np.asarray, variables)
    digest = hashlib.sha256()
    for path, array in sorted(flatten_dict(variables, sep="/").items()):
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return {TEACHER: variables}, digest.hexdigest()


def frozen_for(members: Sequence[Member], stepper: Stepper) -> Any:
    """The same on the devices, for runs that train together; their checkpoints note whose weights they learned from."""
    frozen, digest = load_frozen(members[0].plan)
    for member in members:
        member.teacher = digest
    return stepper.put_frozen(frozen)


def _variables(experiment: Experiment, state: Any) -> Any:
    """The teacher's variables, or their shapes, among those of its run. Raises UserError if they are of another net."""
    given = distillation_of(experiment.task)
    assert given is not None
    source = state.average if given.averaged else state
    if source is None:
        raise UserError(f"distillation.averaged: {given.run} keeps no average of its weights")
    there: dict[Any, Any] = flatten_dict({"params": source.params, **source.stats})
    wanted: dict[Any, Any] = flatten_dict(jax.eval_shape(lambda: given.init(experiment.data.image_shape)))
    for path, shape in wanted.items():
        found = there[path].shape if path in there else None
        if found != shape.shape:
            name = "/".join(path)
            raise UserError(
                f"distillation: {name} of distillation.teacher is {list(shape.shape)}, and "
                f"{list(found) if found is not None else 'missing'} in {given.run}; give the net of that run, "
                f"load_run({given.run!r}).model"
            )
    return unflatten_dict({path: there[path] for path in wanted})  # its auxiliary heads stay behind
