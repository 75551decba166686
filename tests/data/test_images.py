"""Decoding of whatever lies in image folders, against formulas, flat colours and lossless arrays."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data import images
from jaxcnn.data.images import decode
from tests.data.mutants.png import png

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)


def encode(image, kind: str, **options) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def flat(mode: str, color, size=(24, 16)) -> Image.Image:
    return Image.new(mode, size, color)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "TGA"])
def test_lossless_formats_come_back_bit_for_bit(kind):
    decoded = decode(encode(NOISE, kind), 3)
    assert decoded.dtype == np.uint8 and decoded.flags.writeable
    np.testing.assert_array_equal(decoded, NOISE)


def test_grey_as_rgb_repeats_the_level():
    image = decode(encode(NOISE[..., 0], "PNG"), 3)
    np.testing.assert_array_equal(image, np.repeat(NOISE[..., :1], 3, axis=2))


def test_rgb_as_grey_is_the_luma_of_itu_r_601():
    luma = NOISE @ np.array([0.299, 0.587, 0.114])
    image = decode(encode(NOISE, "PNG"), 1)
    assert image.shape == (13, 17, 1)
    assert np.abs(image[..., 0] - luma).max() <= 0.51


@pytest.mark.parametrize("cmyk", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 200, 40, 30), (90, 10, 120, 60)])
def test_cmyk_jpeg_is_not_inverted(cmyk):
    c, m, y, k = cmyk
    expected = [255 * (1 - ink / 255) * (1 - k / 255) for ink in (c, m, y)]
    image = decode(encode(flat("CMYK", cmyk), "JPEG", quality=100), 3)
    assert image.shape == (16, 24, 3)
    assert np.abs(image - expected).max() <= 4


def test_palette_and_first_frame_of_a_gif():
    red, blue = flat("P", 0), flat("P", 1)
    for frame in (red, blue):
        frame.putpalette([255, 0, 0, 0, 0, 255])
    data = encode(red, "GIF", save_all=True, append_images=[blue])
    np.testing.assert_array_equal(decode(data, 3), np.full((16, 24, 3), (255, 0, 0)))


def test_alpha_is_laid_over_white():
    image = np.zeros((4, 4, 4), np.uint8)  # transparent black ...
    image[0] = (10, 20, 30, 255)  # ... opaque ...
    image[1] = (0, 0, 0, 127)  # ... and half transparent black
    decoded = decode(encode(image, "PNG"), 3)
    assert (decoded[0] == (10, 20, 30)).all() and (decoded[2:] == 255).all()
    assert np.abs(decoded[1].astype(int) - 128).max() <= 1
    grey_alpha = decode(encode(flat("LA", (0, 0)), "PNG"), 1)
    assert (grey_alpha == 255).all()


def test_palette_with_a_transparent_entry_is_laid_over_white():
    image = flat("P", 0)
    image.putpalette([0, 0, 0, 9, 9, 9])
    assert (decode(encode(image, "PNG", transparency=0), 3) == 255).all()
    assert (decode(encode(image, "PNG"), 3) == 0).all()


def test_sixteen_bit_png_keeps_the_high_byte_also_when_it_is_dark():
    levels = np.array([[0, 255, 256, 511], [4660, 32768, 65279, 65535]], np.uint16)
    image = decode(encode(levels, "PNG"), 1)
    np.testing.assert_array_equal(image[..., 0], levels >> 8)
    dark = np.full((4, 4), 200, np.uint16)  # must not be taken for 8 bits
    assert (decode(encode(dark, "PNG"), 3) == 0).all()
    np.testing.assert_array_equal(decode(encode(levels, "TIFF"), 1)[..., 0], levels >> 8)


def test_one_bit_images_are_black_and_white():
    bits = NOISE[..., 0] > 127
    np.testing.assert_array_equal(decode(encode(Image.fromarray(bits), "PNG"), 1)[..., 0], bits * 255)


ROTATED = {  # EXIF orientation -> how the stored array becomes upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", ROTATED)
def test_exif_orientation_is_applied_once(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(NOISE, kind, exif=exif)
    np.testing.assert_array_equal(decode(data, 3), ROTATED[orientation](NOISE))


def test_jpeg_with_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16] = 255  # the left half is white: upright, it is the upper half
    upright = decode(encode(image, "JPEG", exif=exif), 3)
    assert upright.shape == (32, 16, 3) and upright[:14].min() > 240 and upright[18:].max() < 15


def test_damaged_exif_block_does_not_cost_the_image():
    jpeg = encode(flat("RGB", (200, 100, 50)), "JPEG")
    block = b"Exif\0\0MM\0\x2a\xff\xff\xff\xff"
    data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]
    assert np.abs(decode(data, 3) - np.array([200, 100, 50])).max() <= 4


STATIC = encode(
    RNG.integers(0, 256, (60, 60, 3), dtype=np.uint8), "JPEG"
)  # libjpeg decodes zeros in its place silently
JPEG = encode(np.kron(NOISE, np.ones((8, 8, 1), np.uint8)), "JPEG")
PNG = encode(NOISE, "PNG")
DAMAGED = {
    "zero-byte": (b"", "empty"),
    "all zeros": (bytes(500), "all 500 bytes are zero"),
    "text": (b"<html>not found</html>", "not an image"),
    "jpeg header": (JPEG[:200], "Truncated"),
    "half a jpeg": (JPEG[: len(JPEG) // 2], "truncated"),
    "jpeg without its last byte": (JPEG[:-1], "truncated"),
    "jpeg whose second half was never written": (STATIC[: len(STATIC) // 2].ljust(len(STATIC), b"\0"), "truncated"),
    "half a progressive jpeg": (encode(NOISE, "JPEG", progressive=True)[:500], "truncated"),
    "half a png": (PNG[: len(PNG) // 2], "truncated"),
    "png with a flipped byte": (PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:], "broken"),
    "header of a gif": (encode(NOISE, "GIF")[:10], "not an image"),
    "float tiff": (encode(np.ones((4, 4), np.float32), "TIFF"), "32-bit floats"),
    "32-bit tiff": (encode(np.ones((4, 4), np.int32), "TIFF"), "32-bit integers"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_images_raise_with_the_cause(case):
    data, cause = DAMAGED[case]
    with pytest.raises(ValueError, match=cause) as error:
        decode(data, 3)
    assert len(str(error.value)) > 10


def test_jpeg_with_bytes_after_its_end_is_fine():
    np.testing.assert_array_equal(decode(JPEG + b"appended by a camera", 3), decode(JPEG, 3))


def test_only_one_or_three_channels():
    with pytest.raises(ValueError, match="channels"):
        decode(PNG, 4)


def test_a_jpeg_above_the_largest_size_is_decoded_smaller_and_others_are_refused(monkeypatch):
    tall = np.kron(NOISE, np.ones((16, 16, 1), np.uint8))  # 208x272
    monkeypatch.setattr(images, "LARGEST", tall.shape[0] * tall.shape[1] // 3)  # a half does, in both directions
    exif = Image.Exif()
    exif[0x0112] = 6
    half = decode(encode(tall, "JPEG", quality=95, exif=exif), 3)
    assert half.shape == (136, 104, 3)
    blocks = np.rot90(tall, -1).reshape(136, 2, 104, 2, 3).mean((1, 3))
    assert np.abs(half - blocks).mean() < 4
    with pytest.raises(ValueError, match=r"208x272 pixels, 0 million; more than 0 million are read of JPEG alone"):
        decode(encode(tall, "PNG"), 3)
    monkeypatch.setattr(images, "LARGEST", tall.shape[0] * tall.shape[1])
    assert decode(encode(tall, "PNG"), 3).shape == tall.shape


def test_a_png_of_169_million_pixels_is_refused_before_it_takes_memory():
    row = b"\0" + bytes(13_000 * 3)
    stream = zlib.compress(row * 3)  # whatever follows: nothing of it is unpacked
    with pytest.raises(ValueError, match="13000x13000 pixels, 169 million"):
        decode(png(np.empty((13_000, 13_000, 0), np.uint8), 8, 2, stream=stream), 3)


def test_pixels_are_converted_band_by_band(monkeypatch):
    alpha = np.dstack([NOISE, NOISE[..., 0]])
    for pixels in (NOISE, alpha, NOISE[..., 0], NOISE[..., 0].astype(np.uint16) * 256):
        data = encode(pixels, "PNG")
        whole = [decode(data, channels) for channels in (1, 3)]
        monkeypatch.setattr(images, "BAND", 3 * NOISE.shape[1])  # four bands of 3 rows, and one of 1
        for channels, want in zip((1, 3), whole, strict=True):
            np.testing.assert_array_equal(decode(data, channels), want)
        monkeypatch.undo()
