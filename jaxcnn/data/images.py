"""Encoded bytes of an image file -> uint8 [H, W, C], for whatever the file really is; and operations on its pixels.

ImageNet alone has CMYK JPEGs and a PNG that is named .JPEG (tfds#590); other sets have palettes, alpha, 16 bits and
EXIF rotation. What cannot be decoded in full is an error, never a black or half grey image.
"""

import io
import math
from typing import Literal

import numpy as np

Method = Literal["bilinear", "bicubic", "nearest", "lanczos", "box"]

ORIENTATION = 0x0112  # the EXIF tag


def decode(data: bytes, channels: int) -> np.ndarray:
    """Decodes the bytes of one image file to uint8 [H, W, channels], channels 1 (ITU-R 601 luma) or 3 (RGB).

    The format is taken from the bytes, not from a file name: all that Pillow reads. EXIF orientation is applied; of an
    animation the first frame is taken; transparent pixels are laid over white (black line drawings on a transparent
    black ground would otherwise be all black); 16-bit channels keep their high byte; CMYK is converted without its
    colour profile. Departures from torchvision's loader and from tf.image.decode_image: both ignore EXIF orientation
    and drop alpha.

    Raises ValueError, with the cause, for empty, truncated, corrupt and unknown data, and for 32-bit integer and float
    images, whose range is not known. A JPEG whose entropy-coded data is overwritten in the middle decodes without an
    error in libjpeg, and is not detected here.
    """
    from PIL import Image, ImageOps

    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels}")
    if not data:
        raise ValueError("the image is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "JPEG" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
                raise ValueError("the JPEG is truncated: it has no end marker")
            image.load()
            if orientation(image) not in (None, 1):
                image = ImageOps.exif_transpose(image)
            return np.array(to_mode(image, "L" if channels == 1 else "RGB")).reshape(
                image.height, image.width, channels
            )
    except MemoryError:
        raise
    except Exception as cause:  # Pillow's plugins raise OSError, SyntaxError, struct.error, zlib.error, IndexError, ...
        if not any(data):
            raise ValueError(f"all {len(data)} bytes are zero") from cause
        kind = "" if type(cause) in (ValueError, OSError) else f"{type(cause).__name__}: "
        text = str(cause) or "no further information"
        if isinstance(cause, Image.UnidentifiedImageError):
            kind, text = "", f"not an image that Pillow can read (it starts with {data[:8]!r})"
        raise ValueError(f"{kind}{text}") from cause


def orientation(image) -> int | None:
    """The EXIF orientation, None without one; a damaged EXIF block is no reason to refuse the pixels."""
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:
        return None


def to_mode(image, mode: str):
    """A Pillow image of any mode as `mode`, "L" or "RGB"."""
    from PIL import Image

    if image.mode.startswith("I;16") or (
        image.mode == "I" and image.format == "PNG"
    ):  # Pillow < 11.3 opens 16-bit PNG as "I"
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"the pixels are 32-bit {'integers' if image.mode == 'I' else 'floats'}, of unknown range; "
            "save it with 8 or 16 bits"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def resize(image: np.ndarray, size: tuple[int, int], method: Method) -> np.ndarray:
    """The image at (height, width), by Pillow."""
    from PIL import Image

    height, width = size
    if image.shape[:2] == (height, width):
        return image
    flat = image[..., 0] if image.shape[2] == 1 else image
    resized = Image.fromarray(np.ascontiguousarray(flat)).resize((width, height), Image.Resampling[method.upper()])
    return np.asarray(resized).reshape(height, width, image.shape[2])


def shorter_side(image: np.ndarray, size: int) -> tuple[int, int]:
    """(height, width) with the shorter side at `size` and the ratio kept."""
    height, width, _ = image.shape
    return (size, int(size * width / height)) if height <= width else (int(size * height / width), size)


def crop(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A view of the box."""
    return image[top : top + height, left : left + width]


def flip(image: np.ndarray, axis: int) -> np.ndarray:
    """The image mirrored along axis 0 (top and bottom) or 1 (left and right)."""
    import cv2

    return cv2.flip(np.ascontiguousarray(image), axis).reshape(image.shape)


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
