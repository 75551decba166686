"""What happens to one example between the source and the batch: crops, flips and turns (colors are changed in
data/colors.py). And `Normalize`, which runs on the device.

A transform is a frozen dataclass, called as `transform(image, rng)`: uint8 [H, W, C] with C 1 or 3 in, uint8 [H', W',
C] out; `rng` is a `np.random.Generator` of this one example, and the only randomness. A geometric one has `draw(shape,
rng)` beside that, which returns a `Geometry`: where the pixels of an image of this shape go, and with them its mask,
boxes and points (data/geometry.py). Every other one sees the image alone; if it moves pixels all the same, as policies
do, the attribute `image_alone` says so, and it is refused beside masks, boxes and points. Deterministic transforms
ignore `rng`. UserError says why an image cannot be taken: the example then counts as broken. The input is never written
to; the output may be a view of it. Sizes are in pixels, as (height, width). An augmentation such as the `RandomCrop`
and `HorizontalFlip` of AlexNet (section 4.1) is a tuple of these.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from jaxcnn.data.arguments import check_levels, check_method, check_range, check_size, levels, pair, per_channel
from jaxcnn.data.geometry import UNMOVED, Geometry, move_image
from jaxcnn.data.images import Method, shorter_side
from jaxcnn.errors import UserError


@runtime_checkable  # so that the command line can look into a tuple of them
class Transform(Protocol):
    """What Data.augment and Data.preprocess hold."""

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray: ...


class Geometric:
    """A transform that moves pixels: what it draws is done to every part of an example.

    Called with an image alone, it moves that.
    """

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        """Where the pixels of an image of this shape, (H, W, C), go."""
        raise NotImplementedError

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return move_image(image, self.draw(image.shape, rng))


@dataclass(frozen=True)
class Resize(Geometric):
    """Resizes the shorter side to `size` (an int; the longer one to int(size * longer / shorter), as torchvision does)
    or the image to (height, width).

    Pillow's resampling: antialiased when it shrinks, for every method but "nearest". An image so long and thin that it
    would be enlarged to more than 2**25 pixels is refused (UserError).

    Example: Resize(600, longest=1000) is the size of Fast and Faster R-CNN (Girshick 2015, section 5.2).
    """

    size: int | tuple[int, int]
    method: Method = "bilinear"
    longest: int | None = None
    """The most pixels of the longer side: where the shorter one at `size` would take it above, it is this."""

    def __post_init__(self):
        check_size(self, "size", self.size)
        check_method(self)
        if self.longest is not None and (not isinstance(self.size, int) or self.longest < self.size):
            raise UserError(
                f"{self}: longest bounds the side that size does not name: give an int for size, at most it"
            )

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        if not isinstance(self.size, int):
            return Geometry(size=pair(self.size), method=self.method)
        long, short = max(shape[:2]), min(shape[:2])
        if self.longest is not None and self.size * long > self.longest * short:
            return Geometry(size=fitted(shape, (self.longest, self.longest)), method=self.method)
        return Geometry(size=shorter_at(self, shape, self.size), method=self.method)


@dataclass(frozen=True)
class Fit(Geometric):
    """Resizes the image, with its aspect, to be as large as fits into `size`; with PadTo after it, a letterbox:
    (Fit(448), PadTo(448)).
    """

    size: int | tuple[int, int]
    method: Method = "bilinear"

    def __post_init__(self):
        check_size(self, "size", self.size)
        check_method(self)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        return Geometry(size=fitted(shape, pair(self.size)), method=self.method)


@dataclass(frozen=True)
class CenterCrop(Geometric):
    """The middle `size` of the image, size x size for an int; where the margin is odd, the offset rounds half to even,
    as in torchvision.
    """

    size: int | tuple[int, int]

    def __post_init__(self):
        check_size(self, "size", self.size)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        height, width = crop_size(self, shape)
        return Geometry(window=(round((shape[0] - height) / 2), round((shape[1] - width) / 2), height, width))


@dataclass(frozen=True)
class RandomCrop(Geometric):
    """A crop of `size` at a uniformly drawn place (AlexNet section 4.1: 224 of 256)."""

    size: int | tuple[int, int]

    def __post_init__(self):
        check_size(self, "size", self.size)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        height, width = crop_size(self, shape)
        top = int(rng.integers(shape[0] - height + 1))
        left = int(rng.integers(shape[1] - width + 1))
        return Geometry(window=(top, left, height, width))


@dataclass(frozen=True)
class Pad(Geometric):
    """`padding` pixels of `value` on every side, or (above and below, left and right); `value` is one level or one per
    channel.
    """

    padding: int | tuple[int, int]
    value: int | tuple[int, ...] = 0

    def __post_init__(self):
        check_size(self, "padding", self.padding, least=0)
        check_levels(self, "value", self.value)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        rows, columns = pair(self.padding)
        window = (-rows, -columns, shape[0] + 2 * rows, shape[1] + 2 * columns)
        return Geometry(window=window, value=levels(self, "value", self.value, shape))


@dataclass(frozen=True)
class PadTo(Geometric):
    """Pads below and on the right up to `size`; a side that is larger already stays as it is.

    Images of several sizes get into one batch so, each at its own: the mask is ignored in the padding.
    """

    size: int | tuple[int, int]
    value: int | tuple[int, ...] = 0

    def __post_init__(self):
        check_size(self, "size", self.size)
        check_levels(self, "value", self.value)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        height, width = pair(self.size)
        window = (0, 0, max(height, shape[0]), max(width, shape[1]))
        return Geometry(window=window, value=levels(self, "value", self.value, shape))


@dataclass(frozen=True)
class PadAndCrop(Geometric):
    """Pads every side and crops back at a uniformly drawn place: CIFAR's augmentation, with padding 4 (ResNet section
    4.2).

    `size` None keeps the image's size. The padding is `value` in pixels, so that 0 is black, as in torchvision;
    fb.resnet.torch pads after it has normalised, which `value` at the dataset's mean color comes close to.
    """

    padding: int | tuple[int, int]
    size: int | tuple[int, int] | None = None
    value: int | tuple[int, ...] = 0

    def __post_init__(self):
        check_size(self, "padding", self.padding, least=0)
        if self.size is not None:
            check_size(self, "size", self.size)
        check_levels(self, "value", self.value)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        rows, columns = pair(self.padding)
        height, width = shape[0] + 2 * rows, shape[1] + 2 * columns
        crop_height, crop_width = shape[:2] if self.size is None else pair(self.size)
        if crop_height > height or crop_width > width:
            raise UserError(
                f"{self}: the image of {sizes(shape)} is {sizes((height, width))} when padded, "
                f"smaller than the crop of {sizes((crop_height, crop_width))}; enlarge the padding, or Resize first"
            )
        top, left = int(rng.integers(height - crop_height + 1)), int(rng.integers(width - crop_width + 1))
        window = (top - rows, left - columns, crop_height, crop_width)
        return Geometry(window=window, value=levels(self, "value", self.value, shape))


@dataclass(frozen=True)
class RandomResizedCrop(Geometric):
    """GoogLeNet's crop (section 6): an area fraction of `scale` and a width-to-height ratio of `ratio`, resized to
    `size`.

    As in torchvision: the area is uniform, the ratio log-uniform; after ten draws that do not fit, the largest central
    crop whose ratio is within `ratio`. Departure from the paper: it draws the resampling method too.
    """

    size: int | tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    method: Method = "bilinear"
    antialias: bool = True
    """False: each pixel from the four around its place (bilinear; sixteen, bicubic), by OpenCV, as tf.image.resize does
    it. Resizing then takes a fifth of the time. Fine detail of a crop that is shrunk to less than a half is aliased;
    with `shrink_on_load` none is."""
    shrink_on_load: bool = False
    """Decode JPEGs at 1/2, 1/4 or 1/8 of their size if the crop is then still `size` large: for photos of a thousand
    pixels and more. It changes pixels a little. A split that is cropped so is not decoded into memory first."""

    def __post_init__(self):
        check_size(self, "size", self.size)
        check_range(self, "scale", self.scale, 0, 1, open_low=True)
        check_range(self, "ratio", self.ratio, 0, math.inf, open_low=True)
        check_method(self)
        if not self.antialias and self.method not in ("bilinear", "bicubic"):
            raise UserError(f"{self}: antialias=False is for the methods bilinear and bicubic")

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        box = self.box(shape[0], shape[1], rng)
        how = {"method": self.method, "antialias": self.antialias, "shrink_on_load": self.shrink_on_load}
        return Geometry(window=box, size=pair(self.size), **how)

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draws (top, left, height, width) of the crop in an image of height x width."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < h <= height and 0 < w <= width:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        h, w = max(1, min(height, round(width / ratio))), max(1, min(width, round(height * ratio)))
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class ScaleJitter(Geometric):
    """Resizes the shorter side to S, a uniform integer of [low, high] (VGG section 3.1, multi-scale training)."""

    low: int = 256
    high: int = 512
    method: Method = "bilinear"

    def __post_init__(self):
        check_range(self, "(low, high)", (self.low, self.high), 1, math.inf)
        check_method(self)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        side = int(rng.integers(self.low, self.high + 1))
        return Geometry(size=shorter_at(self, shape, side), method=self.method)


@dataclass(frozen=True)
class HorizontalFlip(Geometric):
    """Mirrors left and right with this probability."""

    probability: float = 0.5
    pairs: tuple[tuple[int, int], ...] | None = None
    """For examples with points: the numbers of those that change places when the image is mirrored, ((0, 1),) if 0 is
    the left eye and 1 the right one; () if none does."""

    def __post_init__(self):
        check_range(self, "probability", (self.probability, self.probability), 0, 1)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        return mirror(1, self.pairs) if rng.random() < self.probability else UNMOVED


@dataclass(frozen=True)
class VerticalFlip(Geometric):
    """Mirrors top and bottom with this probability."""

    probability: float = 0.5
    pairs: tuple[tuple[int, int], ...] | None = None
    """For examples with points: the numbers of those that change places when the image is mirrored, ((0, 1),) if 0 is
    the left eye and 1 the right one; () if none does."""

    def __post_init__(self):
        check_range(self, "probability", (self.probability, self.probability), 0, 1)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        return mirror(0, self.pairs) if rng.random() < self.probability else UNMOVED


@dataclass(frozen=True)
class Rotate(Geometric):
    """Turns the image about its centre by a uniform angle of [-degrees, degrees] or of the pair, counter-clockwise;
    bilinear; same size.

    What comes in at the corners is `fill`, one level or one per channel.
    """

    degrees: float | tuple[float, float]
    fill: int | tuple[int, ...] = 0

    def __post_init__(self):
        check_range(self, "degrees", self.angles(), -math.inf, math.inf)
        check_levels(self, "fill", self.fill)

    def angles(self) -> tuple[float, float]:
        """The range that the angle is drawn from, in degrees."""
        return (-self.degrees, self.degrees) if isinstance(self.degrees, int | float) else self.degrees

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        angle = rng.uniform(*self.angles())
        return Geometry(angle=angle, value=levels(self, "fill", self.fill, shape))


@dataclass(frozen=True)
class Normalize:
    """(images - mean) / std in float32, in units of the pixels 0..255: runs inside the jitted step on uint8 batches
    [..., C].

    `mean` and `std` hold one number per channel, or one for all. Works on NumPy and on JAX arrays. UserError where the
    number of channels is another one (broadcasting would turn a grey image with three means into three channels).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        if not self.mean or not self.std or 1 != len(self.mean) != len(self.std) != 1:
            raise UserError(f"{self}: mean and std must have one number, or one per channel")
        if not all(s > 0 for s in self.std):
            raise UserError(f"{self}: std must be greater than 0")

    def __call__(self, images):
        channels = images.shape[-1]
        mean, std = (np.asarray(per_channel(self, f, getattr(self, f), channels), np.float32) for f in ("mean", "std"))
        return (images.astype(np.float32) - mean) / std


LARGEST = 2**25  # pixels to which an image is enlarged: 256 x 131,072, say
MIRRORED = (Geometry(mirror=0), Geometry(mirror=1))
DETERMINISTIC = (
    Resize,
    Fit,
    CenterCrop,
    Pad,
    PadTo,
)  # transforms that draw nothing, and so can be applied once and kept

IMAGENET = Normalize(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))  # torchvision's constants, times 255
MEAN_RGB = Normalize(
    mean=(123.68, 116.779, 103.939), std=(1.0,)
)  # VGG's Caffe models: only the mean color is subtracted
UNIT = Normalize(mean=(0.0,), std=(255.0,))  # to [0, 1]


def mirror(axis: int, pairs: tuple[tuple[int, int], ...] | None) -> Geometry:
    return Geometry(mirror=axis, pairs=pairs) if pairs else MIRRORED[axis]


def shorter_at(transform: Resize | ScaleJitter, shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """(height, width) with the shorter side at `side`. UserError if an image of this shape would be enlarged to more
    than LARGEST pixels.

    A line of 1 x 20,000 pixels at 256 would take 4 GB, and three times as much on the way.
    """
    height, width = shorter_side(shape, side)
    if height * width > max(LARGEST, shape[0] * shape[1]):
        raise UserError(
            f"{transform}: the image of {sizes(shape)} would become {sizes((height, width))}, which is above "
            f"{LARGEST:,} pixels; crop it before, or Resize it to (height, width)"
        )
    return height, width


def fitted(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    """(height, width), to the closest pixel, of an image of this shape as large as fits into a size."""
    height, width = shape[:2]
    if size[0] * width <= size[1] * height:  # in integers, so that the side that fits does so exactly
        return size[0], max(1, min(round(width * size[0] / height), size[1]))
    return max(1, min(round(height * size[1] / width), size[0])), size[1]


def crop_size(transform: CenterCrop | RandomCrop, shape: tuple[int, ...]) -> tuple[int, int]:
    """The transform's size, if an image of this shape is large enough for it."""
    size = pair(transform.size)
    if size[0] > shape[0] or size[1] > shape[1]:
        raise UserError(
            f"{transform}: the image of {sizes(shape)} is smaller than the crop of {sizes(size)}; "
            f"put Resize({max(size)}) or a Pad before it, or crop less"
        )
    return size


def sizes(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} (height x width)"
