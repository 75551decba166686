"""Transforms of an image's colors and levels: they see the image alone, and move no pixel."""

import math
from dataclasses import dataclass

import numpy as np

from jaxcnn.data.arguments import check_levels, check_number, check_range, levels
from jaxcnn.data.images import brightness, contrast, hue, saturation
from jaxcnn.errors import UserError


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


@dataclass(frozen=True)
class PCANoise:
    """Shifts the color of the whole image along the axes in which colors vary (AlexNet, section 4.1).

    Added to every pixel is [p1, p2, p3][a1 v1, a2 v2, a3 v3]^T, with p and v the eigenvectors and eigenvalues of the
    covariance of colors and a drawn anew for each image from N(0, std). The paper does not print them: the defaults are
    those of fb.resnet.torch for ImageNet, times 255.
    """

    std: float = 0.1
    values: tuple[float, float, float] = (55.4625, 4.7940, 1.1475)
    """Of levels in 0..255."""
    vectors: tuple[tuple[float, float, float], ...] = (
        (-0.5675, 0.7192, 0.4009),
        (-0.5808, -0.0045, -0.8140),
        (-0.5836, -0.6948, 0.4203),
    )
    """A row for each of red, green and blue."""

    def __post_init__(self):
        check_number(self, "std", 0, 1e6)
        if np.shape(self.values) != (3,) or np.shape(self.vectors) != (3, 3):
            raise UserError("PCANoise: values are three numbers, and vectors three rows of three")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if image.shape[-1] != 3:
            raise UserError(f"{self}: the image has {image.shape[-1]} channels; colors have three")
        shift = np.array(self.vectors) @ (rng.normal(0.0, self.std, 3) * self.values)
        return np.clip(np.rint(image + shift), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class RandomErasing:
    """Overwrites a rectangle of the image (Zhong et al. 2020, algorithm 1; Cutout, DeVries & Taylor 2017).

    Area and ratio are drawn as torchvision draws them; after ten draws that do not fit the image stays as it is. Masks
    and boxes keep what was there: an object may be hidden.
    """

    probability: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    """Of the image's area."""
    ratio: tuple[float, float] = (0.3, 3.3)
    """Height to width."""
    value: int | tuple[int, ...] | None = None
    """The level, or one per channel; None: random levels, a pixel at a time, which the paper found the best."""

    def __post_init__(self):
        check_number(self, "probability", 0, 1)
        check_range(self, "scale", self.scale, 0, 1)
        check_range(self, "ratio", self.ratio, 0, 1e6, open_low=True)
        if self.value is not None:
            check_levels(self, "value", self.value)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.probability:
            return image
        height, width = image.shape[:2]
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if rows < height and columns < width:
                top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
                erased = image.copy()
                part = erased[top : top + rows, left : left + columns]
                if self.value is None:
                    part[:] = rng.integers(0, 256, part.shape, np.uint8)
                else:
                    part[:] = levels(self, "value", self.value, image.shape)
                return erased
        return image
