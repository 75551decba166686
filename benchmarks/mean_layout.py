"""What a detector scores that looks at no photo: it answers the layout of the training boxes, every time.

    python benchmarks/mean_layout.py experiments/yolo_bccd.py [--data.source.path bccd]

Its boxes have the mean size of a class, and 0.7 and 1.4 times that, in the middle of 24 x 18 cells of the photo. Of
each class it answers 100, one after another the box that is right for most of the training objects that no earlier one
is right for (an IoU above 0.5); their number for each training photo is its score. Prints the metrics of the
experiment's test splits by its own protocol. What a trained net adds to them is what it sees.
"""

import json
import pathlib
import sys
from collections.abc import Iterable, Sequence

import numpy as np

from jaxcnn.data.examples import Example, Examples
from jaxcnn.flags import parse
from jaxcnn.metrics.average_precision import measure
from jaxcnn.metrics.detections import overlaps

COLUMNS, ROWS = 24, 18
FACTORS = (0.7, 1.0, 1.4)
MOST = 100
"""Boxes of a class."""


def layout(truths: Iterable[Example], classes: int) -> Example:
    """The boxes to answer, best first: "boxes" [N, 4], in shares of the photo's width and height, "scores" and
    "classes" [N]. `truths` have boxes in such shares."""
    truths = list(truths)
    boxes, scores, kinds = [np.zeros((0, 4))], [np.zeros(0)], [np.zeros(0, np.int64)]
    for kind in range(classes):
        every = np.concatenate([truth["boxes"][truth["classes"] == kind] for truth in truths])
        if len(every):
            candidates = _candidates((every[:, 2:] - every[:, :2]).mean(0))
            kept, share = _chosen(overlaps(candidates, every) > 0.5, len(truths))
            boxes.append(candidates[kept])
            scores.append(share)
            kinds.append(np.full(len(kept), kind))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    joined = {"boxes": boxes, "scores": scores, "classes": kinds}
    return {name: np.concatenate(arrays)[order] for name, arrays in joined.items()}


def _candidates(size: np.ndarray) -> np.ndarray:
    x, y = np.meshgrid((np.arange(COLUMNS) + 0.5) / COLUMNS, (np.arange(ROWS) + 0.5) / ROWS)
    middles = np.stack([x.ravel(), y.ravel()], 1)
    boxes = [np.concatenate([middles - factor * size / 2, middles + factor * size / 2], 1) for factor in FACTORS]
    return np.clip(np.concatenate(boxes), 0, 1)


def _chosen(right: np.ndarray, photos: int) -> tuple[list[int], np.ndarray]:
    """The candidates to answer and their scores, best first. `right` is bool [candidates, objects]."""
    left, kept, scores = np.ones(right.shape[1], bool), [], []
    while len(kept) < MOST and (gained := (right & left).sum(1)).any():
        kept.append(int(gained.argmax()))
        scores.append(gained.max() / photos)
        left &= ~right[kept[-1]]
    return kept, np.array(scores)


def _in_shares(examples: Examples) -> list[tuple[Example, np.ndarray]]:
    """Each example's truth with boxes in shares of the photo, and the (width, height, width, height) of the photo."""
    found = []
    for i in range(len(examples)):
        example = examples[i]
        size = np.array([*example.pop("image").shape[1::-1]] * 2, float)
        found.append(({**example, "boxes": example["boxes"] / size}, size))
    return found


def main(arguments: Sequence[str]) -> dict[str, dict[str, float]]:
    experiment = parse(pathlib.Path(arguments[0]), list(arguments[1:])).experiment
    data = experiment.data
    train = data.source.open(data.train_split, data.data_dir)
    answer = layout((truth for truth, _ in _in_shares(train)), len(train.classes))
    results = {}
    for split in data.test_splits:
        there = _in_shares(data.source.open(split, data.data_dir))
        truths = [{**truth, "boxes": truth["boxes"] * size} for truth, size in there]
        found = [{**answer, "boxes": answer["boxes"] * size} for _, size in there]
        measured = measure(experiment.task.protocol, found, truths, len(train.classes))
        each = {
            f"{experiment.task.protocol}_ap_{name}": value
            for name, value in zip(train.classes, measured.classes.tolist(), strict=True)
        }
        results[split] = measured.metrics | each | {"count": len(truths)}
    return results


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print(json.dumps(main(sys.argv[1:]), indent=2))
