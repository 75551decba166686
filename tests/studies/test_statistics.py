"""Statistics of studies against scipy: spread and paired intervals."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxcnn.studies.statistics import interval, paired, spread

RNG = np.random.default_rng(0)


def by_seed(values):
    return dict(enumerate(values))


def test_the_interval_is_scipys_paired_t_interval():
    for n in (2, 3, 5, 30):
        a, b = RNG.normal(1, 0.3, n), RNG.normal(0.8, 0.2, n)
        found = paired([by_seed(a), by_seed(b)])
        expected = stats.ttest_rel(a, b).confidence_interval(0.95)
        np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high))
        np.testing.assert_allclose(found.mean, np.mean(a - b))


def test_a_difference_of_differences():
    a, b, c, d = sides = RNG.normal(size=(4, 6))
    found = paired([by_seed(values) for values in sides])
    expected = stats.ttest_1samp((a - b) - (c - d), 0).confidence_interval(0.95)
    np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high))


def test_spread_is_the_samples():
    values = RNG.normal(size=7)
    found = spread(values)
    np.testing.assert_allclose((found.mean, found.deviation, found.n), (values.mean(), stats.tstd(values), 7))
    assert math.isnan(spread([1.0]).deviation)
    with pytest.raises(ValueError):
        spread([])


def test_one_difference_has_no_interval():
    found = interval([0.5], 0.01)
    assert math.isnan(found.low) and math.isnan(found.high)
    assert interval([]) is None


def test_equal_differences_have_an_interval_as_wide_as_their_rounding():
    """The deviation of what two roundings to 1/200 hide, measured: that of a - round(a) - (b - round(b))."""
    step = 1 / 200
    a, b = RNG.uniform(size=(2, 200_000))
    hidden = (a - np.round(a / step) * step) - (b - np.round(b / step) * step)
    found = interval([0.25] * 5, step)
    half = stats.t.ppf(0.975, 4) * hidden.std() / math.sqrt(5)
    assert found.high - found.mean == pytest.approx(half, rel=0.01) and found.mean == pytest.approx(0.25)
    wider = interval([0.25] * 5, step, sides=4)
    assert wider.high - wider.low == pytest.approx(math.sqrt(2) * (found.high - found.low))
    assert interval([0.1, 0.3, 0.2], step) == interval([0.1, 0.3, 0.2])  # noise above the rounding is what it was
