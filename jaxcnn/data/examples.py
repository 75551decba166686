"""What every data source offers: one split as random access to uint8 images and labels; how an example is read and
checked; and the check that reads all of a split.

A source (`Digits()`, `Tfds("imagenet2012")`, `Folder("flowers")`, `Synthetic()`) is a frozen dataclass that says where
the data is and `open`s a split; what it opens is an `Examples`. Nothing is shuffled, batched or augmented here, and
nothing is downloaded.
"""

import hashlib
import operator
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np

from jaxcnn.data.draws import EVALUATION, Draws
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
    """`label` as a Python int.

    Raises:
      BrokenExample: it names no class (TFDS writes -1 for the hidden labels of a test split).
      UserError: it is no whole number, which is a mistake of the source and not of one example.
    """
    classes = len(examples.classes)
    try:
        number = operator.index(label)
    except TypeError:
        raise UserError(
            f"{examples.where(i)}: the label is {_described(label)}, but a label is a whole number in [0, {classes}): "
            "the place of the class in `classes`"
        ) from None
    if not 0 <= number < classes:
        start = "; labels count from 0: where a source's own start at 1, it returns label - 1" * (number >= classes)
        raise BrokenExample(i, examples.where(i), f"label {number} is outside [0, {classes}){start}")
    return number


def check_example(examples: Examples, i: int, example: Example) -> Example:
    """Example `i`, if its image is uint8 [H, W, C] and its label a whole number in [0, len(classes)).

    Anything else would train in silence: floats in 0..1 are black when they are cut to uint8, and a label outside the
    classes has no loss.

    Raises:
      BrokenExample: the label names no class.
      UserError: the image has another type or shape, which is a mistake of the source and not of one example.
    """
    try:
        image, label = example["image"], example["label"]
    except (TypeError, KeyError, IndexError):
        raise UserError(
            f"{examples.where(i)}: the source returned {_described(example)}, but an example is a dict with "
            '"image", uint8 [H, W, C], and "label", a whole number'
        ) from None
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.size):
        raise UserError(f"{examples.where(i)}: the image is {_described(image)}, but {_image_wanted(image)}")
    if type(label) is not int or not 0 <= label < len(examples.classes):
        return {**example, "label": check_label(examples, i, label)}
    return example


def read(
    examples: Examples,
    i: int,
    transforms: tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], ...],
    rng: np.random.Generator,
    shape: tuple[int, ...] | None = None,
) -> Example:
    """Example `i`, checked, with its image after these transforms: the only way into a batch and into Memory.

    Args:
      examples: the split.
      i: which of it.
      transforms: of the image, in order.
      rng: what they draw from.
      shape: what the image must then have; None: any.

    Raises:
      BrokenExample: it cannot be read, its label names no class, a transform does not take its image (a crop that is
        larger, say) or the image comes out in another shape.
      UserError: the source or a transform returns something else than images of uint8.
    """
    example = check_example(examples, i, examples[i])
    image = example["image"]
    try:
        for transform in transforms:
            image = transform(image, rng)
    except BrokenExample:
        raise
    except UserError as error:
        raise BrokenExample(i, examples.where(i), str(error)) from error
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3):
        names = ", ".join(str(transform) for transform in transforms)
        raise UserError(
            f"{examples.where(i)}: after the transforms ({names}) the image is {_described(image)}, but "
            f"{_image_wanted(image)}"
        )
    if shape is not None and image.shape != shape:
        after = f" and after the transforms {image.shape}" if transforms else ""
        advice = "add a transform that brings it there, such as Resize and CenterCrop"
        if image.shape[2] != shape[2]:
            advice = f"Folder and Tfds return {shape[2]} channels with channels={shape[2]}"
        raise BrokenExample(
            i,
            examples.where(i),
            f"the image is {example['image'].shape}{after}, but data.image_shape is {shape}; {advice}",
        )
    return {**example, "image": image}


def _image_wanted(image: object) -> str:
    """What an image must be, and how this one becomes it."""
    wanted = "an image is a NumPy array of uint8 [H, W, C], levels 0 to 255"
    kind = getattr(getattr(image, "dtype", None), "kind", "")
    if not isinstance(image, np.ndarray):
        return f"{wanted}; return np.asarray(image)"
    if image.ndim == 2:
        wanted += "; give a grey image its channel axis: image[..., None]"
    if kind == "f":
        return f"{wanted}; where they are 0 to 1: return (255 * image).round().astype(np.uint8)"
    if kind == "b":
        return f"{wanted}; return 255 * image.astype(np.uint8)"
    if image.dtype != np.uint8:
        return f"{wanted}; where they are 0 to 255 already: return image.astype(np.uint8)"
    return wanted


def _described(value: object) -> str:
    """A value for a message: an array by its type, shape and range, others by their type and what they hold."""
    if isinstance(value, np.ndarray) and value.ndim:
        bounds = f", from {value.min()} to {value.max()}" if value.size and value.dtype.kind in "biuf" else ""
        return f"an array of {value.dtype} {list(value.shape)}{bounds}"
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {str(value)[:60]}"


def check(
    examples: Examples,
    transforms: tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], ...] = (),
    shape: tuple[int, ...] | None = None,
    *,
    threads: int | None = None,
) -> list[BrokenExample]:
    """Reads every example, with one draw of its transforms, and returns the broken ones in order of their index.

    Args:
      examples: the split.
      transforms: of each image, in order.
      shape: what must come out; None: any.
      threads: default one per processor.

    Raises:
      UserError: as `read`.
    """

    def broken_of(part: range) -> list[BrokenExample]:
        draws, found = Draws(EVALUATION), []
        for i in part:
            try:
                read(examples, i, transforms, draws.at(i), shape)
            except BrokenExample as error:
                found.append(error)
        return found

    parts = [range(start, min(start + 64, len(examples))) for start in range(0, len(examples), 64)]
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        try:
            return [error for found in pool.map(broken_of, parts) for error in found]
        finally:
            pool.shutdown(cancel_futures=True)
