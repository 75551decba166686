"""Statistics of studies against scipy and by simulation: intervals, both methods of a verdict, how often they err."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxcnn.studies.statistics import FEWEST, LEVEL, bounds, chance, interval, paired, side, spread
from tests.tiny_runs import ROOT

RNG = np.random.default_rng(0)
SAMPLES = 40_000


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


def test_the_sign_test_is_scipys():
    for n in (5, 6, 9, 20):
        for count in range(n + 1):
            assert chance(np.array(count), n) == pytest.approx(stats.binomtest(count, n, alternative="greater").pvalue)
    assert chance(np.array(FEWEST), FEWEST) == 1 / 32 <= LEVEL < 2 / 32


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


def test_fewer_than_five_pairs_decide_nothing():
    noise = np.array([-0.01, 0.02, 0.0, 0.01, -0.02])
    for n in (2, 3, 4):
        assert side(1 + noise[:n], 0.0) == 0
    assert side(1 + noise, 0.0) == 1 and side(noise - 1, 0.0) == -1


def test_a_loss_of_exactly_the_margin_is_at_it():
    """0.89 - 0.9 is -0.010000000000000009."""
    differences = np.full(5, 0.89) - 0.9
    assert (differences < -0.01).all()
    for step in (0.0, 1e-12, 0.01):
        assert side(differences, -0.01, step) == 0
    assert side(np.append(differences[:4], -0.0099), -0.01, 1e-12) == 0
    # 0.91 - 0.9 is 0.010000000000000009, which is not above 0.01: four of five seeds are.
    gains = np.array([0.91 - 0.9, 0.02, 0.022, 0.021, 0.019])
    assert (gains > 0.01).all() and side(gains, 0.01) == 0 and side(gains[1:].repeat(2), 0.01) == 1


def test_equal_differences_of_a_figure_without_rounding_decide_nothing():
    assert side(np.full(5, 0.25), 0.0) == 0
    assert side(np.full(5, 0.25), 0.0, step=0.01) == 1
    assert side(np.full(5, 0.0), 0.0, step=0.01) == 0


def test_both_methods_must_agree():
    outlier = np.array([0.1, 0.1, 0.1, 0.1, -1.0])  # the signs alone are not enough, and the mean is below
    assert side(outlier, 0.0) == 0
    mixed = np.array([1.0, 1.1, 0.9, 1.0, -0.01])  # the interval alone
    _, low, _ = bounds(mixed)
    assert low > 0 and side(mixed, 0.0) == 0
    assert side(np.append(mixed, [1.0, 1.1, 0.9]), 0.0) == 1  # 7 of 8


def simulated(kind, n, rng):
    """[SAMPLES, n] differences of two equal arms, the true mean, and the step."""
    if kind == "normal":
        return rng.normal(0, 0.01, (SAMPLES, n)), 0.0, 0.0
    if kind == "quantised":  # accuracies over 200 images whose deviation between seeds is 0.8 of a step
        a, b = np.round(rng.normal(0.9, 0.004, (2, SAMPLES, n)) * 200) / 200
        return a - b, 0.0, 1 / 200
    # One seed in five of each arm ends at chance.
    a, b = np.where(rng.random((2, SAMPLES, n)) < 0.2, 0.1, rng.normal(0.9, 0.01, (2, SAMPLES, n)))
    return a - b, 0.0, 0.0


def one_arm_collapses(n, rng):
    """One arm alone collapses, in one seed of five, and is 0.02 better elsewhere: its mean is 0.144 lower."""
    collapsed = rng.random((SAMPLES, n)) < 0.2
    return np.where(collapsed, -0.8, 0.02) + rng.normal(0, 0.01, (SAMPLES, n)), -0.144


def rates():
    """{(kind, n): (how often the interval holds the true mean, how often the verdict is wrong)}."""
    found = {}
    for kind in ("normal", "quantised", "collapsing"):
        for n in (2, 3, 5, 10):
            differences, mean, step = simulated(kind, n, np.random.default_rng(1))
            _, low, high = bounds(differences, step)
            wrong = (side(differences, mean, step) != 0).mean()
            found[kind, n] = float(((low <= mean) & (mean <= high)).mean()), float(wrong)
    for n in (5, 10):
        differences, mean = one_arm_collapses(n, np.random.default_rng(2))
        _, low, high = bounds(differences)
        wrong = (side(differences, 0.0) > 0).mean()
        found["one arm", n] = float(((low <= mean) & (mean <= high)).mean()), float(wrong)
    return found


@pytest.fixture(scope="module")
def measured():
    return rates()


def test_a_verdict_on_equal_arms_is_wrong_in_at_most_one_of_twenty(measured):
    for (kind, n), (coverage, wrong) in measured.items():
        if kind == "one arm":
            continue
        assert wrong == 0 if n < FEWEST else wrong <= 0.05
        assert coverage >= (0.92 if kind == "collapsing" else 0.945)


def test_an_interval_without_a_floor_would_be_wrong_more_often():
    """What the rule was before: two seeds whose rounded differences happen to be equal."""
    differences, mean, step = simulated("quantised", 2, np.random.default_rng(1))
    bare = stats.t.ppf(0.975, 1) * differences.std(-1, ddof=1) / math.sqrt(2)
    assert (np.abs(differences.mean(-1)) > bare + 1e-9).mean() > 0.1
    _, low, high = bounds(differences, step)
    assert ((low > mean) | (high < mean)).mean() < 0.01


def test_five_seeds_do_not_see_every_collapse(measured):
    """No method can know of a collapse that no seed has shown: 0.8^5 = 0.33 of such studies have none."""
    for n in (5, 10):
        assert 0.8**n * 0.8 < measured["one arm", n][1] <= 0.8**n + 0.01


def test_the_measured_rates_are_in_the_docs(measured):
    text = (ROOT / "docs" / "studies_table.md").read_text()
    for (kind, n), (coverage, wrong) in measured.items():
        assert f"| {NAMES[kind]} | {n} | {coverage:.0%} | {wrong:.1%} |" in text


NAMES = {
    "normal": "equal arms, normal differences",
    "quantised": "equal arms, accuracies over 200 images, deviation 0.8 of a step",
    "collapsing": "equal arms, one seed in five of each at chance",
    "one arm": "one arm alone at chance in one seed of five, 0.02 better elsewhere",
}
