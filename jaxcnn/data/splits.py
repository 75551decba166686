"""Splits: parts of a split, as TFDS writes them, of any source: "train[:90%]", "train[90%:]", "train[-100:]", "a+b".

"train[fold 2/5]" is one of five folds, and "train[not fold 2/5]" the four others (data/folds.py).

TFDS's own sets are sliced by TFDS, in the order in which they are stored. Every other split is cut here, in one fixed
order in which each class is spread evenly, so that of each class the first 90% (in the split's order, to the closest
whole image, halves down) are in "[:90%]" and the others in "[90%:]"; a number cuts the same order. Slices that meet at
the same place never overlap and together are the whole. A class of one or two images lies at the very beginning, so
that it stays in the training part; of every other class at least one image does.

Without the attribute `labels` of its examples a split is cut in a fixed pseudo-random order, since it may be sorted by
class. Where `shuffled` says that a split's own order tells nothing of the classes (`Digits`), a number cuts that one.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from jaxcnn.data.examples import BrokenExample, Example, Examples, Source, check_index, stored
from jaxcnn.data.folds import fold_numbers
from jaxcnn.errors import UserError
from jaxcnn.parts import EXAMPLES, check_part

SYNTAX = (
    "splits are written 'train', 'train[:90%]', 'train[90%:]', 'train[20%:50%]', 'train[:1000]', 'train[-100:]', "
    "'train[fold 2/5]', 'train[not fold 2/5]', 'a+b'"
)
_NUMBER = r"-?\d[\d_]*(?:\.\d+(?=%))?%?"
_PART = re.compile(rf"\s*([^\[\]+]+?)\s*(?:\[\s*({_NUMBER})?\s*:\s*({_NUMBER})?\s*\])?\s*")
_FOLD = re.compile(r"\s*([^\[\]+]+?)\s*\[\s*(not\s+)?fold\s+(\d+)\s*/\s*(\d+)\s*\]\s*")
_KEY = (0x73706C6974, 1)  # of the pseudo-random order: never change it


def open_split(source: Source, split: str, data_dir: str | None = None) -> Examples:
    """The examples of `split`, which may be a part of one or several joined, of any source.

    Raises:
      UserError: as source.open; or the split cannot be read, is empty, ends beyond the last image or has one twice.
    """

    def open_whole(name: str) -> Examples:
        examples = source.open(name, data_dir)
        check_part(f"what {type(source).__name__}.open({name!r}) returned", examples, EXAMPLES, stored=False)
        return examples

    folded = any(map(_FOLD.fullmatch, split.split("+")))  # which TFDS does not know
    return open_whole(split) if getattr(source, "slices", False) and not folded else sliced(open_whole, split)


def overlapping(split: str, twice: int) -> UserError:
    """What is said of a split that has this many images more than once."""
    images = "1 image" if twice == 1 else f"{twice:,} images"
    return UserError(f"split {split!r} has {images} twice, which would count twice; let its parts not overlap")


def sliced(open_whole: Callable[[str], Any], split: str) -> Examples:
    """The same, by a function that opens a whole split."""
    parts = split.split("+")
    if "[" not in split and len(parts) == 1:
        return open_whole(split)
    read = [match for part in parts if (match := _FOLD.fullmatch(part) or _PART.fullmatch(part))]
    if len(read) < len(parts):
        raise UserError(f"split {split!r} cannot be read; {SYNTAX}")
    cut = []
    for part, match in zip(parts, read, strict=True):
        examples = open_whole(match[1])
        if match.re is _FOLD:
            index = _fold(examples, bool(match[2]), int(match[3]), int(match[4]), part)
        else:
            index = _cut(examples, match[2], match[3], part) if "[" in part else np.arange(len(examples))
        cut.append((examples, index))
    if len({examples.classes for examples, _ in cut}) > 1:
        raise UserError(f"split {split!r}: its parts have different classes")
    for name in {match[1] for match in read}:
        joined = np.concatenate([index for match, (_, index) in zip(read, cut, strict=True) if match[1] == name])
        if twice := len(joined) - len(np.unique(joined)):
            raise overlapping(split, twice)
    made = Sliced(split, cut)
    if not len(made):
        raise UserError(f"split {split!r} of {made.name} has no image; widen it. {SYNTAX}")
    return made


class Sliced:
    """Chosen examples of one split, or of several, in their own order; each keeps its index and its file's name."""

    def __init__(self, split: str, parts: Sequence[tuple[Examples, np.ndarray]]):
        first = parts[0][0]
        self.name, self.split, self.classes = first.name, split, first.classes
        self.version = "+".join(dict.fromkeys(examples.version for examples, _ in parts))
        self.parts = [examples for examples, _ in parts]
        self._part = np.repeat(np.arange(len(parts), dtype=np.int32), [len(index) for _, index in parts])
        self._index = np.concatenate([index for _, index in parts]).astype(np.int64)
        known = [labels[index] for examples, index in parts if (labels := labels_of(examples)) is not None]
        if len(known) == len(parts):
            self.labels = np.concatenate(known)
        files = [each[index] for examples, index in parts if (each := getattr(examples, "files", None)) is not None]
        if len(files) == len(parts):
            self.files = np.concatenate(files)
        self.dropped = list(dict.fromkeys(note for examples, _ in parts for note in getattr(examples, "dropped", ())))
        self.refused, self.noted = {}, []
        for k in sorted({k for k, examples in enumerate(self.parts) if hasattr(examples, "noted")}):
            examples, mine = self.parts[k], np.flatnonzero(self._part == k)
            new_index = dict(zip(self._index[mine].tolist(), mine.tolist(), strict=True))
            refused, noted = examples.refused, examples.noted  # pyright: ignore[reportAttributeAccessIssue]
            self.refused |= {new_index[index]: why for index, why in refused.items() if index in new_index}
            self.noted += [new_index[index] for index in noted if index in new_index]

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> Example:
        examples, index = self.locate(i)
        try:
            return examples[index]
        except BrokenExample as error:
            raise BrokenExample(i, error.where, error.cause) from error

    def encoded(self, i: int) -> Example:
        """Example `i`, its image encoded if its source can give it so (data/encoded.py)."""
        examples, index = self.locate(i)
        try:
            return stored(examples, index)
        except BrokenExample as error:
            raise BrokenExample(i, error.where, error.cause) from error

    def locate(self, i: int) -> tuple[Examples, int]:
        """The split that example `i` is of, and its index there."""
        i = check_index(i, len(self))
        return self.parts[self._part[i]], int(self._index[i])

    def where(self, i: int) -> str:
        examples, index = self.locate(i)
        return examples.where(index)

    def notes(self, i: int) -> list[Any]:
        """What the source did to example `i` (data/box_rules.py)."""
        examples, index = self.locate(i)
        return examples.notes(index) if hasattr(examples, "notes") else []  # pyright: ignore[reportAttributeAccessIssue]

    def truth(self, i: int) -> Example:
        """The boxes of example `i`, without its image if its source can do that (data/boxed.py)."""
        examples, index = self.locate(i)
        return getattr(examples, "truth", examples.__getitem__)(index)

    def example_ids(self) -> set[tuple[str, int]]:
        """(split, index) of every example."""
        names = [examples.split for examples in self.parts]
        return {(names[part], index) for part, index in zip(self._part.tolist(), self._index.tolist(), strict=True)}


def labels_of(examples: Examples) -> np.ndarray | None:
    """The labels, int64 [N], of examples that know them without reading an image; else None."""
    labels = getattr(examples, "labels", None)
    if labels is None:
        return None
    labels = np.asarray(labels, np.int64)
    if labels.shape != (len(examples),):
        raise UserError(
            f"{examples.name}/{examples.split}: `labels` has the shape {labels.shape}; it must be [{len(examples)}]"
        )
    return labels


def known_labels(examples: Examples, asked: str) -> np.ndarray:
    """The label of each example, int64 [N], -1 of a broken one. Where they are not known the whole split is read:
    seconds for ten thousand small images. UserError, which names who asked, if the images have none."""
    known = labels_of(examples)
    return np.array([_label(examples, i, asked) for i in range(len(examples))], np.int64) if known is None else known


def _label(examples: Examples, i: int, asked: str) -> int:
    try:
        return int(examples[i]["label"])
    except BrokenExample:
        return -1
    except KeyError:
        raise UserError(
            f"{asked}: images of {examples.name} have no label of their own, which classes are told by"
        ) from None


def classes_without_images(examples: Examples) -> list[str]:
    """The classes of which the split has no image; [] where its labels are not known without reading it."""
    labels = labels_of(examples)
    if labels is None:
        return []
    there = set(labels.tolist())
    return [name for label, name in enumerate(examples.classes) if label not in there]


def shared(one: Examples, other: Examples) -> int:
    """How many images are in both, as far as can be told: slices that TFDS has cut count as splits of their own.

    Splits that are lists of files, such as VOC's trainval and val, are compared by these.
    """
    if (one.name, one.split) == (other.name, other.split):
        return len(one)
    mine, theirs = getattr(one, "files", None), getattr(other, "files", None)
    if mine is not None and theirs is not None:
        return len(np.intersect1d(mine, theirs))
    if not isinstance(one, Sliced) and not isinstance(other, Sliced):
        return 0
    return len(_example_ids(one) & _example_ids(other))


def may_share(one: str, other: str) -> bool:
    """Whether two splits of one source can have an image in common, as far as their names tell: "train[:80%]" and
    "train[80%:]" surely have none."""
    return any(
        name == named and not _ends_before(end, begins) and not _ends_before(ends, begin)
        for name, begin, end in _slices(one)
        for named, begins, ends in _slices(other)
    )


def _slices(split: str) -> list[tuple[str, str | None, str | None]]:
    """(whole split, begin, end) of the parts of a split; a fold counts as the whole."""
    return [
        (match[1], match[2], match[3])
        if (match := _PART.fullmatch(part))
        else (part.partition("[")[0].strip(), None, None)
        for part in split.split("+")
    ]


def _ends_before(end: str | None, begin: str | None) -> bool:
    """Whether a slice that ends here surely lies before one that begins there: both in percent, or both in images."""
    if end is None or begin is None or end.endswith("%") != begin.endswith("%"):
        return False
    last, first = (float(each.rstrip("%").replace("_", "")) for each in (end, begin))
    return last <= first and (last < 0) == (first < 0)


def _example_ids(examples: Examples) -> set[tuple[str, int]]:
    if isinstance(examples, Sliced):
        return examples.example_ids()
    return {(examples.split, i) for i in range(len(examples))}


def _cut(examples: Examples, first: str | None, last: str | None, part: str) -> np.ndarray:
    """The indices of a slice, ascending."""
    ends = [end for end in (first, last) if end]
    if len({end.endswith("%") for end in ends}) > 1:
        raise UserError(f"split {part!r}: give both ends in percent, or both as a number of images. {SYNTAX}")
    numbers = bool(ends) and not ends[0].endswith("%")
    if numbers and getattr(examples, "shuffled", False):
        order, keys = np.arange(len(examples)), np.array([])
    else:
        order, keys = _order(examples)
    start = _position(first, len(order), keys, part) if first else 0
    stop = _position(last, len(order), keys, part) if last else len(order)
    return np.sort(order[start:stop])


def _fold(examples: Examples, others: bool, number: int, folds: int, part: str) -> np.ndarray:
    """The indices of one fold of several, counted from 1, or of all `others`, ascending."""
    if not 1 <= number <= folds or not 2 <= folds <= len(examples):
        raise UserError(
            f"split {part!r}: folds are 1/K to K/K, of at least 2 and at most the split's {len(examples):,} images"
        )
    words = np.random.Philox(key=np.array(_KEY, np.uint64)).random_raw(len(examples))
    numbers = fold_numbers(len(examples), folds, labels_of(examples), np.argsort(words, kind="stable"))
    return np.flatnonzero((numbers == number - 1) != others)


def _order(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """The order in which a split is cut, and each position's share of its class that lies before it, ascending."""
    count, labels = len(examples), labels_of(examples)
    if labels is None:
        words = np.random.Philox(key=np.array(_KEY, np.uint64)).random_raw(count)
        own, labels = np.argsort(words, kind="stable"), np.zeros(count, np.int64)
    else:
        own = np.arange(count)
    by_class = own[np.argsort(labels[own], kind="stable")]
    _, first, size = np.unique(labels[by_class], return_index=True, return_counts=True)
    position, size = np.arange(count) - np.repeat(first, size), np.repeat(size, size)
    shares = np.zeros(count)
    # The middle of the example's own position, so that a cut falls to the closest whole image.
    shares[by_class] = np.where((size > 2) & (position > 0), (2 * position + 1) / (2 * size), 0)
    order = own[np.argsort(shares[own], kind="stable")]
    return order, shares[order]


def _position(end: str, count: int, keys: np.ndarray, part: str) -> int:
    """Where in the order a slice's end lies."""
    if end.endswith("%"):
        share = Fraction(end[:-1].replace("_", "")) / 100
        share = 1 + share if share < 0 else share
        if not 0 <= share <= 1:
            raise UserError(f"split {part!r}: {end} is beyond the split. {SYNTAX}")
        if share == 1:
            return count
        return int(np.searchsorted(keys, float(share), side="left"))
    number = int(end.replace("_", ""))
    if abs(number) > count:
        raise UserError(f"split {part!r}: there are only {count:,} images. {SYNTAX}")
    return number if number >= 0 else count + number
