"""The markers of a JPEG file (ITU-T T.81, annex B): libjpeg stops when it has all rows, and does not say what is
missing behind them.
"""

import re

START = b"\xff\xd8\xff"
SOI, EOI = 0xD8, 0xD9
# FF 00 is data, FF FF fills up, and TEM (01) and the restarts (D0 to D7) have no segment.
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")


def is_whole(data: bytes) -> bool:
    """Whether the first image in the file ends with its end marker.

    Segments are skipped by their lengths, so that a thumbnail's end marker does not count, and nothing that follows the
    first image matters: another picture, a video, a camera's own data. A file that was cut, or whose rest was never
    written, has no end marker; if another image begins before there is one, the first is not whole either.
    """
    position = len(START) - 1
    while found := MARKER.search(data, position):
        marker, position = data[found.start() + 1], found.end()
        if marker in (SOI, EOI):
            return marker == EOI
        position += int.from_bytes(data[position : position + 2])
    return False
