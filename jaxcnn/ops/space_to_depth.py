"""Strided convolutions of few channels, such as a net's first, as unstrided ones of blocks: space to depth.

A GPU's matrix units take eight channels at a time. Of an image's three, cuDNN pads them in a pass of its own and runs
an old kernel. With stride s, blocks of s x s pixels as channels, and the kernel's taps likewise, the same sums are a
convolution of stride 1 with s * s times the channels: 12 of an image at stride 2. (MLPerf's ResNet-50 on TPUs, Ying et
al. 2018, section 2.3.) ResNet-50's 7x7 on one H200, forward 644 us for 1,726 and gradient of the weights 430 for 1,061.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

UNIT = 8
"""Channels that matrix units take at a time in bfloat16."""


def is_worth_it(channels: int, size: Sequence[int], strides: Sequence[int], padding: Sequence[tuple[int, int]]) -> bool:
    """Whether the form multiplies no more often than the convolution itself with its channels padded to a unit.

    True of 7x7 stride 2, 3x3 stride 2 and 11x11 stride 4 over three channels.
    """
    fits = all(s <= k and min(around) >= 0 for k, s, around in zip(size, strides, padding, strict=True))
    if max(strides) == 1 or channels * 2 > UNIT or not fits:
        return False
    block = strides[0] * strides[1] * channels
    taps = [_blocks(k, s, around[0]) for k, s, around in zip(size, strides, padding, strict=True)]
    return taps[0] * taps[1] * block <= size[0] * size[1] * UNIT


def convolve_blocks(
    images: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[tuple[int, int]], precision: object
) -> jax.Array:
    """The convolution [B, H, W, C], [h, w, C, O] -> [B, H', W', O] with these strides and zeros around.

    Equal up to rounding: the products are the same, and zeros that are added to them.

    Example: convolve_blocks(images, kernel, (2, 2), ((3, 3), (3, 3)), None)
    """
    batch, *sides, channels = images.shape
    size, filters = kernel.shape[:2], kernel.shape[-1]
    before, behind, around, blocks, taps = [], [], [], [], []
    for side, k, s, (low, high) in zip(sides, size, strides, padding, strict=True):
        # Whole blocks of zeros before the image, and what is too many of them as zeros before the kernel.
        ahead = -(-low // s)
        before.append(ahead * s - low)
        taps.append(_blocks(k, s, low))
        behind.append(taps[-1] * s - before[-1] - k)
        blocks.append(-(-side // s))
        out = (side + low + high - k) // s + 1
        around.append((ahead, out + taps[-1] - 1 - ahead - blocks[-1]))
    fill = [(0, count * s - side) for count, s, side in zip(blocks, strides, sides, strict=True)]
    images = jnp.pad(images, ((0, 0), *fill, (0, 0))) if any(map(any, fill)) else images
    kernel = jnp.pad(kernel, (*zip(before, behind, strict=True), (0, 0), (0, 0)))
    depth = strides[0] * strides[1] * channels
    images = images.reshape(batch, blocks[0], strides[0], blocks[1], strides[1], channels)
    images = images.transpose(0, 1, 3, 2, 4, 5).reshape(batch, *blocks, depth)
    kernel = kernel.reshape(taps[0], strides[0], taps[1], strides[1], channels, filters)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(*taps, depth, filters)
    return lax.conv_general_dilated(
        images,
        kernel,
        (1, 1),
        around,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,  # pyright: ignore[reportArgumentType]
    )


def _blocks(size: int, stride: int, low: int) -> int:
    """How many blocks a kernel reaches over along a side that has `low` zeros before it."""
    return -(-(size + -low % stride) // stride)
