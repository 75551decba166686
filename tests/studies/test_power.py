"""The smallest effect that can be seen, against simulated studies."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxcnn.studies.power import POWER, in_deviations, smallest_effect
from jaxcnn.studies.significance import evidence
from jaxcnn.studies.statistics import floor_of


@pytest.mark.parametrize("n", [5, 6, 7, 10])
def test_four_of_five_studies_see_it(n):
    effect = smallest_effect(n, 0.01)
    drawn = np.random.default_rng(100 + n).normal(effect, 0.01, (4000, n))
    assert (evidence(drawn).direction == 1).mean() == pytest.approx(POWER, abs=0.025)
    assert (evidence(drawn - 0.02, margin=-0.02).direction == 1).mean() == pytest.approx(POWER, abs=0.025)


def test_many_seeds_need_what_the_t_test_needs():
    """By the noncentral t distribution; the sign flips add next to nothing then."""
    n, effect = 12, in_deviations(12)
    decided = stats.nct.sf(stats.t.isf(0.025, n - 1), n - 1, effect * math.sqrt(n))
    assert decided == pytest.approx(POWER, abs=0.02)


def test_few_seeds_and_rounding():
    assert math.isinf(smallest_effect(4, 0.01))
    assert smallest_effect(5, 0.0, step=1 / 200) == pytest.approx(in_deviations(5) * floor_of(1 / 200))
    assert smallest_effect(5, 0.01, level=0.025 / 20) > 1.5 * smallest_effect(5, 0.01)
