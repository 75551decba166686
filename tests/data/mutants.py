"""Over two hundred small image files, odd or damaged, with what a right reader answers: pixels, or a refusal.

Pixels come from the arrays that were written, or for lossy formats from Pillow's reading of the file before it was
changed; orientations are turned by numpy, transparency is laid over white by numpy. Nothing here calls jaxcnn.
"""

import dataclasses
import io
import itertools
import struct
import zlib

import numpy as np
from PIL import Image

UPRIGHT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL, FLOAT, DOUBLE = 1, 2, 3, 4, 5, 7, 10, 11, 12
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


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str
    data: bytes
    pixels: np.ndarray | None
    """uint8 [H, W, 3], or None for a file that must be refused."""
    cause: str = ""
    """What the refusal must say, in any case of letters."""
    tolerance: int = 0


def mutants(seed: int = 0) -> list[Mutant]:
    rng = np.random.default_rng(seed)
    return [*jpegs(rng), *oriented(rng), *chunked(rng), *deep(rng), *modes(rng)]


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


# JPEG


def jpegs(rng: np.random.Generator) -> list[Mutant]:
    found = []
    forms = {
        "baseline": {},
        "progressive": {"progressive": True},
        "grey": {},
        "restarts": {"restart_marker_blocks": 1},
        "CMYK": {},
    }
    for form, options in forms.items():
        pixels = picture(rng)
        image = Image.fromarray(pixels).convert({"grey": "L", "CMYK": "CMYK"}.get(form, "RGB"))
        data = encode(image, "JPEG", quality=int(rng.integers(60, 96)), **options)
        whole, other = by_pillow(data), encode(picture(rng), "JPEG")
        noise = rng.bytes(300)
        tails = {
            "text": b"appended by a camera",
            "a start of scan": b"\0\0\0\x18ftypmp42" + noise + b"\xff\xda" + noise,
            "a JPEG": other,
            "half a JPEG": other[: len(other) // 2],
            "a video with markers": b"\xff\xd8\xff\xda\xff\xc4" + noise,
            "zeros": bytes(500),
        }
        found += [Mutant(f"{form} JPEG before {name}", data + tail, whole) for name, tail in tails.items()]
        thumbnail = b"\xff\xe1" + struct.pack(">H", len(other) + 2) + other
        found.append(Mutant(f"{form} JPEG with a thumbnail", data[:2] + thumbnail + data[2:], whole))
        scan = data.index(b"\xff\xda") + 14
        cut = int(rng.integers(scan, len(data) - 2))
        cuts = {
            "cut": data[:cut],
            "cut, and a JPEG behind": data[:cut] + other,
            "cut, its thumbnail whole": data[:2] + thumbnail + data[2:cut],
            "whose rest was never written": data[:cut] + bytes(len(data) - cut),
        }
        found += [Mutant(f"{form} JPEG {name}", broken, None, "truncated") for name, broken in cuts.items()]
    first, second = picture(rng), picture(rng)
    several = encode(first, "MPO", save_all=True, append_images=[Image.fromarray(second)])
    end = several.index(b"\xff\xd9\xff\xd8") + 2
    found.append(Mutant("MPO", several, by_pillow(several[:end])))
    found.append(Mutant("MPO, the second picture cut", several[: end + 200], by_pillow(several[:end])))
    found.append(Mutant("MPO, the first picture cut", several[: end - 20] + several[end:], None, "truncated"))
    return found


# EXIF


def exif_block(orientation: int, *tags: tuple[int, int, int, bytes]) -> bytes:
    """A TIFF header and one folder with the orientation and these tags, big-endian."""
    entries = sorted([(0x0112, SHORT, 1, struct.pack(">HH", orientation, 0)), *tags])
    start, extra, folder = 8 + 2 + 12 * len(entries) + 4, b"", b""
    for tag, kind, count, value in entries:
        if len(value) > 4:
            value, extra = struct.pack(">I", start + len(extra)), extra + value
        folder += struct.pack(">HHI", tag, kind, count) + value.ljust(4, b"\0")
    return b"MM\0\x2a\0\0\0\x08" + struct.pack(">H", len(entries)) + folder + bytes(4) + extra


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


# PNG


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


# More than 8 bits


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


# Palettes, alpha, one bit, interlacing, other formats


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
