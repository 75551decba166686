"""Mixing: training images that are made of two, with labels in the same shares. It happens on the device, in the step.

Each image is mixed with the one before it in its batch, which the order of the epoch makes a random one, as torchvision
does; the share is drawn for each image apart, so that neither the number of devices nor a resume changes it.
"""

import dataclasses
import math
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxcnn.errors import UserError


@runtime_checkable
class Mixing(Protocol):
    """A frozen dataclass: images [B, H, W, C] and a key -> the mixed images, and each image's share [B] of its own
    mixture; the rest is of the image before it."""

    def __call__(self, images: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]: ...


@dataclasses.dataclass(frozen=True)
class Mixup:
    """A weighted mean of two images (Zhang et al. 2018, equation 1), by a share from Beta(alpha, alpha)."""

    alpha: float = 0.2
    """0.2 and 0.4 in the paper on ImageNet (section 3.1), 1.0 on CIFAR-10 (section 3.2)."""

    def __post_init__(self):
        _check(self)

    def __call__(self, images: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images [B, H, W, C] -> the same, mixed, and shares [B]."""
        share = _shares(key, len(images), self.alpha)
        weight = share.astype(images.dtype)[:, None, None, None]
        return weight * images + (1 - weight) * jnp.roll(images, 1, axis=0), share


@dataclasses.dataclass(frozen=True)
class CutMix:
    """A box of the other image in the place of the own (Yun et al. 2019, equations 1 and 2).

    Its middle is anywhere and its area is 1 - Beta(alpha, alpha) of the image; what is cut off at the edge counts for
    the label too.
    """

    alpha: float = 1.0

    def __post_init__(self):
        _check(self)

    def __call__(self, images: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images [B, H, W, C] -> the same, mixed, and shares [B]."""
        batch, height, width, _ = images.shape
        for_share, for_row, for_column = jax.random.split(key, 3)
        half = 0.5 * jnp.sqrt(1 - _shares(for_share, batch, self.alpha))
        rows, tall = _span(jax.random.randint(for_row, (batch,), 0, height), half, height)
        columns, wide = _span(jax.random.randint(for_column, (batch,), 0, width), half, width)
        inside = (rows[:, :, None] & columns[:, None, :])[..., None]
        return jnp.where(inside, jnp.roll(images, 1, axis=0), images), 1 - tall * wide / (height * width)


def mixed(
    choices: tuple[Mixing, ...], images: jax.Array, labels: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Images [B, H, W, C], each mixed by one of `choices` at random; the other label and the own one's share, [B]."""
    keys = jax.random.split(key, len(choices) + 1)
    chosen = jax.random.randint(keys[-1], (len(images),), 0, len(choices))
    result, shares = choices[0](images, keys[0])
    for number, mixing in enumerate(choices[1:], 1):
        other, other_shares = mixing(images, keys[number])
        result = jnp.where((chosen == number)[:, None, None, None], other, result)
        shares = jnp.where(chosen == number, other_shares, shares)
    return result, jnp.roll(labels, 1, axis=0), shares


def _span(middle: jax.Array, half: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Which of `size` pixels [B, size] lie within whole pixels of a middle [B], and how many [B], float32."""
    reach = jnp.floor(half * size).astype(jnp.int32)
    first, last = jnp.maximum(middle - reach, 0), jnp.minimum(middle + reach, size)
    places = jnp.arange(size)
    return (places >= first[:, None]) & (places < last[:, None]), (last - first).astype(jnp.float32)


def _shares(key: jax.Array, count: int, alpha: float) -> jax.Array:
    return jax.random.beta(key, alpha, alpha, (count,), jnp.float32)


def _check(mixing: Mixup | CutMix) -> None:
    if not 0 < mixing.alpha < math.inf:
        raise UserError(f"{type(mixing).__name__}.alpha is {mixing.alpha}; it must be positive, and finite")
