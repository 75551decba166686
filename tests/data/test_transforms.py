"""Each transform against a second implementation (NumPy, ImageEnhance, scikit-image), never its own library."""

import hashlib
import json
import math
import pickle
from dataclasses import asdict

import numpy as np
import pytest
import skimage.color
import skimage.transform

from jaxcnn.data import transforms as T
from jaxcnn.data.colors import ColorJitter, Noise
from jaxcnn.data.images import resize
from jaxcnn.errors import UserError
from tests.data.pictures import NOISE, SMOOTH, rng

FROZEN = "86c341ee88274490c6ff79722c83fa987b34599771234d2d4fe1178e21676d1f"


ALL = [
    T.Resize(24),
    T.Resize((60, 20), "lanczos"),
    T.CenterCrop(24),
    T.RandomCrop((20, 30)),
    T.Pad(3, 9),
    T.PadTo((40, 50), 9),
    T.PadAndCrop(4),
    T.RandomResizedCrop(16),
    T.ScaleJitter(20, 40),
    T.HorizontalFlip(),
    T.VerticalFlip(),
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    T.Rotate(30.0, 5),
    Noise(10.0),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_contract(transform, channels):
    image = NOISE[..., :channels].copy()
    image.flags.writeable = False  # the input is never written to
    copy = pickle.loads(pickle.dumps(transform))
    assert copy == transform and hash(copy) == hash(transform)
    assert json.loads(json.dumps(asdict(transform))).keys() == asdict(transform).keys()
    outs = [transform(image, rng(seed)) for seed in range(12)]
    for seed, out in enumerate(outs):
        assert out.dtype == np.uint8 and out.ndim == 3 and out.shape[2] == channels
        np.testing.assert_array_equal(out, copy(image, rng(seed)))  # the same state, the same result
    view = np.asfortranarray(image)[::-1, ::-1]  # an awkward memory layout gives the same pixels
    np.testing.assert_array_equal(transform(view, rng(3)), transform(np.ascontiguousarray(view), rng(3)))
    distinct = {out.tobytes() for out in outs}
    deterministic = isinstance(transform, T.DETERMINISTIC)
    assert (len(distinct) == 1) == deterministic


def test_what_is_drawn_and_shown_is_frozen():
    """Stored results rest on it. Resampled pixels may differ between versions of Pillow: their draws are held alone."""
    image, digest = np.arange(37 * 53 * 3, dtype=np.uint32).astype(np.uint8).reshape(37, 53, 3), hashlib.sha256()
    exact = [
        T.CenterCrop((24, 31)),
        T.RandomCrop((20, 30)),
        T.Pad((3, 1), (1, 2, 3)),
        T.PadAndCrop((4, 9)),
        T.PadAndCrop(0),
    ]
    exact += [T.PadAndCrop(6, (30, 61), 9), T.HorizontalFlip(), T.VerticalFlip(0.3), T.Resize((74, 53), "nearest")]
    resampled = [T.ScaleJitter(20, 60), T.RandomResizedCrop(9), T.Rotate(30.0), ColorJitter(0.4, 0.4), Noise(9.0)]
    for transform in exact + resampled:
        for seed in range(20):
            generator = rng(seed)
            out = transform(image, generator)
            digest.update(f"{transform.__class__.__name__} {out.shape} {generator.random()}".encode())
            if transform in exact:
                digest.update(out.tobytes())
    digest.update(repr([T.RandomResizedCrop(9).box(37, 53, rng(seed)) for seed in range(20)]).encode())
    assert digest.hexdigest() == FROZEN


# Resize: the antialiased separable filter, written from its definition.

KERNELS = {
    "box": lambda x: ((x > -0.5) & (x <= 0.5)).astype(float),
    "bilinear": lambda x: np.maximum(0, 1 - np.abs(x)),
    "bicubic": lambda x: np.where(
        np.abs(x) < 1,
        1.5 * np.abs(x) ** 3 - 2.5 * x**2 + 1,
        np.where(np.abs(x) < 2, -0.5 * (np.abs(x) ** 3 - 5 * x**2 + 8 * np.abs(x) - 4), 0),
    ),
    "lanczos": lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0),
}


def filter_matrix(source, target, method):
    kernel = KERNELS[method]
    scale = source / target
    centers = (np.arange(target)[:, None] + 0.5) * scale
    weights = kernel((np.arange(source) + 0.5 - centers) / max(scale, 1))
    return weights / weights.sum(1, keepdims=True)


def resampled(image, height, width, method):
    rows, columns = filter_matrix(image.shape[0], height, method), filter_matrix(image.shape[1], width, method)
    return np.einsum("yh,hwc,xw->yxc", rows, image.astype(float), columns)


@pytest.mark.parametrize("method", KERNELS)
@pytest.mark.parametrize("size", [(13, 19), (24, 24), (80, 100), (30, 90), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_within_one_level_of_the_antialiased_filter(method, size, channels):
    image = (NOISE[..., :channels] // 4 + 96).astype(np.uint8)  # so that nothing clips between the passes
    out = T.Resize(size, method)(image, rng())
    assert out.shape == (*size, channels)
    assert np.abs(out.astype(int) - np.rint(resampled(image, *size, method))).max() <= 1


def test_resize_nearest_takes_the_pixel_under_the_centre():
    rows, columns = ((np.arange(n) + 0.5) * m / n for n, m in ((24, 37), (70, 53)))
    expected = NOISE[np.floor(rows).astype(int)][:, np.floor(columns).astype(int)]
    np.testing.assert_array_equal(T.Resize((24, 70), "nearest")(NOISE, rng()), expected)


@pytest.mark.parametrize(
    ("shape", "expected"), [((37, 53), (24, 34)), ((53, 37), (34, 24)), ((50, 50), (24, 24)), ((24, 99), (24, 99))]
)
def test_resize_of_an_int_sets_the_shorter_side(shape, expected):
    image = np.zeros((*shape, 3), np.uint8)
    assert T.Resize(24)(image, rng()).shape[:2] == expected


# Crops: an image whose pixels are their own coordinates.

PLACE = np.stack(np.meshgrid(np.arange(40), np.arange(60), [0], indexing="ij"), -1)[:, :, 0].astype(np.uint8)


def window(out, padded=0):
    """(top, left) of a crop of PLACE, checked to be one box of it."""
    top, left = int(out[0, 0, 0]), int(out[0, 0, 1])
    np.testing.assert_array_equal(out, PLACE[top : top + out.shape[0], left : left + out.shape[1]])
    return top, left


@pytest.mark.parametrize(
    ("size", "expected"),
    [(24, (8, 18)), ((40, 60), (0, 0)), ((39, 57), (0, 2)), ((37, 59), (2, 0)), ((1, 1), (20, 30))],
)
def test_center_crop(size, expected):
    out = T.CenterCrop(size)(PLACE, rng())
    assert out.shape[:2] == ((size, size) if isinstance(size, int) else size)
    assert window(out) == expected


def uniform(values, low, high):
    """Every integer of [low, high] is drawn, and Pearson's chi-squared is below its mean + 4 deviations."""
    counts = np.bincount(np.asarray(values) - low, minlength=high - low + 1)
    assert len(counts) == high - low + 1 and counts.min() > 0
    mean = len(values) / len(counts)
    free = len(counts) - 1
    assert ((counts - mean) ** 2 / mean).sum() < free + 4 * math.sqrt(2 * free) + 4


def test_random_crop_is_uniform_over_all_places():
    generator, crop = rng(), T.RandomCrop((36, 50))
    places = [window(crop(PLACE, generator)) for _ in range(3000)]
    uniform([top for top, _ in places], 0, 4)
    uniform([left for _, left in places], 0, 10)
    assert len(set(places)) == 5 * 11
    assert T.RandomCrop((40, 60))(PLACE, rng()).shape == PLACE.shape


@pytest.mark.parametrize(
    "crop", [T.CenterCrop((41, 10)), T.RandomCrop((10, 61)), T.PadAndCrop(0, 41), T.PadAndCrop((1, 9), (43, 9))]
)
def test_crop_larger_than_the_image_names_both_sizes_and_a_remedy(crop):
    with pytest.raises(UserError, match=r"40 x 60 \(height x width\).*crop of \d+ x \d+.*Resize") as error:
        crop(PLACE, rng())
    assert type(crop).__name__ in str(error.value)


@pytest.mark.parametrize("value", [0, 7, (1, 2, 3)])
@pytest.mark.parametrize("padding", [0, 3, (2, 5)])
def test_pad(padding, value):
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    levels = np.broadcast_to(value, 3)
    planes = [np.pad(NOISE[..., c], ((rows, rows), (columns, columns)), constant_values=levels[c]) for c in range(3)]
    np.testing.assert_array_equal(T.Pad(padding, value)(NOISE, rng()), np.stack(planes, -1))


@pytest.mark.parametrize(("size", "rows", "columns"), [(60, 23, 7), ((30, 60), 0, 7), ((37, 53), 0, 0), (5, 0, 0)])
def test_pad_to_fills_up_below_and_on_the_right(size, rows, columns):
    expected = np.pad(NOISE, ((0, rows), (0, columns), (0, 0)), constant_values=7)
    np.testing.assert_array_equal(T.PadTo(size, 7)(NOISE, rng()), expected)


@pytest.mark.parametrize("size", [None, 30, (3, 3), (45, 69)])
def test_pad_and_crop_is_a_uniform_window_of_the_padded_image(size):
    image = 1 + np.arange(40 * 60, dtype=np.uint32).reshape(40, 60)
    image = image.view(np.uint8).reshape(40, 60, 4)[
        ..., :3
    ]  # every pixel unlike every other, and none like the padding
    padded = np.pad(image, ((4, 4), (5, 5), (0, 0)))
    transform, generator = T.PadAndCrop((4, 5), size), rng()
    height, width = (40, 60) if size is None else np.broadcast_to(size, 2)
    view = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (0, 1)).transpose(0, 1, 3, 4, 2)
    places = []
    for _ in range(400):
        out = transform(image, generator)
        assert out.shape == (height, width, 3)
        match = np.argwhere((view[:, :, 0, 0] == out[0, 0]).all(-1) & (view[:, :, -1, -1] == out[-1, -1]).all(-1))
        found = [place for place in match if (view[tuple(place)] == out).all()]
        assert found
        if len(found) == 1:  # a window of nothing but padding has several places
            places.append(found[0])
    tops, lefts = np.array(places).T
    if size is None:
        uniform(tops, 0, 8)
        uniform(lefts, 0, 10)
    assert tops.max() - tops.min() >= (48 - height) * 0.8 and lefts.max() - lefts.min() >= (70 - width) * 0.8


# Random resized crop.


def test_random_resized_crop_shows_the_drawn_box():
    transform = T.RandomResizedCrop((12, 20), method="bicubic")
    image = (NOISE // 4 + 96).astype(np.uint8)
    for seed in range(20):
        top, left, height, width = transform.box(37, 53, rng(seed))
        expected = resampled(image[top : top + height, left : left + width], 12, 20, "bicubic")
        assert np.abs(transform(image, rng(seed)).astype(int) - np.rint(expected)).max() <= 1


def test_random_resized_crop_draws_area_and_ratio_as_stated():
    transform, generator = T.RandomResizedCrop(8, scale=(0.1, 0.5), ratio=(1 / 2, 2)), rng()
    boxes = np.array([transform.box(1000, 1000, generator) for _ in range(4000)])
    top, left, height, width = boxes.T
    assert top.min() >= 0 and left.min() >= 0 and (top + height).max() <= 1000 and (left + width).max() <= 1000
    area = height * width / 1e6
    assert 0.099 < area.min() < 0.105 and 0.49 < area.max() < 0.501
    assert abs(area.mean() - 0.3) < 0.008 and abs(np.median(area) - 0.3) < 0.012  # uniform
    ratio = np.log2(width / height)
    assert -1.01 < ratio.min() < -0.98 and 0.98 < ratio.max() < 1.01
    assert abs(ratio.mean()) < 0.04 and abs(ratio.std() - 2 / math.sqrt(12)) < 0.02  # log-uniform
    for free in (top / (1000 - height), left / (1000 - width)):
        assert abs(free.mean() - 0.5) < 0.02 and abs(free.std() - 1 / math.sqrt(12)) < 0.01


@pytest.mark.parametrize(
    ("shape", "expected"), [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10)), ((1, 1), (0, 0, 1, 1))]
)
def test_random_resized_crop_falls_back_to_the_middle(shape, expected):
    assert T.RandomResizedCrop(8, scale=(0.99, 1.0)).box(*shape, rng()) == expected


def test_scale_jitter_draws_every_side_uniformly():
    transform, generator = T.ScaleJitter(20, 26), rng()
    shapes = [transform(NOISE, generator).shape for _ in range(1500)]
    uniform([height for height, _, _ in shapes], 20, 26)
    assert all(width == int(height * 53 / 37) for height, width, _ in shapes)
    side = T.ScaleJitter(24, 24)(NOISE, rng())
    np.testing.assert_array_equal(side, T.Resize(24)(NOISE, rng()))
    assert (T.ScaleJitter().low, T.ScaleJitter().high) == (256, 512)


# Flips and turns.


@pytest.mark.parametrize(("transform", "axis"), [(T.HorizontalFlip, 1), (T.VerticalFlip, 0)])
def test_flips(transform, axis):
    np.testing.assert_array_equal(transform(1.0)(NOISE, rng()), np.flip(NOISE, axis))
    np.testing.assert_array_equal(transform(0.0)(NOISE, rng()), NOISE)
    generator = rng()
    flipped = np.mean([(transform(0.3)(NOISE, generator) != NOISE).any() for _ in range(2000)])
    assert abs(flipped - 0.3) < 0.04
    assert transform().probability == 0.5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("angle", [-75.0, -10.0, 0.0, 33.0, 180.0])
def test_rotate_is_skimages(angle, channels):
    image = SMOOTH[..., :channels]
    out = T.Rotate((angle, angle), fill=40)(image, rng())
    turned = skimage.transform.rotate(image, angle, order=1, mode="constant", cval=40, preserve_range=True)
    inside = skimage.transform.rotate(np.ones((61, 81)), angle, order=1, mode="constant", cval=0)
    assert out.shape == image.shape
    assert np.abs(out - turned)[inside > 0.999].max() <= 2
    assert (out[inside < 1e-9] == 40).all() and ((inside < 1e-9).sum() > 100) == (angle in (-75.0, -10.0, 33.0))


def test_rotate_is_counter_clockwise_and_draws_from_the_range():
    image = NOISE[:37, :37]
    np.testing.assert_allclose(T.Rotate((90.0, 90.0))(image, rng()), np.rot90(image), atol=1)
    ramp = np.repeat(np.arange(0, 250, 2, dtype=np.uint8)[:, None], 125, 1)[..., None]  # the level is twice the row
    generator, rotate = rng(), T.Rotate(20.0)
    slopes = []
    for _ in range(500):
        out = rotate(ramp, generator).astype(float)
        slopes.append(math.degrees(math.asin((out[62, 52, 0] - out[62, 72, 0]) / 40)))
    assert min(slopes) > -21 and max(slopes) < 21 and max(slopes) - min(slopes) > 38
    assert abs(np.mean(slopes)) < 2.2 and abs(np.std(slopes) - 40 / math.sqrt(12)) < 1
    corner = T.Rotate((45.0, 45.0), fill=(1, 2, 3))(NOISE, rng())[0, 0]
    np.testing.assert_array_equal(corner, (1, 2, 3))


# Mistakes.


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: T.Resize(0), "size"),
        (lambda: T.Resize((10, -1)), "size"),
        (lambda: T.Resize(2.5), "size"),
        (lambda: T.CenterCrop((1, 2, 3)), "size"),
        (lambda: T.RandomCrop(-224), "size"),
        (lambda: T.Pad(-1), "padding"),
        (lambda: T.Pad(1, 256), "value"),
        (lambda: T.PadTo(0), "size"),
        (lambda: T.PadTo(4, -1), "value"),
        (lambda: T.PadAndCrop(4, 0), "size"),
        (lambda: T.PadAndCrop(-4), "padding"),
        (lambda: T.RandomResizedCrop(0), "size"),
        (lambda: T.RandomResizedCrop(8, scale=(0.0, 1.0)), "scale"),
        (lambda: T.RandomResizedCrop(8, scale=(0.5, 1.1)), "scale"),
        (lambda: T.RandomResizedCrop(8, ratio=(2.0, 1.0)), "ratio"),
        (lambda: T.ScaleJitter(0, 5), "low"),
        (lambda: T.ScaleJitter(512, 256), "low"),
        (lambda: T.HorizontalFlip(1.5), "probability"),
        (lambda: T.VerticalFlip(-0.1), "probability"),
        (lambda: ColorJitter(brightness=-0.1), "brightness"),
        (lambda: ColorJitter(contrast=(1.0, 0.5)), "contrast"),
        (lambda: ColorJitter(saturation=math.nan), "saturation"),
        (lambda: ColorJitter(hue=0.6), "hue"),
        (lambda: ColorJitter(hue=-0.1), "hue"),
        (lambda: T.Rotate(-5.0), "degrees"),
        (lambda: T.Rotate(5.0, fill=-1), "fill"),
        (lambda: Noise(-1.0), "std"),
        (lambda: T.Normalize((0.0, 0.0), (1.0, 1.0, 1.0)), "mean and std"),
        (lambda: T.Normalize((), (1.0,)), "mean and std"),
        (lambda: T.Normalize((0.0,), (0.0,)), "std"),
    ],
)
def test_impossible_fields_are_refused(make, field):
    with pytest.raises(UserError, match=rf"\w+\(.*\): .*{field}"):
        make()


def test_wrong_method_gets_a_hint():
    with pytest.raises(UserError, match="did you mean 'bilinear'"):
        T.Resize(8, "bilinaer")


def test_fill_with_the_wrong_number_of_channels():
    with pytest.raises(UserError, match="value has 3 numbers, but the image has 1 channel; give 1"):
        T.Pad(1, (1, 2, 3))(NOISE[..., :1], rng())


@pytest.mark.parametrize("shape", [(1, 300, 1), (300, 1, 3), (1, 20_000, 3)])
@pytest.mark.parametrize("transform", [T.Resize(512), T.ScaleJitter(512, 512)], ids=lambda t: type(t).__name__)
def test_a_line_is_not_enlarged_to_gigabytes(transform, shape):
    with pytest.raises(
        UserError, match=rf"{shape[0]} x {shape[1]} \(height x width\) would become .*33,554,432 pixels"
    ):
        transform(np.zeros(shape, np.uint8), rng())


@pytest.mark.parametrize("transform", [T.Resize(8), T.ScaleJitter(8, 8)], ids=lambda t: type(t).__name__)
def test_long_images_are_taken_up_to_the_limit_and_shrunk_at_any_size(transform, monkeypatch):
    monkeypatch.setattr(T, "LARGEST", 8 * 80)
    assert transform(np.zeros((2, 20, 1), np.uint8), rng()).shape == (8, 80, 1)
    with pytest.raises(UserError, match="8 x 84"):
        transform(np.zeros((2, 21, 1), np.uint8), rng())
    assert transform(np.zeros((16, 500, 1), np.uint8), rng()).shape == (8, 250, 1)


def interpolated(image: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """The box of an image, bilinear from the four pixels around each place; middles of pixels are at a half."""
    left, top, right, bottom = box
    y = np.clip(top + (np.arange(size[0]) + 0.5) * (bottom - top) / size[0] - 0.5, 0, image.shape[0] - 1)
    x = np.clip(left + (np.arange(size[1]) + 0.5) * (right - left) / size[1] - 0.5, 0, image.shape[1] - 1)
    rows = [np.array([np.interp(y, np.arange(len(line)), line) for line in image[:, :, c].T]).T for c in range(3)]
    planes = [np.array([np.interp(x, np.arange(image.shape[1]), line) for line in plane]) for plane in rows]
    return np.stack(planes, -1)


@pytest.mark.parametrize("size", [(12, 40), (50, 9)])
@pytest.mark.parametrize("box", [None, (3.5, 2.25, 20.5, 17.0)])
def test_without_antialias_a_pixel_comes_from_the_four_around_it(size, box):
    image = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    found = resize(image, size, "bilinear", False, box).astype(float)
    expected = interpolated(image, size, box or (0, 0, 31, 23))
    assert np.abs(found - expected).max() < (2 if box is None else 8)  # OpenCV has places of 1/32 of a pixel
    assert np.abs(resize(image, size, "bilinear", True, box) - expected).max() > 20


def test_a_crop_is_resized_without_antialias_if_it_is_asked_for():
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    crop = T.RandomResizedCrop(16, scale=(1, 1), ratio=(1, 1), antialias=False)
    found = crop(image, np.random.default_rng(0)).astype(float)
    assert np.abs(found - interpolated(image, (16, 16), (0, 0, 60, 60))).max() < 2
    with pytest.raises(UserError, match="antialias=False is for"):
        T.RandomResizedCrop(16, method="lanczos", antialias=False)
