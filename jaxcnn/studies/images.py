"""Images: the interval of a difference over other seeds and other test images from the same source."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from jaxcnn.studies.figures import Results
from jaxcnn.studies.statistics import CONFIDENCE, Difference
from jaxcnn.tasks.classification import Classification


def over_images(
    difference: Difference | None, arms: Sequence[Results], by_arm: Sequence[Mapping[int, float]], metric: str
) -> list[float] | None:
    """Bounds over other seeds and other test images from the same source; None for a figure that is no share of images.

    A conservative bound, since cells keep how many images are right and not which: of two nets with error rates e and f
    at most e + f of the images have one right and the other wrong (at most all, and at most 2 - e - f), so that over
    images their difference d has at most the variance (min(e + f, 2 - e - f, 1) - d^2) / n. Deviations of two pairs
    add up at most. The half-width is the root of the sum of squares of the seeds' and the images'.
    """
    split, _, name = metric.rpartition(" ")
    counts = [cell["figures"].get(f"{split} count") for arm in arms for cell in arm["cells"]]
    counts = [count for count in counts if count]
    if name not in Classification().shares or not counts or difference is None or math.isnan(difference.low):
        return None
    seeds = sorted(set.intersection(*map(set, by_arm)))

    def deviation(one: Mapping[int, float], other: Mapping[int, float]) -> np.ndarray:
        p, q = (np.array([values[seed] for seed in seeds]) for values in (one, other))
        differ = np.minimum(np.minimum(2 - p - q, p + q), 1)
        return np.sqrt(np.maximum(differ - (p - q) ** 2, 0))

    whole = sum(deviation(*by_arm[i : i + 2]) for i in range(0, len(by_arm), 2))
    images = stats.norm.ppf((1 + CONFIDENCE) / 2) * math.sqrt(np.mean(whole**2) / min(counts))
    half = math.hypot((difference.high - difference.low) / 2, images)
    return [difference.mean - half, difference.mean + half]
