"""The 1,797 handwritten digits that scikit-learn carries inside its package: real data without any download.

They are the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998): 8 x 8 grey
images of 13 writers, pixels 0..16.
"""

import functools
import hashlib
import importlib.util
import pathlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxcnn.data.examples import Example, Examples, check_index, check_split
from jaxcnn.data.splits import sliced

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Digits:
    """8 x 8 x 1 digits, 1,442 to train and 355 to test.

    Of each class, in the order of the file, every fifth example is in "test" and the others in "train": a rule of ours,
    so that no release of scikit-learn changes it. The writers of the test examples also appear in "train". Pixels are
    scaled from 0..16 to 0..255 and rounded.
    """

    slices: ClassVar[bool] = True

    def open(self, split: str, data_dir: str | None = None) -> Examples:
        """Split "train" or "test", or a part of one (splits.py): "train[:90%]" is stratified, "train[:300]" the first
        300 in the file's order, in which the digits are mixed. `data_dir` is not used.
        """
        return sliced(self._open, split)

    def _open(self, split: str) -> "DigitsExamples":
        check_split(split, SPLITS, "digits")
        return DigitsExamples(split)


class DigitsExamples:
    name = "digits"
    classes = tuple("0123456789")
    shuffled = True  # by the people who wrote them down

    def __init__(self, split: str):
        images, labels, self.version = load()
        self.split = split
        self._index = np.flatnonzero(in_test(labels) == (split == "test"))
        self._images, self.labels = images[self._index], labels[self._index]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Example:
        i = check_index(i, len(self))
        return {"image": self._images[i].copy(), "label": int(self.labels[i])}

    def where(self, i: int) -> str:
        """The example's place in the split and in scikit-learn's arrays."""
        return f"digits/{self.split}[{i}] (sklearn.datasets.load_digits, row {self._index[i]})"


@functools.cache
def load() -> tuple[np.ndarray, np.ndarray, str]:
    """Images uint8 [1797, 8, 8, 1], labels int64 [1797], and the first 12 hex digits of their sha256 as the version."""
    table = _table()
    images = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = table[:, -1].astype(np.int64)
    return images, labels, hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()[:12]


def _table() -> np.ndarray:
    """The pixels of each digit, 0..16, and its label, uint8 [1797, 65]: from the file that scikit-learn carries,
    or by its function if the file is elsewhere, for its import takes as long as that of JAX.
    """
    package = importlib.util.find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        file = pathlib.Path(folder, "datasets", "data", "digits.csv.gz")
        if file.exists():
            return np.loadtxt(file, np.uint8, delimiter=",")
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    return np.column_stack([digits.data, digits.target]).astype(np.uint8)


def in_test(labels: np.ndarray) -> np.ndarray:
    """bool [N]: every fifth example of each class, from its fifth."""
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        test[np.flatnonzero(labels == label)[4::5]] = True
    return test
