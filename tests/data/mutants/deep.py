"""More than 8 bits: PNG, TIFF, PGM and PPM."""

import struct
import zlib

import numpy as np

from tests.data.mutants.mutant import Mutant, over_white, picture, rgb
from tests.data.mutants.png import png


def deep(rng: np.random.Generator) -> list[Mutant]:
    found = []
    for name in ("PNG", "PNG interlaced", "PNG with a transparent level", "PNG with a transparent color", "PNG LA"):
        color = {"PNG with a transparent color": 2, "PNG LA": 4}.get(name, 0)
        levels = picture(rng, {0: 1, 2: 3, 4: 2}[color]).astype(np.uint16) * 256
        levels += rng.integers(0, 256, levels.shape, np.uint16)
        levels[1::2, 2] = levels[3, 3]
        levels[0::2, 2] = levels[3, 3] ^ 1  # the same high byte, another level: not transparent
        high = (levels >> 8).astype(np.uint8)
        if color == 4:
            data, want = png(levels, 16, 4), over_white(rgb(high[..., 0]), high[..., 1])
        elif "transparent" in name:
            data = png(levels, 16, color, before=[(b"tRNS", levels[3, 3].astype(">u2").tobytes())])
            want = np.where((levels == levels[3, 3]).all(2, keepdims=True), 255, high).astype(np.uint8)
            want = np.broadcast_to(want, (*want.shape[:2], 3))
        else:
            data, want = png(levels, 16, 0, interlaced="interlaced" in name), rgb(high[..., 0])
        found.append(Mutant(f"16-bit {name}", data, want, tolerance=int(color == 4)))
    color = picture(rng).astype(np.uint16) * 256 + 200
    found.append(Mutant("16-bit RGB PNG", png(color, 16, 2, interlaced=True), (color >> 8).astype(np.uint8)))
    for order in "<", ">":
        for white_is_zero in (False, True):
            for compression in ((1, "raw"), (8, "deflate")):
                if order == ">" and white_is_zero:  # Pillow cannot read it; see below
                    continue
                levels = picture(rng, 1)[..., 0].astype(np.uint16) * 256 + 77
                data = grey_tiff(levels.astype(f"{order}u2"), order, white_is_zero, compression[0])
                high = ((65535 - levels if white_is_zero else levels) >> 8).astype(np.uint8)
                found.append(Mutant(f"16-bit TIFF {order} {compression[1]}, {white_is_zero=}", data, rgb(high)))
    levels = picture(rng, 1)[..., 0].astype(np.uint16) * 256
    found.append(Mutant("16-bit TIFF > white is zero", grey_tiff(levels.astype(">u2"), ">", True, 1), None, "Pillow"))
    twelve = rng.integers(0, 4096, (10, 12), np.uint16)
    nibbles = (twelve[..., None] >> np.array([8, 4, 0])) & 15
    packed = nibbles.reshape(10, -1, 2)
    packed = (packed[..., 0] * 16 + packed[..., 1]).astype(np.uint8)
    data = grey_tiff(packed, "<", False, 1, width=12, bits=12)
    found.append(Mutant("12-bit TIFF", data, rgb((twelve >> 4).astype(np.uint8))))
    for maximum in (65535, 1023):
        for channels in (1, 3):
            for plain in (False, True):
                levels = rng.integers(0, maximum + 1, (9, 11, channels))
                head = b"P%d # a comment\n11 9\n#another\n%d\n" % (
                    {(1, False): 5, (3, False): 6, (1, True): 2, (3, True): 3}[channels, plain],
                    maximum,
                )
                text = " ".join(map(str, levels.ravel())).encode()
                data = head + (text if plain else levels.astype(">u2").tobytes())
                high = (np.rint(levels * 65535 / maximum).astype(int) >> 8).astype(np.uint8)
                name = f"PNM of {channels} channels up to {maximum}, {plain=}"
                found.append(Mutant(name, data, np.broadcast_to(high, (9, 11, 3))))
    found.append(Mutant("cut 16-bit PPM", data[: len(data) // 2], None, "enough"))
    return found


def grey_tiff(
    levels: np.ndarray, order: str, white_is_zero: bool, compression: int, width: int | None = None, bits: int = 16
) -> bytes:
    """A grey TIFF of one strip; `levels` are its bytes or samples, in the byte order of the file."""
    strip = levels.tobytes() if compression == 1 else zlib.compress(levels.tobytes())
    tags = [(0x100, 3, width or levels.shape[1]), (0x101, 3, len(levels)), (0x102, 3, bits), (0x103, 3, compression)]
    tags += [(0x106, 3, 0 if white_is_zero else 1), (0x111, 4, 8 + 2 + 12 * 9 + 4), (0x115, 3, 1)]
    tags += [(0x116, 3, len(levels)), (0x117, 4, len(strip))]
    form = {3: "HHIHxx", 4: "HHII"}
    folder = b"".join(struct.pack(order + form[kind], tag, kind, 1, value) for tag, kind, value in tags)
    head = {"<": b"II\x2a\0", ">": b"MM\0\x2a"}[order] + struct.pack(order + "IH", 8, len(tags))
    return head + folder + bytes(4) + strip
