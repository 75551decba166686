"""Metrics of a confusion matrix against scikit-learn, pixel by pixel, with classes that are absent on either side."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score, recall_score

from jaxcnn.metrics import mean_iou as metrics
from tests.metrics.test_confusion import by_hand, maps

CLASSES = 6


@pytest.mark.parametrize("absent", [(), (0,), (2, 5), (0, 1, 2, 3, 4)])
def test_metrics_are_scikit_learns(absent):
    for seed in range(10):
        truth, predicted = maps(seed, CLASSES, absent)
        counts, kept = by_hand(truth, predicted, CLASSES), truth != 255
        true, given = truth[kept], predicted[kept]
        occurring = np.union1d(true, given)
        each = jaccard_score(true, given, labels=occurring, average=None)
        found = metrics.iou(counts)
        assert np.allclose(found[occurring], each, atol=1e-12) and np.isnan(np.delete(found, occurring)).all()
        assert math.isclose(metrics.mean_iou(counts), each.mean())
        assert math.isclose(metrics.pixel_accuracy(counts), accuracy_score(true, given))
        of_truth = recall_score(true, given, labels=np.unique(true), average="macro")
        assert math.isclose(metrics.mean_accuracy(counts), of_truth)
        weighted = jaccard_score(true, given, average="weighted", zero_division=0)
        assert math.isclose(metrics.frequency_weighted_iou(counts), weighted)


def test_a_class_that_is_only_predicted_counts_as_zero_in_the_iou_and_not_at_all_in_the_accuracy():
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]])
    assert metrics.iou(counts).tolist()[:2] == [0.75, 0] and metrics.mean_iou(counts) == 0.375
    assert metrics.mean_accuracy(counts) == 0.75 and metrics.frequency_weighted_iou(counts) == 0.75


@pytest.mark.filterwarnings("error")
def test_metrics_of_nothing_are_nan():
    nothing = np.zeros((3, 3), np.int64)
    for metric in (
        metrics.pixel_accuracy,
        metrics.mean_accuracy,
        metrics.mean_iou,
        metrics.frequency_weighted_iou,
    ):
        assert math.isnan(metric(nothing))
