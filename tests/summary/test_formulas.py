"""The formulas on the course notes' own worked numbers, and the scores and boxes on small cases done by hand."""

import numpy as np
import pytest

from jaxcnn.explain.confusion import confusion_matrix, precision, recall
from jaxcnn.ops.boxes import iou
from jaxcnn.ops.nms import nms
from jaxcnn.summary.formulas import (
    batch_norm_shape,
    conv_multiply_adds,
    conv_parameters,
    fc_multiply_adds,
    fc_parameters,
    flatten_weights,
    grow_field,
    layer_norm_shape,
    output_size,
    receptive_fields,
)


@pytest.mark.parametrize(
    "size, kernel, stride, padding, out",
    [
        (227, 11, 4, 0, 55),  # AlexNet's first convolution
        (55, 3, 2, 0, 27),  # and its overlapping pooling
        (224, 7, 2, 3, 112),  # GoogLeNet's and ResNet's first convolution
        (28, 3, 1, 1, 28),
        (32, 5, 1, 0, 28),
        (28, 2, 2, 0, 14),
        (112, 3, 2, 0, 55),  # 54.5 + 1: the floor
    ],
)
def test_output_size(size, kernel, stride, padding, out):
    assert output_size(size, kernel, stride, padding) == out
    starts = range(-padding, size + padding - kernel + 1, stride)
    assert len(starts) == out


def test_parameters_of_the_notes_nets():
    assert [conv_parameters((3, 3), *c) for c in ((1, 8), (8, 16), (16, 16))] == [80, 1168, 2320]
    assert [fc_parameters(256, 64), fc_parameters(64, 10)] == [16448, 650]
    assert [conv_parameters((3, 3), *c) for c in ((3, 16), (16, 32), (32, 64))] == [448, 4640, 18496]
    assert fc_parameters(30976, 128) == 3965056
    assert fc_parameters(28 * 28, 10) == 7850 and fc_parameters(640 * 480, 10) == 3072010
    assert fc_parameters(784, 2048) + fc_parameters(2048, 1024) + fc_parameters(1024, 10) == 3716106
    assert conv_parameters((5, 5), 96, 256, groups=2) == 25 * 48 * 256 + 256


def test_a_reduction_saves_most_of_a_5x5():
    full = conv_multiply_adds((14, 14), (5, 5), 480, 48)
    reduce, rest = conv_multiply_adds((14, 14), (1, 1), 480, 16), conv_multiply_adds((14, 14), (5, 5), 16, 48)
    assert full == 112_896_000
    assert (round(reduce / 1e6, 1), round(rest / 1e6, 1), round((reduce + rest) / 1e6, 1)) == (1.5, 3.8, 5.3)


def test_global_average_pooling_saves_the_weights_of_an_fc_layer():
    assert flatten_weights(7, 7, 1024, 1024) == fc_multiply_adds(7 * 7 * 1024, 1024) == 51_380_224


def test_receptive_fields():
    # 7x7, then 3x3, then 3x3: the second 3x3 steps 1, so its field grows by 2 at the jump before it.
    assert receptive_fields([(7, 1), (3, 1), (3, 1)]) == [7, 9, 11]
    assert receptive_fields([(3, 1)] * 3) == [3, 5, 7]
    assert receptive_fields([(7, 1), (3, 2), (3, 1)]) == [7, 9, 13]
    for kernel, pool in ((3, 2), (5, 3)):  # a convolution and a pooling see P + K - 1
        assert receptive_fields([(kernel, 1), (pool, pool)])[-1] == pool + kernel - 1
    assert grow_field(1, 1, 3, dilation=2) == (5, 1)
    assert grow_field(7, 2, 3, 2) == (11, 4)


def test_statistics_of_batch_and_layer_norm():
    x = np.zeros((5, 4, 3, 2))
    assert batch_norm_shape(x.shape) == x.mean((0, 1, 2), keepdims=True).shape == (1, 1, 1, 2)
    assert layer_norm_shape(x.shape) == x.mean((1, 2, 3), keepdims=True).shape == (5, 1, 1, 1)


def test_precision_and_recall_of_the_worked_example():
    # 90 true positives, 10 false negatives, no false positive; class 1 is the positive one.
    labels = np.array([1] * 100 + [0] * 50)
    predictions = np.array([1] * 90 + [0] * 10 + [0] * 50)
    matrix = confusion_matrix(labels, predictions, 2)
    assert matrix.tolist() == [[50, 0], [10, 90]]
    assert precision(matrix)[1] == 1.0 and recall(matrix)[1] == 0.9
    assert precision(matrix)[0] == pytest.approx(5 / 6) and recall(matrix)[0] == 1.0


def test_classes_without_predictions_or_examples_have_no_score():
    matrix = confusion_matrix(np.array([0, 1]), np.array([0, 0]), 3)
    np.testing.assert_array_equal(precision(matrix), [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(recall(matrix), [1, 0, np.nan])


def test_iou():
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6], [4, 4, 4, 4]])
    expected = np.eye(4)
    expected[0, 1] = expected[1, 0] = 1 / 7
    expected[3, 3] = 0  # an empty box
    np.testing.assert_allclose(iou(boxes, boxes), expected, rtol=1e-6)
    assert iou(boxes, boxes[:1]).shape == (4, 1)


def test_nms_keeps_the_best_of_what_overlaps():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 4], [20, 20, 30, 30]])
    assert nms(boxes, np.array([0.8, 0.9, 0.1, 0.3]), 0.5, 4).tolist() == [1, 3, 2, -1]
    # 0 overlaps 1 by 0.9; 2 overlaps 1 by 4/9 and 0 by 0.4.
    assert nms(boxes, np.array([0.8, 0.9, 0.1, 0.3]), 0.42, 4).tolist() == [1, 3, -1, -1]
    # A box that is dropped drops none itself.
    chain = np.array([[0, 0, 10, 1], [4, 0, 14, 1], [8, 0, 18, 1]])
    assert nms(chain, np.array([3.0, 2.0, 1.0]), 0.4, 3).tolist() == [0, 2, -1]


def test_nms_prefers_the_lower_index_of_equal_scores():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [40, 0, 50, 10]])
    assert nms(boxes, np.array([0.5, 0.5, 0.5]), 0.5, 2).tolist() == [0, 2]
    assert nms(np.zeros((0, 4)), np.zeros(0), 0.5, 0).tolist() == []
