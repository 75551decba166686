"""Policies: augmentation that draws operations and magnitudes: RandAugment, TrivialAugment, AutoAugment, AugMix.

Each is for labels of whole images: masks, boxes and points would not move with the image, and are refused. The spaces
are torchvision's, which differ from the papers' code in details that its documentation names.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from jaxcnn.data.arguments import check_levels, check_number
from jaxcnn.data.auto_augment import SUBPOLICIES
from jaxcnn.data.operations import SIGNED, Fill, Sampling, operate
from jaxcnn.errors import UserError, did_you_mean

Magnitudes = dict[str, np.ndarray]
"""{operation: its magnitude by level}; of one without a magnitude, zeros."""
ENHANCING = ("Brightness", "Color", "Contrast", "Sharpness")
WITHOUT = ("Identity", "AutoContrast", "Equalize", "Invert")


def magnitudes(
    levels: int, shear: float, translate: tuple[float, float], rotate: float, enhance: float, bits: float
) -> Magnitudes:
    """Evenly from the weakest to the strongest.

    Args:
      levels: how many.
      shear: the largest tangent.
      translate: the most pixels (rows, columns).
      rotate: the most degrees.
      enhance: the most that is added to a factor.
      bits: the most that Posterize takes away from eight.
    """
    ramp = np.arange(levels) / (levels - 1)
    return {
        **dict.fromkeys(WITHOUT, np.zeros(levels)),
        **dict.fromkeys(("ShearX", "ShearY"), shear * ramp),
        "TranslateX": translate[1] * ramp,
        "TranslateY": translate[0] * ramp,
        "Rotate": rotate * ramp,
        **dict.fromkeys(ENHANCING, enhance * ramp),
        "Posterize": 8 - np.round(bits * ramp),
        "Solarize": 255 * (1 - ramp),
    }


@dataclass(frozen=True)
class RandAugment:
    """`number` operations in a row, each drawn at random from 14, all at one level (Cubuk et al. 2020).

    The level is of 31, from 0: 9 is torchvision's default. A magnitude M on the paper's scale of 10 is level 3 M.
    """

    image_alone: ClassVar[bool] = True
    number: int = 2
    level: int = 9
    method: Sampling = "nearest"
    fill: Fill = 0

    def __post_init__(self):
        _check(self)
        check_number(self, "number", 0, 100, whole=True)
        check_number(self, "level", 0, LEVELS - 1, whole=True)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        space = of_rand_augment(image.shape)
        for _ in range(self.number):
            name = RAND_AUGMENT[rng.integers(len(RAND_AUGMENT))]
            image = operate(image, name, _signed(name, space[name][self.level], rng), self.method, self.fill)
        return image


@dataclass(frozen=True)
class TrivialAugment:
    """One operation of 14 at a level of 31, both drawn at random, in the wide space (Mueller & Hutter 2021)."""

    image_alone: ClassVar[bool] = True
    method: Sampling = "nearest"
    fill: Fill = 0

    def __post_init__(self):
        _check(self)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        name = RAND_AUGMENT[rng.integers(len(RAND_AUGMENT))]
        magnitude = WIDE[name][rng.integers(LEVELS)]
        return operate(image, name, _signed(name, magnitude, rng), self.method, self.fill)


Learned = Literal["imagenet", "cifar10", "svhn"]


@dataclass(frozen=True)
class AutoAugment:
    """One of 25 pairs of operations that were learned, each with its own probability and level (Cubuk et al. 2019)."""

    image_alone: ClassVar[bool] = True
    policy: Learned = "imagenet"
    """The set on which it was learned: appendix A, tables 7 to 9."""
    method: Sampling = "nearest"
    fill: Fill = 0

    def __post_init__(self):
        _check(self)
        known = get_args(Learned)
        if self.policy not in known:
            raise UserError(f"{self}: policy is one of {', '.join(known)}{did_you_mean(str(self.policy), known)}")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        space = of_auto_augment(image.shape)
        pairs = SUBPOLICIES[self.policy]
        for name, probability, level in pairs[rng.integers(len(pairs))]:
            if rng.random() < probability:
                image = operate(image, name, _signed(name, space[name][level], rng), self.method, self.fill)
        return image


@dataclass(frozen=True)
class AugMix:
    """A mixture of the image and of `width` chains of one to three operations (Hendrycks et al. 2020).

    Departure: the paper adds a consistency loss of three views, which this is without, as torchvision's.
    """

    image_alone: ClassVar[bool] = True
    severity: int = 3
    """The strongest level that is drawn, of 10."""
    width: int = 3
    depth: int = 0
    """Operations of a chain; 0 draws one to three."""
    alpha: float = 1.0
    """Of the Dirichlet and Beta distributions of the shares."""
    method: Sampling = "bilinear"
    fill: Fill = 0

    def __post_init__(self):
        _check(self)
        check_number(self, "severity", 1, 10, whole=True)
        check_number(self, "width", 1, 100, whole=True)
        check_number(self, "depth", 0, 100, whole=True)
        check_number(self, "alpha", 0, 1e6, open_low=True)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        space = of_aug_mix(image.shape)
        own = rng.beta(self.alpha, self.alpha)
        shares = (1 - own) * rng.dirichlet([self.alpha] * self.width)
        mixture = own * image.astype(np.float32)
        for share in shares:
            chained = image
            for _ in range(self.depth or int(rng.integers(1, 4))):
                name = AUG_MIX[rng.integers(len(AUG_MIX))]
                magnitude = space[name][rng.integers(self.severity)]
                chained = operate(chained, name, _signed(name, magnitude, rng), self.method, self.fill)
            mixture += np.float32(share) * chained
        return np.clip(mixture, 0, 255).astype(np.uint8)


RAND_AUGMENT = tuple(name for name in magnitudes(2, 0, (0, 0), 0, 0, 0) if name != "Invert")
AUG_MIX = tuple(name for name in RAND_AUGMENT if name != "Identity")
LEVELS = 31
WIDE = magnitudes(LEVELS, 0.99, (32, 32), 135, 0.99, 6)


def of_rand_augment(shape: tuple[int, ...]) -> Magnitudes:
    return magnitudes(LEVELS, 0.3, _part(shape, 150 / 331), 30, 0.9, 4)


def of_auto_augment(shape: tuple[int, ...]) -> Magnitudes:
    return magnitudes(10, 0.3, _part(shape, 150 / 331), 30, 0.9, 4)


def of_aug_mix(shape: tuple[int, ...]) -> Magnitudes:
    space = magnitudes(10, 0.3, _part(shape, 1 / 3), 30, 0.9, 4)
    return space | {"Posterize": space["Posterize"] - 4}  # four bits at most


def _part(shape: tuple[int, ...], share: float) -> tuple[float, float]:
    return share * shape[0], share * shape[1]


def _signed(name: str, magnitude: float, rng: np.random.Generator) -> float:
    return -float(magnitude) if name in SIGNED and rng.random() < 0.5 else float(magnitude)


def _check(policy) -> None:
    check_levels(policy, "fill", policy.fill)
    methods = get_args(Sampling)
    if policy.method not in methods:
        raise UserError(f"{policy}: method is one of {', '.join(methods)}{did_you_mean(policy.method, methods)}")
