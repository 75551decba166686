"""Average precision by the three protocols in use, which differ by points on the same boxes: name the one you mean.

    voc07   Pascal VOC 2007: the mean of the largest precision at recall >= 0, 0.1, ..., 1 (11 points)
    voc10   Pascal VOC 2010 and later: the area under the curve of the largest precision at each recall or above
    coco    COCO's twelve numbers: 101 points of recall, IoU 0.5 to 0.95, three sizes

The VOC protocols read as voc_eval.py of py-faster-rcnn does: the detections of a class are taken by their score over
the whole set; each takes the true box of its class with the largest IoU; it is right if that is above 0.5 and not taken
before, so that a second one is wrong; if that box is difficult, it counts neither way. VOC's IoU counts inclusive
pixels, xmax - xmin + 1; our boxes are edges, with which xmax - xmin is the same number. A crowd counts as a difficult
box.

COCO's is that of pycocotools 2.0.11, equal in all figures: IoU at least the threshold; at most 100 detections of an
image and class; crowds are ignored, and so is all that lies in them; sizes by the area that the truth gives.
`difficult` says nothing there. -1 stands for what the set has no object of.

Which of equal scores comes first: metrics/detections.py, which has the form of both sides too.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.metrics.detections import Images, Scenes, as_detections, count_images, gather, overlaps
from jaxcnn.metrics.hits import left_out, match

Protocol = Literal["voc07", "voc10", "coco"]

COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)
COCO_RECALLS = np.linspace(0.0, 1.0, 101)
COCO_AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
"""All, small, medium, large."""
COCO_MOST = (1, 10, 100)
"""Detections of an image and class that count."""
SIZES = ("small", "medium", "large")

METRICS: dict[str, tuple[str, ...]] = {
    "voc07": ("voc07_map",),
    "voc10": ("voc10_map",),
    "coco": (
        *("coco_ap", "coco_ap50", "coco_ap75", *(f"coco_ap_{size}" for size in SIZES)),
        *(f"coco_ar{most}" for most in COCO_MOST),
        *(f"coco_ar_{size}" for size in SIZES),
    ),
}
"""The metrics of each protocol, the one it is judged by first; COCO's in the order of pycocotools' twelve."""


class Curve(NamedTuple):
    """The detections of a class by their score, those that are ignored left out, at IoU 0.5."""

    scores: np.ndarray
    """float64 [n], descending."""
    recall: np.ndarray
    """float64 [n]: the share of the objects that were found so far; NaN if there is none."""
    precision: np.ndarray
    """float64 [n]: the share of the detections so far that are right."""


@dataclasses.dataclass(frozen=True)
class AveragePrecision:
    """What a protocol says of a set."""

    protocol: Protocol
    metrics: dict[str, float]
    """By the names of METRICS, which carry the protocol's."""
    classes: np.ndarray
    """float64 [classes]: the average precision of each; without an object of it NaN, or -1 with "coco"."""
    curves: tuple[Curve, ...]
    """Of each class."""
    objects: np.ndarray
    """int64 [classes]: those that count."""

    @property
    def value(self) -> float:
        """The metric that the protocol is judged by: the mean over the classes that have an object."""
        return self.metrics[METRICS[self.protocol][0]]


def measure(
    protocol: Protocol, detections: Images, truths: Images, classes: int, *, ids: Sequence[Any] | None = None
) -> AveragePrecision:
    """Average precision by the protocol of this name. Arguments as of `voc`.

    Raises:
      UserError: there is no such protocol.
    """
    check_protocol(protocol)
    if protocol == "coco":
        return coco(detections, truths, classes, ids=ids)
    return voc(detections, truths, classes, protocol=protocol, ids=ids)


def check_protocol(protocol: str, field: str = "protocol") -> None:
    """Raises UserError unless it is one of the three."""
    if protocol not in METRICS:
        hint = did_you_mean(protocol, METRICS) or ";"
        raise UserError(f"{field} is {protocol!r}{hint} there is {', '.join(get_args(Protocol))}")


def check_truth(protocol: Protocol, truths: Images, classes: int, name: str = "the truth") -> None:
    """Checks before a run that the true boxes, given as detections, score 1: boxes and classes are what they seem.

    Raises:
      UserError: there is no object; or they do not, and it names a box that was not found. Two equal boxes of one class
        are one reason (VOC lets both take the first), more than 100 of one class in one image another (COCO counts
        100).
    """
    measured = measure(protocol, as_detections(truths), truths, classes)
    if not measured.objects.any():
        raise UserError(f"{name}: of {count_images(truths):,} images none has an object that counts by {protocol}")
    if abs(measured.value - 1) < 1e-9:
        return
    scenes = gather(as_detections(truths), truths, classes)
    hits = match(scenes)
    missed = np.ones(len(scenes.true), bool)
    missed[hits.partner[hits.right]] = False
    missed = np.flatnonzero(missed & ~left_out(scenes.true))
    told = ""
    if len(missed):
        image, row, kind = (array[missed[0]] for array in (scenes.true.image, scenes.true.row, scenes.true.classes))
        box = ", ".join(f"{edge:g}" for edge in scenes.true.boxes[missed[0]])
        told = f"; {len(missed)} are not found again, the first is box {row} of image {image}, of class {kind} ({box})"
        told += ": look for one that is there twice"
    raise UserError(
        f"{name}: its own boxes, given as detections, score {measured.value:.4f} by {protocol}, not 1{told}"
    )


def voc(
    detections: Images,
    truths: Images,
    classes: int,
    *,
    protocol: Literal["voc07", "voc10"] = "voc10",
    threshold: float = 0.5,
    ids: Sequence[Any] | None = None,
) -> AveragePrecision:
    """Pascal VOC's average precision: {"voc07_map": ...}; 0 without detections, NaN if there is no object at all.

    Args:
      detections: of each image (metrics/detections.py).
      truths: of each image.
      classes: how many there are.
      protocol: "voc07" or "voc10".
      threshold: of the IoU, which must be above it.
      ids: of the images, where their own order is to say nothing.

    Example:
        found = [{"boxes": [[0, 0, 10, 10]], "scores": [0.9], "classes": [0]}]
        voc(found, [{"boxes": [[0, 0, 10, 12]], "classes": [0]}], 1).value  # 1.0
    """
    scenes = gather(detections, truths, classes, ids)
    hits = match(scenes, threshold)
    counted = ~left_out(scenes.true)
    objects = np.bincount(scenes.true.classes[counted], minlength=classes)
    found, curves, values = scenes.found, [], np.full(classes, np.nan)
    for kind in range(classes):
        mine = np.flatnonzero((found.classes == kind) & ~hits.ignored)
        curve = _curve(found.others["scores"][mine], hits.right[mine], objects[kind])
        curves.append(curve)
        if objects[kind]:
            values[kind] = eleven_points(curve) if protocol == "voc07" else area(curve)
    mean = float(np.nanmean(values)) if objects.any() else float("nan")
    return AveragePrecision(protocol, {METRICS[protocol][0]: mean}, values, tuple(curves), objects)


def _curve(scores: np.ndarray, right: np.ndarray, objects: int) -> Curve:
    """The curve of detections that count, in the order of a set."""
    order = np.argsort(-scores, kind="stable")
    so_far = np.cumsum(right[order])
    recall = so_far / objects if objects else np.full(len(order), np.nan)
    return Curve(scores[order], recall, so_far / np.arange(1, len(order) + 1))


def eleven_points(curve: Curve) -> float:
    """VOC 2007: the mean of the largest precision at recall of at least 0, 0.1, ..., 1."""
    points = np.arange(0.0, 1.1, 0.1)  # 0.30000000000000004 among them, as in voc_eval.py
    return float(np.mean([curve.precision[curve.recall >= least].max(initial=0.0) for least in points]))


def area(curve: Curve) -> float:
    """VOC 2010: the area under the curve of the largest precision at each recall or above."""
    recall = np.concatenate([[0.0], curve.recall, [1.0]])
    precision = np.concatenate([[0.0], curve.precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * envelope[1:]).sum())


def coco(detections: Images, truths: Images, classes: int, *, ids: Sequence[Any] | None = None) -> AveragePrecision:
    """COCO's twelve numbers, named as METRICS["coco"] says; -1 for sizes and classes that the set has no object of.

    Arguments as of `voc`.

    Example: coco(found, truth, 80).metrics["coco_ap50"]
    """
    scenes = gather(detections, truths, classes, ids)
    shape = (len(COCO_AREAS), len(COCO_THRESHOLDS), classes)
    precision = np.full((*shape, len(COCO_RECALLS)), -1.0)
    recall = np.full((len(COCO_MOST), *shape), -1.0)
    curves = [Curve(np.zeros(0), np.zeros(0), np.zeros(0))] * classes
    objects = np.zeros(classes, np.int64)
    for kind, judged in enumerate(_judge(scenes, classes)):
        counts = (~judged.left_out).sum(1)  # [areas]
        objects[kind] = counts[0]
        order = np.argsort(-judged.scores, kind="stable")
        right, counted = judged.right[..., order], ~judged.ignored[..., order]  # [areas, thresholds, detections]
        rows = counted[0, 0]
        curves[kind] = _curve(judged.scores[order][rows], right[0, 0][rows] & counted[0, 0][rows], counts[0])
        right &= counted
        for column, most in enumerate(COCO_MOST):
            found = (right & (judged.rank[order] < most)).sum(-1)
            recall[column, counts > 0, :, kind] = found[counts > 0] / counts[counts > 0, None]
        so_far = np.cumsum(right, -1, dtype=np.float64)
        wrong = np.cumsum(counted & ~right, -1, dtype=np.float64)
        share = so_far / (so_far + wrong + np.spacing(1))
        envelope = np.maximum.accumulate(share[..., ::-1], -1)[..., ::-1]
        envelope = np.concatenate([envelope, np.zeros((*shape[:2], 1))], -1)  # beyond the last recall
        for a in np.flatnonzero(counts).tolist():
            for t in range(len(COCO_THRESHOLDS)):
                indices = np.searchsorted(so_far[a, t] / counts[a], COCO_RECALLS, side="left")
                precision[a, t, kind] = envelope[a, t, indices]
    named = {
        "coco_ap": _mean(precision[0]),
        "coco_ap50": _mean(precision[0, 0]),
        "coco_ap75": _mean(precision[0, 5]),
        **{f"coco_ap_{size}": _mean(precision[1 + i]) for i, size in enumerate(SIZES)},
        **{f"coco_ar{most}": _mean(recall[i, 0]) for i, most in enumerate(COCO_MOST)},
        **{f"coco_ar_{size}": _mean(recall[-1, 1 + i]) for i, size in enumerate(SIZES)},
    }
    each = np.array([_mean(precision[0, :, kind]) for kind in range(classes)])
    return AveragePrecision("coco", named, each, tuple(curves), objects)


def _mean(values: np.ndarray) -> float:
    """Of those that are there; -1 if none is."""
    there = values[values > -1]
    return float(there.mean()) if there.size else -1.0


class _Judged(NamedTuple):
    """The detections of a class that count among the first 100 of their image, image by image."""

    scores: np.ndarray  # [D]
    rank: np.ndarray  # [D]: place by score among those of its image
    right: np.ndarray  # bool [areas, thresholds, D]: it took a true box, which may be ignored
    ignored: np.ndarray  # bool [areas, thresholds, D]
    left_out: np.ndarray  # bool [areas, G]: true boxes that do not count


def _judge(scenes: Scenes, classes: int) -> list[_Judged]:
    """Each class's detections against its true boxes."""
    found, true = scenes.found, scenes.true
    area = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1)
    odd, true_odd = ((sizes < COCO_AREAS[:, :1]) | (sizes > COCO_AREAS[:, 1:]) for sizes in (area, true.others["area"]))
    left_out = true_odd | true.others["crowd"]
    # By class, image and falling score: what belongs together is a slice.
    order = np.lexsort((-found.others["scores"], found.image, found.classes))
    true_order = np.lexsort((true.image, true.classes))
    count = len(scenes.order)
    edges = np.arange(classes * count + 1)
    starts = np.searchsorted((found.classes * count + found.image)[order], edges)
    true_starts = np.searchsorted((true.classes * count + true.image)[true_order], edges)
    shape = (len(COCO_AREAS), len(COCO_THRESHOLDS))
    judged = []
    for kind in range(classes):
        kept, ranks, rights, ignores = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [], []
        first, last = kind * count, (kind + 1) * count
        for cell in (first + np.flatnonzero(np.diff(starts[first : last + 1]))).tolist():
            mine = order[starts[cell] : starts[cell + 1]][: COCO_MOST[-1]]
            theirs = true_order[true_starts[cell] : true_starts[cell + 1]]
            right = ignored = np.zeros((*shape, len(mine)), bool)
            if len(theirs):
                crowd = true.others["crowd"][theirs]
                shares = overlaps(found.boxes[mine], true.boxes[theirs], crowd)
                right, ignored = _taken(shares, crowd, left_out[:, theirs])
            kept.append(mine)
            ranks.append(np.arange(len(mine)))
            rights.append(right)
            ignores.append(ignored | (~right & odd[:, None, mine]))
        none = np.zeros((*shape, 0), bool)
        mine = np.concatenate(kept)
        judged.append(
            _Judged(
                found.others["scores"][mine],
                np.concatenate(ranks),
                np.concatenate([none, *rights], -1),
                np.concatenate([none, *ignores], -1),
                left_out[:, true_order[true_starts[first] : true_starts[last]]],
            )
        )
    return judged


def _taken(shares: np.ndarray, crowd: np.ndarray, left_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which detections of an image and class take a true box, and of which it is one that does not count.

    Detections come by their score; each takes, of the true boxes that count and are free, the one with the largest IoU
    at or above the threshold, and if there is none, of those that do not count; a crowd is always free; of equal IoUs
    the later box.

    Args:
      shares: IoU, float64 [D, G].
      crowd: bool [G].
      left_out: bool [areas, G].

    Returns: bool [areas, thresholds, D], twice.
    """
    least = np.minimum(COCO_THRESHOLDS, 1 - 1e-10)[:, None]
    taken = np.zeros((len(left_out), len(least), shares.shape[1]), bool)
    right = np.zeros((*taken.shape[:2], len(shares)), bool)
    ignored = right.copy()
    for d in np.flatnonzero(shares.max(1) >= COCO_THRESHOLDS[0]).tolist():
        near = np.flatnonzero(shares[d] >= COCO_THRESHOLDS[0])[::-1]  # argmax takes the first of equals
        share, out = shares[d, near], left_out[:, None, near]
        fits = (share >= least) & (crowd[near] | ~taken[:, :, near])
        counting = fits & ~out
        among = np.where(counting.any(-1, keepdims=True), counting, fits)
        a, t = np.nonzero(among.any(-1))
        choice = np.where(among, share, -1).argmax(-1)[a, t]
        right[a, t, d], ignored[a, t, d] = True, out[a, 0, choice]
        taken[a, t, near[choice]] = True
    return right, ignored
