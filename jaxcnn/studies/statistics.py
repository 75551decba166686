"""Statistics of few seeds: mean and deviation, the interval of a paired difference, and a claim's verdict."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy import stats

from jaxcnn.studies.study import EXACT, Claim

Verdict = Literal["supported", "contradicted", "inconclusive"]
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Spread:
    """Of one figure over the seeds of an arm; `deviation` is the sample's (n - 1), NaN for one value."""

    mean: float
    deviation: float
    n: int


@dataclasses.dataclass(frozen=True)
class Difference:
    """The mean of paired differences and its 95% interval by Student's t; NaN bounds where n < 2."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]
    """One per seed that both sides have, in order of the seeds."""


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError where there is no value."""
    if not len(values):
        raise ValueError("no values")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Spread(float(np.mean(values)), deviation, len(values))


def paired(values: Mapping[int, float], others: Mapping[int, float]) -> Difference | None:
    """`values` minus `others`, both {seed: figure}, over the seeds that both have; None where there is none.

    The interval assumes differences that are independent between seeds and roughly normal; with equal differences it
    is one point. It speaks of other seeds, not of other data.
    """
    seeds = sorted(values.keys() & others.keys())
    return interval([values[seed] - others[seed] for seed in seeds])


def interval(differences: Sequence[float]) -> Difference | None:
    """The mean of these differences and its interval; None where there is none."""
    n = len(differences)
    if n == 0:
        return None
    mean = float(np.mean(differences))
    if n == 1:
        return Difference(mean, math.nan, math.nan, tuple(differences))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(differences, ddof=1) / math.sqrt(n))
    return Difference(mean, mean - half, mean + half, tuple(differences))


def claimed(claim: Claim, figures: Mapping[str, Mapping[int, float]]) -> Difference | None:
    """The difference that a claim is about; `figures` is {arm: {seed: the claim's figure}}."""
    higher, lower = figures[claim.higher], figures[claim.lower]
    if claim.beyond is None:
        return paired(higher, lower)
    first, second = (figures[arm] for arm in claim.beyond)
    seeds = sorted(higher.keys() & lower.keys() & first.keys() & second.keys())
    return interval([(higher[s] - lower[s]) - (first[s] - second[s]) for s in seeds])


def judge(claim: Claim, metric: str, difference: Difference | None) -> Verdict:
    """Supported where the whole interval lies above the claim's margin, contradicted where it lies below.

    One seed gives no interval, which is inconclusive, unless the figure is counted rather than measured.
    """
    if difference is None:
        return "inconclusive"
    if metric in EXACT:
        return "supported" if difference.mean > claim.margin else "contradicted"
    if difference.low > claim.margin:
        return "supported"
    if difference.high < claim.margin:
        return "contradicted"
    return "inconclusive"
