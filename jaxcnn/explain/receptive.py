"""Receptive fields on an image: what a position can see (counted), and how much of it counts (measured).

The effective receptive field is the gradient of a position with respect to the image (Luo et al. 2016).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn.explain.filters import feature_maps
from jaxcnn.summary.summary import Endpoint, summarize

SHARE = 1 - 0.9545
"""A pixel is in the effective field if its gradient is at least this share of the largest (Luo et al., section 3.1:
within two standard deviations of a Gaussian)."""


@dataclasses.dataclass(frozen=True)
class Field:
    """The receptive field of one position of an endpoint."""

    position: tuple[int, int]
    """(row, column) in the map."""
    size: tuple[float, float]
    """(height, width) in pixels, were the image large enough; inf where it is the whole image at any size."""
    box: tuple[int, int, int, int]
    """The part of it that lies in the image: (left, top, right, bottom)."""
    heat: np.ndarray
    """[H, W] float32: the absolute gradient of the position's mean over channels, summed over the image's channels."""

    @property
    def effective(self) -> int:
        """Pixels of the effective field: those with at least SHARE of the largest gradient; 0 where all are 0."""
        return int((self.heat >= SHARE * self.heat.max()).sum()) if self.heat.max() > 0 else 0

    @property
    def area(self) -> int:
        """Pixels in `box`."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


def receptive_field(
    model: nn.Module, variables: Any, image: jax.Array, endpoint: str, position: tuple[int, int] | None = None
) -> Field:
    """The field of a position, default the middle one; `image` is normalised, [H, W, C].

    Raises:
      UserError: the model has no such endpoint.
    """

    def mean_of(image: jax.Array, row: int, column: int) -> jax.Array:
        return feature_maps(model, variables, image[None], endpoint)[0, row, column].astype(jnp.float32).mean()

    height, width, _ = jax.eval_shape(
        lambda image: feature_maps(model, variables, image[None], endpoint)[0], image
    ).shape
    row, column = position or (height // 2, width // 2)
    gradient = jax.jit(jax.grad(mean_of))(image, row, column)
    rows, columns, channels = image.shape
    end = summarize(model, (rows, columns, channels)).endpoints[endpoint]
    heat = np.asarray(jnp.abs(gradient.astype(jnp.float32)).sum(-1))
    return Field((row, column), end.receptive_field, seen(end, (row, column), (rows, columns)), heat)


def seen(end: Endpoint, position: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """What a position of an endpoint can see of an image of `size` (height, width): (left, top, right, bottom)."""
    (top, bottom), (left, right) = (
        _edges(first + index * stride, field, length)
        for first, index, stride, field, length in zip(
            end.first, position, end.stride, end.receptive_field, size, strict=True
        )
    )
    return left, top, right, bottom


def _edges(middle: float, size: float, length: int) -> tuple[int, int]:
    """First and last (exclusive) pixel of a field of `size` pixels around `middle`, cut off at the image's borders."""
    if size == np.inf:
        return 0, length
    first = round(middle - (size - 1) / 2)
    return max(first, 0), min(first + int(size), length)
