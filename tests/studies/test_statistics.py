"""Statistics of studies against scipy on made-up figures: ties, one seed, missing cells, differences of differences."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxcnn.studies.statistics import claimed, interval, judge, paired, spread
from jaxcnn.studies.study import Claim

CLAIM = Claim("a is better than b", higher="a", lower="b")
RNG = np.random.default_rng(0)


def by_seed(values):
    return dict(enumerate(values))


def test_the_interval_is_scipys_paired_t_interval():
    for n in (2, 3, 5, 30):
        a, b = RNG.normal(1, 0.3, n), RNG.normal(0.8, 0.2, n)
        found = paired(by_seed(a), by_seed(b))
        expected = stats.ttest_rel(a, b).confidence_interval(0.95)
        np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high))
        np.testing.assert_allclose(found.mean, np.mean(a - b))


def test_spread_is_the_samples():
    values = RNG.normal(size=7)
    found = spread(values)
    np.testing.assert_allclose((found.mean, found.deviation, found.n), (values.mean(), stats.tstd(values), 7))
    assert math.isnan(spread([1.0]).deviation)
    with pytest.raises(ValueError):
        spread([])


@pytest.mark.parametrize("shift, verdict", [(0.5, "supported"), (-0.5, "contradicted"), (0.0, "inconclusive")])
def test_the_verdict_is_the_side_of_the_margin_that_the_interval_lies_on(shift, verdict):
    noise = np.array([-0.1, 0.05, 0.0, 0.08, -0.03])
    difference = interval(noise + shift)
    assert judge(CLAIM, "test accuracy", difference) == verdict
    p = stats.ttest_1samp(noise + shift, 0).pvalue
    assert (p < 0.05) == (verdict != "inconclusive")
    moved = Claim("by more than one", "a", "b", margin=1.0)
    assert judge(moved, "test accuracy", interval(noise + shift + 1)) == verdict


def test_ties_everywhere_decide_nothing_and_equal_gains_decide():
    assert judge(CLAIM, "test accuracy", interval([0.0, 0.0, 0.0])) == "inconclusive"
    assert judge(CLAIM, "test accuracy", interval([0.25, 0.25, 0.25])) == "supported"
    assert judge(CLAIM, "test accuracy", interval([-0.25, -0.25])) == "contradicted"
    assert judge(Claim("loses nothing", "a", "b", margin=-0.01), "test accuracy", interval([0.0, 0.0])) == "supported"


def test_one_seed_has_no_interval_and_is_inconclusive_unless_the_figure_is_counted():
    difference = interval([0.5])
    assert math.isnan(difference.low) and math.isnan(difference.high)
    assert judge(CLAIM, "test accuracy", difference) == "inconclusive"
    assert judge(CLAIM, "parameters", difference) == "supported"
    assert judge(CLAIM, "multiply-adds", interval([-1.0])) == "contradicted"


def test_a_seed_that_one_side_lacks_is_left_out_of_the_pairs():
    a, b = {0: 1.0, 1: 2.0, 2: 4.0}, {0: 0.5, 2: 1.0, 3: 9.0}
    assert paired(a, b).values == (0.5, 3.0)
    assert paired(a, {7: 1.0}) is None and judge(CLAIM, "test accuracy", None) == "inconclusive"
    assert claimed(CLAIM, {"a": a, "b": b}).values == (0.5, 3.0)


def test_a_difference_of_differences():
    figures = {name: by_seed(RNG.normal(size=4)) for name in "abcd"}
    found = claimed(Claim("the gap is wider", "a", "b", beyond=("c", "d")), figures)
    a, b, c, d = (np.array([*figures[name].values()]) for name in "abcd")
    expected = stats.ttest_1samp((a - b) - (c - d), 0).confidence_interval(0.95)
    np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high))
