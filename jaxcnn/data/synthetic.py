"""Made-up images that a network can learn: for tests, `--debug` runs and throughput without a disk."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from jaxcnn.data.examples import Example, Examples, check_index, check_split
from jaxcnn.data.fields import Fields
from jaxcnn.data.splits import sliced
from jaxcnn.errors import UserError

Part = Literal["mask", "boxes", "proposals", "labels"]

GRID = 4  # a class is a pattern of GRID x GRID blocks
SPLITS = {"train": 1, "validation": 2, "test": 3}  # the number is part of the random key: never change one
PLACES = 16  # added to it for the places of objects
PARTS = ("mask", "boxes", "proposals", "labels")
SMALLEST = 8
"""Pixels of a side of an image that has objects."""


@dataclass(frozen=True)
class Synthetic:
    """Each class is a fixed 4 x 4 grid of colours in 0..191, blown up to the image; each example adds noise in 0..63.

    Example i of a split has label i % classes and is a pure function of (seed, split, i), the same on every machine and
    with every release of NumPy (raw Philox bits, no distribution code). "validation" has as many examples as "test".

    With `parts` an image shows one to four rectangles on a dark ground instead, none over another, each in the color of
    its class and with noise: with "mask" the example has the class of every pixel, class 0 being the background, which
    no rectangle has; with "boxes" the boxes and classes of the rectangles; with "proposals" these boxes, the
    image's quarters and the whole image; with "labels" the classes of the rectangles, each once. The label is the first
    rectangle's class.
    """

    slices: ClassVar[bool] = True

    image_shape: tuple[int, int, int] = (32, 32, 3)  # height, width, channels
    classes: int = 10
    train: int = 512  # examples
    test: int = 128
    seed: int = 0
    parts: tuple[Part, ...] | None = None
    """What an example has beside its image and label: "mask", "boxes", "proposals", "labels"."""

    def __post_init__(self):
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise UserError(
                f"Synthetic: image_shape is (height, width, channels), each at least 1, not {self.image_shape}"
            )
        for field in ("classes", "train", "test"):
            if getattr(self, field) < 1:
                raise UserError(f"Synthetic: {field} must be at least 1, not {getattr(self, field)}")
        if not 0 <= self.seed < 2**64:
            raise UserError(f"Synthetic: seed must be in [0, 2**64), not {self.seed}")
        unknown = [part for part in self.parts or () if part not in PARTS]
        if unknown:
            raise UserError(f"Synthetic: parts are {' and '.join(PARTS)}, not {unknown[0]!r}")
        if self.parts and min(self.image_shape[:2]) < SMALLEST:
            raise UserError(f"Synthetic: image_shape is at least {SMALLEST} x {SMALLEST} with parts")
        if "mask" in (self.parts or ()) and self.classes < 2:
            raise UserError("Synthetic: classes must be at least 2 with a mask, the first of which is the background")

    def open(self, split: str, data_dir: str | None = None) -> Examples:
        """Split "train", "validation" or "test", or a part of one (splits.py); `data_dir` is not used."""
        return sliced(self._open, split)

    def _open(self, split: str) -> "SyntheticExamples":
        check_split(split, SPLITS, "synthetic")
        return SyntheticExamples(self, split)


class SyntheticExamples:
    name = "synthetic"
    version = "1"

    def __init__(self, source: Synthetic, split: str):
        self.source, self.split = source, split
        digits = len(str(source.classes - 1))
        self.classes = tuple(f"class{c:0{digits}}" for c in range(source.classes))
        self._first = 0  # class of an object
        if "mask" in (source.parts or ()):
            self._first = 1
        size = source.classes * GRID * GRID * source.image_shape[2]
        levels = random_bytes(source.seed, 0, 0, size) * np.uint16(192) >> 8  # 0..191
        self.labels = self._first + np.arange(len(self)) % (source.classes - self._first)
        self._patterns = levels.astype(np.uint8).reshape(source.classes, GRID, GRID, source.image_shape[2])

    def __len__(self) -> int:
        return self.source.train if self.split == "train" else self.source.test

    def __getitem__(self, i: int) -> Example:
        i = check_index(i, len(self))
        if self.source.parts:
            return self._scene(i)
        height, width, channels = self.source.image_shape
        label = i % self.source.classes
        rows, columns = np.arange(height) * GRID // height, np.arange(width) * GRID // width
        noise = random_bytes(self.source.seed, SPLITS[self.split], i, height * width * channels) >> 2  # 0..63
        image = self._patterns[label].take(columns, axis=1).take(rows, axis=0) + noise.reshape(height, width, channels)
        return {"image": image, "label": label}

    def _scene(self, i: int) -> Example:
        """An image of rectangles, and the parts that are asked for."""
        height, width, channels = self.source.image_shape
        stream, parts = SPLITS[self.split], self.source.parts or ()
        label = int(self.labels[i])
        boxes, classes = self._objects(random_bytes(self.source.seed, PLACES + stream, i, 32), label)
        image = (random_bytes(self.source.seed, stream, i, height * width * channels) >> 3).reshape(height, width, -1)
        mask = np.zeros((height, width), np.uint8)
        for (left, top, right, bottom), number in zip(boxes, classes, strict=True):
            image[top:bottom, left:right] += color_of(number, channels)
            mask[top:bottom, left:right] = number
        example: Example = {"image": image, "label": label}
        if "mask" in parts:
            example["mask"] = mask
        if "boxes" in parts:
            example["boxes"] = np.array(boxes, np.float32)
            example["classes"] = np.array(classes, np.int32)
        if "labels" in parts:
            example["labels"] = np.unique(classes).astype(np.int32)
        if "proposals" in parts:
            x, y = width // 2, height // 2
            quarters = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
            example["proposals"] = np.array([*boxes, *quarters, (0, 0, width, height)], np.float32)
        return example

    def _objects(self, drawn: np.ndarray, label: int) -> tuple[list[tuple[int, int, int, int]], list[int]]:
        """Boxes (left, top, right, bottom) and classes of one to four objects, each in a quarter of its own.

        `drawn` are 32 random bytes, `label` the class of the first.
        """
        height, width, _ = self.source.image_shape
        count = 1 + int(drawn[0]) % 4
        quarters = np.argsort(drawn[1:5], kind="stable")[:count].tolist()
        boxes, classes = [], []
        for number, quarter in enumerate(quarters):
            a, b, c, d, kind = drawn[5 + 5 * number : 10 + 5 * number].tolist()
            left, right = _side(quarter % 2, width, a, b)
            top, bottom = _side(quarter // 2, height, c, d)
            boxes.append((left, top, right, bottom))
            classes.append(label if number == 0 else self._first + kind % (self.source.classes - self._first))
        return boxes, classes

    def where(self, i: int) -> str:
        """The example's place in the split."""
        return f"synthetic/{self.split}[{i}]"


def parts_of(fields: Fields) -> tuple[Part, ...] | None:
    """The parts that Synthetic makes for a batch of these fields."""
    return tuple(part for part in PARTS if part in fields) or None


def color_of(number: int, channels: int) -> np.ndarray:
    """uint8 [channels] in 64..223, different for different classes (the additive recurrence of Roberts 2018)."""
    root = 1.2207440846057596  # of x**4 = x + 1
    return (64 + 160 * ((number + 1) * root ** -np.arange(1, channels + 1.0) % 1)).astype(np.uint8)


def _side(half: int, length: int, size: int, offset: int) -> tuple[int, int]:
    """(first, last + 1) of an object in one half of a side: from half as long as that to all of it, by two bytes."""
    start, room = half * length // 2, length // 2
    extent = room - size * (room // 2 + 1) // 256
    first = start + offset * (room - extent + 1) // 256
    return first, first + extent


def random_bytes(seed: int, stream: int, i: int, count: int) -> np.ndarray:
    """uint8 [count], a pure function of the arguments: Philox keyed by (seed, stream), its counter started at i *
    2**192.
    """
    bits = np.random.Philox(key=np.array([seed, stream], np.uint64), counter=np.array([0, 0, 0, i], np.uint64))
    return bits.random_raw(-(-count // 8)).astype("<u8").view(np.uint8)[:count]
