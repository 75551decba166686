"""Made-up images that a network can learn: for tests, `--debug` runs and throughput without a disk."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxcnn.data.examples import Example, Examples, check_index, check_split
from jaxcnn.data.splits import sliced
from jaxcnn.errors import UserError

GRID = 4  # a class is a pattern of GRID x GRID blocks
SPLITS = {"train": 1, "validation": 2, "test": 3}  # the number is part of the random key: never change one


@dataclass(frozen=True)
class Synthetic:
    """Each class is a fixed 4 x 4 grid of colours in 0..191, blown up to the image; each example adds noise in 0..63.

    Example i of a split has label i % classes and is a pure function of (seed, split, i), the same on every machine and
    with every release of NumPy (raw Philox bits, no distribution code). "validation" has as many examples as "test".
    """

    slices: ClassVar[bool] = True

    image_shape: tuple[int, int, int] = (32, 32, 3)  # height, width, channels
    classes: int = 10
    train: int = 512  # examples
    test: int = 128
    seed: int = 0

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
        size = source.classes * GRID * GRID * source.image_shape[2]
        levels = random_bytes(source.seed, 0, 0, size) * np.uint16(192) >> 8  # 0..191
        self.labels = np.arange(len(self)) % source.classes
        self._patterns = levels.astype(np.uint8).reshape(source.classes, GRID, GRID, source.image_shape[2])

    def __len__(self) -> int:
        return self.source.train if self.split == "train" else self.source.test

    def __getitem__(self, i: int) -> Example:
        i = check_index(i, len(self))
        height, width, channels = self.source.image_shape
        label = i % self.source.classes
        rows, columns = np.arange(height) * GRID // height, np.arange(width) * GRID // width
        noise = random_bytes(self.source.seed, SPLITS[self.split], i, height * width * channels) >> 2  # 0..63
        image = self._patterns[label].take(columns, axis=1).take(rows, axis=0) + noise.reshape(height, width, channels)
        return {"image": image, "label": label}

    def where(self, i: int) -> str:
        """The example's place in the split."""
        return f"synthetic/{self.split}[{i}]"


def random_bytes(seed: int, stream: int, i: int, count: int) -> np.ndarray:
    """uint8 [count], a pure function of the arguments: Philox keyed by (seed, stream), its counter started at i *
    2**192.
    """
    bits = np.random.Philox(key=np.array([seed, stream], np.uint64), counter=np.array([0, 0, 0, i], np.uint64))
    return bits.random_raw(-(-count // 8)).astype("<u8").view(np.uint8)[:count]
