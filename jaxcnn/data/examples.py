"""What every data source offers: one split as random access to examples.

A source (`Digits()`, `Tfds("imagenet2012")`, `Folder("flowers")`, `Synthetic()`) is a frozen dataclass that says where
the data is and `open`s a split; what it opens is an `Examples`. Nothing is shuffled, batched or augmented here, and
nothing is downloaded.
"""

import hashlib
import operator
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxcnn.errors import UserError, did_you_mean

Example = dict[str, Any]
"""The parts of one example, by name. `data/checks.py` refuses what is not so:

    image      uint8 [H, W, C]
    label      an int in [0, len(classes))
    mask       uint8 [H, W], the class of each pixel; 255 is ignored
    boxes      float32 [N, 4], (xmin, ymin, xmax, ymax) in pixels, edges in [0, W] x [0, H]
    classes    int32 [N], the class of each box
    difficult  bool [N], boxes that VOC's evaluation leaves out; where it is missing, none is
    crowd      bool [N], boxes around several objects; where it is missing, none is
    area       float32 [N], of each object in pixels of the source's image, by which COCO's evaluation tells its size;
               where it is missing, its box's, and no transform changes it
    proposals  float32 [P, 4], boxes in which an object may be, the best first; rows without area are none
    labels     int32 [N], the classes that are in the image, where it may have several or none
    unsure     int32 [N], classes of which it is not told whether they are; where it is missing, none
    points     float32 [N, 2], (x, y) in the same pixels; NaN is a point that the image does not show

An example may have other parts, of a user's own; those that a batch needs are named by its fields (data/fields.py).
"""


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

    Three attributes more are optional (splits.py reads them): `labels`, the label of each example, where they are known
    without reading an image, so that slices are stratified; `shuffled`, True where the order tells nothing of the
    classes; and `files`, bytes [N], the path of each image, where splits can have images in common. And a method,
    `encoded(i)`: example i with its image as `Encoded` (data/encoded.py) or decoded, so that a crop that comes first
    need not decode all of it.

    A source that changes or leaves out what is not as it should be (data/box_rules.py) has `notes(i)`, what it did to
    example i; and if that is known without reading them, `noted`, the examples of which there is something to say,
    `dropped`, what it left out altogether, and `refused`, {i: why}, the examples that are broken for sure.
    """

    name: str  # "fashion_mnist"
    split: str  # "train"
    classes: tuple[str, ...]  # class names in label order

    @property
    def version(self) -> str:  # "3.0.1"; a plain attribute will do
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Example:
        """Example `i` of [0, len). Raises BrokenExample where the image or the label is damaged, IndexError outside the
        range.
        """
        ...

    def where(self, i: int) -> str:
        """A name of example `i` for a person: the file's path, or "fashion_mnist/train[17]"."""
        ...


def stored(examples: Examples, i: int) -> Example:
    """Example `i` with its image still encoded, if its source can give it so: its first transform decodes of it what it
    needs. Raises as the source does.

    Examples that hand on the attributes of others, and add to what these give, have no `encoded` of their own.
    """
    own = hasattr(type(examples), "encoded")
    return examples.encoded(i) if own else examples[i]  # pyright: ignore[reportAttributeAccessIssue]


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


def check_split(split: str, splits: Iterable[str], dataset: str) -> None:
    """Raises UserError unless `split` is one of `splits`; `dataset` is its name in the message."""
    splits = list(splits)
    if split not in splits:
        raise UserError(f"{dataset}: no split {split!r}{did_you_mean(split, splits) or ';'} it has {', '.join(splits)}")


def check_index(i: int, length: int) -> int:
    """`i` as a Python int; IndexError outside [0, length), which also ends a plain `for` over examples. Negative
    indices are not wrapped.
    """
    i = operator.index(i)
    if not 0 <= i < length:
        raise IndexError(f"example {i} of {length}")
    return i
