"""PNGs: chunks that are odd, large or damaged."""

import itertools
import struct
import zlib

import numpy as np
from PIL import Image

from tests.data.mutants.mutant import Mutant, encode, exif_block, picture

ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(kind: bytes, content: bytes, flip: int = 0) -> bytes:
    """`flip` makes the checksum wrong."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) ^ flip)


def scanlines(levels: np.ndarray, depth: int) -> bytes:
    """Levels [H, W, C] as unfiltered rows."""
    rows = levels.reshape(len(levels), -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8)
    else:
        bits = (rows[..., None].astype(int) >> np.arange(depth)[::-1]) & 1
        packed = np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in packed)


def png(
    levels: np.ndarray,
    depth: int,
    color: int,
    *,
    before: list[tuple] = (),
    after: list[tuple] = (),
    interlaced: bool = False,
    flip: int = 0,
    pieces: int = 1,
    stream: bytes | None = None,
) -> bytes:
    """Levels [H, W, C]; further chunks as (kind, content) or (kind, content, flip); `stream` in place of the pixels."""
    height, width = levels.shape[:2]
    parts = [levels[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [levels]
    stream = stream or zlib.compress(b"".join(scanlines(part, depth) for part in parts if part.size))
    edges = np.linspace(0, len(stream), pieces + 1).astype(int)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)),
            *(chunk(*more) for more in before),
            *(chunk(b"IDAT", stream[a:b], flip) for a, b in itertools.pairwise(edges)),
            *(chunk(*more) for more in after),
            chunk(b"IEND", b""),
        ]
    )


def chunked(rng: np.random.Generator) -> list[Mutant]:
    found = []
    large = zlib.compress(bytes(3 << 20))
    extras = {
        "a large compressed text": (b"zTXt", b"Comment\0\0" + large),
        "a large international text": (b"iTXt", b"Comment\0\1\0\0\0" + large),
        "a large XMP packet": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + large),
        "a large profile": (b"iCCP", b"sRGB\0\0" + large),
        "a profile of another method": (b"iCCP", b"sRGB\0\7abc"),
        "a wrong checksum of a text": (b"tEXt", b"Comment\0hello", 1),
        "a wrong checksum of a time": (b"tIME", bytes(7), 1),
        "a wrong checksum of EXIF": (b"eXIf", exif_block(6), 1),
        "a short gamma": (b"gAMA", b"\0"),
        "a short resolution": (b"pHYs", b"\0"),
        "a text that does not unpack": (b"zTXt", b"Comment\0\0abcdef"),
        "a private chunk": (b"prVt", b"x" * 100),
    }
    for number, (name, extra) in enumerate(extras.items()):
        pixels, pieces = picture(rng), int(rng.integers(1, 4))
        side = {"before": [extra]} if number % 2 or extra[0] == b"iCCP" else {"after": [extra]}
        found.append(Mutant(f"PNG with {name}", png(pixels, 8, 2, pieces=pieces, **side), pixels))
    pixels = picture(rng)
    raw = scanlines(pixels, 8)
    stored, row = bytearray(zlib.compress(raw, 0)), len(raw) // len(pixels)
    stored[10 + int(rng.integers(len(raw) - 10))] ^= 0x55
    found += [
        # The stream's own checksum is right: what is wrong is the checksum and not the pixels.
        Mutant("PNG, wrong checksum of its pixels, right ones", png(pixels, 8, 2, flip=1, pieces=2), pixels),
        Mutant("PNG, changed pixels", png(pixels, 8, 2, stream=bytes(stored)), None, "broken"),
        Mutant("PNG, changed pixels and checksum", png(pixels, 8, 2, stream=bytes(stored), flip=1), None, "checksum"),
        Mutant("PNG, a row too few", png(pixels, 8, 2, stream=zlib.compress(raw[:-row])), None, "rows are missing"),
        Mutant(
            "PNG, wrong checksum of a palette",
            png(pixels, 8, 2, before=[(b"PLTE", bytes(6), 1)]),
            None,
            "checksum of its PLTE",
        ),
        Mutant(
            "PNG, wrong checksum of tRNS",
            png(pixels, 8, 2, before=[(b"tRNS", bytes(6), 1)]),
            None,
            "checksum of its tRNS",
        ),
        Mutant("PNG without its end", png(pixels, 8, 2)[:-12], pixels),
        Mutant("PNG cut in its pixels", png(pixels, 8, 2)[: -12 - len(raw) // 2], None, "truncated"),
        Mutant("PNG and bytes after its end", png(pixels, 8, 2) + b"IDAT" * 9, pixels),
    ]
    frames = [Image.fromarray(rng.integers(1, 256, (12, 15, 3), np.uint8)) for _ in range(2)]
    for first in (True, False):
        data = encode(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=first)
        found.append(Mutant(f"animated PNG, default image {first}", data, np.asarray(frames[0])))
    cut = data[: data.index(b"fdAT") + 30]
    found.append(Mutant("animated PNG, second frame cut", cut, np.asarray(frames[0])))
    return found
