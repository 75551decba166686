"""Evaluation: metrics of one split, with every example counted exactly once; in training and of a saved run."""

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxcnn.data.examples import BrokenExample, Examples
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.folder import Folder
from jaxcnn.data.memory import load
from jaxcnn.data.pipeline import EvaluationBatches, iterate
from jaxcnn.data.transforms import Transform
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.runs.compilation import Compiled, compile_ahead
from jaxcnn.runs.restore import RestoredRun, load_run, other_data
from jaxcnn.runs.setup import abstract_batch, abstract_state, open_evaluations
from jaxcnn.train import mesh as meshes
from jaxcnn.train.losses import zero_sums
from jaxcnn.train.state import TrainState
from jaxcnn.train.step import make_evaluation_step
from jaxcnn.train.xla_flags import compiler_options

log = logging.getLogger("jaxcnn")

Metrics = dict[str, dict[str, float]]

BATCH_FIELDS = ("image", "label", "valid")


class Stopped(Exception):
    """The run was told to stop."""


def evaluate(
    step: Callable[..., dict[str, jax.Array]],
    weights: list[tuple[Any, Any]],
    batches: Iterator[dict[str, np.ndarray]],
    examples: Examples,
    mesh: Mesh,
    *,
    stop: Callable[[], bool] = lambda: False,
    on_broken: Callable[[np.ndarray], None] = lambda indices: None,
) -> list[dict[str, float]]:
    """Mean loss, accuracy (and top5, from six classes on) and the count, for each (params, stats) of `weights`.

    Args:
      step: the evaluation step, compiled.
      weights: the nets to evaluate on the same batches, such as the raw and the averaged one.
      batches: of this split, from its start to its end.
      examples: the split, for its length.
      mesh: the device mesh.
      stop: asked after every batch.
      on_broken: called with the indices of examples that could not be read.

    Raises:
      Stopped: `stop` said so.
      RuntimeError: the examples counted are not those of the split. A bug, never a user's mistake.
    """
    sharding = meshes.split(mesh)
    zero = jax.device_put(zero_sums(len(examples.classes)), meshes.replicated(mesh))
    totals = [zero for _ in weights]
    broken = 0
    for batch in batches:
        if stop():
            raise Stopped
        if batch["broken"].any():
            broken += int(batch["broken"].sum())
            on_broken(batch["index"][batch["broken"]])
        placed = meshes.place(batch, BATCH_FIELDS, sharding)
        sums = [step(params, stats, placed) for params, stats in weights]
        # The host may be one batch ahead of the device and no more, or batches would pile up in its memory.
        jax.block_until_ready(totals)
        totals = [jax.tree.map(jnp.add, total, new) for total, new in zip(totals, sums, strict=True)]
    if jax.process_count() > 1:  # each process knows of its own rows only
        broken = int(multihost_utils.process_allgather(np.int32(broken)).sum())
    results = []
    for total in jax.device_get(totals):
        count = int(total["count"])
        if count + broken != len(examples):
            raise RuntimeError(f"{examples.split}: counted {count} and {broken} broken of {len(examples)} examples")
        means = {name: float(np.float64(value) / max(count, 1)) for name, value in total.items() if name != "count"}
        results.append(means | {"count": count})
    return results


def compile_evaluation_step(experiment: Experiment, mesh: Mesh, trained: Experiment | None = None) -> Compiled:
    """The evaluation step for this mesh and the experiment's evaluation batch.

    It reads the variables of `trained`, where that is another one: a net without one of its blocks is given them all.
    """
    step = make_evaluation_step(experiment.model, experiment.data.normalize)
    jitted = jax.jit(step, out_shardings=meshes.replicated(mesh))
    state = abstract_state(trained or experiment, mesh)
    batch = abstract_batch(experiment, mesh, experiment.data.evaluation_batch_size, masked=True)
    with jax.default_matmul_precision(experiment.precision):
        options = compiler_options(experiment.xla_flags, experiment.deterministic)
        return compile_ahead(jitted, state.params, state.stats, batch, options=options)


def evaluation_batches(data: Data, examples: Examples, transforms: tuple[Transform, ...]) -> EvaluationBatches:
    """This process's part of the evaluation batches."""
    return EvaluationBatches(
        examples,
        transforms,
        with_image(data.image_shape, LABEL),
        data.evaluation_batch_size,
        data.tolerate_broken,
        jax.process_index(),
        jax.process_count(),
    )


def nets_of(state: TrainState) -> dict[str, tuple[Any, Any]]:
    """{suffix of the split's name: (params, stats)}: the raw net and, with EMA, the averaged one."""
    nets = {"": (state.params, state.stats)}
    if state.average is not None:
        nets["_ema"] = (state.average.params, state.average.stats)
    return nets


def evaluate_run(
    path: str | pathlib.Path,
    split: str | None = None,
    which: str = "latest",
    data_dir: str | None = None,
    folder: str | None = None,
) -> Metrics:
    """Metrics of a saved run on `split` (default: its test and evaluation splits): the training's own figures, exactly.

    With `folder` the images are those of FOLDER/SPLIT/CLASS/*, whose class names must be the run's.

    Raises:
      UserError: as load_run, or the split does not exist, or its classes are not those that the run was trained on.
    """
    saved = load_run(path, which)
    experiment = saved.experiment
    data = experiment.data
    if data_dir is not None:
        data = dataclasses.replace(data, data_dir=data_dir)
    if folder is not None:
        data = dataclasses.replace(data, source=Folder(folder, channels=1 if data.image_shape[2] == 1 else 3))
    elif isinstance(data.source, Folder) and not os.path.isdir(data.source.path):
        raise UserError(
            f"{path}: its images were in {data.source.path}, which is not there now; if they moved: "
            f"jaxcnn evaluate {path} --folder NEW"
        )
    experiment = dataclasses.replace(experiment, data=data)
    return evaluate_saved(saved, experiment, (*data.tested, *data.evaluation_splits) if split is None else (split,))


def evaluate_saved(
    saved: RestoredRun, experiment: Experiment, splits: tuple[str, ...], step: Compiled | None = None
) -> Metrics:
    """Metrics of a saved state on `splits` by this experiment's model, data source and preprocessing.

    They may be other ones than the run's, as long as the model takes the same variables. `step` is the evaluation step
    where the caller has compiled it.

    Raises:
      UserError: a split does not exist, its classes are not those that the run was trained on, or more images cannot
        be used than the run tolerates.
    """
    data = experiment.data
    meshes.check_batch_size(data.evaluation_batch_size, 1, saved.mesh, "data.evaluation_batch_size")
    opened = open_evaluations(experiment, splits)
    step = step or compile_evaluation_step(experiment, saved.mesh, saved.experiment)
    nets = nets_of(saved.state)
    results: Metrics = {}
    passed_over: list[BrokenExample] = []

    def pass_over(batches: EvaluationBatches, indices: np.ndarray) -> None:
        passed_over.extend(batches.broken(indices))
        if len(passed_over) > data.tolerate_broken:
            raise UserError(
                f"{len(passed_over)} images cannot be used and data.tolerate_broken is {data.tolerate_broken}; "
                f"the last: {passed_over[-1]}"
            )

    for name, examples in opened.items():
        if examples.classes != saved.classes:
            raise UserError(f"{examples.name}/{name} has other classes, or another order, than the run was trained on")
        if experiment.data.source == saved.experiment.data.source and (told := other_data(saved.record, examples)):
            log.warning(told)
        fields = with_image(data.image_shape, LABEL)
        loaded, transforms = load(examples, data.preprocess, fields, data.memory_limit, data.tolerate_broken)
        made = evaluation_batches(data, loaded, transforms)
        with contextlib.closing(iterate(made, workers=data.workers)) as batches:
            weights, on_broken = list(nets.values()), functools.partial(pass_over, made)
            figures = evaluate(step.call, weights, batches, loaded, saved.mesh, on_broken=on_broken)
        results |= {name + suffix: metrics for suffix, metrics in zip(nets, figures, strict=True)}
    return results
