"""What decides verdicts, against scipy: t, sign flips, signs, nearness, missing pairs and Holm's correction."""

import itertools

import numpy as np
import pytest
from scipy import stats

from jaxcnn.studies.significance import FEWEST, LEVEL, evidence, exact_level, holm, subsets, tails, worst_evidence

RNG = np.random.default_rng(0)
NOISE = np.array([-0.01, 0.02, 0.0, 0.01, -0.02])


def side(differences, margin=0.0, step=0.0, **more):
    return int(evidence(np.asarray(differences, float), margin, step, **more).direction)


@pytest.mark.parametrize("n", [5, 6, 8])
def test_each_test_is_scipys(n):
    for margin in (0.0, 0.3):
        values = RNG.normal(0.4, 1, n)
        found = tails(values, margin)
        assert float(found.t) == pytest.approx(stats.ttest_1samp(values, margin, alternative="greater").pvalue)
        flipped = stats.permutation_test(
            (values - margin,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="greater"
        )
        assert float(found.sign_flip) == pytest.approx(flipped.pvalue)
        count = int((values > margin).sum())
        assert float(found.sign) == pytest.approx(stats.binomtest(count, n, alternative="greater").pvalue)


def test_flips_of_many_seeds_are_drawn_and_near_to_all():
    values = RNG.normal(0.45, 1, 14)
    every = np.array(list(itertools.product((1, -1), repeat=14))) @ values
    assert len(subsets(14)) == 2**12
    assert float(tails(values, 0.0).sign_flip) == pytest.approx((every >= values.sum() - 1e-9).mean(), abs=0.01)


def test_fewer_than_five_pairs_decide_nothing():
    for n in (1, 2, 3, 4):
        assert side(1 + NOISE[:n]) == 0 and float(evidence(1 + NOISE[:n]).p) == 1
    assert side(1 + NOISE) == 1 and side(NOISE - 1) == -1
    assert exact_level(FEWEST) == 1 / 32 and exact_level(6) == LEVEL and exact_level(4) == 0


def test_both_tests_must_agree():
    mixed = np.array([1.0, 1.1, 0.9, 1.0, -0.01])  # t alone: 0.010
    assert float(tails(mixed, 0.0).t) < LEVEL and side(mixed) == 0
    assert side(np.append(mixed, [1.0, 1.1, 0.9])) == 1  # two of 256 flips
    two_values = np.array([1.0] * 6 + [-0.1] * 2)
    assert float(tails(two_values, 0.0).sign_flip) == 4 / 256 and side(two_values, step=0.1) == 1
    outlier = np.array([0.1, 0.1, 0.1, 0.1, -1.0])
    assert side(outlier) == 0


def test_a_loss_of_exactly_the_margin_is_at_it():
    """0.89 - 0.9 is -0.010000000000000009."""
    differences = np.full(5, 0.89) - 0.9
    assert (differences < -0.01).all()
    for step in (0.0, 1e-12, 0.01):
        assert side(differences, -0.01, step) == 0
    assert side(np.append(differences[:4], -0.0099), -0.01, 1e-12) == 0
    # 0.91 - 0.9 is 0.010000000000000009, which is not above 0.01: four of five seeds are.
    gains = np.array([0.91 - 0.9, 0.02, 0.022, 0.021, 0.019])
    assert (gains > 0.01).all() and float(tails(gains, 0.01).sign) == 6 / 32
    assert side(differences, within=0.01, step=1e-12) == 0


def test_equal_differences_of_a_figure_without_rounding_decide_nothing():
    assert side(np.full(5, 0.25)) == 0
    assert side(np.full(5, 0.25), step=0.01) == 1
    assert side(np.full(5, 0.0), step=0.01) == 0


def test_nearness_takes_both_sides():
    near = 0.003 + NOISE / 10
    assert side(near, within=0.01) == 1
    assert side(near, within=0.004) == 0  # the upper side holds it
    assert side(0.02 + NOISE / 10, within=0.01) == -1 and side(-0.02 + NOISE / 10, within=0.01) == -1
    assert side(NOISE * 3, within=0.01) == 0  # not seen to differ is not nearness
    both = [stats.ttest_1samp(near, edge, alternative=way).pvalue for edge, way in ((-0.01, "greater"), (0.01, "less"))]
    assert float(evidence(near, within=0.01).supported) == pytest.approx(max(both))


def test_the_worst_case_of_missing_pairs_is_the_worst_of_all_values():
    """Against a grid of values: the highest can be worse than the lowest, which only adds to the mean."""
    values = np.array([0.05, 0.051, 0.049, 0.052, 0.05, 0.048, 0.05])
    for low, high in ((0.03, 0.06), (0.03, 3.0), (-0.5, 0.5)):
        grid = [evidence(np.append(values, at)) for at in np.linspace(low, high, 301)]
        found = worst_evidence(np.append(values, low), np.append(values, high))
        assert float(found.supported) == pytest.approx(max(float(each.supported) for each in grid))
        assert float(found.contradicted) == pytest.approx(max(float(each.contradicted) for each in grid))
    assert worst_evidence(np.append(values, 0.03), np.append(values, 0.06)).direction == 1
    assert worst_evidence(np.append(values, 0.03), np.append(values, 3.0)).direction == 0
    assert worst_evidence(np.append(values, 0.03), np.append(values, np.inf)).direction == 0
    whole = worst_evidence(values, values)
    assert float(whole.supported) == float(evidence(values).supported)


def test_holm_is_the_published_step_down():
    """By its definition: the first sorted p-value above level / (m - rank) and all after it are not rejected."""
    for _ in range(50):
        p = RNG.uniform(0, 0.06, 6)
        adjusted = holm(list(p))
        for level in (0.01, 0.05, 0.2):
            rejected, order = set(), np.argsort(p)
            for rank, at in enumerate(order):
                if p[at] > level / (6 - rank):
                    break
                rejected.add(at)
            assert {at for at in range(6) if adjusted[at] <= level} == rejected
    assert holm([]) == []
