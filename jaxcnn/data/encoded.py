"""Encoded: a JPEG of known size that is not decoded yet, so that what a crop leaves out need not be."""

import numpy as np

from jaxcnn.data import jpeg
from jaxcnn.data.images import LARGEST, Method, decode, resize, turn_of_jpeg
from jaxcnn.errors import UserError

Window = tuple[int, int, int, int]
EIGHTHS = (1, 2, 4)
"""Parts of its size at which a JPEG is decoded: those for which libjpeg-turbo has vector instructions."""


class Encoded:
    """A JPEG in the place of an image in an example, until the first transform has drawn what it needs of it.

    `data` is the file, and `shape` that of the decoded image. All pixels are to the bit those of `decode`
    (data/images.py), but for `reduced`.
    """

    def __init__(self, data: bytes, frame: jpeg.Frame, channels: int):
        self.data, self._frame, self._channels = data, frame, channels
        self.shape = (frame.height, frame.width, channels)

    def decoded(self) -> np.ndarray:
        """The whole image, uint8 [H, W, C]. UserError with the cause if it cannot be decoded."""
        return self._rows(None)

    def window(self, window: Window) -> np.ndarray:
        """The window (top, left, height, width) inside of the image. Nothing below it is decoded."""
        top, left, height, width = window
        return self._rows(top + height)[top : top + height, left : left + width]

    def reduced(self, window: Window, size: tuple[int, int], method: Method, antialias: bool = True) -> np.ndarray:
        """The window at another size, from an image that is decoded at 1/8, 1/4 or 1/2 of its size if the window is
        then still as large as this: faster than `window` and a resize, and not quite its pixels.
        """
        top, left, height, width = window
        fitting = (k for k in EIGHTHS if height * k >= 8 * size[0] and width * k >= 8 * size[1])
        if (eighths := next(fitting, None)) is not None:
            rows = jpeg.pixels_of(self.data, self._frame, self._channels, top + height, eighths)
            if rows is not None:
                share = eighths / 8
                box = (left * share, top * share, (left + width) * share, (top + height) * share)
                return resize(rows, size, method, antialias, box)
        return resize(self.window(window), size, method, antialias)

    def _rows(self, rows: int | None) -> np.ndarray:
        found = jpeg.pixels_of(self.data, self._frame, self._channels, rows)
        if found is not None:
            return found
        try:
            return decode(self.data, self._channels)
        except ValueError as cause:
            raise UserError(str(cause)) from cause


def encoded(data: bytes, channels: int) -> Encoded | np.ndarray:
    """The bytes of an image file as `Encoded`, if a part of it can be decoded, else decoded. Raises as `decode`: that a
    file is cut off is known at once.
    """
    frame = jpeg.frame_of(data) if data.startswith(jpeg.START) else None
    if (
        frame is None
        or frame.components not in (1, channels)
        or frame.height * frame.width > LARGEST
        or (frame.described and turn_of_jpeg(data) is not None)
        or not jpeg.is_whole(data)
    ):
        return decode(data, channels)
    return Encoded(data, frame, channels)
