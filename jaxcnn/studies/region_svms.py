"""Region SVMs: R-CNN's linear support vector machines with hard negatives, and its ridge regression of boxes.

Girshick et al. 2014, section 2.3 and appendices B and C, as rcnn_train.m and rcnn_train_bbox_regressor.m of the
released code have them. Neither is trained by gradients on batches, so that both are here and not in the loop.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

RETRAIN = 2000
"""New negatives of a class after which its machine is fitted again."""
HARD, EASY = -1.0001, -1.2
"""A negative is added if its score is above the one, and forgotten after a fit if it is below the other."""
WHITENING = 1e-3
"""What is added to the variances of the targets."""


class RegionFeatures(NamedTuple):
    """The regions of one photo: objects and proposals."""

    features: np.ndarray
    """float32 [R, D]."""
    overlaps: np.ndarray
    """[R, K]: the largest IoU with an object of each class."""
    classes: np.ndarray
    """[R]: of an object itself, -1 of a proposal."""


@dataclasses.dataclass(frozen=True)
class SVMs:
    """One machine per class: features [R, D] @ weights [D, K] + bias [K]. The bias of a class without any object is
    minus infinity."""

    weights: np.ndarray
    bias: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """[R, D] -> [R, K]."""
        return features @ self.weights + self.bias


def fit_svms(
    photos: Sequence[RegionFeatures],
    classes: int,
    *,
    cost: float = 1e-3,
    positive_weight: float = 2.0,
    bias_scale: float = 10.0,
    negative_iou: float = 0.3,
) -> SVMs:
    """Positives of a class are its objects alone, negatives the regions whose IoU with all of them is below
    `negative_iou`; what lies between is not used.

    One pass over the photos: all negatives of the first, and of every other those that the machines so far do not put
    well on the other side. A class's machine is fitted again after 2,000 new ones, and at the end.

    Args:
      photos: of the training set, their features scaled (`scale_to`).
      classes: K.
      cost: C of the hinge loss (liblinear's type 3).
      positive_weight: by which positives cost more.
      bias_scale: of the constant feature behind the others, so that the bias is hardly regularized.
      negative_iou: see above.

    Example: fit_svms(photos, classes=3).scores(features)
    """
    from sklearn.svm import LinearSVC

    size = photos[0].features.shape[1]
    weights, bias = np.zeros((size, classes)), np.full(classes, -np.inf)
    positives = [np.concatenate([p.features[p.classes == kind] for p in photos]) for kind in range(classes)]
    negatives: list[np.ndarray] = [np.zeros((0, size), np.float32) for _ in range(classes)]
    added = [0] * classes
    for number, photo in enumerate(photos):
        with np.errstate(invalid="ignore"):
            scores = photo.features @ weights + bias
        for kind in range(classes):
            far = photo.overlaps[:, kind] < negative_iou
            if not np.isinf(bias[kind]):
                far &= scores[:, kind] > HARD
            negatives[kind] = np.concatenate([negatives[kind], photo.features[far]])
            added[kind] += int(far.sum())
            last = number == len(photos) - 1
            due = np.isinf(bias[kind]) or added[kind] > RETRAIN or last
            if not (due and len(positives[kind]) and len(negatives[kind])):
                continue
            machine: Any = LinearSVC(
                C=cost,
                loss="hinge",
                class_weight={1: positive_weight},
                intercept_scaling=cast(int, bias_scale),  # the stub is wrong: a float
                random_state=0,
                max_iter=10_000,
            )
            every = np.concatenate([positives[kind], negatives[kind]])
            machine.fit(every, np.repeat([1, 0], [len(positives[kind]), len(negatives[kind])]))
            weights[:, kind], bias[kind] = machine.coef_[0], machine.intercept_[0]
            easy = negatives[kind] @ weights[:, kind] + bias[kind] < EASY
            negatives[kind], added[kind] = negatives[kind][~easy], 0
    return SVMs(weights.astype(np.float32), bias.astype(np.float32))


@dataclasses.dataclass(frozen=True)
class BoxRegressor:
    """Of one class: features [R, D] -> offsets (dx, dy, dw, dh) of the object from the region (appendix C)."""

    coefficients: np.ndarray
    """[D + 1, 4], the last row being the bias, of whitened targets."""
    mean: np.ndarray
    colored: np.ndarray
    """[4, 4], which takes the whitening back."""

    def offsets(self, features: np.ndarray) -> np.ndarray:
        """[R, D] -> [R, 4]."""
        return (features @ self.coefficients[:-1] + self.coefficients[-1]) @ self.colored + self.mean


def fit_boxes(features: np.ndarray, offsets: np.ndarray, penalty: float = 1000.0) -> BoxRegressor:
    """Ridge regression of offsets [N, 4] on features [N, D]: the targets are centered and decorrelated first, as
    there, which changes no answer of a regression with one penalty for all targets; it is on the bias too.

    Raises ValueError if there is no pair.

    Example: fit_boxes(features, offsets).offsets(features)
    """
    if not len(features):
        raise ValueError("there is no pair of a region and an object to learn boxes from")
    inputs = np.concatenate([features, np.ones((len(features), 1))], 1).astype(np.float64)
    mean = offsets.mean(0)
    centered = offsets - mean
    values, vectors = np.linalg.eigh(centered.T @ centered / len(centered))
    roots = np.sqrt(np.maximum(values, 0) + WHITENING)
    white, colored = (vectors / roots) @ vectors.T, (vectors * roots) @ vectors.T
    normal = inputs.T @ inputs + penalty * np.eye(inputs.shape[1])
    return BoxRegressor(np.linalg.solve(normal, inputs.T @ (centered @ white)), mean, colored)


def scale_to(norm: float, features: np.ndarray) -> float:
    """The factor that gives features [N, D] this mean norm, so that one cost suits every layer (20 in the released
    code)."""
    mean = float(np.linalg.norm(features, axis=1).mean()) if len(features) else 0.0
    return norm / mean if mean else 1.0
