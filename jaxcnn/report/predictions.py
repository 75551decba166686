"""Predictions: what a saved net says of the examples of a split, one by one, within a bound of images and of time."""

import contextlib
import dataclasses
import heapq
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxcnn.data.examples import Example, Examples
from jaxcnn.data.pipeline import EvaluationBatches, iterate, permutation
from jaxcnn.runs.batch_shapes import batch_fields
from jaxcnn.runs.prediction import Net
from jaxcnn.tasks.task import Answer, Drawing, inputs_of

IMAGES = 10_000
"""At most so many images of a split are predicted for a page."""
SECONDS = 30
"""No batch is started after this time."""
BATCH = 64
"""Small, so that the time is kept on a laptop too."""
MISTAKES = 24
SHOWN = 8
"""Images of a page of a run whose task is not classification."""


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An example whose most probable class is not its own."""

    image: np.ndarray
    """As the net reads it, uint8 [H, W, C]."""
    label: int
    predicted: int
    probability: float
    """Of the predicted class."""
    where: str


@dataclasses.dataclass(frozen=True)
class Predictions:
    """True and predicted classes of the examples that were predicted."""

    split: str
    total: int
    """Examples of the split."""
    labels: np.ndarray
    """[count], the true classes; with `predicted` what a matrix of classes x classes says, in the size of the split:
    that of 10,000 classes has 800 MB."""
    predicted: np.ndarray
    """[count]."""
    mistakes: list[Mistake]
    """The most confident ones, the most confident first."""

    @property
    def count(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> int:
        return int((self.labels == self.predicted).sum())


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a net of any task says about one image of a split."""

    image: np.ndarray
    """As the net reads it, uint8 [H, W, C]."""
    answer: Answer
    truth: np.ndarray | None
    """What is true of it, drawn by the task, uint8 [H', W', 3]; None if the task does not draw it."""
    where: str


class Chosen:
    """The examples of a split in another order, or some of them."""

    def __init__(self, examples: Examples, order: np.ndarray):
        self.name, self.version, self.split = examples.name, examples.version, examples.split
        self.classes = examples.classes
        self.examples, self.order = examples, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> Example:
        return self.examples[int(self.order[i])]

    def where(self, i: int) -> str:
        return self.examples.where(int(self.order[i]))


def asked(
    net: Net, examples: Examples, ask: Callable[..., Any], stop: Callable[[], bool]
) -> Iterator[tuple[dict[str, np.ndarray], Any]]:
    """Batches of a split with what `ask` says of their images and of what the task reads beside them: IMAGES examples
    at most, in the order of `sampled`.

    No batch is started after SECONDS, compilation not counted, or once `stop` says so.
    """
    data = net.data
    size, fields = min(BATCH, data.evaluation_batch_size), batch_fields(net.experiment, evaluated=True)
    batches = EvaluationBatches(sampled(examples, IMAGES), data.preprocess, fields, size, data.tolerate_broken)
    inputs = inputs_of(net.experiment.task)
    # Compiled before the clock starts.
    ask(fields["image"].empty(size), **{name: fields[name].empty(size) for name in inputs})
    end = time.monotonic() + SECONDS
    with contextlib.closing(iterate(batches)) as read:
        for batch in read:
            yield batch, ask(batch["image"], **{name: batch[name] for name in inputs})
            if time.monotonic() > end or stop():
                return


def sampled(examples: Examples, most: int) -> Chosen:
    """At most so many examples of the split, in a shuffled order that is always the same: wherever one stops, what was
    read is a fair sample."""
    return Chosen(examples, permutation(0, 0, len(examples))[:most])


def predict_split(net: Net, examples: Examples, stop: Callable[[], bool] = lambda: False) -> Predictions:
    """The net's predictions of the split, of those examples that `asked` reads."""
    chosen = sampled(examples, IMAGES)
    nothing = np.zeros(0, np.int64)
    pairs: list[tuple[np.ndarray, np.ndarray]] = [(nothing, nothing)]
    worst: list[tuple[float, int, Mistake]] = []
    for batch, scores in asked(net, examples, net.probabilities, stop):
        predicted = scores.argmax(-1)
        valid, labels = batch["valid"], batch["label"]
        pairs.append((labels[valid].astype(np.int64), predicted[valid].astype(np.int64)))
        for row in np.flatnonzero(valid & (predicted != labels)):
            index, probability = int(batch["index"][row]), float(scores[row, predicted[row]])
            where = chosen.where(index)
            mistake = Mistake(batch["image"][row], int(labels[row]), int(predicted[row]), probability, where)
            push = heapq.heappush if len(worst) < MISTAKES else heapq.heappushpop
            push(worst, (probability, -index, mistake))
    labels, predicted = (np.concatenate(side) for side in zip(*pairs, strict=True))
    mistakes = [mistake for *_, mistake in sorted(worst, reverse=True)]
    return Predictions(examples.split, len(examples), labels, predicted, mistakes)


def show(net: Net, examples: Examples) -> list[Shown]:
    """What the net says about SHOWN images of the split, the same ones at each call. Broken ones are left out."""
    data, task, fields = net.data, net.experiment.task, batch_fields(net.experiment, evaluated=True)
    chosen = sampled(examples, SHOWN)
    batches = EvaluationBatches(chosen, data.preprocess, fields, 1, data.tolerate_broken)
    found = []
    for i in range(len(chosen)):
        batch = batches[i]
        if batch["valid"][0]:
            image, truth = batch["image"][0], None
            if isinstance(task, Drawing):
                truth = task.draw_truth({name: batch[name][0] for name in fields}, image, net.classes)
            inputs = {name: batch[name][0] for name in inputs_of(task)}
            found.append(Shown(image, net.answer(image, **inputs), truth, chosen.where(i)))
    return found
