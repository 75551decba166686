"""Plan: an experiment resolved against its data and devices, with every mistake found before anything is compiled."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.errors import FlaxError
from jax.sharding import Mesh

from jaxcnn.data.draws import EVALUATION, Draws
from jaxcnn.data.examples import BrokenExample, Examples, label_hash
from jaxcnn.data.preparation import read
from jaxcnn.data.sampling import BalancedOrder, order_of
from jaxcnn.data.splits import open_split
from jaxcnn.data.transforms import Transform
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs.batch_shapes import abstract_batch, batch_fields
from jaxcnn.runs.initial_state import abstract_state, optimizer_of, params_in_order
from jaxcnn.runs.once import Once
from jaxcnn.runs.sizes import check_begins, experiments
from jaxcnn.tasks.objective import make_evaluation_step
from jaxcnn.tasks.task import score_of
from jaxcnn.tasks.views import evaluated_with, views_of
from jaxcnn.train import mesh as meshes
from jaxcnn.train.batch_norm import check_group
from jaxcnn.train.duration import Duration, in_steps
from jaxcnn.train.groups import check_groups, group_lines
from jaxcnn.train.layer_decay import layer_lines
from jaxcnn.train.schedules import Plateau, make_rate


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run needs beside its experiment; durations in optimizer steps."""

    experiment: Experiment
    train: Examples
    evaluations: dict[str, Examples]
    tests: dict[str, Examples]
    """Those that are evaluated at the end only."""
    mesh: Mesh
    total: int
    evaluate_every: int
    log_every: int
    checkpoint_every: int
    rate: optax.Schedule
    optimizer: optax.GradientTransformationExtraArgs
    order: BalancedOrder | None = None
    """Of the training examples, if it is not that of shuffled epochs."""
    once: Once = dataclasses.field(default_factory=Once, init=False)
    """What is compiled of it. dataclasses.replace makes another one, since another plan has other programs."""

    def with_seed(self, seed: int) -> "Plan":
        """The same experiment with another seed: data, shapes and programs are shared."""
        plan = dataclasses.replace(self, experiment=dataclasses.replace(self.experiment, seed=seed))
        object.__setattr__(plan, "once", self.once)
        return plan

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    def how_trained(self) -> list[str]:
        """What each group of parameters holds and which rate each layer has, if there are groups or a decay."""
        made = self.experiment
        if not made.groups and made.layer_decay is None:
            return []
        params = params_in_order(made)
        return [*group_lines(params, made.groups), *layer_lines(params, made.layer_decay)]

    def dataset(self) -> dict[str, Any]:
        """For environment.json: what makes two sets the same wherever they lie."""
        opened = {self.train.split: self.train} | self.evaluations | self.tests
        return {
            "name": self.train.name,
            "version": self.train.version,
            "splits": {name: len(split) for name, split in opened.items()},
            "versions": {name: split.version for name, split in opened.items()},
            "label_hash": label_hash(self.classes),
            "classes": list(self.classes),
        }


def resolved(experiment: Experiment, to_steps: Callable[[Duration], int]) -> Experiment:
    """The experiment with the durations that its train step reads in steps; the same object if it has none."""
    now = {"groups": in_steps(experiment.groups, to_steps), "ema": in_steps(experiment.ema, to_steps)}
    changed = {name: part for name, part in now.items() if part is not getattr(experiment, name)}
    return dataclasses.replace(experiment, **changed) if changed else experiment


def open_evaluations(experiment: Experiment, names: tuple[str, ...]) -> dict[str, Examples]:
    """The splits of these names, to be evaluated, which fit the model."""
    data = experiment.data
    splits = {name: open_split(data.source, name, data.data_dir) for name in names}
    for examples in splits.values():
        experiment.task.check(experiment.model, examples)
    return splits


def fitted_evaluation(experiment: Experiment, mesh: Mesh, counts: Sequence[int]) -> Experiment:
    """The experiment with evaluation batches no larger than the largest split that is evaluated, of these counts.

    A net computes whole batches: 512 rows for 32 images would cost sixteen times what the images need. They are rounded
    up to a multiple of the devices.

    Raises:
      UserError: data.evaluation_batch_size is no multiple of the devices.
    """
    data = experiment.data
    meshes.check_batch_size(data.evaluation_batch_size, 1, mesh, "data.evaluation_batch_size")
    needed = -(-max(counts, default=1) // mesh.size) * mesh.size
    if needed >= data.evaluation_batch_size:
        return experiment
    return dataclasses.replace(experiment, data=dataclasses.replace(data, evaluation_batch_size=needed))


def make_plan(experiment: Experiment) -> Plan:
    """Opens the data and checks it against the model, the batch sizes and the devices. Compiles nothing.

    Raises:
      UserError: anything that would stop the run later and can be known now.
    """
    data = experiment.data
    train = open_split(data.source, data.train_split, data.data_dir)
    experiment.task.check(experiment.model, train)
    with _named("data.evaluation_splits"):
        evaluations = open_evaluations(experiment, data.evaluation_splits)
    with _named("data.test_splits"):
        tests = open_evaluations(experiment, data.tested)
    results = [name + suffix for name in (*evaluations, *tests) for suffix in ("", "_ema")[: 1 + (experiment.ema.on)]]
    if len(set(results)) < len(results):
        raise UserError(
            f"two splits would have one name in result.json, where the averaged net's is SPLIT_ema: {results}"
        )
    for name, examples in (evaluations | tests).items():
        if examples.classes != train.classes:
            raise UserError(f"splits {data.train_split!r} and {name!r} of {train.name} have different classes")
    _check_images(train, data.augment, experiment, evaluated=False)
    for examples in (evaluations | tests).values():
        _check_images(examples, data.preprocess, experiment, evaluated=True)
    if not evaluations and (isinstance(experiment.schedule, Plateau) or experiment.early_stopping.on):
        watching = "early_stopping" if experiment.early_stopping.on else "the plateau schedule"
        raise UserError(f"{watching} watches an evaluation split, but data.evaluation_splits is empty")

    order = order_of(data.sampling, train, batch_fields(experiment))
    mesh = meshes.make_mesh(experiment.parallel)
    meshes.check_batch_size(data.batch_size, experiment.accumulate, mesh, "data.batch_size")
    experiment = fitted_evaluation(experiment, mesh, [len(each) for each in (evaluations | tests).values()])
    check_group(experiment.bn_group, data.batch_size, experiment.accumulate)

    def to_steps(duration: Duration) -> int:
        return duration.in_steps(len(train), data.batch_size)

    total = to_steps(experiment.duration)
    if total < 1:
        raise UserError(f"duration {experiment.duration} is less than one step of {data.batch_size} examples")
    rate = make_rate(experiment.schedule, experiment.optimizer.learning_rate, total, to_steps)
    experiment = resolved(experiment, to_steps)
    check_shapes(experiment, mesh)
    plan = Plan(
        experiment=experiment,
        train=train,
        evaluations=evaluations,
        tests=tests,
        mesh=mesh,
        total=total,
        evaluate_every=max(1, to_steps(experiment.evaluate_every)),
        log_every=max(1, to_steps(experiment.log_every)),
        checkpoint_every=max(1, to_steps(experiment.checkpoints.every)),
        rate=rate,
        optimizer=optimizer_of(experiment, rate),
        order=order,
    )
    _check_images_of_sizes(plan)
    _check_metrics(experiment, mesh)
    return plan


@contextlib.contextmanager
def _named(field: str) -> Iterator[None]:
    """Puts the field that named a split before what is wrong with the split."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{field}: {error}") from error


def _check_images(
    examples: Examples, transforms: tuple[Transform, ...], experiment: Experiment, *, evaluated: bool
) -> None:
    """Takes the first image of a split through its transforms, and refuses a split that says itself that more of its
    images are broken than are tolerated. A broken one that is tolerated is met again later."""
    if len(examples) == 0:
        raise UserError(f"split {examples.split!r} of {examples.name} is empty")
    refused: dict[int, str] = getattr(examples, "refused", {})
    if len(refused) > experiment.data.tolerate_broken:
        first, why = next(iter(refused.items()))
        more = f" (and {len(refused) - 1} images more cannot be used)" if len(refused) > 1 else ""
        raise UserError(f"{examples.split}: {BrokenExample(first, examples.where(first), why)}{more}")
    tolerated = (BrokenExample,) if experiment.data.tolerate_broken else ()
    with contextlib.suppress(*tolerated):
        read(examples, 0, transforms, Draws(EVALUATION).at(0), batch_fields(experiment, evaluated=evaluated))


def check_shapes(experiment: Experiment, mesh: Mesh) -> None:
    """Runs the initialisation of the model and the optimizer on shapes only, and the model on those of evaluation's
    images and of `data.sizes`, if they have others.

    Raises:
      UserError: the model does not take them.
    """
    data, field = experiment.data, "image_shape"
    try:
        state = abstract_state(experiment, mesh)
        check_groups(state.params, experiment.groups)
        if data.evaluation_shape not in (None, data.image_shape) or views_of(experiment.task) is not None:
            field = "evaluation_shape"
            images = jax.ShapeDtypeStruct((1, *data.shape(evaluated=True)), jnp.float32)
            variables = {"params": state.params, **state.stats}
            jax.eval_shape(evaluated_with(experiment.task, experiment.model), variables, images)
    except UserError as error:
        if field == "image_shape":
            raise
        raise UserError(
            f"the model does not take images of data.{field} {data.shape(evaluated=True)}: {error}"
        ) from error
    except (TypeError, ValueError, FlaxError) as error:
        shape = data.shape(evaluated=field == "evaluation_shape")
        raise UserError(f"the model does not take images of data.{field} {shape}: {error}") from error
    variables = {"params": state.params, **state.stats}
    for each in experiments(experiment) if data.sizes else ():
        images = jax.ShapeDtypeStruct((1, *each.data.image_shape), jnp.float32)
        try:
            jax.eval_shape(functools.partial(each.model.apply, train=False), variables, images)
        except (UserError, TypeError, ValueError, FlaxError) as error:
            raise UserError(
                f"data.sizes, {each.data.image_shape[0]}: the model does not take images of this size with the "
                f"parameters that it has for those of data.image_shape {data.image_shape}; take a net that averages "
                f"over all positions before its head, or leave data.sizes out: {error}"
            ) from error


def _check_images_of_sizes(plan: Plan) -> None:
    """Takes the first image through each size of progressive resizing."""
    if not plan.experiment.data.sizes:
        return
    check_begins(plan.experiment.data, len(plan.train), plan.total)
    for each in experiments(plan.experiment):
        try:
            _check_images(plan.train, each.data.augment, each, evaluated=False)
        except UserError as error:
            raise UserError(f"data.sizes, {each.data.image_shape[0]}: {error}") from error


def _check_metrics(experiment: Experiment, mesh: Mesh) -> None:
    """Refuses a metric to watch that the task has, but not for these classes (the top five of four).

    The task's score is there always; for another one the evaluation is traced, without being computed.
    """
    task, fields = experiment.task, ("checkpoints", "schedule", "early_stopping")
    watched = {f"{name}.metric": getattr(getattr(experiment, name), "metric", None) for name in fields}
    watched = {name: metric for name, metric in watched.items() if metric not in (None, score_of(task))}
    if not watched:
        return
    state = abstract_state(experiment, mesh)
    batch = abstract_batch(experiment, mesh, experiment.data.evaluation_batch_size, evaluated=True)
    step = make_evaluation_step(task, experiment.model, experiment.data.normalize)
    sums, records = jax.eval_shape(step, state.params, state.stats, {}, batch)
    nothing = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), sums)
    known = task.metrics(nothing, {name: np.zeros((0, *x.shape[1:]), x.dtype) for name, x in records.items()})
    for name, metric in watched.items():
        if metric not in known:
            there = ", ".join(metric for metric in task.directions if metric in known)
            raise UserError(f"{name} is {metric!r}; with {experiment.model.classes} classes there is {there}")
