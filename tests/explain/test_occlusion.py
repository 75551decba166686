"""Occlusion on a made-up net that looks at one pixel."""

import numpy as np
import pytest

from jaxcnn.explain.occlusion import occlusion, starts

IMAGE = np.zeros((9, 12, 1), np.float32)
IMAGE[5, 7] = 1


def one_pixel(images):
    return images[:, 5, 7, 0]


def test_a_square_of_one_pixel_finds_it():
    heat = occlusion(one_pixel, IMAGE, patch=1, stride=1)
    expected = np.zeros((9, 12))
    expected[5, 7] = 1 - 1 / 108  # the square has the mean colour
    np.testing.assert_allclose(heat, expected, atol=1e-6)


def test_larger_squares_mark_all_that_they_cover():
    heat = occlusion(one_pixel, IMAGE, patch=3, stride=3)
    expected = np.zeros((9, 12))
    expected[3:6, 6:9] = 1 - 1 / 108
    np.testing.assert_allclose(heat, expected, atol=1e-6)
    overlapping = occlusion(one_pixel, IMAGE, patch=3, stride=1)
    assert overlapping[5, 7] == overlapping.max() == pytest.approx(1 - 1 / 108, abs=1e-6)
    assert overlapping[5, 6] == pytest.approx(2 / 3 * (1 - 1 / 108), abs=1e-6)  # six of the nine that cover it


def test_what_speaks_against_the_class_is_negative():
    assert occlusion(lambda images: 1 - one_pixel(images), IMAGE, patch=3, stride=3).min() < -0.9


def test_squares_reach_the_border():
    assert starts(10, 4, 3) == [0, 3, 6] and starts(11, 4, 3) == [0, 3, 6, 7] and starts(3, 4, 2) == [0]
