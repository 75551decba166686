"""The confusion matrix, and precision and recall, which are read off it."""

import numpy as np


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """[classes, classes] counts: the row is the true class, the column the predicted one."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (np.asarray(labels), np.asarray(predictions)), 1)
    return matrix


def precision(matrix: np.ndarray) -> np.ndarray:
    """TP / (TP + FP) of each class, [classes]; NaN for a class that was never predicted."""
    return _ratio(matrix, matrix.sum(axis=0))


def recall(matrix: np.ndarray) -> np.ndarray:
    """TP / (TP + FN) of each class, [classes]; NaN for a class without examples."""
    return _ratio(matrix, matrix.sum(axis=1))


def _ratio(matrix: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(np.diag(matrix), counts, out=np.full(len(matrix), np.nan), where=counts > 0)
