"""Probes: what a study measures of a finished run once more (study.Probe), with the run's last checkpoint.

Accuracies are those of the raw net on the experiment's first test split.
"""

import dataclasses
import time
from typing import ClassVar, Literal

import jax
import numpy as np
from flax import linen as nn

from jaxcnn.data.geometry import Geometry
from jaxcnn.data.transforms import CenterCrop, Geometric, Resize, Transform
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs.compilation import Compiled
from jaxcnn.runs.evaluation import compile_evaluation_step, evaluate_restored
from jaxcnn.runs.restore import RestoredRun
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.task import score_of

SCORE = score_of(Classification())
"""Probes are of classifiers."""

DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1))


@dataclasses.dataclass(frozen=True)
class Shift(Geometric):
    """A transform: moves the image down by `rows` and to the right by `columns`; `value` comes in at the edges."""

    rows: int
    columns: int
    value: int | tuple[int, ...] = 0

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        return Geometry(window=(-self.rows, -self.columns, shape[0], shape[1]), value=self.value)


@dataclasses.dataclass(frozen=True)
class Shifted:
    """On test images moved by `pixels`, mean of the four directions.

    Metrics: "SCORE when shifted" and "SCORE lost to the shift", which is the unmoved images' minus that. The
    images are moved after the experiment's preprocessing.
    """

    pixels: int

    metrics: ClassVar = (f"{SCORE} when shifted", f"{SCORE} lost to the shift")

    def measure(self, run: RestoredRun) -> dict[str, float]:
        moved = [Shift(rows * self.pixels, columns * self.pixels) for rows, columns in DIRECTIONS]
        return _lost(run, "shift", "shifted", [(shift,) for shift in moved])


@dataclasses.dataclass(frozen=True)
class Cropped:
    """On the middle `size` x `size` pixels of the test images, enlarged to what the net takes.

    Metrics: "SCORE when cropped" and "SCORE lost to the crop".
    """

    size: int

    metrics: ClassVar = (f"{SCORE} when cropped", f"{SCORE} lost to the crop")

    def measure(self, run: RestoredRun) -> dict[str, float]:
        shape = run.experiment.data.shape(evaluated=True)
        return _lost(run, "crop", "cropped", [(CenterCrop(self.size), Resize(shape[:2]))])


@dataclasses.dataclass(frozen=True)
class Generalization:
    """On the training images, without augmentation and dropout, and on the test images.

    Metrics: "fitted SCORE" and "fitted loss" (of the training images), "gap" (the fitted one minus the test's) and
    "loss gap" (the test's loss minus the fitted one).
    """

    metrics: ClassVar = (f"fitted {SCORE}", "fitted loss", "gap", "loss gap")

    def measure(self, run: RestoredRun) -> dict[str, float]:
        data = run.experiment.data
        splits = (data.train_split, data.test_splits[0])
        metrics = evaluate_restored(run, run.experiment, splits)
        train, test = (metrics[split] for split in splits)
        return {
            f"fitted {SCORE}": train[SCORE],
            "fitted loss": train["loss"],
            "gap": train[SCORE] - test[SCORE],
            "loss gap": test["loss"] - train["loss"],
        }


@dataclasses.dataclass(frozen=True)
class WithoutBlocks:
    """With the residual branch of each block left out in turn, as Veit et al. 2016 did; in a plain net, the block.

    Blocks that change the map's shape are kept: a plain net cannot go on without them. Needs a ResNet. Metrics:
    "SCORE without a block" and "SCORE lost with a block", means over the blocks, and the latter's largest,
    "SCORE lost with the worst block".
    """

    metrics: ClassVar = (
        f"{SCORE} without a block",
        f"{SCORE} lost with a block",
        f"{SCORE} lost with the worst block",
    )

    def measure(self, run: RestoredRun) -> dict[str, float]:
        model = run.experiment.model
        whole = _measured(run)
        without = [
            _score(run, dataclasses.replace(run.experiment, model=_without(model, name))) for name in deletable(model)
        ]
        return {
            f"{SCORE} without a block": float(np.mean(without)),
            f"{SCORE} lost with a block": whole - float(np.mean(without)),
            f"{SCORE} lost with the worst block": whole - min(without),
        }


def deletable(model: nn.Module) -> list[str]:
    """The blocks of a ResNet that keep the map's shape; UserError for another net, or where there is none."""
    if "without" not in {field.name for field in dataclasses.fields(getattr(model, "backbone", model))}:
        raise UserError("only a ResNet can be measured without one of its blocks")
    names = [
        f"layer{stage}_{number}"
        for stage, blocks in enumerate(model.backbone.depth, 1)
        for number in range(blocks)
        if number > 0 or (stage == 1 and model.backbone.block == "basic")
    ]
    if not names:
        raise UserError(f"depth {model.backbone.depth}: every block changes the map's shape")
    return names


@dataclasses.dataclass(frozen=True)
class Cost:
    """What classifying takes. Metrics: "milliseconds per test image" and "megabytes kept" (parameters and statistics).

    The time is the fastest of `repeats` passes over `batch` test images at once, compiled, transfers included.
    """

    batch: int = 250
    repeats: int = 5

    metrics: ClassVar = ("milliseconds per test image", "megabytes kept")

    def measure(self, run: RestoredRun) -> dict[str, float]:
        experiment = run.experiment
        variables = {"params": run.state.params, **run.state.stats}
        images = np.zeros((self.batch, *experiment.data.shape(evaluated=True)), np.uint8)

        def classify(variables, images):
            return experiment.model.apply(variables, experiment.data.normalize(images), train=False)

        kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(variables))
        milliseconds = 1000 * fastest(jax.jit(classify), variables, images, repeats=self.repeats) / self.batch
        return {"milliseconds per test image": milliseconds, "megabytes kept": kept / 1e6}


def fastest(function, *arguments, repeats: int) -> float:
    """Seconds of the fastest of `repeats` calls, after one that compiles."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return min(times)


def _lost(
    run: RestoredRun, noun: Literal["shift", "crop"], participle: str, changes: list[tuple[Transform, ...]]
) -> dict[str, float]:
    """What the score is, on average, after each of these changes of the preprocessed images."""
    data = run.experiment.data
    changed = [
        dataclasses.replace(run.experiment, data=dataclasses.replace(data, preprocess=(*data.preprocess, *change)))
        for change in changes
    ]
    step = compile_evaluation_step(run.experiment, run.mesh)
    score = float(np.mean([_score(run, experiment, step) for experiment in changed]))
    return {f"{SCORE} when {participle}": score, f"{SCORE} lost to the {noun}": _measured(run) - score}


def _measured(run: RestoredRun) -> float:
    """The score that the run itself has measured."""
    return run.directory.result()[run.experiment.data.test_splits[0]][SCORE]


def _score(run: RestoredRun, experiment: Experiment, step: Compiled | None = None) -> float:
    split = experiment.data.test_splits[0]
    return evaluate_restored(run, experiment, (split,), step)[split][SCORE]


def _without(model: nn.Module, block: str) -> nn.Module:
    return model.clone(backbone=model.backbone.clone(without=(block,)))
