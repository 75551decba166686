"""Average precision of images that are ranked by the score of a class, as multi-label classification is measured.

    plain   the sum of (recall - recall before) * precision over the ranking, scikit-learn's average_precision_score
    voc07   the mean of the largest precision at recall >= 0, 0.1, ..., 1 (Everingham et al. 2010, section 4.2)
    voc10   the area under the curve of the largest precision at each recall or above

Images of equal score are one step of the curve, so that their order says nothing. An image of which it is not told
whether the class is in it counts neither way. A class that is in no image has no average precision: NaN.
"""

import numpy as np

from jaxcnn.metrics.average_precision import Curve, area, eleven_points


def precision_recall(scores: np.ndarray, truth: np.ndarray) -> Curve:
    """The curve of one class, from the highest score down; scores [N] and truth [N], 1 yes, 0 no, -1 not told."""
    told = truth >= 0
    scores, right = scores[told], truth[told] == 1
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], np.cumsum(right[order], dtype=np.float64)
    last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]  # of those with one score
    recall = found / found[-1] if len(found) and found[-1] else np.full(len(found), np.nan)
    return Curve(scores[last], recall[last], (found / np.arange(1, len(found) + 1))[last])


def average_precisions(scores: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """{"plain": float64 [classes], "voc07": ..., "voc10": ...} of scores and truth [N, classes]."""
    curves = [precision_recall(scores[:, k], truth[:, k]) for k in range(scores.shape[1])]
    there = (truth == 1).any(0)
    measures = {"plain": _steps, "voc07": eleven_points, "voc10": area}
    return {
        name: np.array([measure(curve) if yes else np.nan for curve, yes in zip(curves, there, strict=True)])
        for name, measure in measures.items()
    }


def _steps(curve: Curve) -> float:
    return float((np.diff(curve.recall, prepend=0.0) * curve.precision).sum())
