"""Mutant: a file with what a right reader answers, and what all of them are made with."""

import dataclasses
import io
import struct

import numpy as np
from PIL import Image

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL, FLOAT, DOUBLE = 1, 2, 3, 4, 5, 7, 10, 11, 12
"""Types of EXIF and TIFF values."""


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str
    data: bytes
    pixels: np.ndarray | None
    """uint8 [H, W, 3], or None for a file that must be refused."""
    cause: str = ""
    """What the refusal must say, in any case of letters."""
    tolerance: int = 0


def picture(rng: np.random.Generator, channels: int = 3) -> np.ndarray:
    """Uint8 [H, W, C] of a random size, never with a row of zeros."""
    height, width = rng.integers(9, 30, 2)
    return rng.integers(1, 256, (height, width, channels), np.uint8)


def encode(pixels: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, kind, **options)
    return file.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def over_white(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    alpha = alpha[..., None] / 255
    return np.rint(colors * alpha + 255 * (1 - alpha)).astype(np.uint8)


def exif_block(orientation: int, *tags: tuple[int, int, int, bytes]) -> bytes:
    """A TIFF header and one folder with the orientation and these tags, big-endian."""
    entries = sorted([(0x0112, SHORT, 1, struct.pack(">HH", orientation, 0)), *tags])
    start, extra, folder = 8 + 2 + 12 * len(entries) + 4, b"", b""
    for tag, kind, count, value in entries:
        if len(value) > 4:
            value, extra = struct.pack(">I", start + len(extra)), extra + value
        folder += struct.pack(">HHI", tag, kind, count) + value.ljust(4, b"\0")
    return b"MM\0\x2a\0\0\0\x08" + struct.pack(">H", len(entries)) + folder + bytes(4) + extra
