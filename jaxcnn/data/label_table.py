"""Label table: a CSV file that names images and the classes that are in each."""

import csv
import functools
import hashlib
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxcnn.data.examples import BrokenExample, Example, check_index, check_split
from jaxcnn.data.folder import digest_of_files
from jaxcnn.data.images import decode
from jaxcnn.data.paired_folders import check_channels
from jaxcnn.errors import UserError
from jaxcnn.files import read_bytes

SPLIT = "split"
"""The column, if there is one, that says which split an image is of."""


@dataclass(frozen=True)
class LabelTable:
    """A table whose first column names an image file and whose others are

        image,sky,road,car        image,labels
        1.jpg,1,0,1               1.jpg,sky car
        2.jpg,0,0,0               2.jpg,

    one class each, 1, 0 or -1 (not told), or one column with names, between which stand spaces, commas, | or ;. Classes
    are the columns in their order, or the names, sorted. A column "split" says which split an image is of; without one
    all are "train", to be cut: "train[:80%]". Examples have "image", "labels" and "unsure".

    Example: LabelTable("labels.csv", images="photos")
    """

    file: str
    images: str
    """The folder of the image files. Both paths are made absolute, so that a stored run finds them from anywhere."""
    classes: tuple[str, ...] | None = None
    """In label order; None: as in the table. With names, a name that is not among them is refused."""
    channels: Literal[1, 3] = 3

    def __post_init__(self):
        check_channels(self, self.channels)
        for field in ("file", "images"):
            object.__setattr__(self, field, os.path.abspath(os.path.expanduser(getattr(self, field))))

    def open(self, split: str, data_dir: str | None = None) -> "TableExamples":
        """The examples of a whole split; the images are read when they are asked for.

        Raises UserError, with the line, if the table is not as it should be.
        """
        header, rows, numbers = self._read()
        splits = [row[header.index(SPLIT)] for row in rows] if SPLIT in header else ["train"] * len(rows)
        check_split(split, sorted(set(splits)), f"LabelTable {self.file}")
        columns = [number for number, name in enumerate(header) if number and name != SPLIT]
        chosen = [number for number, name in enumerate(splits) if name == split]
        names = [row[0] for row in rows]
        if twice := sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []:
            raise UserError(f"LabelTable: {self.file} has {twice[0]} twice; let each image have one row")
        flags = {"0", "1", "-1"}
        if all(row[number] in flags for row in rows for number in columns):
            classes, states = self._by_columns([header[number] for number in columns], rows, columns)
        elif len(columns) == 1:
            classes, states = self._by_names(rows, numbers, columns[0])
        else:
            place, column = next(
                (place, column) for place, row in enumerate(rows) for column in columns if row[column] not in flags
            )
            raise UserError(
                f"LabelTable: {self.file}, row {numbers[place]}: {header[column]} is {rows[place][column]!r}; a column "
                "of a class holds 1, 0 or -1, and a table with names has one column for them"
            )
        return TableExamples(self, split, classes, [names[i] for i in chosen], states[chosen])

    def _read(self) -> tuple[list[str], list[list[str]], list[int]]:
        """The first row, the others, and which rows of the file those are, 1 the first: it may have empty ones."""
        try:
            text = read_bytes(self.file).decode("utf-8-sig")
            numbered = enumerate(csv.reader(io.StringIO(text, newline="")), 1)
            filled = [(number, row) for number, row in numbered if any(part.strip() for part in row)]
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"LabelTable: {self.file} cannot be read: {error}") from error
        numbers, rows = [number for number, _ in filled], [row for _, row in filled]
        if len(rows) < 2 or len(rows[0]) < 2:
            raise UserError(
                f"LabelTable: {self.file} needs a first row that names its columns, image and labels or classes, and a "
                "row for each image"
            )
        header = [name.strip() for name in rows[0]]
        if len(set(header)) < len(header):
            raise UserError(f"LabelTable: {self.file} names a column twice: {', '.join(header)}")
        if os.path.isfile(os.path.join(self.images, header[0])):
            raise UserError(
                f"LabelTable: the first row of {self.file} is of the image {header[0]}; put a row before it that names "
                "the columns, image and labels or classes"
            )
        for number, row in filled[1:]:
            if len(row) != len(header):
                raise UserError(
                    f"LabelTable: {self.file}, row {number} has {len(row)} columns, and the first {len(header)}"
                )
        return header, [[part.strip() for part in row] for row in rows[1:]], numbers[1:]

    def _by_columns(
        self, names: list[str], rows: list[list[str]], columns: list[int]
    ) -> tuple[tuple[str, ...], np.ndarray]:
        classes = self.classes or tuple(names)
        if lacking := [name for name in classes if name not in names]:
            raise UserError(f"LabelTable: {self.file} has no column {lacking[0]!r}; it has {', '.join(names)}")
        order = [columns[names.index(name)] for name in classes]
        return classes, np.array([[int(row[number]) for number in order] for row in rows], np.int8)

    def _by_names(self, rows: list[list[str]], numbers: list[int], column: int) -> tuple[tuple[str, ...], np.ndarray]:
        each = [[name for name in re.split(r"[\s,|;]+", row[column]) if name] for row in rows]
        classes = self.classes or tuple(sorted({name for names in each for name in names}))
        labels = {name: label for label, name in enumerate(classes)}
        states = np.zeros((len(rows), len(classes)), np.int8)
        for place, names in enumerate(each):
            for name in names:
                if name not in labels:
                    raise UserError(
                        f"LabelTable: {self.file}, row {numbers[place]}: {name!r} is not among the classes "
                        f"{', '.join(classes)}"
                    )
                states[place, labels[name]] = 1
        return classes, states


class TableExamples:
    """Images with the states of the classes, int8 [N, classes]: 1 in it, 0 not, -1 not told."""

    def __init__(
        self, source: LabelTable, split: str, classes: tuple[str, ...], names: Sequence[str], states: np.ndarray
    ):
        self.name, self.split, self.classes = os.path.splitext(os.path.basename(source.file))[0], split, classes
        self._folder, self._channels, self._states = source.images, source.channels, states
        self.files = np.array([os.fsencode(os.path.join(source.images, name)) for name in names])

    @property
    def version(self) -> str:
        """Of the names and sizes of the images, and of their labels: 12 hex digits."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        images = digest_of_files(len(self), lambda i: (os.path.relpath(self.where(i), self._folder), self.where(i)))
        return hashlib.sha256(images.encode() + self._states.tobytes()).hexdigest()[:12]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Example:
        i = check_index(i, len(self))
        try:
            image = decode(read_bytes(self.where(i)), self._channels)
        except (OSError, ValueError) as cause:
            raise BrokenExample(i, self.where(i), str(cause)) from cause
        labels, unsure = (np.flatnonzero(self._states[i] == state).astype(np.int32) for state in (1, -1))
        return {"image": image, "labels": labels, "unsure": unsure}

    def where(self, i: int) -> str:
        return os.fsdecode(self.files[check_index(i, len(self))])
