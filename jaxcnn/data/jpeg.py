"""JPEG (ITU-T T.81, annex B): its markers, which tell its size and whether all of it is there, and its pixels, of which
only the rows that are needed are decoded.

libjpeg stops when it has all rows, and does not say what is missing behind them. And a frame whose header names fewer
rows is the upper part of the image: so a crop costs nothing of what lies below it, with any decoder.
"""

import re
from typing import NamedTuple

import numpy as np

START = b"\xff\xd8\xff"
SOI, EOI = 0xD8, 0xD9
SOF, SOF_ONE_SCAN = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)), (0xC0, 0xC1)
SOS, APP1 = 0xDA, 0xE1
# FF 00 is data, FF FF fills up, and TEM (01) and the restarts (D0 to D7) have no segment.
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")


class Frame(NamedTuple):
    """What stands before the first scan of a JPEG."""

    height: int
    width: int
    components: int
    unit: int
    """Rows of pixels that are coded together: 8 or 16 (MCU)."""
    height_at: int
    """Where in the file the two bytes of the height are."""
    one_scan: bool
    """Sequential, with all components in one scan: rows are coded from top to bottom, and nothing follows but EOI."""
    described: bool
    """Whether there is EXIF or XMP, which may name an orientation."""


def frame_of(data: bytes) -> Frame | None:
    """The frame of a JPEG of 8 bits a sample; None if there is none before the first scan, or it has no size yet."""
    size, sequential, described, position = None, False, False, 2
    while (found := MARKER.match(data, position)) or data[position : position + 1] == b"\xff":
        if found is None:
            position += 1  # a byte that fills up
            continue
        marker, start = data[position + 1], position + 2
        length = int.from_bytes(data[start : start + 2])
        if length < 2 or start + length > len(data):
            return None
        if marker in SOF:
            if size is not None or length < 11 or data[start + 2] != 8:
                return None
            height, width = int.from_bytes(data[start + 3 : start + 5]), int.from_bytes(data[start + 5 : start + 7])
            components = data[start + 7]
            unit = 8 * max((data[k] & 15 for k in range(start + 9, start + length, 3)), default=1)
            size, sequential = (height, width, components, unit, start + 3), marker in SOF_ONE_SCAN
        elif marker == SOS:
            if size is None or not size[0] * size[1]:
                return None
            one_scan = sequential and data[start + 2] == size[2]
            return Frame(*size, one_scan, described)
        described |= marker == APP1
        position = start + length
    return None


def is_whole(data: bytes) -> bool:
    """Whether the first image in the file ends with its end marker.

    Segments are skipped by their lengths, so that a thumbnail's end marker does not count, and nothing that follows the
    first image matters: another picture, a video, a camera's own data. A file that was cut, or whose rest was never
    written, has no end marker; if another image begins before there is one, the first is not whole either.
    """
    # Most files hold one image, without a thumbnail, and end with it: to know that takes a fourth of the time.
    if data.endswith(b"\xff\xd9") and not _begins_another(data):
        return True
    position = len(START) - 1
    while found := MARKER.search(data, position):
        marker, position = data[found.start() + 1], found.end()
        if marker in (SOI, EOI):
            return marker == EOI
        position += int.from_bytes(data[position : position + 2])
    return False


def _begins_another(data: bytes) -> bool:
    """Whether the two bytes that begin an image are anywhere behind the first, at an even or at an odd place."""
    return any(
        (np.frombuffer(data, "<u2", (len(data) - first) // 2, first) == 0xD8FF).any()
        for first in (2, 3)
        if len(data) > first + 1
    )


def pixels_of(data: bytes, frame: Frame, channels: int, rows: int | None = None, eighths: int = 8) -> np.ndarray | None:
    """The pixels of a JPEG as libjpeg-turbo decodes them, uint8 [H, W, channels], to the bit those of Pillow; None if
    it is of a kind that is left to Pillow, or anything about its data is not as it should be: that the end marker is
    missing, say, unless `rows` stop before it.

    Args:
      data: the file.
      frame: its frame.
      channels: 1 or 3. A JPEG of other components than these is left to Pillow, but that grey is spread to 3.
      rows: how many of the upper rows are needed; None: all. There may be more, or all.
      eighths: 8, or 1 to 4: it is decoded at this part of its size, from the low frequencies of each block, with sizes
        rounded up.
    """
    import simplejpeg

    if frame.components not in (1, channels):
        return None
    strict = True
    if rows is not None and frame.one_scan:
        # One unit more, because colors of half the size are interpolated between rows.
        rows = -(-rows // frame.unit) * frame.unit + frame.unit
        if rows < frame.height:
            at, strict = frame.height_at, False  # that data follows is a warning
            data = b"".join((data[:at], rows.to_bytes(2), data[at + 2 :]))
    smaller = {} if eighths == 8 else {"min_factor": 8 / eighths, "min_width": -(-frame.width * eighths // 8)}
    try:
        _, _, space, _ = simplejpeg.decode_jpeg_header(data)
        if space not in ("YCbCr", "Gray", "RGB"):
            return None
        return simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB", strict=strict, **smaller)
    except ValueError:
        return None
