"""Proposals: boxes in which an object may be, beside the boxes of a source, out of a file or searched for.

What R-CNN and Fast R-CNN look at. Selective search's own code has a licence of its own and cannot always be had, so
that proposals are an interface: any file, ours (selective_search.py), or a net's (models/rpn.py).
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.data.checks import box_format
from jaxcnn.data.examples import BrokenExample, Example, Examples, Source
from jaxcnn.data.selective_search import SelectiveSearch
from jaxcnn.data.splits import open_split
from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.files import read_bytes
from jaxcnn.parts import SOURCE, check_part

ENDINGS = (".npz", ".json", ".mat")
OPTIONAL = ("labels", "shuffled", "files", "truth", "notes", "noted", "dropped", "refused")
"""What examples may know beside (data/examples.py), and the boxes of a photo that is not read."""


@dataclasses.dataclass(frozen=True)
class WithProposals:
    """The examples of a source, each with "proposals" beside: float32 [P, 4], (xmin, ymin, xmax, ymax), edges in its
    pixels, the best first. Transforms move them as they move boxes.

    They are those of `file` (`write_proposals` says what it holds), or, without one, what `search` finds in each image
    when it is read: half a second, once if the split fits into memory. A task reads them if it has room for them:
    Detection(FastRCNNLoss(), max_proposals=2000).

    Raises UserError if the file cannot be read, or has none for an image of a split: that image is then broken.

    Example:
        source = jc.WithProposals(jc.VOCDetection("VOCdevkit/VOC2007"), "selective_search.npz")
    """

    source: Source
    """Of boxes, or of anything else."""
    file: str | None = None
    """Made absolute at once. Its images are known by `image_id`."""
    search: SelectiveSearch = dataclasses.field(default_factory=SelectiveSearch)
    most: int = 2000
    """How many of an image are taken, the first ones."""

    def __post_init__(self):
        check_part("WithProposals.source", self.source, SOURCE)
        if self.most < 1:
            raise UserError(f"WithProposals: most is {self.most}; it must be at least 1")
        if self.file is not None:
            object.__setattr__(self, "file", os.path.abspath(os.path.expanduser(self.file)))

    @property
    def slices(self) -> bool:
        """Whether `open` takes parts of splits too, as its source does."""
        return getattr(self.source, "slices", False)

    def open(self, split: str, data_dir: str | None = None) -> Examples:
        """The examples of the source's split. Raises UserError if the file has no proposals of one of them."""
        examples = open_split(self.source, split, data_dir)
        if self.file is not None:
            known = hasattr(examples, "files")
            names = [image_id(examples.where(i), files=known) for i in range(len(examples))]
            lacking = [name for name in names if name not in self._stored]
            if lacking:
                raise UserError(
                    f"{self.file} has no proposals of {len(lacking):,} of the {len(names):,} images of "
                    f"{examples.name}/{split}, the first: {_lacking(lacking[0], self._stored)}"
                )
        return ProposedExamples(examples, self)

    def propose(self, image: np.ndarray, name: str) -> np.ndarray:
        """The proposals, float32 [P, 4], of an image of this id, uint8 [H, W, C], that need not be in a split.

        Raises ValueError if the file has none of it, or they are not of an image of this size."""
        if self.file is None:
            return self._checked(self.search(image), image.shape[:2])
        if name not in self._stored:
            raise ValueError(f"{self.file} has none of {_lacking(name, self._stored)}")
        return self._checked(self._stored[name], image.shape[:2])

    @functools.cached_property
    def _stored(self) -> dict[str, np.ndarray]:
        return read_proposals(self.file) if self.file is not None else {}

    def _checked(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The first `most`, clipped to an image of (height, width). ValueError if they are not of it."""
        boxes = boxes[: self.most]
        limits = np.array([size[1], size[0]] * 2, np.float32)
        over = ((boxes < -1) | (boxes > limits + 1)).any(1)
        if over.any():
            number = int(np.flatnonzero(over)[0])
            told = ", ".join(f"{side:g}" for side in boxes[number])
            raise ValueError(
                f"proposal {number} ({told}) reaches over the image of {size[0]} x {size[1]} (height x width): they "
                f"are of another image, or of another size{box_format(boxes, size)}"
            )
        boxes = np.clip(boxes, 0, limits)
        return boxes[(boxes[:, :2] < boxes[:, 2:]).all(1)]


class ProposedExamples:
    """Examples with their proposals."""

    def __init__(self, examples: Examples, source: WithProposals):
        self.name, self.split, self.classes = examples.name, examples.split, examples.classes
        self.examples, self.source = examples, source

    def __getattr__(self, name: str) -> Any:
        if name in OPTIONAL:  # as far as the source knows it
            return getattr(self.examples, name)
        raise AttributeError(name)

    @property
    def version(self) -> str:
        """The source's, and 12 hex digits of what the proposals are."""
        return f"{self.examples.version}+{self._digest}"

    @functools.cached_property
    def _digest(self) -> str:
        if self.source.file is None:
            told = repr(self.source.search).encode()
        else:
            told = b"".join(key.encode() + boxes.tobytes() for key, boxes in sorted(self.source._stored.items()))
        return hashlib.sha256(told + str(self.source.most).encode()).hexdigest()[:12]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int) -> Example:
        example, where = self.examples[i], self.where(i)
        try:
            name = image_id(where, files=hasattr(self.examples, "files"))
            return example | {"proposals": self.source.propose(example["image"], name)}
        except ValueError as cause:
            raise BrokenExample(i, where, str(cause)) from cause

    def where(self, i: int) -> str:
        return self.examples.where(i)


def without_proposals(source: Source) -> Source:
    """The source of a WithProposals; another one as it is."""
    return source.source if isinstance(source, WithProposals) else source


def image_id(where: str, *, files: bool = True) -> str:
    """How an image is known in a file of proposals: the name of its file without folder and ending, "000005"; an
    example that has no file by all that its source calls it, "synthetic/test[3]"."""
    return os.path.splitext(os.path.basename(where))[0] if files else where


def read_proposals(file: str | os.PathLike, ids: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """{id: boxes float32 [P, 4]}, (xmin, ymin, xmax, ymax), edges in pixels, out of a file that ends in

    .npz   as `write_proposals` writes it: "ids" [N], "counts" [N] and "boxes" [sum of counts, 4]
    .json  {id: [[xmin, ymin, xmax, ymax], ...]}
    .mat   as R-CNN's and Fast R-CNN's selective_search_data has it, not of version 7.3: the cells "boxes", (ymin, xmin,
           ymax, xmax) with pixels counted from 1, the last one included; and "images", the ids, or else give `ids`,
           the lines of the list of images that it is of.

    Raises:
      UserError: it cannot be read, or is something else.

    Example:
        ids = open("VOCdevkit/VOC2007/ImageSets/Main/trainval.txt").read().split()
        jc.write_proposals("trainval.npz", jc.read_proposals("voc_2007_trainval.mat", ids))
    """
    path = os.fspath(file)
    ending = os.path.splitext(path)[1].lower()
    if ending not in ENDINGS:
        raise UserError(f"proposals are in files that end in {', '.join(ENDINGS)}, not {path}")
    try:
        found = dict(_READERS[ending](path, ids))
    except UserError:
        raise
    except (OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError, zipfile.BadZipFile) as cause:
        told = f"it has no {cause}" if isinstance(cause, KeyError) else str(cause)
        raise UserError(f"the proposals of {path} cannot be read: {told}") from cause
    for name, boxes in found.items():
        if boxes.ndim != 2 or boxes.shape[1:] != (4,) or not np.isfinite(boxes).all():
            raise UserError(
                f"{path}: the proposals of {name!r} are {list(boxes.shape)}, but proposals are finite numbers [P, 4], "
                "(xmin, ymin, xmax, ymax) in pixels"
            )
    if not found:
        raise UserError(f"{path} has no proposals")
    return found


def write_proposals(file: str | os.PathLike, proposals: "Examples | Mapping[str, Any]") -> None:
    """Writes proposals into FILE.npz: those of a dict {id: boxes [P, 4]}, or of all examples of a split that have some.

    Example: jc.write_proposals("test.npz", jc.WithProposals(source).open("test"))

    Raises:
      UserError: the file's name does not end in .npz, or the examples have no proposals.
    """
    path = os.fspath(file)
    if not path.endswith(".npz"):
        raise UserError(f"proposals are written into a file that ends in .npz, not {path}")
    pairs = proposals.items() if isinstance(proposals, Mapping) else _each(proposals)
    given = {name: np.asarray(boxes, np.float32).reshape(-1, 4) for name, boxes in pairs}
    with open(path, "wb") as opened:
        np.savez_compressed(
            opened,
            ids=np.array(list(given), np.str_),
            counts=np.array([len(boxes) for boxes in given.values()], np.int64),
            boxes=np.concatenate([np.zeros((0, 4), np.float32), *given.values()]),
        )


def _each(examples: Examples) -> Iterator[tuple[str, np.ndarray]]:
    for i in range(len(examples)):
        example = examples[i]
        if "proposals" not in example:
            raise UserError(
                f"{examples.name}/{examples.split} has no proposals: open the split of WithProposals(source)"
            )
        yield image_id(examples.where(i), files=hasattr(examples, "files")), example["proposals"]


def _lacking(name: str, stored: Mapping[str, np.ndarray]) -> str:
    """An id that the file lacks, for a message. The nearest is looked for among a part of a large file's."""
    hint = did_you_mean(name, itertools.islice(stored, 2000)) or ";"
    return f"{name!r}{hint} it has those of {len(stored):,} images, such as {next(iter(stored))!r}"


def _npz(path: str, ids: Sequence[str] | None) -> Iterator[tuple[str, np.ndarray]]:
    with np.load(path, allow_pickle=False) as stored:
        names, counts, boxes = stored["ids"], stored["counts"], stored["boxes"]
    if names.shape != counts.shape or counts.sum() != len(boxes):
        raise ValueError(
            f"it has {len(names)} ids, {len(counts)} counts that sum to {counts.sum()}, {len(boxes)} boxes"
        )
    return zip(names.tolist(), np.split(boxes.astype(np.float32), np.cumsum(counts)[:-1]), strict=True)


def _json(path: str, ids: Sequence[str] | None) -> Iterator[tuple[str, np.ndarray]]:
    read = json.loads(read_bytes(path))
    if not isinstance(read, dict):
        raise ValueError("it is no object {id: boxes}")
    return (
        (name, np.asarray(boxes, np.float32).reshape(-1, *np.shape(boxes)[1:] or (4,))) for name, boxes in read.items()
    )


def _mat(path: str, ids: Sequence[str] | None) -> Iterator[tuple[str, np.ndarray]]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        stored = loadmat(path)
    except MatReadError as error:
        raise ValueError(str(error)) from error
    cells = stored["boxes"].ravel()
    names = [str(np.squeeze(cell)) for cell in stored["images"].ravel()] if ids is None and "images" in stored else ids
    if names is None:
        raise ValueError(
            'it has no "images": give the lines of the list that it is of, and keep what is read: '
            f'jc.write_proposals("FILE.npz", jc.read_proposals("{path}", ids=open("LIST.txt").read().split()))'
        )
    if len(names) != len(cells):
        raise ValueError(f"it has boxes of {len(cells)} images, and there are {len(names)} ids")
    filled = [np.asarray(cell if np.size(cell) else np.zeros((0, 4)), np.float32) for cell in cells]
    inclusive = [boxes[:, [1, 0, 3, 2]] - np.array([1, 1, 0, 0], np.float32) for boxes in filled]
    return zip(names, inclusive, strict=True)


_READERS = {".npz": _npz, ".json": _json, ".mat": _mat}
