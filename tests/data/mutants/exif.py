"""Orientations, beside odd tags, in every format that has them."""

import struct
import zlib

import numpy as np
from PIL import Image

from tests.data.mutants.mutant import (
    ASCII,
    BYTE,
    DOUBLE,
    FLOAT,
    LONG,
    RATIONAL,
    SHORT,
    SRATIONAL,
    UNDEFINED,
    Mutant,
    by_pillow,
    encode,
    exif_block,
    picture,
)
from tests.data.mutants.png import png

UPRIGHT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
ODD_TAGS = {  # (tag, type, count, big-endian value)
    "XResolution -1/0": (0x011A, SRATIONAL, 1, struct.pack(">ii", -1, 0)),
    "XResolution 0/0": (0x011A, RATIONAL, 1, struct.pack(">II", 0, 0)),
    "XResolution NaN": (0x011A, DOUBLE, 1, struct.pack(">d", float("nan"))),
    "XResolution infinite": (0x011A, FLOAT, 1, struct.pack(">f", float("inf"))),
    "XResolution as text": (0x011A, ASCII, 4, b"abc\0"),
    "XResolution of no value": (0x011A, RATIONAL, 0, b""),
    "XResolution as bytes": (0x011A, UNDEFINED, 3, b"abc"),
    "ResolutionUnit as text": (0x0128, ASCII, 5, b"inch\0"),
    "Software as a rational": (0x0131, RATIONAL, 1, struct.pack(">II", 1, 2)),
    "Software as shorts": (0x0131, SHORT, 3, struct.pack(">HHH", 1, 2, 3)),
    "DateTime as bytes": (0x0132, BYTE, 6, b"\xff\xfe\0abc"),
    "a description that is not UTF-8": (0x010E, ASCII, 5, b"\xe4\xf6\xfc\xff\0"),
    "an EXIF folder beyond the end": (0x8769, LONG, 1, struct.pack(">I", 0xFFFFFF)),
    "an EXIF folder as text": (0x8769, ASCII, 2, b"x\0"),
    "a GPS folder as a rational": (0x8825, RATIONAL, 1, struct.pack(">II", 1, 0)),
    "a tag of an unknown type": (0x011B, 99, 1, b"\0\0\0\1"),
    "an unknown tag": (0xC000, UNDEFINED, 4, b"abcd"),
}


def oriented(rng: np.random.Generator) -> list[Mutant]:
    found = []
    for number, (name, tag) in enumerate(ODD_TAGS.items()):
        for kind in ("JPEG", "PNG", "WEBP"):
            orientation = 2 + (number + len(found)) % 7
            block = exif_block(orientation, tag)
            pixels = picture(rng)
            if kind == "JPEG":
                plain = encode(pixels, "JPEG")
                segment = b"Exif\0\0" + block
                data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]
                pixels = by_pillow(plain)
            elif kind == "PNG":
                data = png(pixels, 8, 2, before=[(b"eXIf", block)])
            else:
                data = encode(pixels, "WEBP", lossless=True, exif=block)
            upright = UPRIGHT[orientation](pixels)
            found.append(Mutant(f"{kind}, orientation {orientation} beside {name}", data, upright))
    for orientation in (3, 6):
        pixels = picture(rng)
        xmp = b'XML:com.adobe.xmp\0\0\0\0\0<rdf tiff:Orientation="%d"/>' % orientation
        profile = exif_block(orientation).hex()
        raw = b"Raw profile type exif\0\0" + zlib.compress(f"\nexif\n{len(profile) // 2:8}\n{profile}\n".encode())
        upright = UPRIGHT[orientation](pixels)
        found += [
            Mutant("PNG, orientation in XMP", png(pixels, 8, 2, before=[(b"iTXt", xmp)]), upright),
            Mutant("PNG, orientation in a raw profile", png(pixels, 8, 2, before=[(b"zTXt", raw)]), upright),
            Mutant("PNG, orientation behind", png(pixels, 8, 2, after=[(b"eXIf", exif_block(orientation))]), upright),
            Mutant("TIFF, orientation", tiff(pixels, orientation), upright),
            Mutant(
                "TIFF, orientation beside text", tiff(pixels, orientation, ODD_TAGS["ResolutionUnit as text"]), upright
            ),
            Mutant("AVIF, orientation", *avif(pixels, orientation)),
        ]
    pixels = picture(rng)
    found.append(Mutant("PNG, cut EXIF", png(pixels, 8, 2, before=[(b"eXIf", exif_block(6)[:12])]), pixels))
    found.append(Mutant("PNG, orientation 9", png(pixels, 8, 2, before=[(b"eXIf", exif_block(9))]), pixels))
    return found


def tiff(pixels: np.ndarray, orientation: int, *tags: tuple[int, int, int, bytes]) -> bytes:
    """An uncompressed RGB TIFF."""
    height, width, _ = pixels.shape
    short = lambda tag, value: (tag, SHORT, 1, struct.pack(">HH", value, 0))  # noqa: E731
    own = [short(0x100, width), short(0x101, height), short(0x103, 1), short(0x106, 2), short(0x115, 3)]
    own += [(0x102, SHORT, 3, struct.pack(">HHH", 8, 8, 8)), short(0x116, height)]
    own += [(0x111, LONG, 1, bytes(4)), (0x117, LONG, 1, struct.pack(">I", pixels.size))]
    size = len(exif_block(orientation, *own, *tags))
    own[-2] = (0x111, LONG, 1, struct.pack(">I", size))
    return exif_block(orientation, *own, *tags) + pixels.tobytes()


def avif(pixels: np.ndarray, orientation: int) -> tuple[bytes, np.ndarray]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(pixels, "AVIF", exif=exif)
    return data, UPRIGHT[orientation](by_pillow(data))
