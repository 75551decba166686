"""Folds: a split in k parts, of which each tests once what the others have trained."""

import numpy as np


def fold_numbers(count: int, folds: int, labels: np.ndarray | None, order: np.ndarray) -> np.ndarray:
    """The fold of each example, int64 [count] in 0 .. folds - 1; sizes differ by one at most.

    With labels, int [count], each class is spread evenly too, to one image, and an image's neighbours of its class stay
    together, since photos of one scene do: the folds are those of scikit-learn's StratifiedKFold(folds). Without, the
    examples are cut in this `order`, int [count].
    """
    found = np.empty(count, np.int64)
    if labels is None:
        found[order] = np.arange(count) * folds // count
        return found
    # Classes in the order in which they are first seen, as scikit-learn numbers them.
    _, first, coded = np.unique(labels, return_index=True, return_inverse=True)
    coded = np.argsort(np.argsort(first))[coded]
    in_order = np.sort(coded)
    for label in range(len(first)):
        sizes = [np.count_nonzero(in_order[fold::folds] == label) for fold in range(folds)]
        found[coded == label] = np.repeat(np.arange(folds), sizes)
    return found
