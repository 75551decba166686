"""Crops: windows and mirrorings drawn for a whole batch, as numbers, so that its images can stay where they are: a
device that holds a split cuts them out itself.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxcnn.data.arguments import levels, pair
from jaxcnn.data.draws import Draws
from jaxcnn.data.fields import Fields
from jaxcnn.data.geometry import MOVED
from jaxcnn.data.many_draws import ManyDraws, numpy_draws_so
from jaxcnn.data.transforms import HorizontalFlip, PadAndCrop, RandomCrop, Transform, VerticalFlip

BLOCK = 1024
"""Places that are drawn at once: of a few, calling NumPy takes most of the time."""


@dataclasses.dataclass(frozen=True)
class Crops:
    """What transforms do that cut one window of one size out of each image, which may reach into a margin around it,
    and mirror what they have (`crops_of`).
    """

    steps: tuple[tuple[int, float] | None, ...]
    """In order: the axis of a mirroring, 0 for top and bottom, 1 for left and right, and its probability; None for the
    window."""
    shape: tuple[int, int, int]
    """(height, width, channels) of the images."""
    size: tuple[int, int]
    """(height, width) of the windows."""
    margin: tuple[int, int] = (0, 0)
    """Pixels above and below, left and right."""
    value: int | tuple[int, ...] = 0
    """The level of the margin, one or one per channel."""

    def padded(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 [N, H, W, C] with their margin."""
        (rows, columns), (height, width, channels) = self.margin, self.shape
        out = np.empty((len(images), height + 2 * rows, width + 2 * columns, channels), np.uint8)
        out[:] = self.value
        out[:, rows : rows + height, columns : columns + width] = images
        return out

    def draw(self, key: int, first: int, count: int) -> np.ndarray:
        """Of the places [first, first + count) of a stream, int32 [count, 4]: the row and the column where the window
        begins in the padded image, and whether it is mirrored then, top and bottom, left and right, 0 or 1.

        The numbers that are drawn are those that the transforms draw when they are called.
        """
        blocks = range(first // BLOCK, -(-(first + count) // BLOCK))
        rows = np.concatenate([_block(self, key, block) for block in blocks])
        return rows[first % BLOCK :][:count]

    def of(self, rng: np.random.Generator | ManyDraws) -> tuple[Any, Any, Any, Any]:
        """A row of `draw`, by the generator of its place; or the columns, by those of many."""
        (rows, columns), (height, width) = self.margin, self.size
        room = self.shape[0] + 2 * rows - height, self.shape[1] + 2 * columns - width
        place: list[Any] = [0, 0]
        mirrored: list[Any] = [False, False]
        for step in self.steps:
            if step is None:  # of a mirrored image, the mirrored window at the opposite edge
                drawn = [rng.integers(each + 1) for each in room]
                place = [np.where(m, r - d, d) for m, r, d in zip(mirrored, room, drawn, strict=True)]
            else:
                axis, probability = step
                mirrored[axis] = mirrored[axis] ^ (rng.random() < probability)
        return *place, *mirrored


@functools.lru_cache(maxsize=64)
def _block(crops: Crops, key: int, block: int) -> np.ndarray:
    """`Crops.draw` of a block of places."""
    first = block * BLOCK
    many, draws = ManyDraws(key, first, BLOCK), Draws(key)
    rows = np.empty((BLOCK, 4), np.int32)
    for column, drawn in enumerate(crops.of(many)):
        rows[:, column] = drawn
    for row in np.flatnonzero(many.unlike).tolist() if numpy_draws_so() else range(BLOCK):
        rows[row] = crops.of(draws.at(first + row))
    return rows


def crops_of(transforms: tuple[Transform, ...], shape: tuple[int, int, int], fields: Fields) -> Crops | None:
    """What these transforms do to images of this shape; None if it is nothing, or more than one crop and flips, or done
    to more than the image.

    Example: crops_of((PadAndCrop(4), HorizontalFlip()), (32, 32, 3), with_image((32, 32, 3), LABEL)), CIFAR's.
    """
    steps: list[tuple[int, float] | None] = []
    size, margin, value = shape[:2], (0, 0), 0
    for transform in transforms:  # by their types, since a subclass may do something else
        if type(transform) is HorizontalFlip or type(transform) is VerticalFlip:
            steps.append((int(type(transform) is HorizontalFlip), transform.probability))
        elif None not in steps and (type(transform) is RandomCrop or type(transform) is PadAndCrop):
            steps.append(None)
            size = size if transform.size is None else pair(transform.size)
            if type(transform) is PadAndCrop:
                margin, value = pair(transform.padding), levels(transform, "value", transform.value, shape)
        else:
            return None
    if not steps or not MOVED.isdisjoint(fields) or fields["image"].shape != (*size, shape[2]):
        return None
    return Crops(tuple(steps), shape, size, margin, value if isinstance(value, int) else tuple(value))
