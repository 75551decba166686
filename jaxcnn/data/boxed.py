"""Boxed examples: photos in files, with the boxes of their objects, known before a photo is read."""

import functools
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np

from jaxcnn.data.box_rules import UNKNOWN, Annotations, BoxRules, Note, ruled
from jaxcnn.data.examples import BrokenExample, Example, Examples, check_index
from jaxcnn.data.folder import digest_of_files
from jaxcnn.data.images import decode, orientation
from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.files import read_bytes

AS_SEEN = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
"""How each EXIF orientation becomes upright: whether x and y change places, then whether left and right are mirrored,
then top and bottom."""


class BoxedExamples:
    """Photos with boxes, after the rules: three arrays of all boxes, and where those of each photo begin.

    `noted` are the photos of which `notes(i)` has something to say, `dropped` what was left out altogether, `refused`
    the photos that cannot be used, with the reason; reading one of them raises it.
    """

    def __init__(
        self,
        name: str,
        split: str,
        files: Sequence[str],
        sizes: np.ndarray,
        given: Annotations,
        rules: BoxRules,
        channels: int,
        *,
        dropped: Sequence[Note] = (),
        refused: dict[int, str] | None = None,
    ):
        """`sizes` is float [N, 2], (height, width) as the annotations have it, NaN if they do not."""
        self.name, self.split, self.classes = name, split, given.names
        self._rules, self._channels = rules, channels
        kept, notes, broken = ruled(rules, given, sizes)
        refused = broken | (refused or {})
        self.dropped = list(dropped)
        numbers = np.bincount(kept.image, minlength=len(files))
        bare = (numbers == 0) & ~np.isin(np.arange(len(files)), list(refused))
        keep = np.ones(len(files), bool)
        if rules.no_objects == "drop":
            keep = ~bare
            self.dropped += [
                Note("images without objects", "dropped", f"{files[i]} has no object: dropped")
                for i in np.flatnonzero(bare).tolist()
            ]
        elif rules.no_objects == "refuse":
            refused |= {int(i): "it has no object" for i in np.flatnonzero(bare)}
        if not len(kept.boxes) and not refused:
            raise UserError(
                f"{name}/{split} has no object: {len(files):,} images without a box"
                + (f" ({len(given.boxes)} were dropped by the rules)" if len(given.boxes) else "")
            )
        place = np.cumsum(keep) - 1  # of a photo among those that stay
        self._notes = {int(place[i]): found for i, found in notes.items() if keep[i]}
        self.noted = sorted(self._notes)
        self.refused = {int(place[i]): why for i, why in sorted(refused.items())}
        self._kept = kept
        self._first = np.concatenate([[0], np.cumsum(numbers[keep])])
        self._sizes = sizes[keep]
        # Bytes of one width, not a list of str: they pickle to each worker in milliseconds.
        self.files = np.array([os.fsencode(path) for path, stays in zip(files, keep, strict=True) if stays])

    @property
    def version(self) -> str:
        """Of the names and sizes of the photos, and of the boxes: 12 hex digits."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        photos = digest_of_files(len(self), lambda i: (os.path.basename(self.where(i)), self.where(i)))
        digest = hashlib.sha256(photos.encode())
        for array in (self._first, self._kept.boxes, self._kept.classes, self._kept.difficult, self._kept.crowd):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:12]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Example:
        i = check_index(i, len(self))
        path = self.where(i)
        if i in self.refused:
            raise BrokenExample(i, path, self.refused[i])
        try:
            data = read_bytes(path)
            image = decode(data, self._channels)
            boxes = self._of(i, image.shape[:2], data)
        except (OSError, ValueError) as cause:
            raise BrokenExample(i, path, str(cause)) from cause
        return {"image": image} | parts(boxes)

    def truth(self, i: int) -> Example:
        """The boxes of photo `i` and what is said of them, without reading it: as annotated, if EXIF turns them."""
        i = check_index(i, len(self))
        return parts(self._kept.chosen(np.arange(self._first[i], self._first[i + 1])))

    def notes(self, i: int) -> list[Note]:
        """What the rules did to the boxes of photo `i`."""
        return self._notes.get(i, [])

    def where(self, i: int) -> str:
        """The path of the photo."""
        return os.fsdecode(self.files[i])

    def _of(self, i: int, size: tuple[int, int], data: bytes) -> Annotations:
        """The boxes of photo `i`, whose upright size is this. ValueError if they are not of it."""
        boxes = self._kept.chosen(np.arange(self._first[i], self._first[i + 1]))
        annotated = self._sizes[i]
        rule = self._rules.turned
        number = orientation(data) if rule != "upright" or not np.array_equal(annotated, size) else 1
        if number > 1 and rule == "refuse":
            raise ValueError(f"the photo is turned by EXIF (orientation {number}), which rules.turned refuses")
        stored = (size[1], size[0]) if number > 4 else size  # 5 to 8 change the sides
        expected = stored if rule == "stored" else size
        if np.isnan(annotated).any():
            left = ruled(self._rules, boxes._replace(image=np.zeros_like(boxes.image)), np.array([expected], float))
            if left.refused:
                raise ValueError(left.refused[0])
            boxes = left.kept
        elif not np.array_equal(annotated, expected):
            told = (
                f"the annotation is of {annotated[0]:g} x {annotated[1]:g} pixels (height x width), but the photo has "
            )
            if number > 4 and np.array_equal(annotated, expected[::-1]):
                remedy = "stored" if rule == "upright" else "upright"
                raise ValueError(
                    f"{told}{expected[0]} x {expected[1]}: EXIF turns it (orientation {number}), and the boxes are of "
                    f"the photo {'as it is stored' if remedy == 'stored' else 'upright'}: "
                    f'rules=jc.BoxRules(turned="{remedy}")'
                )
            raise ValueError(f"{told}{expected[0]} x {expected[1]}: its boxes are of another one, or of another size")
        return boxes._replace(boxes=upright(boxes.boxes, number, stored)) if rule == "stored" else boxes


def parts(boxes: Annotations) -> Example:
    """The parts of an example that say something of its boxes."""
    area = {} if boxes.area is None else {"area": boxes.area.astype(np.float32)}
    return {
        "boxes": boxes.boxes.astype(np.float32),
        "classes": boxes.classes.astype(np.int32),
        "difficult": boxes.difficult,
        "crowd": boxes.crowd,
    } | area


def truths_of(examples: Examples) -> Iterator[Example]:
    """The boxes of every example that is not known to be broken, without reading photos where that can be.

    Example: check_truth("voc07", list(truths_of(examples)), len(examples.classes))
    """
    read = getattr(examples, "truth", examples.__getitem__)
    refused = getattr(examples, "refused", {})
    return (read(i) for i in range(len(examples)) if i not in refused)


def first_truths(examples: Examples, most: int, purpose: str) -> list[Example]:
    """`truths_of` the first examples. Raises UserError, which says for what boxes are needed, if they have none."""
    truths = list(itertools.islice(truths_of(examples), most))
    if any("boxes" not in truth or "classes" not in truth for truth in truths):
        raise UserError(
            f"{examples.name}/{examples.split} has no boxes; {purpose} needs a source that gives them, such as "
            "VOCDetection, COCODetection or Tfds of a set with objects"
        )
    return truths


def upright(boxes: np.ndarray, number: int, size: tuple[int, int]) -> np.ndarray:
    """Boxes [N, 4] of a photo as stored, (height, width) `size`, moved as EXIF orientation `number` turns it."""
    swap, left_right, top_bottom = AS_SEEN.get(number, AS_SEEN[1])
    if swap:
        boxes, size = boxes[:, [1, 0, 3, 2]], (size[1], size[0])
    height, width = size
    if left_right:
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    if top_bottom:
        boxes = np.stack([boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], 1)
    return boxes


def class_numbers(
    names: Sequence[str | None], wheres: Sequence[str], classes: Sequence[str], rules: BoxRules, what: str
) -> np.ndarray:
    """The class of each box, int32, by its name; -1 if it has none.

    Args:
      names: of the boxes' classes.
      wheres: the file of each box.
      classes: the wanted ones.
      rules: whether another class is an error.
      what: the source and split, for the message.

    Raises:
      UserError: a box is of a class that is not wanted, and the rules do not drop it.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    found = np.array([-1 if name is None else numbers.get(name, UNKNOWN) for name in names], np.int32)
    strange = np.flatnonzero(found == UNKNOWN)
    if len(strange) and rules.unknown == "refuse":
        first, there = names[strange[0]], list(dict.fromkeys(name for name in names if name))
        hint = did_you_mean(str(first), classes) or ";"
        raise UserError(
            f"{what}: {len(strange)} boxes are of classes that are not in the list, the first is {first!r} in "
            f"{wheres[strange[0]]}{hint} the list is {_some(classes)}, and the files have {_some(there)}: give "
            'classes=(...), or leave the others out by rules=jc.BoxRules(unknown="drop")'
        )
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
