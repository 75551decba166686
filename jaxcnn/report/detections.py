"""Detections: what a detector finds in a split, for a page: curves of its classes, worst misses, false alarms."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure

from jaxcnn import text
from jaxcnn.data.examples import Examples
from jaxcnn.data.pipeline import EvaluationBatches
from jaxcnn.metrics.average_precision import AveragePrecision
from jaxcnn.metrics.hits import ImageHits
from jaxcnn.report.mistakes import PICTURES, Mistake
from jaxcnn.report.predictions import IMAGES, asked, sampled
from jaxcnn.runs.batch_shapes import batch_fields
from jaxcnn.runs.prediction import Net
from jaxcnn.tasks.detection import CERTAIN
from jaxcnn.tasks.drawn_boxes import draw_boxes, draw_true_boxes
from jaxcnn.tasks.task import Detecting

CURVES = 10
"""Classes that have a curve, those with the most objects."""
POINTS = 500
"""At most so many points of a curve are drawn: a class of COCO has hundreds of thousands."""
NEAR = 0.1
"""IoU from which a false alarm is told as a box that lies badly and not as one where nothing is."""


@dataclasses.dataclass(frozen=True)
class OfClass:
    """What became of the objects of a class."""

    name: str
    objects: int
    """Those that count: not difficult, no crowd."""
    found: int
    alarms: int
    """Detections that are wrong. These two are of detections with a score of `CERTAIN` at least."""
    precision: float
    """The average precision by the task's protocol; NaN without an object."""


@dataclasses.dataclass(frozen=True)
class DetectedSplit:
    """What a net found in the examples of a split that it was asked about."""

    split: str
    total: int
    """Examples of the split."""
    count: int
    """Those that were asked about."""
    measured: AveragePrecision
    classes: list[OfClass]
    misses: list[Mistake]
    """A photo each, by the largest object that nothing found, the largest first."""
    alarms: list[Mistake]
    """A photo each, by its false alarm with the highest score, the highest first."""


def detect_split(net: Net, examples: Examples, stop: Callable[[], bool] = lambda: False) -> DetectedSplit | None:
    """What the net finds in the split, in those examples that `asked` (predictions.py) reads; None if no image can be
    read. The net's task is a `Detecting`."""
    data, task = net.data, cast(Detecting, net.experiment.task)
    kept: list[dict[str, np.ndarray]] = []
    for batch, predicted in asked(net, examples, net.predict, stop):
        records = task.records(predicted, batch) | {"index": batch["index"]}
        kept.append({name: np.asarray(array)[batch["valid"]] for name, array in records.items()})
    records = {name: np.concatenate([each[name] for each in kept]) for name in kept[0]} if kept else {}
    if not records or not len(records["index"]):
        return None
    measured, hits = task.measure(records), task.hits(records)
    chosen, fields = sampled(examples, IMAGES), batch_fields(net.experiment, evaluated=True)
    one = EvaluationBatches(chosen, data.preprocess, fields, 1, data.tolerate_broken)

    def drawn(image: int, draw: Callable[..., tuple[np.ndarray, str]], row: int) -> Mistake:
        index = int(records["index"][image])
        row_of = {name: array[image] for name, array in records.items()}
        picture, told = draw(one[index]["image"][0], row_of, row, hits[image], net.classes)
        return Mistake(picture, told, chosen.where(index))

    misses = _worst([(each.missed, area) for each, area in zip(hits, _areas(records["boxes"]), strict=True)])
    alarms = _worst([(each.wrong, scores) for each, scores in zip(hits, records["found_scores"], strict=True)])
    return DetectedSplit(
        examples.split,
        len(examples),
        len(hits),
        measured,
        _classes(measured, records, hits, net.classes),
        [drawn(image, _miss, row) for image, row in misses],
        [drawn(image, _alarm, row) for image, row in alarms],
    )


def curves_figure(detected: DetectedSplit) -> Figure:
    """Precision by recall at an IoU of 0.5, a line for each of the classes with the most objects."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    order = sorted(range(len(detected.classes)), key=lambda kind: -detected.classes[kind].objects)[:CURVES]
    for number, kind in enumerate(sorted(order)):
        of_class = detected.classes[kind]
        if not of_class.objects:
            continue
        curve = detected.measured.curves[kind]
        indices = np.unique(np.linspace(0, len(curve.recall) - 1, POINTS).astype(int)) if len(curve.recall) else []
        label = text.in_figure(f"{of_class.name} {of_class.precision:.3f}")
        axis.plot(curve.recall[indices], curve.precision[indices], color=f"C{number}", label=label)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.03))
    axis.grid(alpha=0.3)
    if axis.lines:
        axis.legend(fontsize="small", title="average precision", title_fontsize="small")
    return figure


def _areas(boxes: np.ndarray) -> np.ndarray:
    """[..., 4] -> [...]."""
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def _worst(wrong: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[int, int]]:
    """(image, row) of the worst of each image's rows that are wrong, the worst first, PICTURES at most. `wrong` has for
    each image which rows are, and how bad each is."""
    found = []
    for image, (rows, badness) in enumerate(wrong):
        if rows.any():
            row = int(np.where(rows, badness, -np.inf).argmax())
            found.append((-float(badness[row]), image, row))
    return [(image, row) for _, image, row in sorted(found)[:PICTURES]]


def _miss(
    image: np.ndarray, record: dict[str, np.ndarray], row: int, hits: ImageHits, classes: tuple[str, ...]
) -> tuple[np.ndarray, str]:
    """The object that was missed, dashed, and what was found in the photo."""
    kind, box = int(record["classes"][row]), record["boxes"][row]
    shown = np.flatnonzero((record["found_classes"] >= 0) & (record["found_scores"] >= CERTAIN))
    labels = [int(label) for label in record["found_classes"][shown]]
    found = draw_boxes(image, record["found_boxes"][shown], labels, [""] * len(shown))
    factor = found.shape[1] / image.shape[1]
    picture = draw_boxes(found, box[None] * factor, [kind], [f"missed {classes[kind]}"], dashed=True)
    share = _areas(box) / (image.shape[0] * image.shape[1])
    more = int(hits.missed.sum()) - 1
    return picture, f"{classes[kind]}, {share:.1%} of the image" + (f"; {more} more missed there" if more else "")


def _alarm(
    image: np.ndarray, record: dict[str, np.ndarray], row: int, hits: ImageHits, classes: tuple[str, ...]
) -> tuple[np.ndarray, str]:
    """The false alarm, and what is true in the photo, dashed."""
    kind, box, score = (record[f"found_{name}"][row] for name in ("classes", "boxes", "scores"))
    true = draw_true_boxes(image, record, classes, named=False)
    factor = true.shape[1] / image.shape[1]
    name, iou = classes[int(kind)], hits.iou[row]
    picture = draw_boxes(true, box[None] * factor, [int(kind)], [f"{name} {score:.2f}"])
    if iou > 0.5:
        reason = "a second box on one object"
    elif iou >= NEAR:
        reason = f"its IoU with the nearest {name} is {iou:.2f}"
    else:
        reason = f"no {name} is there"
    return picture, f"{name} with a score of {score:.2f}: {reason}"


def _classes(
    measured: AveragePrecision, records: dict[str, Any], hits: list[ImageHits], names: tuple[str, ...]
) -> list[OfClass]:
    found, missed, alarms = (np.zeros(len(names), np.int64) for _ in range(3))
    for image, each in enumerate(hits):
        kinds, true = records["found_classes"][image], records["classes"][image]
        np.add.at(found, kinds[each.right], 1)
        np.add.at(alarms, kinds[each.wrong], 1)
        np.add.at(missed, true[each.missed], 1)
    values = np.full(len(names), np.nan)
    values[: len(measured.classes)] = measured.classes
    return [
        OfClass(name, int(hit + miss), int(hit), int(alarm), float(value) if value >= 0 else float("nan"))
        for name, hit, miss, alarm, value in zip(names, found, missed, alarms, values, strict=True)
    ]
