"""Classic kernels against SciPy, poolings against NumPy."""

import numpy as np
import pytest
from scipy import ndimage

from jaxcnn.errors import UserError
from jaxcnn.explain.kernels import KERNELS, apply_kernel, poolings

PHOTO = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_scipys_correlation(name):
    weights = np.array(KERNELS[name])[..., None]
    expected = ndimage.correlate(PHOTO.astype(np.float64), weights, mode="nearest").clip(0, 255)
    np.testing.assert_array_equal(apply_kernel(PHOTO, KERNELS[name]), expected)


def test_what_the_kernels_do():
    flat = np.full((5, 5, 1), 90, np.uint8)
    assert (apply_kernel(flat, KERNELS["sharpen"]) == 90).all() and (apply_kernel(flat, KERNELS["emboss"]) == 90).all()
    line = np.zeros((5, 5, 1), np.uint8)
    line[2] = 50
    assert (apply_kernel(line, KERNELS["horizontal line"])[2] == 255).all()
    assert not apply_kernel(line, KERNELS["vertical line"]).any()


def test_poolings():
    windows = PHOTO.astype(np.float64).reshape(3, 4, 4, 4, 3)
    pooled = poolings(PHOTO, 4)
    np.testing.assert_array_equal(pooled["max"], windows.max((1, 3)))
    np.testing.assert_array_equal(pooled["min"], windows.min((1, 3)))
    np.testing.assert_array_equal(pooled["average"], windows.mean((1, 3)).round())
    assert poolings(PHOTO, 5)["max"].shape == (2, 3, 3)  # what is left over at the border is in no window


@pytest.mark.parametrize("size", [0, 13])
def test_a_window_that_does_not_fit(size):
    with pytest.raises(UserError, match=f"pooling windows of {size} do not fit an image of 12x16"):
        poolings(PHOTO, size)
