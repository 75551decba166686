"""Images: the interval of a difference over other seeds and other test images from the same source."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from jaxcnn.studies.figures import Results
from jaxcnn.studies.right import right_images
from jaxcnn.studies.statistics import CONFIDENCE, SIGNS, Difference
from jaxcnn.tasks.classification import Classification


def over_images(
    difference: Difference | None, arms: Sequence[Results], by_arm: Sequence[Mapping[int, float]], metric: str
) -> list[float] | None:
    """Bounds over other seeds and other test images from the same source; None for a figure that is no share of images.

    Seeds and images are crossed: every net sees every image. The half-width is the root of the sum of squares of the
    seeds' (Student's t) and the images' (`error_over_images`, or `_bound` if a cell does not keep which images are
    right). What differs by image and seed alike is in both, so that it is a little wide (Owen 2007, the pigeonhole
    bootstrap, counts it three times, and drawing seeds again needs more of them than studies have).
    """
    split, _, name = metric.rpartition(" ")
    counts = [cell["figures"].get(f"{split} count") for arm in arms for cell in arm["cells"]]
    counts = [count for count in counts if count]
    if name not in Classification().shares or not counts or difference is None or math.isnan(difference.low):
        return None
    seeds = sorted(set.intersection(*map(set, by_arm)))
    right = [right_images(arm, metric, values, seeds) for arm, values in zip(arms, by_arm, strict=True)]
    known = [each for each in right if each is not None]
    if len(known) == len(arms) and len({each.shape for each in known}) == 1:
        deviation = error_over_images(known)
    else:
        deviation = _bound(by_arm, seeds) / math.sqrt(min(counts))
    half = with_images((difference.high - difference.low) / 2, deviation)
    return [difference.mean - half, difference.mean + half]


def with_images(half: float, deviation: float) -> float:
    """The half-width over seeds and images, of that over seeds and the standard error over images."""
    return math.hypot(half, float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * deviation)


def error_over_images(right: Sequence[np.ndarray]) -> float:
    """The standard error of the difference over images, from which images the nets of each side have right, [seeds,
    images] each."""
    differences = sum(sign * each.mean(0) for sign, each in zip(SIGNS, right, strict=False))
    return float(np.std(differences, ddof=1)) / math.sqrt(len(right[0][0]))


def _bound(by_arm: Sequence[Mapping[int, float]], seeds: Sequence[int]) -> float:
    """At most the deviation of a difference between images, from how many are right.

    Of two nets with error rates e and f at most e + f of the images have one right and the other wrong (at most all,
    and at most 2 - e - f), so that over images their difference d has at most the variance min(e + f, 2 - e - f, 1) -
    d^2. Deviations of two pairs add up at most.
    """

    def deviation(one: Mapping[int, float], other: Mapping[int, float]) -> np.ndarray:
        p, q = (np.array([values[seed] for seed in seeds]) for values in (one, other))
        differ = np.minimum(np.minimum(2 - p - q, p + q), 1)
        return np.sqrt(np.maximum(differ - (p - q) ** 2, 0))

    whole = sum(deviation(*by_arm[i : i + 2]) for i in range(0, len(by_arm), 2))
    return math.sqrt(np.mean(whole**2))
