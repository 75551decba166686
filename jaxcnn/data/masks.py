"""Mask files: the class of each pixel as an image without loss; and the examples of images that have one each."""

import functools
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxcnn.data import png
from jaxcnn.data.checks import IGNORED
from jaxcnn.data.examples import BrokenExample, Example, check_index
from jaxcnn.data.folder import digest_of_files
from jaxcnn.data.images import bound, decode, lacks_rows
from jaxcnn.errors import UserError
from jaxcnn.files import read_bytes

LARGEST = 255
"""Classes that a mask can have: 255 is ignored."""


def decode_mask(data: bytes) -> np.ndarray:
    """Decodes the bytes of a mask file to uint8 [H, W]: the levels of a grey image, the indices of a palette image,
    whose colors are for the eye only.

    Raises ValueError, with the cause, for what cannot be read in full, for colors, for more than 8 bits, and for JPEG,
    which changes the values.
    """
    from PIL import Image

    if not data:
        raise ValueError("the mask is empty (0 bytes)")
    try:
        needed = png.essential(data) if data.startswith(png.SIGNATURE) else data
        with Image.open(io.BytesIO(needed)) as image:
            if image.format == "JPEG":
                raise ValueError("the mask is a JPEG, which changes the values of pixels; save masks as PNG")
            if image.mode not in ("1", "L", "P"):
                raise ValueError(
                    f"the mask is stored as {image.mode}, but the class of a pixel is one number of at most 8 bits: "
                    "save it as a grey or a palette image"
                )
            bound(image)
            image.load()
            if image.format == "PNG" and lacks_rows(image, needed):
                raise ValueError("the PNG is broken: its last rows are missing")
            values = np.array(image).astype(np.uint8)
            # Pillow spreads the levels of a grey PNG of 2 or 4 bits to 255; the file has 0, 1, 2, ...
            depth, kind = (needed[24], needed[25]) if image.format == "PNG" else (8, 0)
            return values // (255 // ((1 << depth) - 1)) if kind == 0 and depth in (2, 4) else values
    except MemoryError:
        raise
    except ValueError:
        raise
    except Exception as cause:  # as in decode (data/images.py)
        raise ValueError(f"the mask cannot be read: {cause or type(cause).__name__}") from cause


@dataclass(frozen=True)
class MaskValues:
    """What the values of a source's masks mean.

    Example: MaskValues(2, (0, 255)) of black and white masks; MaskValues(150, tuple(range(1, 151)), (0,)) of ADE20K's.
    """

    classes: int
    values: tuple[int, ...] | None = None
    """The value of each class, in label order; None: 0, 1, 2, ..."""
    ignored: tuple[int, ...] = (IGNORED,)
    """Values of pixels that count nowhere, unless they are a class's."""

    def __post_init__(self):
        if not 1 <= self.classes <= LARGEST:
            raise UserError(f"masks have 1 to {LARGEST} classes, not {self.classes}")
        if self.values is not None and len(self.values) != self.classes:
            raise UserError(f"values has {len(self.values)} numbers for {self.classes} classes; give one for each")
        given = (*(self.values or ()), *self.ignored)
        wrong = [value for value in given if not 0 <= value <= 255]
        if wrong or len(set(self.values or ())) != len(self.values or ()):
            raise UserError(f"the values of a mask are 0 to 255, each for one class, not {list(given)}")

    def to_classes(self, mask: np.ndarray) -> np.ndarray:
        """uint8 [H, W] of stored values -> of labels, and IGNORED. ValueError names a value that is neither."""
        table, known = self._table
        if table is None:
            return mask
        if not known[mask].all():
            strange = np.unique(mask[~known[mask]]).tolist()
            raise ValueError(
                f"the mask has the value{'s' * (len(strange) > 1)} {', '.join(map(str, strange[:5]))}"
                f"{', ...' * (len(strange) > 5)}, which neither a class has ({', '.join(map(str, self._classes[:5]))}"
                f"{', ...' * (self.classes > 5)}) nor ignored pixels ({', '.join(map(str, self.ignored))})"
            )
        return table[mask]

    @property
    def _classes(self) -> tuple[int, ...]:
        return tuple(range(self.classes)) if self.values is None else self.values

    @functools.cached_property
    def _table(self) -> tuple[np.ndarray | None, np.ndarray]:
        """The label of each value, None if they are the same, and which values there may be."""
        known, table = np.zeros(256, bool), np.full(256, IGNORED, np.uint8)
        known[list(self.ignored)] = True
        known[list(self._classes)] = True
        table[list(self._classes)] = np.arange(self.classes)
        plain = self.values is None and self.ignored == (IGNORED,)
        return (None if plain else table), known


class MaskedExamples:
    """Images with a mask each: two files of one number in two lists."""

    def __init__(
        self,
        name: str,
        split: str,
        classes: tuple[str, ...],
        images: Sequence[str],
        masks: Sequence[str],
        values: MaskValues,
        channels: int,
    ):
        self.name, self.split, self.classes = name, split, classes
        # Bytes of one width, not lists of str: they pickle to each worker in milliseconds.
        self.files, self._masks = (np.array([os.fsencode(path) for path in paths]) for paths in (images, masks))
        self._values, self._channels = values, channels

    @property
    def version(self) -> str:
        """Of the names and sizes of the files: 12 hex digits."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        paths = [os.fsdecode(path) for pair in zip(self.files, self._masks, strict=True) for path in pair]
        # The name of its folder too: an image and its mask may have one name.
        names = [os.sep.join(path.rsplit(os.sep, 2)[-2:]) for path in paths]
        return digest_of_files(len(paths), lambda i: (names[i], paths[i]))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Example:
        i = check_index(i, len(self))
        path = self.where(i)
        try:
            image = decode(read_bytes(path), self._channels)
            path = os.fsdecode(self._masks[i])
            return {"image": image, "mask": self._values.to_classes(decode_mask(read_bytes(path)))}
        except (OSError, ValueError) as cause:
            raise BrokenExample(i, path, str(cause)) from cause

    def where(self, i: int) -> str:
        """The path of the image."""
        return os.fsdecode(self.files[i])
