"""Hits: which detections are right and which objects were missed, by Pascal VOC's rules (average_precision.py)."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxcnn.metrics.detections import Boxes, Images, Scenes, gather, overlaps


def left_out(true: Boxes) -> np.ndarray:
    """Which true boxes nobody is asked to find, bool [G]."""
    return true.others["difficult"] | true.others["crowd"]


class Hits(NamedTuple):
    """What became of each detection and of each true box of `Scenes`, by VOC's rules."""

    right: np.ndarray
    """bool [D]."""
    ignored: np.ndarray
    """bool [D]: it lies on a difficult box, and counts neither way."""
    partner: np.ndarray
    """int64 [D]: the true box that it took, as an index of `Scenes.true`; -1 if none."""
    iou: np.ndarray
    """float64 [D]: with the true box of its class that it overlaps most; 0 if there is none."""


def match(scenes: Scenes, threshold: float = 0.5) -> Hits:
    """Which detections are right, by VOC's rules: for the curves, and for pages that show misses and false alarms.

    A true box that is not in `partner` of a right detection, and not difficult, was missed.
    """
    found, true = scenes.found, scenes.true
    best, most = np.full(len(found), -1), np.zeros(len(found))
    for _, mine, theirs in scenes.images():
        if mine.start < mine.stop and theirs.start < theirs.stop:
            same = found.classes[mine, None] == true.classes[None, theirs]
            shares = np.where(same, overlaps(found.boxes[mine], true.boxes[theirs]), -1)
            most[mine] = np.maximum(shares.max(1), 0)
            best[mine] = theirs.start + shares.argmax(1)
    close = most > threshold
    ignored = close.copy()
    ignored[close] = left_out(true)[best[close]]
    right = np.zeros(len(found), bool)
    order = np.argsort(-found.others["scores"], kind="stable")
    order = order[(close & ~ignored)[order]]
    _, first = np.unique(best[order], return_index=True)  # the first to come to each true box
    right[order[first]] = True
    return Hits(right, ignored, np.where(right, best, -1), most)


class ImageHits(NamedTuple):
    """What became of the rows of one image; of padding nothing is true, and `partner` is -1."""

    right: np.ndarray
    """bool [D]."""
    wrong: np.ndarray
    """bool [D]: a false alarm; neither right nor wrong is what lies on a difficult box."""
    partner: np.ndarray
    """int64 [D]: the row of the true box that it took, -1 if none."""
    iou: np.ndarray
    """float64 [D]: with the true box of its class that it overlaps most."""
    missed: np.ndarray
    """bool [G]: an object that no detection took."""


def hits_of_images(detections: Images, truths: Images, classes: int, threshold: float = 0.5) -> list[ImageHits]:
    """The hits of each image, row by row, for pages that show misses and false alarms.

    Arguments as of `voc` (average_precision.py): which of two detections takes an object depends on their scores.

    Example: [hits.missed.sum() for hits in hits_of_images(found, truth, 20)]
    """
    scenes = gather(detections, truths, classes)
    hits = match(scenes, threshold)
    missed = ~left_out(scenes.true)
    missed[hits.partner[hits.right]] = False
    made = [
        ImageHits(
            np.zeros(found, bool), np.zeros(found, bool), np.full(found, -1), np.zeros(found), np.zeros(true, bool)
        )
        for found, true in zip(_rows(detections), _rows(truths), strict=True)
    ]
    for number, mine, theirs in scenes.images():
        image, rows = made[number], scenes.found.row[mine]
        image.right[rows] = hits.right[mine]
        image.wrong[rows] = ~hits.right[mine] & ~hits.ignored[mine]
        partner = hits.partner[mine]
        image.partner[rows] = np.where(partner >= 0, scenes.true.row[partner], -1) if len(scenes.true) else -1
        image.iou[rows] = hits.iou[mine]
        image.missed[scenes.true.row[theirs]] = missed[theirs]
    return made


def _rows(images: Images) -> list[int]:
    """How many rows each image has, padding included."""
    each = images["classes"] if isinstance(images, Mapping) else [image["classes"] for image in images]
    return [len(kinds) for kinds in each]
