"""Statistics of few seeds: mean and deviation, and the interval of a paired difference.

The 95% interval of the mean difference is Student's t's, which assumes roughly normal differences. Its deviation is at
least that of the rounding of the figures: an accuracy over n images is a multiple of 1/n, as if the value behind it had
been rounded, and what rounding to steps of r hides has the variance r^2/12 (Sheppard 1898; uniform in half a step to
both sides). Figures are rounded on their own, so that a difference of two has 2 r^2/12, and a difference of differences
4 r^2/12. Equal differences then have an interval that is not a point.

bootstrap.py has an interval that assumes less, significance.py the tests that decide, power.py what they can see. How
often intervals and verdicts are wrong is stored in docs/results/verdict_error_rates.json.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
SIGNS = (1, -1, -1, 1)
"""Of the sides of a difference: the first minus the second, minus the third plus the fourth if there are four."""
ROUNDING = 1e-9
"""Of the figures' size: what float arithmetic may add to a difference, as 0.89 - 0.9 < -0.01 shows."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """Of one figure over the seeds of an arm; `deviation` is the sample's (n - 1), NaN for one value."""

    mean: float
    deviation: float
    n: int


@dataclasses.dataclass(frozen=True)
class Difference:
    """The mean of paired differences and its 95% interval by Student's t; NaN bounds if n < 2."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]
    """One per seed that both sides have, in order of the seeds."""


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError if there is no value."""
    if not len(values):
        raise ValueError("no values")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Spread(float(np.mean(values)), deviation, len(values))


def paired(sides: Sequence[Mapping[int, float]], step: float = 0.0) -> Difference | None:
    """The first of the sides minus the second, minus the third plus the fourth if there are four; None without a pair.

    Args:
      sides: two or four of {seed: figure}; the seeds that all have are taken.
      step: of the figures, see `interval`.
    """
    seeds = sorted(set.intersection(*(set(side) for side in sides)))
    differences = [sum(sign * side[seed] for sign, side in zip(SIGNS, sides, strict=False)) for seed in seeds]
    return interval(differences, step, len(sides))


def interval(differences: Sequence[float], step: float = 0.0, sides: int = 2) -> Difference | None:
    """The mean of these differences and its interval; None if there is none.

    It speaks of other seeds, not of other data: test images are the same ones for all.

    Args:
      differences: independent between seeds, roughly normal.
      step: the figures are multiples of this, 0 if they are not rounded.
      sides: how many figures are in each difference.
    """
    if not len(differences):
        return None
    mean, low, high = (float(bound) for bound in bounds(np.array(differences, np.float64), step, sides))
    return Difference(mean, low, high, tuple(float(value) for value in differences))


def bounds(differences: np.ndarray, step: float = 0.0, sides: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and bounds of `interval` for many samples at once, [..., n] -> three of [...]; NaN bounds if n is 1."""
    n, mean = differences.shape[-1], differences.mean(-1)
    if n == 1:
        return mean, np.full_like(mean, math.nan), np.full_like(mean, math.nan)
    deviation = np.maximum(differences.std(-1, ddof=1), floor_of(step, sides))
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * deviation / np.sqrt(n)
    return mean, mean - half, mean + half


def floor_of(step: float, sides: int = 2) -> float:
    """The deviation that rounding to multiples of `step` hides in a difference of so many figures."""
    return math.sqrt(sides * step**2 / 12)


def rounding(differences: np.ndarray, margin: float) -> np.ndarray:
    """How near to the margin a difference of [..., n] is at it: [...]."""
    return ROUNDING * np.maximum(np.abs(differences).max(-1), abs(margin))


def share_interval(right: int, count: int) -> tuple[float, float]:
    """The 95% interval of a share, `right` of `count` independent images, after Wilson 1927 (equation 5).

    It speaks of other images of the same kind, not of other seeds.
    """
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    share = right / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)
