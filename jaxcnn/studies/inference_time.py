"""Inference time: how long a net takes for one image, beside another net that is asked in turn with it."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import numpy as np

from jaxcnn.data.draws import EVALUATION, Draws
from jaxcnn.data.fields import with_image
from jaxcnn.data.preparation import read
from jaxcnn.data.splits import open_split
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs.prediction import Net
from jaxcnn.runs.restore import RestoredRun


@dataclasses.dataclass(frozen=True)
class InferenceTime:
    """A probe: the time from one prepared test image on the host to the answer on the host, by the run's net and by
    that of `beside`, one image at a time, compiled. What the task makes of the net's outputs, such as non-maximum
    suppression, is in it.

    Both nets are asked about the same image one after the other, which of them first by turns, so that what else runs
    on the machine slows both. Metrics: "milliseconds per image", the median over all images and rounds, and "relative
    time per image", the median of the quotients of these pairs: a clock's figures, another at each measurement, which
    nothing compares to the bit.
    """

    beside: Experiment
    """Its model, with random weights, and its task; images are the run's."""
    images: int = 16
    """The first of the first test split."""
    rounds: int = 5
    """How often each is asked about, after a first time that does not count."""

    metrics: ClassVar = ("milliseconds per image", "relative time per image")

    def __post_init__(self):
        for name in ("images", "rounds"):
            if getattr(self, name) < 1:
                raise UserError(f"InferenceTime: {name} is {getattr(self, name)}; it must be at least 1")

    def measure(self, run: RestoredRun) -> dict[str, float]:
        experiment, data = run.experiment, run.experiment.data
        examples = open_split(data.source, data.test_splits[0], data.data_dir)
        fields, draws = with_image(data.shape(evaluated=True), {}), Draws(EVALUATION)
        count = min(self.images, len(examples))
        images = [read(examples, i, data.preprocess, draws.at(i), fields)["image"][None] for i in range(count)]
        own = {"params": run.state.params, **run.state.stats}
        drawn = jax.jit(lambda key, zeros: self.beside.model.init(key, zeros, train=False))
        other = drawn(jax.random.key(0), np.zeros(images[0].shape, np.float32))
        beside = dataclasses.replace(self.beside, data=data)
        nets = [Net(of, (), jax.device_put(each), 0) for of, each in ((experiment, own), (beside, other))]
        return figures(*in_turn([net.predict for net in nets], images, self.rounds))


def in_turn(
    answers: list[Callable[[np.ndarray], Any]],
    images: list[np.ndarray],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds that two nets take for each image, two arrays [rounds * images]; the first round is not counted."""
    seconds = np.zeros((rounds + 1, len(images), 2))
    for turn in range(rounds + 1):
        for i, image in enumerate(images):
            for which in (0, 1) if (turn + i) % 2 == 0 else (1, 0):
                start = clock()
                answers[which](image)
                seconds[turn, i, which] = clock() - start
    counted = seconds[1:].reshape(-1, 2)
    return counted[:, 0], counted[:, 1]


def figures(own: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """InferenceTime's metrics of seconds of both nets, pair by pair."""
    values = (1000 * float(np.median(own)), float(np.median(own / other)))
    return dict(zip(InferenceTime.metrics, values, strict=True))
