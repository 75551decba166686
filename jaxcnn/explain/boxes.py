"""Boxes as rows (left, top, right, bottom): their overlap, greedy non-maximum suppression, and the box of a map."""

from typing import cast

import numpy as np
from scipy import ndimage


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair, [n, 4] and [m, 4] -> [n, m]; 0 where the union is empty."""
    boxes, others = np.asarray(boxes, np.float64), np.asarray(others, np.float64)
    first = np.maximum(boxes[:, None, :2], others[None, :, :2])
    last = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    overlap = np.maximum(last - first, 0).prod(axis=-1)
    union = _area(boxes)[:, None] + _area(others)[None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Greedy non-maximum suppression: indices of the boxes that are kept, best score first.

    A box is dropped where its IoU with a better one that is kept exceeds `threshold`; of equal scores the lower index
    counts as the better.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    overlaps = iou(boxes, boxes)
    kept: list[int] = []
    for index in order:
        if not (overlaps[index, kept] > threshold).any():
            kept.append(int(index))
    return np.array(kept, np.int64)


def box_of(heat: np.ndarray, threshold: float = 0.2) -> np.ndarray | None:
    """The localisation box of a map [H, W] (Zhou et al. 2016, section 3.2), [4]; None where no value is above 0.

    It encloses the largest connected part of what reaches `threshold` times the largest value; right and bottom lie
    behind the last pixel.
    """
    if not heat.max() > 0:
        return None
    parts, count = cast(tuple[np.ndarray, int], ndimage.label(heat >= threshold * heat.max()))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    rows, columns = ndimage.find_objects(parts)[int(sizes.argmax())]
    return np.array([columns.start, rows.start, columns.stop, rows.stop], np.float64)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=-1)
