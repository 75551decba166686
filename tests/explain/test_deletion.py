"""Deletion and insertion on made-up nets whose answer is known."""

import numpy as np
import pytest

from jaxcnn.explain.deletion import deletion, insertion, probabilities_of

IMAGE = np.zeros((16, 16, 1), np.float32)
IMAGE[4:8, 8:12] = 1  # a sixteenth of the pixels


def intact(images):
    """The share of the bright patch that is as bright as in the image."""
    return (images[:, 4:8, 8:12, 0] == 1).mean((1, 2))


def test_a_perfect_map_and_its_opposite():
    right = IMAGE[..., 0]
    curve = deletion(intact, IMAGE, right, steps=16)
    np.testing.assert_array_equal(curve.shares, np.linspace(0, 1, 17))
    np.testing.assert_array_equal(curve.probabilities, [1.0] + [0.0] * 16)
    assert curve.area == pytest.approx(1 / 32)
    assert insertion(intact, IMAGE, right, steps=16).area == pytest.approx(1 - 1 / 32)
    assert deletion(intact, IMAGE, -right, steps=16).area == pytest.approx(1 - 1 / 32)
    assert insertion(intact, IMAGE, -right, steps=16).area == pytest.approx(1 / 32)


def test_pixels_go_in_the_order_of_the_map():
    seen = []

    def remember(images):
        seen.extend(images[..., 0])
        return np.zeros(len(images))

    heat = np.random.default_rng(0).permutation(256).reshape(16, 16)
    deletion(remember, IMAGE + heat[..., None].astype(np.float32), heat, steps=4)
    gone = [image == image.flat[np.argmax(heat)] for image in seen[1:5]]
    for quarter, mask in enumerate(gone, 1):
        np.testing.assert_array_equal(mask, heat >= 256 - 64 * quarter)


def test_deletion_ends_with_the_mean_colour_and_insertion_begins_blurred():
    ends = []

    def remember(images):
        ends.extend(images)
        return np.zeros(len(images))

    deletion(remember, IMAGE, IMAGE[..., 0], steps=15)
    np.testing.assert_array_equal(ends[0], IMAGE)
    np.testing.assert_array_equal(ends[15], np.full_like(IMAGE, 1 / 16))
    ends.clear()
    insertion(remember, IMAGE, IMAGE[..., 0], steps=15)
    assert 0.05 < ends[0].max() < 1 and ends[0].mean() == pytest.approx(1 / 16, rel=1e-3)
    np.testing.assert_array_equal(ends[15], IMAGE)


def test_probabilities_are_read_in_batches_of_one_size():
    sizes = []

    def count(images):
        sizes.append(len(images))
        return images[:, 0, 0, 0]

    images = (np.full((1, 1, 1), n, np.float32) for n in range(37))
    np.testing.assert_array_equal(probabilities_of(count, images), np.arange(37))
    assert sizes == [16, 16, 16]
