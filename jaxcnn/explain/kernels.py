"""What single operations do to a photo: classic kernels, and max, min and average pooling (S26 of docs/courses.md)."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn.errors import UserError
from jaxcnn.models.layers import avg_pool, max_pool

# 3x3, written as they are laid over the image (cross-correlation, as in every convolutional layer).
KERNELS: dict[str, tuple[tuple[int, ...], ...]] = {
    "sharpen": ((0, -1, 0), (-1, 5, -1), (0, -1, 0)),
    "emboss": ((-2, -1, 0), (-1, 1, 1), (0, 1, 2)),
    "horizontal line": ((-1, -1, -1), (2, 2, 2), (-1, -1, -1)),
    "vertical line": ((-1, 2, -1), (-1, 2, -1), (-1, 2, -1)),
}


def apply_kernel(image: np.ndarray, kernel: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """The response of every channel to a kernel, uint8 [H, W, C]: cut off at 0 and 255, borders repeated outwards."""
    weights = jnp.asarray(kernel, jnp.float32)[..., None, None]
    height, width = weights.shape[:2]
    sides = [(height // 2, (height - 1) // 2), (width // 2, (width - 1) // 2)]
    padded = jnp.pad(image.astype(np.float32), [*sides, (0, 0)], "edge")
    channels = jnp.moveaxis(padded, -1, 0)[..., None]
    out = lax.conv_general_dilated(channels, weights, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return np.asarray(jnp.moveaxis(out[..., 0], 0, -1).clip(0, 255).round().astype(jnp.uint8))


def poolings(image: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """{"max": ..., "average": ..., "min": ...}: windows of size x size that do not overlap, uint8 [H // size, ...].

    Raises:
      UserError: a window is larger than the image.
    """
    if not 1 <= size <= min(image.shape[:2]):
        raise UserError(f"pooling windows of {size} do not fit an image of {image.shape[0]}x{image.shape[1]}")
    x = jnp.asarray(image[None], jnp.float32)
    pooled = {
        "max": max_pool(x, size, stride=size),
        "average": avg_pool(x, size, stride=size),
        "min": -max_pool(-x, size, stride=size),
    }
    return {name: np.asarray(y[0].round().astype(jnp.uint8)) for name, y in pooled.items()}
