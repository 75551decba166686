"""Cutouts: photos of single objects whose ground is transparent, in a folder for each class."""

import functools
import io
import os

import numpy as np
from PIL import Image

from jaxcnn.data.folder import image_files, some, subfolders
from jaxcnn.errors import UserError
from jaxcnn.files import read_bytes

FEWEST = 5
"""Of a class, so that each split has one of its own."""
PARTS = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}
"""Of five cutouts of a class in the order of their names, which are in a split."""


def classes_of(root: str) -> tuple[str, ...]:
    """The sorted names of the class folders in `root`. Raises UserError if there is none."""
    if not os.path.isdir(root):
        raise UserError(
            f"ComposedCutouts: there is no folder {root}; expected is {root}/CLASS/NAME.png, photos with a transparent "
            "ground. If it moved: --data.source.path NEW"
        )
    names = subfolders(root)
    if not names:
        raise UserError(
            f"ComposedCutouts: {root} has no class folders; expected is {root}/CLASS/NAME.png, photos with a "
            "transparent ground"
        )
    return tuple(names)


def files_of(root: str, name: str) -> list[str]:
    """The paths of the cutouts of a class, sorted by name. Raises UserError if there are fewer than FEWEST."""
    folder = os.path.join(root, name)
    found = [os.path.join(folder, file) for file in image_files(folder)]
    if len(found) < FEWEST:
        raise UserError(
            f"ComposedCutouts: {folder} has {len(found)} cutouts, and a class needs {FEWEST}: train, validation and "
            "test show different ones"
        )
    return found


def chosen(files: list[str], split: str) -> list[str]:
    """Those of a class that are in a split."""
    return [file for number, file in enumerate(files) if number % FEWEST in PARTS[split]]


def checked(files: list[str]) -> list[tuple[str, int]]:
    """Each file with its time of change, for `load`. Raises UserError, with every file that is none, unless each is a
    picture with a transparent ground."""
    wrong, found = [], []
    for file in files:
        try:
            found.append((file, os.stat(file).st_mtime_ns))
            load(*found[-1])
        except OSError as error:
            wrong.append(f"{file} cannot be read: {error.strerror}")
        except ValueError as error:
            wrong.append(f"{file} {error}")
    if wrong:
        raise UserError(f"ComposedCutouts: {some(wrong)}; cut the object out and save it as PNG, or remove the file")
    return found


@functools.lru_cache(maxsize=1024)
def load(file: str, changed: int) -> np.ndarray:
    """A cutout as uint8 [H, W, 4], cut to what is opaque in it; it is not to be written to. `changed` tells a file from
    what it was before, since each is read once.

    Raises:
      ValueError: it cannot be read, has no transparent pixel, or no opaque one; the message begins with a verb.
    """
    try:
        with Image.open(io.BytesIO(read_bytes(file))) as image:
            if not image.has_transparency_data:
                raise ValueError("has no transparency")
            pixels = np.array(image.convert("RGBA"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    opaque = pixels[..., 3] >= 128
    if opaque.all() or not opaque.any():
        raise ValueError("is opaque everywhere" if opaque.all() else "is transparent everywhere")
    rows, columns = (np.flatnonzero(opaque.any(axis)) for axis in (1, 0))
    pixels = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pixels.flags.writeable = False
    return pixels
