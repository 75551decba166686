"""Boxes as rows (left, top, right, bottom): their overlap, and greedy non-maximum suppression."""

import numpy as np


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


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=-1)
