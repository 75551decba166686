"""Localizations: how a localizer's boxes lie in a split, for a page: figures, classes, and the worst boxes."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np

from jaxcnn.data.examples import Examples
from jaxcnn.data.pipeline import EvaluationBatches
from jaxcnn.metrics.localization import shares
from jaxcnn.report.mistakes import PICTURES, Mistake
from jaxcnn.report.predictions import IMAGES, asked, sampled
from jaxcnn.runs.batch_shapes import batch_fields
from jaxcnn.runs.prediction import Net
from jaxcnn.tasks.drawn_boxes import draw_boxes, draw_true_boxes
from jaxcnn.tasks.localization import RIGHT, Localization


@dataclasses.dataclass(frozen=True)
class OfClass:
    """What became of the objects of a class."""

    name: str
    objects: int
    named: int
    """The class is right."""
    placed: int
    """The box is: the answer's, whatever its class."""
    both: int
    iou: float
    """The mean IoU of the answers' boxes; NaN without an object."""


@dataclasses.dataclass(frozen=True)
class LocalizedSplit:
    """Where a net says that the objects of a split are, in the examples that it was asked about."""

    split: str
    total: int
    """Examples of the split."""
    count: int
    """Those that were asked about and have an object."""
    measured: dict[str, float]
    """The task's figures for these; beside them what always the same box scores."""
    classes: list[OfClass]
    misses: list[Mistake]
    """The images whose box is wrong, the lowest IoU first, and of equal ones the largest object."""


def localize_split(net: Net, examples: Examples, stop: Callable[[], bool] = lambda: False) -> LocalizedSplit | None:
    """Where the net says that the objects of the split are, in those examples that `asked` (predictions.py) reads; None
    if no image with an object can be read.

    Raises:
      TypeError: the net's task is no Localization.
    """
    data, task, model = net.data, net.experiment.task, net.experiment.model
    if not isinstance(task, Localization):
        raise TypeError(f"a Localization is needed, and not {type(task).__name__}")

    @jax.jit
    def ask(variables: Any, images: Any) -> Any:
        prepared = data.normalize(images)
        return model.apply(variables, prepared, train=False, method="outputs"), task.predict(model, variables, prepared)

    kept: list[dict[str, np.ndarray]] = []
    with jax.default_matmul_precision(net.experiment.precision):
        for batch, (outputs, located) in asked(net, examples, lambda images: ask(net.variables, images), stop):
            records = task.records(outputs, cast(Any, batch)) | {"answer": located.boxes, "index": batch["index"]}
            kept.append({name: np.asarray(array)[batch["valid"]] for name, array in records.items()})
    records = {name: np.concatenate([each[name] for each in kept]) for name in kept[0]} if kept else {}
    if not records or not (records["object"] >= 0).any():
        return None
    records = {name: array[records["object"] >= 0] for name, array in records.items()}
    boxes, truths, labels = task.compared(records, "answer")
    ious, right = shares(boxes, truths, labels), records["found_class"] == labels
    true = np.stack([truth["boxes"][row] for truth, row in zip(truths, records["object"], strict=True)])
    areas = (true[:, 2:] - true[:, :2]).prod(1) / records["original_size"].prod(1)
    chosen, fields = sampled(examples, IMAGES), batch_fields(net.experiment, evaluated=True)
    one = EvaluationBatches(chosen, data.preprocess, fields, 1, data.tolerate_broken)

    def drawn(image: int) -> Mistake:
        index, predicted, label = int(records["index"][image]), int(records["found_class"][image]), int(labels[image])
        seen = one[index]["image"][0]
        truth = draw_true_boxes(seen, {name: array[image] for name, array in records.items()}, net.classes, named=False)
        box = records["answer"][image][None] * (truth.shape[1] / seen.shape[1])
        name = net.classes[label] if right[image] else f"{net.classes[label]}, taken for {net.classes[predicted]}"
        told = f"{name}: an IoU of {ious[image]:.2f}, the object has {areas[image]:.1%} of the image"
        return Mistake(draw_boxes(truth, box, [predicted], [net.classes[predicted]]), told, chosen.where(index))

    bad = [image for image in np.lexsort((-areas, ious)).tolist() if ious[image] < RIGHT][:PICTURES]
    return LocalizedSplit(
        examples.split,
        len(examples),
        len(labels),
        task.measure(records),
        _classes(net.classes, labels, right, ious),
        [drawn(image) for image in bad],
    )


def _classes(names: tuple[str, ...], labels: np.ndarray, right: np.ndarray, ious: np.ndarray) -> list[OfClass]:
    found = []
    for kind, name in enumerate(names):
        own = labels == kind
        placed = ious[own] >= RIGHT
        numbers = int(own.sum()), int(right[own].sum()), int(placed.sum()), int((placed & right[own]).sum())
        found.append(OfClass(name, *numbers, float(ious[own].mean()) if own.any() else float("nan")))
    return found
