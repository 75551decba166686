"""Bilinear upsampling of maps to positions that lie where they should: grids, fixed weights, and kernels to learn from.

A map's positions lie on a grid in the image; upsampling asks for its values on another grid. The transposed convolution
with a bilinear kernel and the crop behind it, as FCN has them (Long et al. 2015, section 3.3), are that: a position
has a weight that falls linearly to 0 at its neighbours. So is the resizing of PyTorch with align_corners=False.
"""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import UserError

Border = Literal["zeros", "repeat"]
"""What lies around a map: nothing, as behind a transposed convolution, or its outermost values."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Positions along one side of the image: first, first + stride, ..., in pixels; 0 is the middle of the first one.

    Example: Grid(15.5, 32, 7) are the positions of VGG's last map on 224 pixels.
    """

    first: float
    stride: float
    size: int

    @property
    def positions(self) -> np.ndarray:
        """[size] float64."""
        return self.first + self.stride * np.arange(self.size)


def pixels(size: int) -> Grid:
    """The grid of an image's own pixels."""
    return Grid(0, 1, size)


def stretched(size: int, image: int) -> Grid:
    """A map whose positions divide a side of `image` pixels into equal parts (align_corners=False in PyTorch)."""
    stride = image / size
    return Grid((stride - 1) / 2, stride, size)


def covered(source: Grid, target: Grid) -> slice:
    """The positions of `target` that have a neighbour in `source` less than its stride away; one range, maybe empty."""
    end = source.first + source.stride * (source.size - 1)
    positions = target.positions
    inside = np.flatnonzero((positions > source.first - source.stride) & (positions < end + source.stride))
    return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)


def part(grid: Grid, where: slice) -> Grid:
    """The grid of these positions."""
    return Grid(grid.first + grid.stride * where.start, grid.stride, where.stop - where.start)


def bilinear_weights(source: Grid, target: Grid, border: Border) -> np.ndarray:
    """[target.size, source.size] float64: the weight of every source position in every target position."""
    positions = target.positions
    if border == "repeat":
        positions = np.clip(positions, source.first, source.positions[-1])
    return np.maximum(0, 1 - np.abs(positions[:, None] - source.positions) / source.stride)


def upsample(x: jax.Array, source: tuple[Grid, Grid], target: tuple[Grid, Grid], border: Border) -> jax.Array:
    """[B, h, w, C] on the source grids (rows, columns) -> [B, H, W, C] on the target grids, bilinear, float32 at least.

    Two products with fixed matrices, rows before columns: nothing is computed that a crop would throw away.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    for axis, old, new in zip((1, 2), source, target, strict=True):
        weights = bilinear_weights(old, new, border).astype(x.dtype)
        x = jnp.moveaxis(jnp.tensordot(x, weights, ((axis,), (1,)), precision="highest"), -1, axis)
    return x


def bilinear_kernel(size: int) -> np.ndarray:
    """[size, size] float32: the kernel of a transposed convolution that upsamples by (size + 1) // 2.

    Caffe's "bilinear" filler, and that of FCN's surgery.py. An even kernel puts positions between those of its input,
    an odd one puts every second, third, ... upon them.
    """
    factor = (size + 1) // 2
    side = 1 - np.abs(np.arange(size) - (size - 1) / 2) / factor
    return np.outer(side, side).astype(np.float32)


def kernel_size(source: Grid, target: Grid) -> int:
    """The side of the bilinear kernel whose transposed convolution puts `source` on positions of `target`.

    Raises:
      UserError: no whole factor lies between the strides, or no kernel meets the positions.
    """
    factor = source.stride / target.stride
    offset = (target.first - source.first) / target.stride
    if factor % 1 or offset % 0.5:
        raise UserError(
            f"no transposed convolution leads from positions {source.first:g} + {source.stride:g} i to "
            f"{target.first:g} + {target.stride:g} i pixels; upsampling='fixed' takes any"
        )
    return int(2 * factor) - (0 if offset % 1 else 1)


def transposed_conv(
    x: jax.Array, kernel: jax.Array, source: tuple[Grid, Grid], target: tuple[Grid, Grid], border: Border
) -> jax.Array:
    """`upsample` with a given kernel, [k, k, C, C'] or one per channel [k, k, 1, C], of the side `kernel_size`.

    The transposed convolution of the whole map, and its crop to the target. With "repeat" the map is widened by its
    outermost values as far as the target goes.
    """
    side = kernel.shape[0]
    factor = (side + 1) // 2
    if border == "repeat":
        widths = [
            (
                max(0, math.ceil((old.first - new.first) / old.stride)),
                max(0, math.ceil((new.positions[-1] - old.positions[-1]) / old.stride)),
            )
            for old, new in zip(source, target, strict=True)
        ]
        x = jnp.pad(x, [(0, 0), *widths, (0, 0)], mode="edge")
        rows, columns = (
            Grid(old.first - old.stride * before, old.stride, old.size + before + after)
            for old, (before, after) in zip(source, widths, strict=True)
        )
        source = (rows, columns)
    padding = []  # what the crop takes away is padding of less than nothing
    for old, new in zip(source, target, strict=True):
        before = side - 1 - round((new.first - old.first) / new.stride + (side - 1) / 2)
        padding.append((before, new.size - 2 + side - (old.size - 1) * factor - before))
    return jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (1, 1),
        padding,
        lhs_dilation=(factor, factor),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )
