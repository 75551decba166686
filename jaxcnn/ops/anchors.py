"""Anchors: boxes of several sizes and shapes around every position of a feature map (Ren et al. 2015, section 3.1.1).

A cell is the boxes of one position, a NumPy table; `grid` puts it on all positions of a map. Two tables are in use,
which differ by the rounding: that of the paper's released code, and torchvision's.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def faster_rcnn_cell(
    scales: Sequence[float] = (8, 16, 32), ratios: Sequence[float] = (0.5, 1, 2), base: int = 16
) -> np.ndarray:
    """[ratios * scales, 4] float32: the table of the paper's released code, ratio by ratio (py-faster-rcnn,
    generate_anchors.py).

    The box of `base` pixels is given every ratio, its sides rounded to whole pixels, and then enlarged by every scale.
    Edges, as all boxes here: the first row is (-84, -40, 100, 56). The released code names the last pixel instead of
    the edge behind it, (-84, -40, 99, 55), and the MATLAB code that the comment in its file quotes counts pixels from
    1: (-83, -39, 100, 56). All three are the same 184 by 96 pixels.

    Args:
      scales: factors of the base; the paper's areas of 128^2, 256^2 and 512^2 are 8, 16 and 32 times 16.
      ratios: height / width.
      base: the stride of the map in pixels, 16 for VGG-16's conv5_3.
    """
    widths = np.round(np.sqrt(base * base / np.asarray(ratios, np.float64)))
    heights = np.round(widths * np.asarray(ratios, np.float64))
    sides = np.stack([widths, heights], -1)[:, None] * np.asarray(scales, np.float64)[None, :, None]
    center, half = base / 2, sides.reshape(-1, 2) / 2
    return np.concatenate([center - half, center + half], -1).astype(np.float32)


def cell(sizes: Sequence[float], ratios: Sequence[float] = (0.5, 1, 2), rounded: bool = True) -> np.ndarray:
    """[ratios * sizes, 4] float32: torchvision's table, ratio by ratio, around (0, 0) (AnchorGenerator).

    Args:
      sizes: square roots of areas, in pixels.
      ratios: height / width.
      rounded: to whole pixels, as torchvision does; detectron2 does not.

    Example: cell((128, 256, 512))[0] is (-91, -45, 91, 45).
    """
    heights = np.sqrt(np.asarray(ratios, np.float32))
    sides = np.stack([1 / heights, heights], -1)[:, None] * np.asarray(sizes, np.float32)[None, :, None]
    half = sides.reshape(-1, 2) / 2
    boxes = np.concatenate([-half, half], -1)
    return np.round(boxes) if rounded else boxes


def grid(cell: np.ndarray, shape: tuple[int, int], stride: tuple[float, float], offset: float = 0.0) -> jax.Array:
    """[rows * columns * A, 4] float32: the cell [A, 4] at every position of a map, row by row, anchors fastest.

    Args:
      cell: boxes around position 0.
      shape: (rows, columns) of the map.
      stride: pixels from one position to the next, (down, across).
      offset: of the first position, in strides: 0 in py-faster-rcnn, torchvision and by default in detectron2; 0.5
        puts the anchors on the centers of their patches.

    Example: grid(faster_rcnn_cell(), (38, 50), (16, 16)) are the 17,100 anchors of a photo of 608 x 800 pixels.
    """
    down, across = ((jnp.arange(n, dtype=jnp.float32) + offset) * step for n, step in zip(shape, stride, strict=True))
    y, x = jnp.meshgrid(down, across, indexing="ij")
    shifts = jnp.stack([x, y, x, y], -1)[:, :, None]
    return (shifts + jnp.asarray(cell, jnp.float32)).reshape(-1, 4)


def pyramid(
    cells: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]], strides: Sequence[tuple[float, float]]
) -> jax.Array:
    """The anchors of several maps one after the other, [all of them, 4]: a cell, a shape and a stride each."""
    return jnp.concatenate([grid(*each) for each in zip(cells, shapes, strides, strict=True)])
