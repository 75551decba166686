"""The localisation box of a map."""

import numpy as np
import pytest

from jaxcnn.explain.boxes import box_of


def test_the_box_encloses_the_largest_part_above_the_threshold():
    heat = np.zeros((10, 12))
    heat[1:3, 1:3] = 10  # the highest part is small
    heat[5:9, 4:11] = 3
    heat[5:9, 3] = 1.9  # just below 20% of the largest value
    np.testing.assert_array_equal(box_of(heat), [4, 5, 11, 9])
    np.testing.assert_array_equal(box_of(heat, threshold=0.5), [1, 1, 3, 3])


@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_image(seed):
    measure = pytest.importorskip("skimage.measure", reason="scikit-image is not installed ('.[test]'): not run")
    heat = np.random.default_rng(seed).random((20, 30)) ** 2
    regions = measure.regionprops(measure.label(heat >= 0.2 * heat.max(), connectivity=1))
    top, left, bottom, right = max(regions, key=lambda region: region.area).bbox
    np.testing.assert_array_equal(box_of(heat), [left, top, right, bottom])


def test_a_map_without_a_positive_value_has_no_box():
    assert box_of(np.zeros((4, 4))) is None
    assert box_of(np.full((4, 4), -1.0)) is None
