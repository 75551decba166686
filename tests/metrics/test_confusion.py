"""Counts of pixels are brute force's and scikit-learn's, and sums of them stay exact above 2^31."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from jaxcnn.metrics.confusion import count, from_words, to_words


def maps(seed, classes, absent=(), shape=(3, 9, 7)):
    """Truth with ignored pixels, and predictions; no pixel of the classes in `absent`."""
    rng = np.random.default_rng(seed)
    present = np.setdiff1d(np.arange(classes), absent)
    truth, predicted = rng.choice(present, shape), rng.choice(present, shape)
    return np.where(rng.random(shape) < 0.2, 255, truth).astype(np.uint8), predicted


def by_hand(truth, predicted, classes, ignore=255):
    counts = np.zeros((classes, classes), np.int64)
    for true, given in zip(truth.ravel(), predicted.ravel(), strict=True):
        if true != ignore and true < classes:
            counts[true, given] += 1
    return counts


@pytest.mark.parametrize("classes, absent", [(2, ()), (5, (0, 3)), (21, (20,)), (255, ())])
def test_counts_are_brute_forces_and_scikit_learns(classes, absent):
    for seed in range(5):
        truth, predicted = maps(seed, classes, absent)
        counts = np.asarray(jax.jit(count, static_argnums=2)(truth, predicted, classes))
        kept = truth != 255
        assert counts.dtype == np.int32 and (counts == by_hand(truth, predicted, classes)).all()
        assert (counts == confusion_matrix(truth[kept], predicted[kept], labels=range(classes))).all()


def test_the_ignored_value_counts_in_no_row_and_is_a_class_only_if_it_is_not_ignored():
    truth, predicted = np.array([[0, 1, 2, 255]]), np.array([[0, 2, 1, 1]])
    assert count(truth, predicted, 3).sum() == 3
    assert count(truth, predicted, 3, ignore=1).tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert count(truth, predicted, 256, ignore=None)[255, 1] == 1


def test_a_prediction_leaves_no_pixel_out():
    """A class that the truth ignores may be predicted, and is then a mistake."""
    assert count(np.array([[0, 0]]), np.array([[1, 0]]), 2, ignore=1).tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize("counts, batches", [(2**31 - 1, 4096), (4095, 2**19), (4097, 2**19 - 1), (1, 7)])
def test_sums_of_words_are_the_counts_above_two_to_the_31(counts, batches):
    """Up to the limits that the docstring names; a product of int32 wraps as their sum does."""
    total = to_words(jnp.array([[counts]], jnp.int32)) * batches
    assert total.dtype == jnp.int32 and from_words(total) == [[counts * batches]]
