"""Crops: windows and mirrorings drawn for a whole batch, as numbers, so that its images can stay where they are: a
device that holds a split cuts them out itself.
"""

import dataclasses
import functools
from typing import Any, cast

import numpy as np

from jaxcnn.data.arguments import levels, pair
from jaxcnn.data.draws import Draws
from jaxcnn.data.fields import Fields
from jaxcnn.data.geometry import MOVED
from jaxcnn.data.many_draws import ManyDraws, numpy_draws_so
from jaxcnn.data.transforms import Geometric, HorizontalFlip, PadAndCrop, RandomCrop, Transform, VerticalFlip

BLOCK = 1024
"""Places that are drawn at once: of a few, calling NumPy takes most of the time."""


@dataclasses.dataclass(frozen=True)
class Crops:
    """Transforms that cut one window of one size out of each image, which may reach into a margin around it, and mirror
    what they have.

    Example: (PadAndCrop(4), HorizontalFlip()), the augmentation of CIFAR.
    """

    transforms: tuple[Geometric, ...]
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
        top: Any = 0
        left: Any = 0
        across: Any = False
        along: Any = False
        for transform in self.transforms:
            if isinstance(transform, HorizontalFlip):
                along = along ^ (rng.random() < transform.probability)
            elif isinstance(transform, VerticalFlip):
                across = across ^ (rng.random() < transform.probability)
            else:  # of a mirrored image, the mirrored window at the opposite edge
                top, left = rng.integers(room[0] + 1), rng.integers(room[1] + 1)
                top, left = np.where(across, room[0] - top, top), np.where(along, room[1] - left, left)
        return top, left, across, along


@functools.lru_cache(maxsize=64)
def _block(crops: Crops, key: int, block: int) -> np.ndarray:
    """`Crops.draw` of a block of places."""
    many, draws, first = ManyDraws(key, block * BLOCK, BLOCK), Draws(key), block * BLOCK
    rows = np.empty((BLOCK, 4), np.int32)
    for column, drawn in enumerate(crops.of(many)):
        rows[:, column] = drawn
    for row in np.flatnonzero(many.unlike).tolist() if numpy_draws_so() else range(BLOCK):
        rows[row] = crops.of(draws.at(first + row))
    return rows


def crops_of(transforms: tuple[Transform, ...], shape: tuple[int, int, int], fields: Fields) -> Crops | None:
    """These transforms of images of this shape as crops; None if they do nothing, more, or to more than the image."""
    # Of these types: a subclass may do something else.
    windows = [each for each in transforms if type(each) is RandomCrop or type(each) is PadAndCrop]
    mirrors = [each for each in transforms if type(each) is HorizontalFlip or type(each) is VerticalFlip]
    known = len(windows) + len(mirrors) == len(transforms)
    if not (transforms and known and len(windows) <= 1 and MOVED.isdisjoint(fields)):
        return None
    crops = Crops(cast(tuple[Geometric, ...], transforms), shape, shape[:2])
    for window in windows:
        if isinstance(window, PadAndCrop):
            value = levels(window, "value", window.value, shape)
            crops = dataclasses.replace(crops, margin=pair(window.padding), value=value)
        if window.size is not None:
            crops = dataclasses.replace(crops, size=pair(window.size))
    return crops if (*crops.size, shape[2]) == fields["image"].shape else None
