"""Transforms of an image's colors and levels: they see the image alone, and move no pixel."""

import math
from dataclasses import dataclass

import numpy as np

from jaxcnn.data.arguments import check_range
from jaxcnn.data.images import brightness, contrast, hue, saturation


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue, each by a random factor, in a random order: torchvision's ColorJitter.

    A float b stands for the factors [max(0, 1 - b), 1 + b], for `hue` for [-hue, hue] of the full turn, at most 0.5; a
    pair is the range itself. Each op rounds to uint8. Grey images take brightness and contrast only, as in torchvision.
    """

    brightness: float | tuple[float, float] = 0.0
    contrast: float | tuple[float, float] = 0.0
    saturation: float | tuple[float, float] = 0.0
    hue: float | tuple[float, float] = 0.0

    def __post_init__(self):
        for field in ("brightness", "contrast", "saturation"):
            check_range(self, field, self.factors(field), 0, math.inf)
            check_range(self, field, (0, np.max(getattr(self, field))), 0, math.inf)
        check_range(self, "hue", self.factors("hue"), -0.5, 0.5)

    def factors(self, field: str) -> tuple[float, float]:
        """The range that the factor of `field` is drawn from."""
        value = getattr(self, field)
        if not isinstance(value, int | float):
            return value
        return (-value, value) if field == "hue" else (max(0.0, 1 - value), 1 + value)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        adjust = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        drawn = {field: rng.uniform(*self.factors(field)) for field in adjust}
        for i in rng.permutation(4):
            field = tuple(adjust)[i]
            if drawn[field] != (0 if field == "hue" else 1):
                image = adjust[field](image, drawn[field])
        return image


@dataclass(frozen=True)
class Noise:
    """Adds Gaussian noise of this standard deviation, in units of 0..255, to every value; rounds and clips."""

    std: float

    def __post_init__(self):
        check_range(self, "std", (self.std, self.std), 0, math.inf)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noise = rng.standard_normal(image.shape, np.float32)
        noise *= np.float32(self.std)
        noise += image
        np.rint(noise, noise)
        return np.clip(noise, 0, 255, noise).astype(np.uint8)
