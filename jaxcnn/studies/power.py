"""Power: the smallest effect that a study can see, before it is run and after."""

import functools

import numpy as np
from scipy import stats

from jaxcnn.studies.significance import FEWEST, LEVEL, exact_level, subsets
from jaxcnn.studies.statistics import floor_of

POWER = 0.8
"""The share of studies that see the effect: Cohen's (1988) convention."""
DRAWS = 4000


def smallest_effect(n: int, deviation: float, step: float = 0.0, sides: int = 2, level: float = LEVEL) -> float:
    """How far from its margin the true mean difference must be so that POWER of such studies decide the claim.

    Normal differences are assumed, and the rule of significance.py. Infinite with fewer than FEWEST seeds.

    Args:
      n: seeds.
      deviation: of the paired differences between seeds; they have at least that of the rounding.
      step: as for `statistics.interval`, as is `sides`.
      level: on one side; for the first of m claims under Holm's correction, LEVEL / m.

    Example:
      smallest_effect(5, 0.01)  # 0.018: 1.8 points of accuracy, if differences of five seeds deviate by one
    """
    return in_deviations(n, level) * max(deviation, floor_of(step, sides))


@functools.cache
def in_deviations(n: int, level: float = LEVEL) -> float:
    """`smallest_effect` for a deviation of 1, from DRAWS normal samples: of each the shift from which it is decided."""
    if n < FEWEST:
        return float("inf")
    drawn = np.random.default_rng(n).normal(size=(DRAWS, n))
    by_t = stats.t.isf(level, n - 1) * drawn.std(1, ddof=1) / np.sqrt(n) - drawn.mean(1)
    flipped = subsets(n)[1:].astype(np.float64)
    means = (flipped @ drawn.T) / flipped.sum(1, keepdims=True)
    # A shift counts against all flips but those whose mean it leaves below 0; so many may be left, beside none flipped.
    left = int(exact_level(n) * (len(flipped) + 1)) - 1
    by_flips = -np.partition(means, left, axis=0)[left]
    return float(np.quantile(np.maximum(by_t, by_flips), POWER))
