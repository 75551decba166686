"""Crops: windows and mirrorings drawn for a whole batch, as numbers, so that its images can stay where they are: a
device that holds a split cuts them out itself.
"""

import dataclasses
from typing import cast

import numpy as np

from jaxcnn.data.arguments import levels, pair
from jaxcnn.data.draws import Draws
from jaxcnn.data.fields import Fields
from jaxcnn.data.geometry import MOVED
from jaxcnn.data.transforms import Geometric, HorizontalFlip, PadAndCrop, RandomCrop, Transform, VerticalFlip


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

    def draw(self, draws: Draws, first: int, count: int) -> np.ndarray:
        """Of the places [first, first + count) of a stream, int32 [count, 4]: the row and the column where the window
        begins in the padded image, and whether it is mirrored then, top and bottom, left and right, 0 or 1.

        The numbers that are drawn are those that the transforms draw when they are called.
        """
        return np.array([self._draw(draws.at(place)) for place in range(first, first + count)], np.int32)

    def _draw(self, rng: np.random.Generator) -> tuple[int, int, int, int]:
        top = left = across = along = 0
        shape = self.shape
        for transform in self.transforms:
            geometry = transform.draw(shape, rng)
            if geometry.window is not None:
                top, left, height, width = geometry.window
                # A window of a mirrored image is the mirrored window at the opposite edge of the image.
                top = shape[0] - top - height if across else top
                left = shape[1] - left - width if along else left
                shape = (height, width, shape[2])
            elif geometry.mirror == 0:
                across ^= 1
            elif geometry.mirror == 1:
                along ^= 1
        return top + self.margin[0], left + self.margin[1], across, along


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
