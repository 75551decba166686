"""Crops: what is cut out by their numbers is what the transforms make, to the bit, with the same draws."""

from typing import Any

import numpy as np
import pytest

from jaxcnn.data.colors import ColorJitter
from jaxcnn.data.crops import crops_of
from jaxcnn.data.draws import Draws
from jaxcnn.data.fields import LABEL, Field, with_image
from jaxcnn.data.transforms import (
    HorizontalFlip,
    Pad,
    PadAndCrop,
    RandomCrop,
    Resize,
    Rotate,
    VerticalFlip,
)

FIRST, COUNT, KEY = 1000, 40, 7
LISTS: Any = ([1, 2], [11, 5], [1, 2, 3])  # which are not hashable
MIRRORS = (HorizontalFlip(), VerticalFlip(0.3))
CASES = [
    ((PadAndCrop(2), HorizontalFlip()), (9, 7, 3), (9, 7)),
    ((*MIRRORS, PadAndCrop((3, 1), value=9)), (9, 7, 1), (9, 7)),
    ((PadAndCrop(*LISTS),), (9, 7, 3), (11, 5)),
    ((HorizontalFlip(), PadAndCrop(4, size=(12, 5), value=(1, 2, 3)), *MIRRORS), (9, 7, 3), (12, 5)),
    ((VerticalFlip(), RandomCrop((4, 6)), HorizontalFlip(1.0)), (9, 7, 3), (4, 6)),
    ((RandomCrop(5),), (5, 5, 1), (5, 5)),
    ((HorizontalFlip(), HorizontalFlip(), VerticalFlip(0.0)), (5, 8, 3), (5, 8)),
]


def fields(size, channels, **others):
    return with_image((*size, channels), LABEL | others)


@pytest.mark.parametrize("transforms, shape, size", CASES, ids=str)
def test_what_is_cut_out_is_what_the_transforms_make(transforms, shape, size):
    images = np.random.default_rng(0).integers(1, 256, (COUNT, *shape), np.uint8)
    draws, expected = Draws(KEY), []
    for place, image in enumerate(images, FIRST):
        rng = draws.at(place)
        for transform in transforms:
            image = transform(image, rng)
        expected.append(image)
    crops = crops_of(transforms, shape, fields(size, shape[2]))
    assert crops is not None
    drawn = crops.draw(KEY, FIRST, COUNT)
    assert drawn.shape == (COUNT, 4) and drawn.dtype == np.int32
    for padded, (top, left, across, along), image in zip(crops.padded(images), drawn, expected, strict=True):
        assert 0 <= top <= padded.shape[0] - size[0] and 0 <= left <= padded.shape[1] - size[1]
        cut = padded[top : top + size[0], left : left + size[1]]
        np.testing.assert_array_equal(cut[:: 1 - 2 * across, :: 1 - 2 * along], image)
    assert len(np.unique(drawn, axis=0)) > 1 or transforms == (RandomCrop(5),)  # of which there is one


class Own(HorizontalFlip):
    def draw(self, shape, rng):
        return super().draw(shape, rng)._replace(angle=3.0)


@pytest.mark.parametrize(
    "transforms",
    [
        (),
        (Own(),),
        (HorizontalFlip(), Rotate(5.0)),
        (Resize((9, 9)), HorizontalFlip()),
        (Pad(2), RandomCrop(9)),
        (RandomCrop(8), PadAndCrop(1, size=9)),  # a margin around what the first one cut out, not around the image
        (ColorJitter(0.1),),
        (RandomCrop(8),),  # whose size is not the batch's
    ],
    ids=str,
)
def test_what_does_more_is_no_crop(transforms):
    assert crops_of(transforms, (9, 9, 3), fields((9, 9), 3)) is None


@pytest.mark.parametrize("name", ["mask", "boxes", "points"])
def test_what_lies_in_the_image_would_have_to_move_with_it(name):
    flips = (HorizontalFlip(),)
    assert crops_of(flips, (9, 9, 3), fields((9, 9), 3, attributes=Field((5,), "float32"))) is not None
    assert crops_of(flips, (9, 9, 3), fields((9, 9), 3, **{name: Field((9, 9), "float32")})) is None
