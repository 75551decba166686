"""Evaluation: metrics of one split, with every example counted exactly once; in training and of a saved run."""

import contextlib
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxcnn.data.examples import BrokenExample, Examples
from jaxcnn.data.memory import load
from jaxcnn.data.pipeline import EvaluationBatches, iterate
from jaxcnn.data.transforms import Transform
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.metrics.average_precision import check_protocol
from jaxcnn.runs import views as views_of_runs
from jaxcnn.runs.batch_shapes import abstract_batch, batch_fields
from jaxcnn.runs.compilation import Compiled, lower_for
from jaxcnn.runs.initial_state import abstract_state
from jaxcnn.runs.other_source import check_there, source_at
from jaxcnn.runs.restore import RestoredRun, load_run, other_data
from jaxcnn.runs.setup import fitted_evaluation, open_evaluations
from jaxcnn.tasks.objective import EvaluationStep, make_evaluation_step
from jaxcnn.tasks.task import Detecting, Task
from jaxcnn.train import mesh as meshes
from jaxcnn.train.state import TrainState

log = logging.getLogger("jaxcnn")

Metrics = dict[str, dict[str, float]]

Measured = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
"""Sums over the valid examples of a split, and the records of each of them."""


class Stopped(Exception):
    """The run was told to stop."""


def evaluate(
    step: Callable[..., tuple[Any, Any]],
    weights: list[tuple[Any, Any]],
    batches: Iterator[dict[str, np.ndarray]],
    examples: Examples,
    put: Callable[[dict[str, np.ndarray]], Any],
    *,
    stop: Callable[[], bool] = lambda: False,
    on_broken: Callable[[np.ndarray], None] = lambda indices: None,
) -> list[Measured]:
    """What the task's `metrics` needs, for each (params, stats) of `weights`.

    Sums are added up on the host, in int64 and float64: the pixels of a split can be more than 2**31.

    Args:
      step: the evaluation step, compiled.
      weights: the nets to evaluate on the same batches, such as the raw and the averaged one.
      batches: of this split, from its start to its end.
      examples: the split, for its length.
      put: a batch -> the same on the devices.
      stop: asked after every batch.
      on_broken: called with the indices of examples that could not be read.

    Raises:
      Stopped: `stop` said so.
      RuntimeError: the examples counted are not those of the split. A bug, never a user's mistake.
    """
    found: list[list[Any]] = [[] for _ in weights]
    waiting: list[Any] = []
    broken = 0
    for batch in batches:
        if stop():
            raise Stopped
        if batch["broken"].any():
            broken += int(batch["broken"].sum())
            on_broken(batch["index"][batch["broken"]])
        placed = put(batch)
        now = [step(params, stats, {}, placed) for params, stats in weights]
        # The host may be one batch ahead of the device and no more, or batches would pile up in its memory.
        _gather(found, waiting)
        waiting = now
    _gather(found, waiting)
    if jax.process_count() > 1:  # each process knows of its own rows only
        broken = int(multihost_utils.process_allgather(np.int32(broken)).sum())
    results = [(_added([sums for sums, _ in each]), _joined([records for _, records in each])) for each in found]
    for sums, _ in results:
        for count in np.atleast_1d(sums["count"]).tolist():
            if count + broken != len(examples):
                raise RuntimeError(f"{examples.split}: counted {count} and {broken} broken of {len(examples)} examples")
    return results


def _gather(found: list[list[Any]], waiting: list[Any]) -> None:
    for each, outputs in zip(found, jax.device_get(waiting), strict=False):
        each.append(outputs)


def _added(sums: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Sums of batches -> those of the split."""
    wide = lambda x: x.astype(np.int64 if x.dtype.kind in "iu" else np.float64)  # noqa: E731
    return {name: functools.reduce(np.add, (wide(np.asarray(each[name])) for each in sums)) for name in sums[0]}


def _joined(records: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Records of batches, [B, ...] or [seeds, B, ...] each -> those of the split's valid examples, in its order."""
    if not records[0]:
        return {}
    axis = records[0]["valid"].ndim - 1
    joined = {name: np.concatenate([each[name] for each in records], axis) for name in records[0]}
    valid = joined.pop("valid")
    valid = valid[0] if axis else valid
    return {name: np.compress(valid, array, axis) for name, array in joined.items()}


def ordered(task: Task, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics, without their count, in the order in which the task shows them; those that it does not name last."""
    names = [name for name in task.directions if name in metrics]
    names += [name for name in metrics if name not in task.directions and name != "count"]
    return {name: metrics[name] for name in names}


def evaluated_metrics(task: Task, sums: Mapping[str, np.ndarray], records: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The metrics of a split in the task's order, with the count."""
    found = task.metrics(sums, records)
    return ordered(task, found) | {"count": found["count"]}


def compile_evaluation_step(experiment: Experiment, mesh: Mesh, trained: Experiment | None = None) -> Compiled:
    """The evaluation step for this mesh and the experiment's evaluation batch.

    It reads the variables of `trained`, where that is another one: a net without one of its blocks is given them all.
    """
    return lower_evaluation_step(experiment, mesh, trained)()


def lower_evaluation_step(
    experiment: Experiment, mesh: Mesh, trained: Experiment | None = None
) -> Callable[[], Compiled]:
    """The same, traced; what comes back compiles it."""
    step = evaluation_step(experiment)
    jitted = jax.jit(step, out_shardings=meshes.replicated(mesh))
    state = abstract_state(trained or experiment, mesh)
    batch = abstract_batch(experiment, mesh, experiment.data.evaluation_batch_size, evaluated=True)
    return lower_for(experiment, jitted, state.params, state.stats, {}, batch)


def evaluation_step(experiment: Experiment) -> EvaluationStep:
    """The pure evaluation step of an experiment; records have "valid" among them, if there are any."""
    step = make_evaluation_step(experiment.task, experiment.model, experiment.data.normalize)

    def with_valid(params, stats, frozen, batch):
        sums, records = step(params, stats, frozen, batch)
        return sums, records | ({"valid": batch["valid"]} if records else {})

    return with_valid


def placed(
    batch: dict[str, np.ndarray], experiment: Experiment, mesh: Mesh, *, evaluated: bool
) -> dict[str, jax.Array]:
    """This process's rows of a batch as part of the global arrays that the steps read."""
    names = batch_fields(experiment).keys() | ({"valid"} if evaluated else set())
    return meshes.put_batch(batch, tuple(sorted(names)), meshes.split(mesh))


def evaluation_batches(
    experiment: Experiment, examples: Examples, transforms: tuple[Transform, ...]
) -> EvaluationBatches:
    """This process's part of the evaluation batches."""
    data = experiment.data
    return EvaluationBatches(
        examples,
        transforms,
        batch_fields(experiment, evaluated=True),
        data.evaluation_batch_size,
        data.tolerate_broken,
        jax.process_index(),
        jax.process_count(),
    )


def nets_of(state: TrainState) -> dict[str, tuple[Any, Any]]:
    """{suffix of the split's name: (params, stats)}: the raw net and, with an average, the averaged one."""
    nets = {"": (state.params, state.stats)}
    if state.average is not None:
        nets["_ema"] = (state.average.params, state.average.stats)
    return nets


def evaluate_run(
    path: str | pathlib.Path,
    split: str | None = None,
    checkpoint: str = "latest",
    data_dir: str | None = None,
    paths: Mapping[str, str] = MappingProxyType({}),
    protocol: str | None = None,
    views: views_of_runs.Name | None = None,
    sides: str | None = None,
) -> Metrics:
    """Metrics of a saved run on `split` (default: its test and evaluation splits): the training's own figures, exactly.

    With `paths` the examples lie elsewhere, see other_source.source_at; their class names must be the run's. With
    `protocol` boxes are measured by this one (metrics/average_precision.py). With `views` each image is looked at
    several times, at these `sides` (runs/views.py).

    Raises:
      UserError: as load_run and source_at; the split does not exist, or its classes are not those that the run was
        trained on; there is no such protocol, or the run does not detect; `views` do not fit the net or the run.
    """
    if protocol is not None:
        check_protocol(protocol, "--protocol")
    restored = load_run(path, checkpoint)
    experiment = restored.experiment
    if protocol is not None:
        experiment = _measured_by(experiment, protocol)
    if views is not None:
        experiment = views_of_runs.with_named_views(experiment, views, sides)
    data = experiment.data
    if data_dir is not None:
        data = dataclasses.replace(data, data_dir=data_dir)
    if paths:
        data = dataclasses.replace(data, source=source_at(experiment, restored.classes, paths))
    else:
        check_there(pathlib.Path(path), experiment)
    experiment = dataclasses.replace(experiment, data=data)
    return evaluate_restored(
        restored, experiment, (*data.tested, *data.evaluation_splits) if split is None else (split,)
    )


def check_detects(experiment: Experiment, asked: str) -> None:
    """Raises UserError, which names what was asked for, unless the experiment's task is one of boxes."""
    if not isinstance(experiment.task, Detecting):
        raise UserError(
            f"{asked} is for a run that detects objects, and this run's task is {type(experiment.task).__name__}"
        )


def _measured_by(experiment: Experiment, protocol: str) -> Experiment:
    """The experiment with boxes measured by another protocol. Raises UserError if it does not detect."""
    check_detects(experiment, "--protocol")
    # What chose by a metric of the run's own protocol, which is not measured now, chooses nothing here.
    watching = {
        field: dataclasses.replace(part, metric=None)
        for field in ("checkpoints", "schedule", "early_stopping")
        if hasattr(part := getattr(experiment, field), "metric")
    }
    task: Any = experiment.task
    return dataclasses.replace(experiment, task=dataclasses.replace(task, protocol=protocol), **watching)


def _counts(restored: RestoredRun, experiment: Experiment, opened: Mapping[str, Examples]) -> list[int]:
    """How many examples these splits have, and, if one of them is the run's own, all that the run evaluated: batches
    are then those of the training, and so are the metrics, to the last bit."""
    counts = [len(examples) for examples in opened.values()]
    data = restored.experiment.data
    own = {*data.evaluation_splits, *data.tested}
    if own & opened.keys() and experiment.data.source == data.source:
        known = restored.directory.newest_start().get("dataset", {}).get("splits", {})
        counts += [known.get(name, 0) for name in own]
    return counts


def compile_evaluation(
    restored: RestoredRun, experiment: Experiment, opened: Mapping[str, Examples]
) -> tuple[Experiment, Compiled]:
    """The experiment with evaluation batches that fit these splits, and the step for them."""
    experiment = fitted_evaluation(experiment, restored.mesh, _counts(restored, experiment, opened))
    return experiment, compile_evaluation_step(experiment, restored.mesh, restored.experiment)


def evaluate_restored(
    restored: RestoredRun, experiment: Experiment, splits: tuple[str, ...], step: Compiled | None = None
) -> Metrics:
    """Metrics of a saved state on `splits`, see `measure_restored`."""
    measured = measure_restored(restored, experiment, splits, step)
    return {name: evaluated_metrics(experiment.task, *found) for name, found in measured.items()}


def measure_restored(
    restored: RestoredRun, experiment: Experiment, splits: tuple[str, ...], step: Compiled | None = None
) -> dict[str, Measured]:
    """{split: what metrics are made of} of a saved state, and split_ema of its average, by this experiment's model,
    data source and preprocessing.

    They may be other ones than the run's, as long as the model takes the same variables. `step` is the evaluation step
    where the caller has compiled it.

    Raises:
      UserError: a split does not exist, its classes are not those that the run was trained on, or more images cannot
        be used than the run tolerates.
    """
    opened = open_evaluations(experiment, splits)
    if step is None:
        experiment, step = compile_evaluation(restored, experiment, opened)
    data = experiment.data
    meshes.check_batch_size(data.evaluation_batch_size, 1, restored.mesh, "data.evaluation_batch_size")
    nets = nets_of(restored.state)
    results: dict[str, Measured] = {}
    passed_over: list[BrokenExample] = []

    def pass_over(batches: EvaluationBatches, indices: np.ndarray) -> None:
        passed_over.extend(batches.broken(indices))
        if len(passed_over) > data.tolerate_broken:
            raise UserError(
                f"{len(passed_over)} images cannot be used and data.tolerate_broken is {data.tolerate_broken}; "
                f"the last: {passed_over[-1]}"
            )

    for name, examples in opened.items():
        if examples.classes != restored.classes:
            raise UserError(f"{examples.name}/{name} has other classes, or another order, than the run was trained on")
        if experiment.data.source == restored.experiment.data.source and (
            told := other_data(restored.directory, examples)
        ):
            log.warning(told)
        fields = batch_fields(experiment, evaluated=True)
        loaded, transforms = load(examples, data.preprocess, fields, data.memory_limit, data.tolerate_broken)
        made = evaluation_batches(experiment, loaded, transforms)
        with contextlib.closing(iterate(made, workers=data.workers)) as batches:
            weights, on_broken = list(nets.values()), functools.partial(pass_over, made)
            put = functools.partial(placed, experiment=experiment, mesh=restored.mesh, evaluated=True)
            measured = evaluate(step.call, weights, batches, loaded, put, on_broken=on_broken)
        results |= {name + suffix: found for suffix, found in zip(nets, measured, strict=True)}
    return results
