"""Survey: every example of a split read once, for what is broken in it and what its masks and boxes hold."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxcnn.data.box_rules import Note
from jaxcnn.data.checks import check_example
from jaxcnn.data.draws import EVALUATION, Draws
from jaxcnn.data.examples import BrokenExample, Examples
from jaxcnn.data.fields import LABEL, Fields
from jaxcnn.data.preparation import read, transform_example
from jaxcnn.data.splits import classes_without_images
from jaxcnn.data.transforms import Transform

PART = 64
"""Examples that a thread reads at once."""


@dataclasses.dataclass(frozen=True)
class Survey:
    """What was found in a split."""

    broken: list[BrokenExample]
    """In order of their index."""
    pixels: np.ndarray | None
    """int64 [256]: how many pixels of the masks have each value, after the transforms; None without masks."""

    boxes: np.ndarray | None = None
    """int64 [classes]: how many boxes each class has, after the transforms; None without boxes."""
    notes: tuple[tuple[str, Note], ...] = ()
    """(where, what the source did there) to boxes that were not as they should be."""

    def absent(self, examples: Examples) -> list[str]:
        """What the split has nothing of, in words. A black and white mask whose white is read as ignored shows so."""
        if self.boxes is not None:
            return [f"no box of {name}" for name, count in zip(examples.classes, self.boxes, strict=True) if not count]
        if self.pixels is None:
            return [f"no image of {name}" for name in classes_without_images(examples)]
        return [f"no pixel of {name}" for name, count in zip(examples.classes, self.pixels, strict=False) if not count]


def survey(
    examples: Examples,
    transforms: tuple[Transform, ...] = (),
    fields: Fields | None = None,
    *,
    threads: int | None = None,
) -> Survey:
    """Reads every example, with one draw of its transforms.

    Args:
      examples: the split.
      transforms: of each example, in order.
      fields: the arrays of a batch that it must fit; None: images of any shape with labels.
      threads: default one per processor.

    Raises:
      UserError: as `read` (data/preparation.py).
    """

    masked, boxed = (fields is not None and name in fields for name in ("mask", "classes"))

    def survey_of(part: range) -> tuple[list[BrokenExample], np.ndarray, np.ndarray, list[tuple[str, Note]]]:
        draws, broken, pixels = Draws(EVALUATION), [], np.zeros(256, np.int64)
        boxes, notes = np.zeros(len(examples.classes), np.int64), []
        for i in part:
            if hasattr(examples, "notes"):
                notes += [(examples.where(i), note) for note in examples.notes(i)]  # pyright: ignore[reportAttributeAccessIssue]
            try:
                if fields is None:
                    example = check_example(examples, i, examples[i], ("image", *LABEL))
                    transform_example(examples, i, example, transforms, draws.at(i))
                    continue
                row = read(examples, i, transforms, draws.at(i), fields)
                if masked:
                    pixels += np.bincount(row["mask"].ravel(), minlength=256)
                if boxed:
                    boxes += np.bincount(row["classes"][row["classes"] >= 0], minlength=len(boxes))
            except BrokenExample as error:
                broken.append(error)
        return broken, pixels, boxes, notes

    parts = [range(start, min(start + PART, len(examples))) for start in range(0, len(examples), PART)]
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        try:
            found = list(pool.map(survey_of, parts))
        finally:
            pool.shutdown(cancel_futures=True)
    every_broken, pixels, boxes, notes = zip(*found, strict=True)
    return Survey(
        [error for broken in every_broken for error in broken],
        np.sum(pixels, axis=0) if masked else None,
        np.sum(boxes, axis=0) if boxed else None,
        tuple(note for each in notes for note in each),
    )


def check(
    examples: Examples,
    transforms: tuple[Transform, ...] = (),
    fields: Fields | None = None,
    *,
    threads: int | None = None,
) -> list[BrokenExample]:
    """The broken examples of a survey, in order of their index."""
    return survey(examples, transforms, fields, threads=threads).broken
