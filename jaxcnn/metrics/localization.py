"""Localisation accuracy: one object an image, one box for it, and how often they agree.

Two questions, told apart in every name:

    top1      the class is right and the box is (ILSVRC's localisation, Russakovsky et al. 2015, section 4.2)
    gt_known  the box is right, for the class that the image is known to have

A box is right if its IoU with any true box of that class is at least the threshold, 0.5. Maps, of CAM or Grad-CAM,
become boxes by a threshold, and it is one for the whole set: a best one for each image flatters by points
(clovaai/wsolevaluation#36). What costs nothing is printed beside: the whole image as the box, and the box of the mean
size in the middle.

`max_box_acc` is MaxBoxAcc and MaxBoxAccV2 of Choe et al. 2020 (section 4.1). Departures from their code
(clovaai/wsolevaluation, evaluation.py): boxes are edges and not inclusive pixels, so that an IoU differs by less than a
pixel's share, and they are of the image in its own size, where the code scales images to 224.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.metrics.detections import overlaps

THRESHOLDS = (0.3, 0.5, 0.7)
LEVELS = 256


def shares(boxes: Any, truths: Sequence[Mapping[str, Any]], kinds: Any = None) -> np.ndarray:
    """The largest IoU of each image's box with a true one, float64 [N]; 0 if it has none.

    Args:
      boxes: [N, 4], one of each image.
      truths: of each image, as metrics/detections.py has it; classes below 0 are padding.
      kinds: int [N]: only true boxes of this class of each image count; None: all.
    """
    found = []
    for i, (box, truth) in enumerate(zip(np.asarray(boxes, np.float64), truths, strict=True)):
        counted = np.asarray(truth["classes"]).reshape(-1)
        counted = counted >= 0 if kinds is None else counted == kinds[i]
        true = np.asarray(truth["boxes"], np.float64).reshape(-1, 4)[counted]
        found.append(overlaps(box[None], true).max(initial=0.0))
    return np.array(found, np.float64)


def localization_accuracy(
    boxes: Any, truths: Sequence[Mapping[str, Any]], labels: Any, predicted: Any, threshold: float = 0.5
) -> dict[str, float]:
    """{"top1_localization": ..., "gt_known_localization": ..., "mean_box_iou": ...}, NaN for no image.

    Args:
      boxes: [N, 4], one of each image.
      truths: of each image.
      labels: int [N], the class of each image.
      predicted: int [N], the class that the net gives it.
      threshold: of the IoU.

    Example: localization_accuracy([[0, 0, 9, 9]], [{"boxes": [[0, 0, 9, 9]], "classes": [3]}], [3], [3])
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if not len(labels):
        return dict.fromkeys(("top1_localization", "gt_known_localization", "mean_box_iou"), float("nan"))
    share = shares(boxes, truths, labels)
    right = share >= threshold
    return {
        "top1_localization": float((right & (labels == predicted)).mean()),
        "gt_known_localization": float(right.mean()),
        "mean_box_iou": float(share.mean()),
    }


def normalized_mean_error(points: Any, truths: Any, boxes: Any) -> float:
    """The mean distance of landmarks from the true ones, in roots of the area of the true box around them.

    The mean over the visible points of an image, and then over the images that show any; NaN if none does. Dividing by
    the box and not by the distance of the eyes is what suits objects seen from the side (Zhu et al. 2016, Face
    alignment across large poses, section 5.1.2).

    Args:
      points: [N, P, 2].
      truths: [N, P, 2]; NaN is a point that the image does not show.
      boxes: [N, 4], the true box of each image.
    """
    boxes, truths = np.asarray(boxes, np.float64), np.asarray(truths, np.float64)
    side = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))
    distance = np.linalg.norm(np.asarray(points, np.float64) - truths, axis=-1)  # [N, P]
    seen = ~np.isnan(distance) & (side > 0)[:, None]
    shown = seen.any(1)
    if not shown.any():
        return float("nan")
    each = np.where(seen, distance, 0.0).sum(1)[shown] / seen.sum(1)[shown]
    return float((each / side[shown]).mean())


def baselines(
    truths: Sequence[Mapping[str, Any]], sizes: Any, labels: Any, thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, dict[float, float]]:
    """The share of images whose box is right at each threshold if a net always answers the same.

    "whole_image": the image's edges; "center_box": the box of the mean width and height, as shares of the image, in its
    middle. The mean is over the true boxes of these images themselves, which flatters it.

    Args:
      truths: of each image.
      sizes: [N, 2], (height, width) of each.
      labels: int [N].
    """
    sides = np.asarray(sizes, np.float64)[:, ::-1]
    whole = np.concatenate([np.zeros_like(sides), sides], 1)
    relative = []
    for truth, side, label in zip(truths, sides, labels, strict=True):
        true = np.asarray(truth["boxes"], np.float64).reshape(-1, 4)[np.asarray(truth["classes"]).reshape(-1) == label]
        relative += ((true[:, 2:] - true[:, :2]) / side).tolist()
    mean = np.mean(relative, axis=0) if relative else np.zeros(2)
    center = np.concatenate([sides * (1 - mean) / 2, sides * (1 + mean) / 2], 1)
    found = {}
    for name, boxes in (("whole_image", whole), ("center_box", center)):
        share = shares(boxes, truths, labels)
        found[name] = {threshold: float((share >= threshold).mean()) for threshold in thresholds}
    return found


class BoxAccuracy(NamedTuple):
    """What maps are worth as boxes; the level is the set's own, a share of each map's range."""

    max_box_acc: float
    """MaxBoxAcc: the box of the largest contour, at IoU 0.5."""
    max_box_acc_level: float
    max_box_acc_v2: float
    """MaxBoxAccV2: the best of all contours' boxes, the mean over IoU 0.3, 0.5 and 0.7, each at its best level."""
    by_threshold: dict[float, float]
    """The parts of that mean."""
    max_box_acc_and_class: float
    """MaxBoxAcc's boxes, of images whose class the net knows; NaN without `right`."""
    curve: np.ndarray
    """float64 [levels]: MaxBoxAcc's accuracy at each level, i / 255."""


def max_box_acc(
    maps: Sequence[np.ndarray], truths: Sequence[Mapping[str, Any]], labels: Any, right: Any = None
) -> BoxAccuracy:
    """How well the boxes around what is bright in maps fit, with one level for the whole set.

    Args:
      maps: of each image, float [H, W] in the image's own size; each is stretched to its own range.
      truths: of each image.
      labels: int [N]: the class whose map it is, and whose boxes count.
      right: bool [N]: whether the net gives the image this class.

    Cost: 256 levels of contours an image; about 30 ms for 224 x 224.
    """
    largest, best = [np.zeros((0, LEVELS))], [np.zeros((0, LEVELS))]
    for heat, truth, label in zip(maps, truths, labels, strict=True):
        true = np.asarray(truth["boxes"], np.float64).reshape(-1, 4)[np.asarray(truth["classes"]).reshape(-1) == label]
        one, other = np.zeros((1, LEVELS)), np.zeros((1, LEVELS))
        for level, boxes in enumerate(contour_boxes(heat)):
            if len(boxes) and len(true):
                share = overlaps(boxes, true).max(1)
                one[0, level], other[0, level] = share[0], share.max()
        largest.append(one)
        best.append(other)
    first, every = np.concatenate(largest), np.concatenate(best)
    nan = float("nan")
    if not len(first):
        return BoxAccuracy(nan, nan, nan, dict.fromkeys(THRESHOLDS, nan), nan, np.full(LEVELS, nan))
    curve = (first >= 0.5).mean(0)
    level = int(curve.argmax())
    parts = {threshold: float((every >= threshold).mean(0).max()) for threshold in THRESHOLDS}
    known = nan if right is None else float(((first[:, level] >= 0.5) & np.asarray(right, bool)).mean())
    return BoxAccuracy(
        float(curve[level]), level / (LEVELS - 1), float(np.mean([*parts.values()])), parts, known, curve
    )


def contour_boxes(heat: np.ndarray) -> list[np.ndarray]:
    """Boxes float64 [contours, 4] around what is above each of 256 levels of a map [H, W], the largest contour first.

    Levels are those of the map stretched to 0..255 and cut to whole numbers, as the code of Choe et al. does. A map
    that is the same everywhere has one level, without a contour.
    """
    import cv2

    heat = np.asarray(heat, np.float64)
    low, high = heat.min(), heat.max()
    stretched = ((heat - low) / (high - low) * 255 if high > low else np.zeros_like(heat)).astype(np.uint8)
    found: list[np.ndarray] = []
    there = np.bincount(stretched.ravel(), minlength=LEVELS) > 0
    for level in range(LEVELS):
        if level and not there[level]:  # nothing lies between this level and the one before
            found.append(found[-1])
            continue
        mask = (stretched > level).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        contours = sorted(contours, key=cv2.contourArea, reverse=True)
        boxes = np.array([cv2.boundingRect(contour) for contour in contours], np.float64).reshape(-1, 4)
        found.append(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
    return found
