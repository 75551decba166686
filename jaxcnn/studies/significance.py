"""Significance: on which side of a margin paired differences are, by tests that must agree, for many studies at once.

Two tests decide, because each fails where the other holds:

- Student's t on one side at LEVEL, with a deviation of at least the rounding of the figures (statistics.py). It assumes
  roughly normal differences, and is the one that a correction for many claims can make stricter.
- the exact sign-flip test (Fisher 1935, section 21: the randomisation of paired differences): if two arms are alike, or
  differ by the margin alone, the differences from the margin are symmetric, so that each could as well have the other
  sign; of all 2^n ways to set the signs, how many have a mean as far out? It assumes no distribution. Its level is
  LEVEL, or what five seeds can attain, 1/32: with six or more, no symmetric differences, however they are distributed,
  are called above or below in more than LEVEL of the studies; with five, in 1/32 at the very worst.

The exact sign test is shown beside them: it asks for the median alone, and decides nothing, since with seven to ten
seeds it would miss most of what the other finds. docs/results/verdict_error_rates.json has how often each is wrong.

With fewer than FEWEST pairs nothing is decided, and nothing by equal differences of a figure that is not rounded: they
tell nothing of other seeds.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np
from scipy import stats

from jaxcnn.studies.statistics import floor_of, rounding

FEWEST = 5
"""Pairs that a verdict on a measured figure needs."""
LEVEL = 0.025
"""Of a verdict in one direction: 5% for both."""
ENUMERATED = 12
"""Seeds up to which all sign flips are tried; of more, 2^12 that are drawn once for all."""
AT_A_TIME = 4_000_000
"""Numbers of one block of a table, 32 MB."""


@dataclasses.dataclass(frozen=True)
class Tails:
    """Probabilities, by each test, of differences as far above the margin as these, or farther, if the truth is at it.

    Arrays [...] of a share each.
    """

    t: np.ndarray
    sign_flip: np.ndarray
    sign: np.ndarray

    def combined(self, n: int) -> np.ndarray:
        """What decides: t's, if the sign-flip test agrees at its level; the larger of both if it does not."""
        return np.where(self.sign_flip <= exact_level(n), self.t, np.maximum(self.t, self.sign_flip))


def exact_level(n: int) -> float:
    """The level of the sign-flip test with n pairs: LEVEL, or with five what they can attain."""
    return max(LEVEL, 0.5**n) if n >= FEWEST else 0.0


def tails(differences: np.ndarray, margin: float, step: float = 0.0, sides: int = 2) -> Tails:
    """That the differences are above the margin, for many samples at once; for "below", negate both.

    Args:
      differences: [..., n].
      margin: in the figure's unit; what is nearer to it than float arithmetic can tell is at it.
      step: as for `statistics.interval`, as is `sides`.
    """
    n, reach = differences.shape[-1], rounding(differences, margin)
    over = differences - margin
    over = np.where(np.abs(over) <= reach[..., None], 0.0, over)
    return Tails(
        student(over, reach, floor_of(step, sides)),
        sign_flip(over),
        stats.binom.sf((over > 0).sum(-1) - 1, n, 0.5),
    )


def student(over: np.ndarray, reach: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """The one-sided p-value of a t-test of [..., n] against 0, 1 for equal values without a floor or for one value."""
    n, mean = over.shape[-1], over.mean(-1)
    if n == 1:
        return np.ones_like(mean)
    deviation = np.maximum(over.std(-1, ddof=1), floor)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = stats.t.sf(mean / deviation * np.sqrt(n), n - 1)
    return np.where(deviation > reach, found, 1.0)


def sign_flip(over: np.ndarray) -> np.ndarray:
    """The share of sign flips of [..., n] whose sum is at least as large as the sum as it is, which counts itself."""
    n = over.shape[-1]
    rows = np.reshape(over, (-1, n)).astype(np.float64)
    # The sum falls by twice what is flipped: it is as large or larger if that is 0 or less.
    flipped, found = subsets(n).astype(np.float64), np.empty(len(rows))
    block = max(1, AT_A_TIME // len(flipped))
    for at in range(0, len(rows), block):
        part = rows[at : at + block]
        near = 1e-9 * np.abs(part).sum(-1)
        found[at : at + block] = (flipped @ part.T <= near).mean(0)
    return found.reshape(over.shape[:-1])


@functools.cache
def subsets(n: int) -> np.ndarray:
    """Which of n signs are flipped, bool [2^n, n] with none flipped first; above ENUMERATED seeds, 2^12 of them."""
    if n <= ENUMERATED:
        return np.array(list(itertools.product((False, True), repeat=n)))
    drawn = np.random.default_rng(n).random((2**ENUMERATED, n)) < 0.5
    drawn[0] = False
    return drawn


@dataclasses.dataclass(frozen=True)
class Evidence:
    """One-sided p-values [...] of the two verdicts that a claim can get."""

    supported: np.ndarray
    contradicted: np.ndarray

    @property
    def p(self) -> np.ndarray:
        """For both directions: twice the smaller, at most 1; to be compared with 2 LEVEL."""
        return np.minimum(1.0, 2 * np.minimum(self.supported, self.contradicted))

    @property
    def direction(self) -> np.ndarray:
        """1 for supported, -1 for contradicted, 0 if neither is at LEVEL."""
        yes, no = self.supported <= LEVEL, self.contradicted <= LEVEL
        return np.where(yes & ~(no & (self.contradicted < self.supported)), 1, np.where(no, -1, 0))


def evidence(
    differences: np.ndarray, margin: float = 0.0, step: float = 0.0, sides: int = 2, within: float | None = None
) -> Evidence:
    """Of a claim that differences [..., n] are above the margin, or with `within` that they are nearer to 0 than that.

    Nearness (equivalence) takes two one-sided tests (Schuirmann 1987): above -within and below +within, so that its
    p-value is the larger of both; it is contradicted by differences that are beyond one of them.
    """
    n = differences.shape[-1]
    if n < FEWEST:
        return Evidence(np.ones(differences.shape[:-1]), np.ones(differences.shape[:-1]))
    above = lambda limit: tails(differences, limit, step, sides).combined(n)  # noqa: E731
    below = lambda limit: tails(-differences, -limit, step, sides).combined(n)  # noqa: E731
    if within is None:
        return Evidence(above(margin), below(margin))
    return Evidence(np.maximum(above(-within), below(within)), np.minimum(above(within), below(-within)))


def worst_evidence(
    lowest: np.ndarray,
    highest: np.ndarray,
    margin: float = 0.0,
    step: float = 0.0,
    sides: int = 2,
    within: float | None = None,
) -> Evidence:
    """The evidence in the worst case, [n] differences of which each may lie anywhere between two bounds.

    The worst is at a corner: for a level of at most a half, what a t-test decides is a convex set of differences (the
    mean less a multiple of the deviation is concave), and the sign-flip test falls in each difference. The highest
    values can be worse than the lowest, since they add to the deviation. A bound that is not finite decides nothing,
    nor do more than half of the pairs if they are open.
    """
    open_ = np.flatnonzero(lowest < highest)
    if 2 * len(open_) > len(lowest) or not np.isfinite([lowest, highest]).all():
        return Evidence(np.array(1.0), np.array(1.0))
    corners = np.repeat(lowest[None], 2 ** len(open_), 0)
    corners[:, open_] = np.where(
        list(itertools.product((False, True), repeat=len(open_))), highest[open_], lowest[open_]
    )
    found = evidence(corners, margin, step, sides, within)
    return Evidence(found.supported.max(), found.contradicted.max())


def holm(probabilities: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values: to be compared with the level of the whole page, in the order given."""
    order = np.argsort(probabilities, kind="stable")
    count, largest, found = len(probabilities), 0.0, [0.0] * len(probabilities)
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (count - rank) * probabilities[at]))
        found[at] = largest
    return found
