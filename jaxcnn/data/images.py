"""Encoded bytes of an image file -> uint8 [H, W, C], for whatever the file really is; and operations on its pixels.

ImageNet alone has CMYK JPEGs and a PNG that is named .JPEG (tfds#590); other sets have palettes, alpha, 16 bits and
EXIF rotation. What cannot be decoded in full is an error, never a black or half grey image.
"""

import io
import math
import re
from collections.abc import Callable
from typing import Literal

import numpy as np

from jaxcnn.data import jpeg, png

Method = Literal["bilinear", "bicubic", "nearest", "lanczos", "box"]

ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC = 0x0112, 0x0102, 0x0106  # tags of EXIF and TIFF
TURNS: dict[int | None, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}
"""How the pixels of each EXIF orientation become upright; of 1, and of a number that means nothing, they are."""
LARGEST = 89_478_485
"""Pixels of one image: where Pillow begins to warn. Of these an image takes up to 7 bytes each while it is decoded."""
BAND = 1 << 20
"""Pixels that are converted at once."""
PPM_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"


def decode(data: bytes, channels: int) -> np.ndarray:
    """Decodes the bytes of one image file to uint8 [H, W, channels], channels 1 (ITU-R 601 luma) or 3 (RGB).

    The format is taken from the bytes, not from a file name: all that Pillow reads. The orientation that EXIF or XMP
    names is applied; of an animation or several pictures the first is taken; transparent pixels are laid over white
    (black line drawings on a transparent black ground would otherwise be all black); of more than 8 bits the 8 high
    ones are kept, in every format; CMYK is converted without its color profile. A JPEG of more than LARGEST pixels is
    decoded at a half, a quarter or an eighth of its size, whichever is the first to fit. Departures from torchvision's
    loader and from tf.image.decode_image: both ignore EXIF orientation and drop alpha.

    Raises ValueError, with the cause, for empty, truncated, corrupt and unknown data, for 32-bit integer and float
    images, whose range is not known, and for other images of more than LARGEST pixels. A JPEG without its end marker is
    refused even if all rows can be decoded, for they may be made of what was never written. A JPEG whose entropy-coded
    data is overwritten in the middle decodes without an error in libjpeg, and is not detected here.
    """
    from PIL import Image

    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels}")
    if not data:
        raise ValueError("the image is empty (0 bytes)")
    if data.startswith(jpeg.START) and (pixels := quickly_decoded(data, channels)) is not None:
        return pixels
    try:
        needed = png.essential(data) if data.startswith(png.SIGNATURE) else data
        with Image.open(io.BytesIO(needed)) as image:
            if data.startswith(jpeg.START) and not jpeg.is_whole(data):
                raise ValueError("the JPEG is truncated: it has no end marker")
            bound(image)
            image.load()
            if image.format == "PNG" and lacks_rows(image, needed):
                raise ValueError("the PNG is broken: its last rows are missing")
            pixels = to_array(to_eight_bits(image, needed), channels)
            turn = None if image.format == "TIFF" else turn_of(image)  # Pillow turns a TIFF as it loads it
        return pixels if turn is None else np.ascontiguousarray(turn(pixels))
    except MemoryError:
        raise
    except Exception as cause:  # Pillow raises OSError, SyntaxError, struct.error, zlib.error, IndexError, ...
        if not any(data):
            raise ValueError(f"all {len(data)} bytes are zero") from cause
        kind = "" if type(cause) in (ValueError, OSError) else f"{type(cause).__name__}: "
        text = str(cause) or "no further information"
        if isinstance(cause, Image.UnidentifiedImageError):
            kind, text = "", f"not an image that Pillow can read (it starts with {data[:8]!r})"
        raise ValueError(f"{kind}{text}") from cause


def quickly_decoded(data: bytes, channels: int) -> np.ndarray | None:
    """The same pixels for a JPEG in two thirds of the time, by simplejpeg; None if Pillow has to look at it.

    Pillow copies the pixels twice, from libjpeg-turbo into its own image and from there.
    """
    frame = jpeg.frame_of(data)
    if frame is None or frame.height * frame.width > LARGEST:
        return None
    pixels = jpeg.pixels_of(data, frame, channels)
    if pixels is not None and frame.described and (turn := turn_of_jpeg(data)) is not None:
        return np.ascontiguousarray(turn(pixels))
    return pixels


def turn_of_jpeg(data: bytes) -> Callable[[np.ndarray], np.ndarray] | None:
    """As `turn_of`, of a file whose pixels need not be loaded for it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return turn_of(image)
    except Exception:  # Pillow says why when it decodes it
        return None


def bound(image) -> None:
    """Lets an opened image of more than LARGEST pixels be decoded smaller. Raises ValueError if its format cannot."""
    width, height = image.size
    if not width * height:
        raise ValueError(f"the image has no pixels: {height}x{width}")
    part = next((part for part in (1, 2, 4, 8) if width * height <= LARGEST * part**2), 8)
    if part > 1:
        image.draft(None, (width // part, height // part))
    if image.width * image.height > LARGEST:
        raise ValueError(
            f"the image has {height}x{width} pixels, {width * height / 1e6:.0f} million; more than "
            f"{LARGEST / 1e6:.0f} million are read of JPEG alone; save it smaller"
        )


def turn_of(image) -> Callable[[np.ndarray], np.ndarray] | None:
    """What brings the pixels of a loaded image upright; a damaged EXIF block is no reason to refuse them."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:
        return None


def orientation(data: bytes) -> int:
    """The EXIF orientation by which `decode` turns an image file, 1 to 8; 1, upright, if it names none."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            number = int(image.getexif().get(ORIENTATION, 1))
            return number if number in TURNS else 1
    except Exception:  # as turn_of
        return 1


def lacks_rows(image, data: bytes) -> bool:
    """Whether the compressed pixels of a loaded PNG end too early. Pillow leaves the missing rows at zero and says
    nothing, so only an image with such a row at its end is unpacked a second time, to be counted.
    """
    end = np.asarray(image.crop((0, max(image.height - 2, 0), *image.size)))
    return not end.any(axis=tuple(range(1, end.ndim))).all() and png.inflated(data) < png.expected(data)


def to_eight_bits(image, data: bytes):
    """A loaded Pillow image with at most 8 bits a channel: of more, the 8 high ones. Its transparent color, if it is of
    more than 8 bits, is laid over white.

    Raises ValueError for 32-bit pixels.
    """
    from PIL import Image

    key = image.info.get("transparency")
    if image.format == "PPM" and image.mode == "RGB" and (deep := deep_ppm(data)) is not None:
        return Image.fromarray(deep)
    if image.format == "PNG" and image.mode == "RGB" and key is not None and data[24] == 16:
        import cv2

        # Pillow has dropped the low bytes.
        samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if samples is None:
            raise ValueError("OpenCV cannot read its 16-bit samples")
        return Image.fromarray(np.where(samples[..., 3:] == 0, 255, np.asarray(image)).astype(np.uint8))
    # Pillow opens 16-bit PGM as "I", and before 11.3 16-bit PNG too.
    if not image.mode.startswith("I;16") and not (image.mode == "I" and image.format in ("PNG", "PPM")):
        if image.mode in ("I", "F"):
            raise ValueError(
                f"the pixels are 32-bit {'integers' if image.mode == 'I' else 'floats'}, of unknown range; "
                "save it with 8 or 16 bits"
            )
        return image
    samples, bits = np.asarray(image).astype(np.uint16), 16
    if image.format == "TIFF":
        bits = image.tag_v2.get(BITS_PER_SAMPLE, (bits,))[0]
        if image.tag_v2.get(PHOTOMETRIC) == 0:
            samples = (1 << bits) - 1 - samples  # white is zero
    levels = (samples >> bits - 8).astype(np.uint8)
    if key is not None:
        levels[samples == key] = 255
    return Image.fromarray(levels)


def deep_ppm(data: bytes) -> np.ndarray | None:
    """The high bytes of a PPM of more than 8 bits, uint8 [H, W, 3], after its levels are spread to 16 bits; None for
    one of 8. Read as a PGM that is three times as wide: Pillow rounds colors of 16 bits, and keeps levels of grey.
    """
    from PIL import Image

    head = re.match(rb"P([36])(%b)(\d+)(%b\d+%b)(\d+)" % (PPM_SPACE, PPM_SPACE, PPM_SPACE), data)
    if head is None or int(head[5]) < 256:
        return None
    kind = b"P5" if head[1] == b"6" else b"P2"
    grey = kind + head[2] + b"%d" % (3 * int(head[3])) + head[4] + head[5] + data[head.end() :]
    with Image.open(io.BytesIO(grey)) as image:
        return (np.asarray(image) >> 8).astype(np.uint8).reshape(image.height, -1, 3)


def to_array(image, channels: int) -> np.ndarray:
    """A loaded Pillow image of any mode as uint8 [H, W, channels], band by band: a copy of a large image in each mode
    on the way would take several times its memory.
    """
    width, height = image.size
    pixels = np.empty((height, width, channels), np.uint8)
    rows = max(BAND // width, 1)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        band = image if rows >= height else image.crop((0, top, width, bottom))
        levels = np.asarray(to_mode(band, "L" if channels == 1 else "RGB"))
        pixels[top:bottom] = levels.reshape(bottom - top, width, channels)
    return pixels


def to_mode(image, mode: str):
    """A Pillow image of at most 8 bits as `mode`, "L" or "RGB", laid over white if it has transparent pixels."""
    from PIL import Image

    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def resize(
    image: np.ndarray,
    size: tuple[int, int],
    method: Method,
    antialias: bool = True,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """The image, or its box (left, top, right, bottom), at (height, width), by Pillow; without `antialias`, bilinear or
    bicubic, by OpenCV.
    """
    from PIL import Image

    height, width = size
    if box is None and image.shape[:2] == (height, width):
        return image
    if not antialias:
        return _interpolated(image, size, method, box or (0, 0, image.shape[1], image.shape[0]))
    flat = image[..., 0] if image.shape[2] == 1 else image
    resampling = Image.Resampling[method.upper()]
    resized = Image.fromarray(np.ascontiguousarray(flat)).resize((width, height), resampling, box)
    return np.asarray(resized).reshape(height, width, image.shape[2])


def _interpolated(
    image: np.ndarray, size: tuple[int, int], method: Method, box: tuple[float, float, float, float]
) -> np.ndarray:
    """The box of an image at (height, width): each pixel from those around its middle, however large the box is."""
    import cv2

    height, width = size
    how = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}[method]
    left, top, right, bottom = box
    if box == (0, 0, image.shape[1], image.shape[0]):
        resized = cv2.resize(image, (width, height), interpolation=how)
    else:
        down, across = (bottom - top) / height, (right - left) / width  # middles to middles
        to_box = np.array([[across, 0, left + across / 2 - 0.5], [0, down, top + down / 2 - 0.5]])
        flags = how | cv2.WARP_INVERSE_MAP
        resized = cv2.warpAffine(image, to_box, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return resized.reshape(height, width, image.shape[2])


def shorter_side(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """(height, width) with the shorter side of an image of this shape at `size` and the ratio kept."""
    height, width = shape[:2]
    return (size, int(size * width / height)) if height <= width else (int(size * height / width), size)


def flip(image: np.ndarray, axis: int) -> np.ndarray:
    """The image mirrored along axis 0 (top and bottom) or 1 (left and right)."""
    import cv2

    flipped = cv2.flip(np.ascontiguousarray(image), axis)
    return flipped if flipped.ndim == 3 else flipped[..., None]


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Every level times `factor`; 0 is black."""
    return by_table(image, np.arange(256) * factor)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Distances to the mean grey of the image times `factor`; 0 is that grey (rounded, as in Pillow)."""
    mean = math.floor(grey(image).mean() + 0.5)
    return by_table(image, mean + (np.arange(256) - mean) * factor)


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Distances of each pixel to its own grey times `factor`; 0 is a grey image. Nothing for one channel."""
    import cv2

    if image.shape[2] == 1:
        return image
    return cv2.addWeighted(
        np.ascontiguousarray(image), factor, cv2.cvtColor(grey(image), cv2.COLOR_GRAY2RGB), 1 - factor, 0
    )


def hue(image: np.ndarray, factor: float) -> np.ndarray:
    """Turns the hue (HSV) by `factor` of the full circle. Nothing for one channel."""
    import cv2

    if image.shape[2] == 1:
        return image
    hsv = cv2.cvtColor(np.ascontiguousarray(image, np.float32) / 255, cv2.COLOR_RGB2HSV)  # hue in degrees
    hsv[..., 0] = (hsv[..., 0] + np.float32(factor * 360)) % 360
    return np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).astype(np.uint8)


def grey(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W], the ITU-R 601 luma of the image."""
    import cv2

    return image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)


def by_table(image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Replaces each level by that of a table of 256, rounded and clipped."""
    import cv2

    return cv2.LUT(np.ascontiguousarray(image), np.clip(np.rint(levels), 0, 255).astype(np.uint8)).reshape(image.shape)
