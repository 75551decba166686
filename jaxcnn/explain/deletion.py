"""Deletion and insertion (Petsiuk et al. 2018, RISE, section 4.1): does the net need what a map says that it needs?

Pixels are taken away, or shown, in the order of the map; the area under the class's probability is the score. A map is
good where its deletion score is low and its insertion score is high.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable

import numpy as np
from scipy import ndimage

# Images [B, H, W, C] -> the probability of one class, [B].
Probability = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Curve:
    """The probability of a class after a share of the pixels was changed."""

    shares: np.ndarray
    """[n + 1], from 0 to 1."""
    probabilities: np.ndarray
    """[n + 1]."""

    @property
    def area(self) -> float:
        """Under the curve, by the trapezoidal rule, in [0, 1]."""
        return float(np.trapezoid(self.probabilities, self.shares))


def deletion(probability: Probability, image: np.ndarray, heat: np.ndarray, steps: int = 30) -> Curve:
    """From the image to its mean colour, the pixels that the map calls most important first.

    Args:
      probability: of the class.
      image: [H, W, C] float, as `probability` reads it.
      heat: the map, [H, W]; of equal pixels the upper, then the left one comes first.
      steps: how many equal shares of the pixels are changed one after another.
    """
    return _curve(probability, image, np.broadcast_to(image.mean((0, 1)), image.shape), heat, steps)


def insertion(probability: Probability, image: np.ndarray, heat: np.ndarray, steps: int = 30) -> Curve:
    """From a blurred image to the image, the pixels that the map calls most important first; as `deletion`.

    The blur is Gaussian with a standard deviation of a twentieth of the shorter side: gone are the details, and no
    edges are drawn that the net could mistake for something (section 4.1).
    """
    sigma = min(image.shape[:2]) / 20
    return _curve(probability, ndimage.gaussian_filter(image, (sigma, sigma, 0)), image, heat, steps)


def _curve(probability: Probability, start: np.ndarray, end: np.ndarray, heat: np.ndarray, steps: int) -> Curve:
    pixels = heat.size
    rank = np.empty(pixels, np.int64)
    rank[np.argsort(-heat.ravel(), kind="stable")] = np.arange(pixels)
    rank = rank.reshape(heat.shape)
    counts = np.round(np.linspace(0, pixels, steps + 1)).astype(np.int64)
    images = (np.where((rank < count)[..., None], end, start).astype(np.float32) for count in counts)
    return Curve(counts / pixels, probabilities_of(probability, images))


def probabilities_of(probability: Probability, images: Iterable[np.ndarray], batch: int = 16) -> np.ndarray:
    """The probability of each image [H, W, C], read in batches of one size, so that one program is compiled: [n]."""
    found, images = [], iter(images)
    while rows := list(itertools.islice(images, batch)):
        padded = np.stack([*rows, *[rows[-1]] * (batch - len(rows))])
        found.append(np.asarray(probability(padded), np.float64)[: len(rows)])
    return np.concatenate(found)
