"""Saved: a run directory read back, to evaluate it and to predict with it."""

import contextlib
import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcnn import config
from jaxcnn.data.memory import load
from jaxcnn.data.pipeline import iterate
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.train import checkpoint
from jaxcnn.train import mesh as meshes
from jaxcnn.train.evaluate import evaluate
from jaxcnn.train.loop import Metrics, compile_evaluation_step, evaluation_batches, nets_of
from jaxcnn.train.plan import abstract_state, open_evaluations
from jaxcnn.train.record import Record, open_run
from jaxcnn.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Saved:
    """One checkpoint of a run, with the run's experiment and class names."""

    record: Record
    experiment: Experiment
    classes: tuple[str, ...]
    step: int
    state: TrainState
    mesh: Mesh


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, the most probable first."""

    image: str
    classes: list[tuple[str, float]]


def load_experiment(record: Record) -> Experiment:
    """The experiment of a run, from its config.json; classes of its own file come from its experiment.py."""
    encoded = record.config()
    if config.EXPERIMENT_MODULE in json.dumps(encoded):
        config.load_module(record.path / "experiment.py")
    return config.decode(encoded)


def load_run(path: pathlib.Path, which: str = "latest") -> Saved:
    """Reads a checkpoint of a run: `which` is "latest", "best" or a step.

    Raises:
      UserError: this is no run, it has no such checkpoint, or the checkpoint cannot be read.
    """
    record = open_run(path.absolute())
    experiment = load_experiment(record)
    if not checkpoint.steps(record.checkpoints):
        raise UserError(f"{path} has no checkpoint yet")
    manager = checkpoint.open_reader(record.checkpoints, experiment.checkpoints)
    steps = sorted(manager.all_steps())
    chosen = {"latest": steps[-1], "best": manager.best_step()}.get(which, which)
    if not str(chosen).isdigit() or int(chosen) not in steps:
        raise UserError(f"{path}: no checkpoint {which!r}; there are latest, best, {', '.join(map(str, steps))}")
    mesh = meshes.make_mesh()
    try:
        state, _ = checkpoint.restore(manager, int(chosen), abstract_state(experiment, mesh))
    except Exception as error:  # orbax and tensorstore raise many types on damaged files
        text = str(error).splitlines()[0]
        raise UserError(f"{path}: checkpoint {chosen} cannot be read: {text}; try another --checkpoint") from error
    finally:
        manager.close()
    return Saved(record, experiment, tuple(record.environment()["dataset"]["classes"]), int(chosen), state, mesh)


def evaluate_run(
    path: pathlib.Path, split: str | None = None, which: str = "latest", data_dir: str | None = None
) -> Metrics:
    """Metrics of a saved run on `split` (default: its evaluation splits): the training's own figures, exactly.

    Raises:
      UserError: as load_run, or the split does not exist, or its classes are not those that the run was trained on.
    """
    saved = load_run(path, which)
    experiment = saved.experiment
    data = experiment.data
    if data_dir is not None:
        data = dataclasses.replace(data, data_dir=data_dir)
        experiment = dataclasses.replace(experiment, data=data)
    meshes.check_batch_size(data.evaluation_batch_size, 1, saved.mesh, "data.evaluation_batch_size")
    splits = open_evaluations(experiment, data.evaluation_splits if split is None else (split,))
    step = compile_evaluation_step(experiment, saved.mesh)
    nets = nets_of(saved.state)
    results: Metrics = {}
    for name, examples in splits.items():
        if examples.classes != saved.classes:
            raise UserError(f"{examples.name}/{name} has other classes, or another order, than the run was trained on")
        loaded, transforms = load(examples, data.preprocess, data.memory_limit, data.tolerate_broken)
        with contextlib.closing(iterate(evaluation_batches(data, loaded, transforms), workers=data.workers)) as batches:
            figures = evaluate(step.call, list(nets.values()), batches, loaded, saved.mesh)
        results |= {name + suffix: metrics for suffix, metrics in zip(nets, figures, strict=True)}
    return results


def predict_run(
    path: pathlib.Path, images: list[pathlib.Path], which: str = "latest", *, averaged: bool = False, top: int = 5
) -> list[Prediction]:
    """The `top` most probable classes of each image file, prepared as the run's evaluation images were.

    Raises:
      UserError: as load_run; an image cannot be read or does not have the size that the net takes; no average is kept.
    """
    saved = load_run(path, which)
    nets = nets_of(saved.state)
    if averaged and "_ema" not in nets:
        raise UserError(f"{path} keeps no average of its weights (its ema.decay is 0)")
    params, stats = nets["_ema" if averaged else ""]
    data, model = saved.experiment.data, saved.experiment.model

    @jax.jit
    def probabilities(params: Any, stats: Any, image: jax.Array) -> jax.Array:
        return jax.nn.softmax(model.apply({"params": params, **stats}, data.normalize(image), train=False)[0])

    predictions = []
    for image in images:
        pixels = _prepare(image, saved.experiment)
        with jax.default_matmul_precision(saved.experiment.precision):
            scores = np.asarray(probabilities(params, stats, jnp.asarray(pixels[None])))
        order = np.argsort(-scores, kind="stable")[:top]
        predictions.append(Prediction(str(image), [(saved.classes[i], float(scores[i])) for i in order]))
    return predictions


def _prepare(path: pathlib.Path, experiment: Experiment) -> np.ndarray:
    from jaxcnn.data.images import decode

    shape = experiment.data.image_shape
    try:
        image = decode(path.read_bytes(), shape[2])
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from error
    rng = np.random.default_rng(0)  # evaluation transforms draw nothing
    size = image.shape
    for transform in experiment.data.preprocess:
        image = transform(image, rng)
    if image.shape != shape:
        raise UserError(
            f"{path} is {size[0]}x{size[1]} and this run's evaluation makes it {image.shape[0]}x{image.shape[1]}, but "
            f"the net was trained on {shape[0]}x{shape[1]}; resize or crop the image first"
        )
    return image
