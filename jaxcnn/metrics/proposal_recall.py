"""Proposal recall: the share of the objects that some proposal covers, whatever its class (Hosang et al. 2016)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.metrics.detections import overlaps

THRESHOLDS = (0.5, 0.7)


def proposal_recall(
    proposals: Sequence[Any],
    truths: Sequence[Mapping[str, Any]],
    thresholds: Sequence[float] = THRESHOLDS,
    most: int | None = None,
) -> dict[str, float]:
    """{"recall_50": ..., "recall_70": ...}: the share of the true boxes with a proposal whose IoU is at least that.

    Difficult boxes, crowds and padding (a class below 0) do not count; one proposal may cover several boxes. NaN if
    there is no object.

    Args:
      proposals: [P, 4] of each image, the best first; rows without area, which padding has, cover nothing.
      truths: of each image, as metrics/detections.py has it.
      thresholds: of the IoU.
      most: how many of each image's proposals are looked at; None: all.

    Example: proposal_recall([[[0, 0, 10, 10]]], [{"boxes": [[0, 0, 10, 12]], "classes": [0]}])["recall_70"]  # 1.0
    """
    best = [np.zeros(0)]
    for given, truth in zip(proposals, truths, strict=True):
        boxes = np.asarray(truth["boxes"], np.float64).reshape(-1, 4)
        counted = np.asarray(truth["classes"]).reshape(-1) >= 0
        for flag in ("difficult", "crowd"):
            if flag in truth:
                counted &= ~np.asarray(truth[flag], bool).reshape(-1)
        offered = np.asarray(given, np.float64).reshape(-1, 4)[:most]
        best.append(overlaps(boxes[counted], offered).max(1, initial=0.0))
    found = np.concatenate(best)
    return {
        recall_name(threshold): float((found >= threshold).mean()) if len(found) else float("nan")
        for threshold in thresholds
    }


def recall_name(threshold: float) -> str:
    """ "recall_50" for 0.5."""
    return f"recall_{round(100 * threshold)}"
