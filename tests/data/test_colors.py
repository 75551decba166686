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
from jaxcnn.data.colors import ColorJitter, Noise, PCANoise, RandomErasing
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


def test_pca_noise_has_the_covariance_that_it_is_drawn_from():
    """AlexNet, section 4.1: an image is shifted as a whole, by P diag(v) a, so with the covariance P diag(v)^2 P^T."""
    noise, generator = PCANoise(std=0.5), rng()
    grey = np.full((2, 3, 3), 128, np.uint8)
    out = np.array([noise(grey, generator) for _ in range(8000)], float)
    assert (out == out[:, :1, :1]).all()
    axes = np.array(noise.vectors) * noise.values
    np.testing.assert_allclose(np.cov(out[:, 0, 0].T), 0.25 * axes @ axes.T, rtol=0.06, atol=2)
    np.testing.assert_allclose(np.array(noise.vectors).T @ noise.vectors, np.eye(3), atol=1e-3)
    assert abs(out.mean() - 128) < 0.5
    np.testing.assert_array_equal(PCANoise(std=0)(NOISE, rng()), NOISE)
    with pytest.raises(UserError, match="the image has 1 channels"):
        noise(grey[..., :1], rng())


def test_random_erasing_overwrites_a_rectangle_of_the_drawn_area_and_ratio():
    erasing, generator = RandomErasing(probability=1.0, value=(1, 2, 3)), rng()
    image = np.full((100, 80, 3), 200, np.uint8)
    areas, ratios, tops = [], [], []
    for _ in range(2000):
        out = erasing(image, generator)
        changed = (out != image).any(-1)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        part = out[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (part == (1, 2, 3)).all() and changed.sum() == part[..., 0].size
        areas.append(changed.mean())
        ratios.append(part.shape[0] / part.shape[1])
        tops.append(rows[0] / (100 - len(rows)))
    assert 0.015 < min(areas) < 0.03 and 0.3 < max(areas) < 0.34 and abs(np.mean(tops) - 0.5) < 0.03
    assert 0.27 < min(ratios) < 0.4 and 2.5 < max(ratios) < 3.7 and abs(np.log(ratios).mean()) < 0.1
    assert (image == 200).all()


def test_random_erasing_erases_as_often_as_it_says_and_random_levels_are_uniform():
    generator = rng()
    image = np.zeros((32, 32, 3), np.uint8)
    often = [RandomErasing(probability=0.25)(image, generator) is not image for _ in range(2000)]
    assert abs(np.mean(often) - 0.25) < 0.03
    whole = RandomErasing(probability=1.0, scale=(0.9, 0.9), ratio=(1.0, 1.0))(image, generator)
    levels = whole[whole > 0]
    assert abs(levels.mean() - 128) < 4 and abs(levels.std() - 74) < 3
    same = RandomErasing(probability=1.0, scale=(1.0, 1.0), ratio=(0.3, 0.3))(image, generator)
    assert same is image  # none of ten draws fits
