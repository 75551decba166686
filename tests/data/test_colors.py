"""Transforms of colors and levels, each against a second implementation (ImageEnhance, scikit-image, NumPy)."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color
from PIL import Image, ImageEnhance

from jaxcnn.data import transforms as T
from jaxcnn.data.colors import ColorJitter, Noise
from jaxcnn.errors import UserError
from tests.data.pictures import NOISE, RNG, SMOOTH, rng

ENHANCE = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}


def reference(field, image, factor):
    if field == "hue":
        hsv = skimage.color.rgb2hsv(image)
        hsv[..., 0] = (hsv[..., 0] + factor) % 1
        return np.rint(skimage.color.hsv2rgb(hsv) * 255)
    return np.asarray(ENHANCE[field](Image.fromarray(image)).enhance(factor)).astype(float)


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.9, 1.0, 1.4, 2.5])
@pytest.mark.parametrize("field", ENHANCE)
@pytest.mark.parametrize("image", [NOISE, SMOOTH, NOISE // 8], ids=["noise", "smooth", "dark"])
def test_color_ops_are_pillows(field, factor, image):
    out = ColorJitter(**{field: (factor, factor)})(image, rng())
    error = np.abs(out - reference(field, image, factor))  # Pillow truncates where we round
    assert error.max() <= (2 if field == "saturation" else 1) and error.mean() < 0.6


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.7])
def test_saturation_is_the_rounded_blend_with_the_luma(factor):
    luma = (NOISE @ np.array([0.299, 0.587, 0.114]))[..., None]
    exact = np.clip(luma + factor * (NOISE - luma), 0, 255)
    out = ColorJitter(saturation=(factor, factor))(NOISE, rng())
    assert np.abs(out - exact).max() <= 0.5 + 0.5 * abs(1 - factor) + 0.02  # the result is rounded, and so is the luma


@pytest.mark.parametrize("factor", [-0.5, -0.2, 0.0, 0.1, 1 / 3, 0.5])
def test_hue_turns_the_hsv_circle(factor):
    out = ColorJitter(hue=(factor, factor))(NOISE, rng())
    assert np.abs(out - reference("hue", NOISE, factor)).max() <= 1
    if factor == 1 / 3:  # a third of a turn: red becomes green becomes blue
        np.testing.assert_allclose(out, NOISE[..., [2, 0, 1]], atol=1)


def test_color_jitter_applies_all_four_in_a_random_order():
    factors = {"brightness": 1.3, "contrast": 0.5, "saturation": 0.4, "hue": 0.2}
    jitter = ColorJitter(**{field: (factor, factor) for field, factor in factors.items()})
    orders = {}
    for order in itertools.permutations(factors):
        image = NOISE
        for field in order:
            image = reference(field, image, factors[field]).astype(np.uint8)
        orders[order] = image.astype(int)
    seen = set()
    for seed in range(200):
        out = jitter(NOISE, rng(seed))
        error = {order: np.abs(out - image).mean() for order, image in orders.items()}
        best = min(error, key=error.get)
        assert error[best] < 1.5
        seen.add(best)
    assert len(seen) >= 6  # of 24, many of which differ by less than the rounding


def test_color_jitter_ranges_are_torchvisions():
    jitter = ColorJitter(brightness=0.4, contrast=1.5, saturation=(0.5, 0.6), hue=0.1)
    assert jitter.factors("brightness") == pytest.approx((0.6, 1.4)) and jitter.factors("contrast") == (0, 2.5)
    assert jitter.factors("saturation") == (0.5, 0.6) and jitter.factors("hue") == (-0.1, 0.1)
    grey, generator = np.full((1, 1, 3), 100, np.uint8), rng()
    levels = np.array([ColorJitter(brightness=0.4)(grey, generator)[0, 0, 0] for _ in range(3000)])
    assert levels.min() == 60 and levels.max() == 140 and abs(levels.mean() - 100) < 1.5
    assert abs(levels.std() - 80 / math.sqrt(12)) < 0.7


def test_color_jitter_of_grey_images_is_brightness_and_contrast():
    image = NOISE[..., :1]
    np.testing.assert_array_equal(ColorJitter(saturation=(0.1, 0.2), hue=0.5)(image, rng()), image)
    out = ColorJitter(contrast=(0.5, 0.5))(image, rng())
    expected = np.asarray(ImageEnhance.Contrast(Image.fromarray(image[..., 0])).enhance(0.5)).astype(int)
    assert np.abs(out[..., 0] - expected).max() <= 1


def test_noise_has_the_stated_deviation_and_clips():
    grey = np.full((200, 200, 3), 128, np.uint8)
    error = Noise(12.0)(grey, rng()).astype(float) - 128
    assert abs(error.mean()) < 0.15 and abs(error.std() - 12) < 0.15
    assert abs((np.abs(error) <= 12).mean() - 0.703) < 0.01  # of a normal rounded to integers: P(|x| < 12.5 / 12)
    assert abs(np.corrcoef(error[..., 0].ravel(), error[..., 1].ravel())[0, 1]) < 0.02  # channels are independent
    for level in (0, 255):
        out = Noise(30.0)(np.full((50, 50, 3), level, np.uint8), rng())
        assert abs((out == level).mean() - 0.5) < 0.03  # half of the draws point outwards, and do not wrap around
    np.testing.assert_array_equal(Noise(0.0)(NOISE, rng()), NOISE)


# Normalize.


@pytest.mark.parametrize("normalize", [T.IMAGENET, T.MEAN_RGB, T.UNIT, T.Normalize((100.0,), (10.0, 20.0, 30.0))])
def test_normalize_in_numpy_and_in_a_jitted_step(normalize):
    batch = RNG.integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    mean, std = (np.broadcast_to(np.array(v, np.float64), 3) for v in (normalize.mean, normalize.std))
    expected = np.stack([(batch[..., c] - mean[c]) / std[c] for c in range(3)], -1)
    for out in (normalize(batch), normalize(jnp.asarray(batch)), jax.jit(normalize)(batch)):
        assert out.dtype == np.float32 and out.shape == batch.shape
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_normalize_constants():
    np.testing.assert_allclose(np.array(T.IMAGENET.mean) / 255, (0.485, 0.456, 0.406), rtol=1e-12)
    np.testing.assert_allclose(np.array(T.IMAGENET.std) / 255, (0.229, 0.224, 0.225), rtol=1e-12)
    assert T.UNIT(np.array([[[0], [255]]], np.uint8)).ravel().tolist() == [0.0, 1.0]
    np.testing.assert_allclose(T.MEAN_RGB(np.full((1, 1, 3), 124, np.uint8))[0, 0], (0.32, 7.221, 20.061), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_normalize_does_not_broadcast_channels(channels):
    with pytest.raises(UserError, match="mean has 3 numbers"):
        T.IMAGENET(np.zeros((2, 4, 4, channels), np.uint8))
