"""Fields: the arrays of a batch, by name, as the shape, type and filling of one example's part."""

import dataclasses
from typing import Literal

import numpy as np

Dtype = Literal["uint8", "int32", "float32", "bool"]


@dataclasses.dataclass(frozen=True)
class Field:
    """One array of a batch: `shape` is that of one example; what an example does not fill has the value `fill`.

    A part of an example that varies in length (the boxes of an image) is padded at its end to `shape`.

    Example: Field((224, 224), "uint8", fill=255) is a mask whose padding no loss counts.
    """

    shape: tuple[int, ...]
    dtype: Dtype
    fill: float = 0

    def empty(self, rows: int) -> np.ndarray:
        """[rows, *shape], filled with `fill`."""
        if not self.fill:
            return np.zeros((rows, *self.shape), self.dtype)  # memory that is not touched before it is written
        return np.full((rows, *self.shape), self.fill, self.dtype)


Fields = dict[str, Field]


def with_image(image_shape: tuple[int, int, int], fields: Fields) -> Fields:
    """All arrays of a batch: uint8 images of this shape, then a task's fields."""
    return {"image": Field(image_shape, "uint8")} | fields


LABEL: Fields = {"label": Field((), "int32")}
"""What a classifier reads beside the image."""


PLACEMENT: Fields = {"original_size": Field((2,), "int32"), "placement": Field((4,), "float32", fill=1)}
"""Where an image comes from, for what is found in it to be told in the image that the source gave: its (height, width),
and (x scale, y scale, x offset, y offset), with which x there = x scale * x + x offset. No source has to give them;
`to_original` (data/geometry.py) brings boxes back."""


def box_fields(most: int) -> Fields:
    """Up to `most` boxes of an image: those behind its own have class -1. An image with more is a broken one, which is
    named and stops a run unless `data.tolerate_broken` says otherwise.

    Example: box_fields(100) | PLACEMENT
    """
    return {
        "boxes": Field((most, 4), "float32"),
        "classes": Field((most,), "int32", fill=-1),
        "difficult": Field((most,), "bool"),
        "crowd": Field((most,), "bool"),
        "area": Field((most,), "float32"),
    }
