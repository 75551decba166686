"""Palettes, alpha, one bit, interlacing, other formats."""

import struct
import zlib

import numpy as np
from PIL import Image

from tests.data.mutants.deep import grey_tiff
from tests.data.mutants.mutant import Mutant, encode, over_white, picture, rgb
from tests.data.mutants.png import png


def modes(rng: np.random.Generator) -> list[Mutant]:
    found = []
    for depth in (1, 2, 4, 8):
        largest = (1 << depth) - 1
        levels = rng.integers(0, largest + 1, (13, 18, 1))
        spread = (levels[..., 0] * (255 // largest)).astype(np.uint8)
        key = int(levels[4, 4, 0])
        clear = np.where(levels[..., 0] == key, 255, spread).astype(np.uint8)
        unused = 0 if depth == 8 else 1 << 12  # high bits of the transparent level do not count
        palette = rng.integers(0, 256, (largest + 1, 3), np.uint8)
        alpha = rng.integers(0, 256, largest + 1, np.uint8)
        chosen, trns = palette[levels[..., 0]], (b"tRNS", struct.pack(">H", key | unused))
        plte = (b"PLTE", palette.tobytes())
        shown = over_white(chosen, alpha[levels[..., 0]])
        found += [
            Mutant(f"{depth}-bit grey PNG", png(levels, depth, 0, interlaced=depth == 2), rgb(spread)),
            Mutant(f"{depth}-bit grey PNG, one level transparent", png(levels, depth, 0, before=[trns]), rgb(clear)),
            Mutant(f"{depth}-bit palette PNG", png(levels, depth, 3, before=[plte], interlaced=depth == 4), chosen),
            Mutant(
                f"{depth}-bit palette PNG with alpha",
                png(levels, depth, 3, before=[plte, (b"tRNS", alpha.tobytes())]),
                shown,
                tolerance=1,
            ),
        ]
    pixels, alpha = picture(rng), None
    alpha = rng.integers(0, 256, pixels.shape[:2], np.uint8)
    rgba = np.dstack([pixels, alpha])
    shown = over_white(pixels, alpha)
    key = struct.pack(">HHH", *(int(level) for level in pixels[5, 5]))
    clear = np.where((pixels == pixels[5, 5]).all(2, keepdims=True), 255, pixels).astype(np.uint8)
    grey = picture(rng, 1)[..., 0]
    found += [
        Mutant("RGB PNG, one color transparent", png(pixels, 8, 2, before=[(b"tRNS", key)]), clear),
        Mutant("interlaced RGBA PNG", png(rgba, 8, 6, interlaced=True), shown, tolerance=1),
        Mutant("grey PNG with alpha", encode(Image.fromarray(rgba).convert("LA"), "PNG"), *grey_alpha(rgba)),
        Mutant("32-bit BMP", encode(rgba, "BMP"), pixels),  # its fourth byte means nothing
        Mutant("BMP with alpha", bmp(rgba), shown, tolerance=1),
        Mutant("TGA with alpha", encode(rgba, "TGA"), shown, tolerance=1),
        Mutant("TIFF with alpha", encode(rgba, "TIFF"), shown, tolerance=1),
        Mutant("WebP with alpha", encode(rgba, "WEBP", lossless=True, exact=True), shown, tolerance=1),
        Mutant("ICO", encode(Image.fromarray(rgba[:9, :9]), "ICO", sizes=[(9, 9)]), shown[:9, :9], tolerance=1),
        Mutant("JPEG 2000", encode(pixels, "JPEG2000"), pixels),
        Mutant("16-bit JPEG 2000", encode(grey.astype(np.uint16) * 256 + 99, "JPEG2000"), rgb(grey)),
        Mutant("8-bit PGM up to 100", b"P5 3 1 100\n" + bytes([0, 50, 100]), rgb(np.array([[0, 128, 255]], np.uint8))),
        Mutant("CMYK TIFF", *cmyk_tiff(rng)),
        Mutant(
            "1-bit TIFF, white is zero", grey_tiff(np.array([[0x80]], np.uint8), "<", True, 1, 2, 1), *black_white()
        ),
        Mutant("8-bit TIFF, white is zero", grey_tiff(grey, "<", True, 1, bits=8), rgb(255 - grey)),
        Mutant("a PNG without columns", png(pixels[:, :0], 8, 2, stream=zlib.compress(b"")), None, "not an image"),
        Mutant("float TIFF", encode(np.ones((4, 4), np.float32), "TIFF"), None, "32-bit floats"),
    ]
    frames = [Image.fromarray(rng.integers(1, 256, (12, 15, 3), np.uint8)) for _ in range(2)]
    moving = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    found.append(Mutant("animated WebP", moving, np.asarray(frames[0])))
    indices = rng.integers(0, 4, (12, 15), np.uint8)
    palette = rng.integers(0, 256, (4, 3), np.uint8)
    image = Image.fromarray(indices, "L")
    image.putpalette(palette.tobytes())
    shown = np.where((indices == 2)[..., None], 255, palette[indices]).astype(np.uint8)
    found.append(Mutant("GIF with a transparent color", encode(image, "GIF", transparency=2, optimize=False), shown))
    return found


def bmp(rgba: np.ndarray) -> bytes:
    """A BMP that says which of its bits are alpha (BITMAPV4HEADER)."""
    height, width, _ = rgba.shape
    header = struct.pack("<IiiHHIIiiII", 108, width, -height, 1, 32, 3, rgba.size, 0, 0, 0, 0)
    header += struct.pack("<IIII", 0xFF, 0xFF00, 0xFF0000, 0xFF000000) + b"BGRs" + bytes(48)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + rgba.size, 0, 0, 14 + len(header)) + header + rgba.tobytes()


def grey_alpha(rgba: np.ndarray) -> tuple[np.ndarray, str, int]:
    grey = np.asarray(Image.fromarray(rgba[..., :3]).convert("L"))
    return over_white(rgb(grey), rgba[..., 3]), "", 1


def cmyk_tiff(rng: np.random.Generator) -> tuple[bytes, np.ndarray, str, int]:
    inks = rng.integers(0, 256, (9, 10, 4), np.uint8)
    shown = 255 * (1 - inks[..., :3] / 255) * (1 - inks[..., 3:] / 255)
    return encode(Image.fromarray(inks, "CMYK"), "TIFF"), np.rint(shown).astype(np.uint8), "", 2


def black_white() -> tuple[np.ndarray]:
    return (rgb(np.array([[0, 255]], np.uint8)),)
