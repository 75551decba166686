"""What every data source offers: one split as random access to uint8 images and labels, and the check that reads all of
it.

A source (`Digits()`, `Tfds("imagenet2012")`, `Folder("flowers")`, `Synthetic()`) is a frozen dataclass that says where
the data is and `open`s a split; what it opens is an `Examples`. Nothing is shuffled, batched or augmented here, and
nothing is downloaded.
"""

import hashlib
import operator
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np

from jaxcnn.errors import UserError, did_you_mean


class Example(TypedDict):
    image: np.ndarray  # uint8 [H, W, C]
    label: int  # in [0, len(classes))


class BrokenExample(UserError):
    """Example `index` cannot be used: `where` names it for a person, `cause` says why."""

    def __init__(self, index: int, where: str, cause: str):
        super().__init__(index, where, cause)  # these three, so that it pickles from a worker process
        self.index, self.where, self.cause = index, where, cause

    def __str__(self) -> str:
        return f"{self.where}: {self.cause}; repair or remove it (`jaxcnn data check` lists every such example)"


@runtime_checkable
class Examples(Protocol):
    """Random access to one split. Objects pickle, because Grain's worker processes receive them.

    Two attributes more are optional (splits.py reads them): `labels`, the label of each example, where they are known
    without reading an image, so that slices are stratified; and `shuffled`, True where the order tells nothing of the
    classes.
    """

    name: str  # "fashion_mnist"
    version: str  # "3.0.1"
    split: str  # "train"
    classes: tuple[str, ...]  # class names in label order

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Example:
        """Example `i` of [0, len). Raises BrokenExample where the image or the label is damaged, IndexError outside the
        range.
        """
        ...

    def where(self, i: int) -> str:
        """A name of example `i` for a person: the file's path, or "fashion_mnist/train[17]"."""
        ...


@runtime_checkable
class Source(Protocol):
    """A frozen dataclass that says where a dataset is."""

    def open(self, split: str, data_dir: str | None = None) -> Examples:
        """The examples of one whole split; open_split (splits.py) cuts it. `data_dir` is where prepared datasets lie;
        sources that have a path of their own ignore it. A source with the attribute `slices`, True, cuts by itself.
        """
        ...


def label_hash(classes: Sequence[str]) -> str:
    """sha256 of the class names in label order: two datasets, or a dataset and a checkpoint, whose hashes differ have
    labels that mean different things.
    """
    digest = hashlib.sha256()
    for name in classes:
        encoded = name.encode("utf-8", "surrogateescape")
        digest.update(
            len(encoded).to_bytes(8, "little") + encoded
        )  # the length first, so that ("ab", "c") is not ("a", "bc")
    return digest.hexdigest()


def check_split(split: str, splits: Iterable[str], place: str) -> None:
    """Raises UserError unless `split` is one of `splits`; `place` names the dataset in the message."""
    splits = list(splits)
    if split not in splits:
        raise UserError(f"{place}: no split {split!r}{did_you_mean(split, splits) or ';'} it has {', '.join(splits)}")


def check_index(i: int, length: int) -> int:
    """`i` as a Python int; IndexError outside [0, length), which also ends a plain `for` over examples. Negative
    indices are not wrapped.
    """
    i = operator.index(i)
    if not 0 <= i < length:
        raise IndexError(f"example {i} of {length}")
    return i


def check_label(examples: Examples, i: int, label: int) -> int:
    """`label` as a Python int; BrokenExample where it names no class (TFDS writes -1 for the hidden labels of a test
    split).
    """
    label = int(label)
    if not 0 <= label < len(examples.classes):
        raise BrokenExample(i, examples.where(i), f"label {label} is outside [0, {len(examples.classes)})")
    return label


def check(examples: Examples, *, threads: int | None = None) -> list[BrokenExample]:
    """Reads every example, on `threads` threads (default: one per processor), and returns the broken ones in order of
    their index.
    """

    def read(i: int) -> BrokenExample | None:
        try:
            examples[i]
        except BrokenExample as error:
            return error
        return None

    chunk = 4096  # tasks in flight: a million futures at once would take a gigabyte
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        found = [
            error
            for start in range(0, len(examples), chunk)
            for error in pool.map(read, range(start, min(start + chunk, len(examples))))
        ]
    return [error for error in found if error is not None]
