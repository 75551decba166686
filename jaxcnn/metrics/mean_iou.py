"""Mean IoU and its kin, from one confusion matrix of the whole set (Long, Shelhamer & Darrell 2015, section 5).

With n_ij the pixels of class i that were given class j, t_i = sum_j n_ij and p_j = sum_i n_ij:

    pixel accuracy            sum_i n_ii / sum_i t_i
    mean accuracy             mean of n_ii / t_i over the classes that occur in the truth
    IoU of class i            n_ii / (t_i + p_i - n_ii)
    mean IoU                  mean of the IoUs over the classes that occur in the truth or in the predictions
    frequency-weighted IoU    sum_i t_i IoU_i / sum_i t_i

as score.py of the authors' code has them (nanmean). The background is a class like the others. The matrix is that of
all images together: a mean of the IoUs of single images is another figure.

All take counts [classes, classes], rows the truth, of any number type, and are NaN where nothing was counted.
"""

import numpy as np


def pixel_accuracy(counts: np.ndarray) -> float:
    """The share of the pixels that were given their own class."""
    return float(_divide(np.trace(counts), counts.sum()))


def class_accuracy(counts: np.ndarray) -> np.ndarray:
    """float64 [classes]: the share of each class's pixels that were given it; NaN for one that is not in the truth."""
    return _divide(np.diag(counts), counts.sum(1))


def mean_accuracy(counts: np.ndarray) -> float:
    """The mean of `class_accuracy` over the classes of the truth."""
    return _mean(class_accuracy(counts))


def iou(counts: np.ndarray) -> np.ndarray:
    """float64 [classes]: intersection over union; NaN for a class that is neither in the truth nor predicted."""
    found = np.diag(counts)
    return _divide(found, counts.sum(1) + counts.sum(0) - found)


def mean_iou(counts: np.ndarray) -> float:
    """The mean of `iou` over the classes that occur.

    Example:
        mean_iou(np.array([[3, 1], [0, 4]]))  # (3/4 + 4/5) / 2 = 0.775
    """
    return _mean(iou(counts))


def frequency_weighted_iou(counts: np.ndarray) -> float:
    """The mean of `iou`, each class weighted with its pixels in the truth."""
    return float(_divide(np.nansum(counts.sum(1) * iou(counts)), counts.sum()))


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """float64, NaN for a whole of 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole == 0, np.nan, np.float64(part) / whole)


def _mean(values: np.ndarray) -> float:
    """Without the NaNs; NaN if there is nothing else (nanmean warns of it)."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
