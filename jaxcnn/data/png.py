"""The chunks of a PNG file (ISO/IEC 15948): what the pixels need, with the checks that Pillow leaves out.

Pillow refuses an image for a text that unpacks to more than 1 MiB or for a wrong checksum of a text, and takes pixels
whose checksum is wrong or whose last rows are missing.
"""

import re
import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of a color type."""
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The passes of an interlaced image: the first column and row, and the steps between columns and rows."""
ORIENTED = re.compile(rb"(XML:com\.adobe\.xmp|Raw profile type exif)\0", re.DOTALL)
"""The beginning of a text in which programs write the orientation."""
LONGEST_TEXT = 1 << 20
"""Bytes of such a text; orientation is written in a few kilobytes."""


def essential(data: bytes) -> bytes:
    """The file with those chunks alone that say how the image looks: the critical ones, tRNS, and whole ones that hold
    its orientation. Texts, profiles, times and the other frames of an animation are left out.

    Raises:
      ValueError: the checksum of what the pixels need is wrong; for the pixels themselves, so is the one inside of the
        compressed stream.
    """
    kept, doubtful = [SIGNATURE], False
    for kind, content, checksum in chunks(data):
        right = checksum == checksum_of(kind, content)
        if len(checksum) == 4 and not right:
            if kind in (b"IHDR", b"PLTE", b"tRNS"):
                raise ValueError(f"the PNG is broken: the checksum of its {kind.decode()} is wrong")
            doubtful = doubtful or kind == b"IDAT"
        if kind == b"tRNS" and right:
            content = comparable(content, *data[24:26])
            checksum = checksum_of(kind, content)
        critical = not kind[0] & 0x20  # a small first letter marks a chunk that can be left out
        oriented = kind in (b"tEXt", b"zTXt", b"iTXt") and right and ORIENTED.match(content) and is_short(kind, content)
        if critical or kind == b"tRNS" or (kind == b"eXIf" and right) or oriented:
            if kind == b"IDAT" and len(checksum) == 4:
                checksum = checksum_of(kind, content)
            kept.append(struct.pack(">I", len(content) if checksum else 0x7FFFFFFF) + kind + content + checksum)
    if doubtful:
        try:
            inflated(data)
        except zlib.error as error:
            raise ValueError("the PNG is broken: the checksum of its pixels (IDAT) is wrong") from error
    return b"".join(kept)


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(kind, content, checksum) of each chunk up to the end; of one that is cut, what there is."""
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        yield kind, data[position + 8 : end], data[end : end + 4]
        if kind == b"IEND":
            return
        position = end + 4


def checksum_of(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def comparable(transparent: bytes, depth: int, color: int) -> bytes:
    """The transparent color of a tRNS chunk as Pillow compares it: the unused high bits are zero, and levels of 2 and 4
    bits are spread to 255, as Pillow spreads those of the pixels.
    """
    if color not in (0, 2) or len(transparent) < 2 * CHANNELS[color]:
        return transparent
    largest = (1 << depth) - 1
    scale = 255 // largest if depth in (2, 4) else 1
    levels = struct.unpack(f">{CHANNELS[color]}H", transparent[: 2 * CHANNELS[color]])
    return struct.pack(f">{len(levels)}H", *((level & largest) * scale for level in levels))


def is_short(kind: bytes, content: bytes) -> bool:
    """Whether a text unpacks to at most LONGEST_TEXT bytes."""
    if len(content) > LONGEST_TEXT:
        return False
    rest = content.partition(b"\0")[2]  # behind its keyword
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] == b"\0"):
        return True
    packed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    unpack = zlib.decompressobj()
    try:
        unpack.decompress(packed, LONGEST_TEXT)
    except zlib.error:
        return False
    return not unpack.unconsumed_tail


def inflated(data: bytes) -> int:
    """How many bytes the pixels unpack to. Raises zlib.error where they are damaged."""
    unpack, count = zlib.decompressobj(), 0
    for kind, content, _ in chunks(data):
        while kind == b"IDAT" and content and not unpack.eof:
            count += len(unpack.decompress(content, 1 << 20))
            content = unpack.unconsumed_tail
    return count + len(unpack.flush())


def expected(data: bytes) -> int:
    """How many bytes the pixels of an image of this size and kind take, unpacked."""
    width, height, depth, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * CHANNELS[color]
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    return sum(h * (1 + -(-w * bits // 8)) for w, h in sizes if w > 0 and h > 0)
