"""Box rules: what becomes of boxes and photos that are not as they should be, and how it is told.

A box without area makes a loss that is not finite, and one that is left out unseen changes a score: so everything is
kept, dropped with a note, or refused by its name, as the source's `BoxRules` say.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

import numpy as np

from jaxcnn.data.checks import box_format
from jaxcnn.data.examples import Examples
from jaxcnn.errors import UserError, did_you_mean

Drop = Literal["drop", "refuse"]
Keep = Literal["keep", "drop", "refuse"]
UNLABELED, UNKNOWN = -1, -2
"""In place of a class: the annotation names none, or one that is not among the wanted ones."""


@dataclasses.dataclass(frozen=True)
class BoxRules:
    """What becomes of each kind of box. "drop" leaves it out, with a note (`jaxcnn data check` lists them, and a run
    says how many); "refuse" makes its image a broken one, which is named and stops a run unless
    `data.tolerate_broken` says otherwise; "keep" lets it be.

    Example:
        VOCDetection("bccd", classes=("RBC", "WBC", "Platelets"), coordinates="edges", rules=BoxRules(empty="drop"))
    """

    empty: Drop = "refuse"
    """A box without area, as it is written: xmax is not above xmin, or ymax not above ymin."""
    outside: Literal["clip", "drop", "refuse"] = "refuse"
    """A box that reaches over its image by more than `tolerance`. "clip" drops what is outside altogether."""
    tolerance: float = 1.0
    """Pixels by which a box may reach over its image; it is clipped without a note, since COCO's own do by rounding."""
    unlabeled: Drop = "refuse"
    """A box of which no class is given."""
    unknown: Drop = "refuse"
    """A box of a class that is not among the source's `classes`; "refuse" stops at once and names the nearest."""
    difficult: Keep = "keep"
    """A box that VOC's evaluation leaves out. Kept, it is marked: the metrics need to know of it."""
    crowd: Keep = "keep"
    """A box around several objects. Kept, it is marked: COCO's evaluation ignores what is found in it."""
    no_objects: Keep = "keep"
    """An image without any box: all of its area teaches what is no object. TFDS's sets know it too late to drop it."""
    duplicate_ids: Keep = "refuse"
    """An annotation with the id of another (COCO); "drop" keeps the first. pycocotools keeps the last, in silence."""
    missing: Drop = "refuse"
    """A file that is named and not there, and a COCO annotation of an image that is not in the list."""
    turned: Literal["upright", "stored", "refuse"] = "upright"
    """What the boxes of a photo with an EXIF orientation are of: "upright", the photo as people and `jaxcnn` see it;
    "stored", its pixels as they are stored, and boxes are turned with them; "refuse" names every such photo. If the
    annotation says the size, and the photo has its sides the other way round, it is refused with the remedy."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), get_args(field.type)
            if choices and value not in choices:
                hint = did_you_mean(str(value), choices) or ";"
                raise UserError(f"BoxRules: {field.name} is {value!r}{hint} there is {', '.join(choices)}")
        if not 0 <= self.tolerance < float("inf"):
            raise UserError(f"BoxRules: tolerance is {self.tolerance}; it is a number of pixels, at least 0")


class Note(NamedTuple):
    """One box, or one image, with which something was done."""

    what: str
    """Its kind, in the plural: "boxes without area"."""
    done: str
    """"dropped" or "clipped"."""
    text: str
    """A sentence that names it, without the image: "box 12 RBC (504, 337, 504, 337) has no area: dropped"."""


class Annotations(NamedTuple):
    """The boxes of many images, one after another."""

    image: np.ndarray
    """int [M]: the number of the box's image."""
    boxes: np.ndarray
    """float64 [M, 4]: (xmin, ymin, xmax, ymax), edges in pixels."""
    classes: np.ndarray
    """int32 [M]; UNLABELED or UNKNOWN."""
    difficult: np.ndarray
    """bool [M]."""
    crowd: np.ndarray
    """bool [M]."""
    written: np.ndarray
    """float64 [M, 4]: the four numbers as the file has them, for messages."""
    flat: np.ndarray
    """bool [M]: without area as it is written; in VOC's inclusive pixels such a box would be a pixel wide."""
    names: tuple[str, ...]
    """Of the classes."""
    area: np.ndarray | None = None
    """float64 [M]: of the objects, if the file has it."""
    twice: np.ndarray | None = None
    """bool [M]: its id is that of a box before it."""

    def chosen(self, mask: np.ndarray) -> "Annotations":
        """Those that `which`, a mask or indices, names."""
        arrays = {name: value[mask] for name, value in self._asdict().items() if isinstance(value, np.ndarray)}
        return self._replace(**arrays)


class Ruled(NamedTuple):
    """What the rules leave of annotations."""

    kept: Annotations
    notes: dict[int, list[Note]]
    """{image: what was done with its boxes}."""
    refused: dict[int, str]
    """{image: why it is refused}."""


def ruled(rules: BoxRules, given: Annotations, sizes: np.ndarray) -> Ruled:
    """Applies the rules to annotations of images of these sizes.

    Args:
      rules: of the source.
      given: of all images, or of one.
      sizes: float [N, 2], (height, width) of each image; NaN if it is unknown: nothing is then outside of it.
    """
    notes: dict[int, list[Note]] = {}
    refused: dict[int, str] = {}
    keep = np.ones(len(given.boxes), bool)
    counted = np.zeros(len(given.boxes), np.int64)  # the box's number in its image, for a person
    if len(keep):
        first = np.flatnonzero(np.diff(given.image, prepend=-1))
        counted = np.arange(len(keep)) - np.repeat(first, np.diff(np.append(first, len(keep))))

    def name(m: int) -> str:
        kind = f"{given.names[given.classes[m]]} " if given.classes[m] >= 0 else ""
        return f"box {counted[m]} {kind}({', '.join(f'{value:g}' for value in given.written[m])})"

    def likely_format(image: int) -> str:
        written, boxes = (array[given.image == image] for array in (given.written, given.boxes))
        return box_format(written if (np.abs(written) <= 1).all() else boxes, tuple(sizes[image]))

    def judge(mask: np.ndarray, rule: str, what: str, wrong: str, advice: str = "", hint: bool = False) -> None:
        """Drops or refuses the boxes of `which` that are still there."""
        for m in np.flatnonzero(mask & keep).tolist():
            keep[m] = False
            image, text = int(given.image[m]), f"{name(m)} {wrong}"
            if rule == "drop":
                notes.setdefault(image, []).append(Note(what, "dropped", f"{text}: dropped"))
            elif image not in refused:
                more = likely_format(image) if hint else ""
                refused[image] = f"{text}{more}; {advice}" if advice else f"{text}{more}"

    def dropping(field: str) -> str:
        return f'if such boxes are to be left out: rules=jc.BoxRules({field}="drop")'

    low, high = given.boxes[:, :2], given.boxes[:, 2:]
    if given.twice is not None and rules.duplicate_ids != "keep":
        judge(given.twice, rules.duplicate_ids, "boxes with an id twice", "has the id of a box before it")
    judge(given.classes == UNLABELED, rules.unlabeled, "boxes without a class", "has no class", dropping("unlabeled"))
    judge(given.classes == UNKNOWN, "drop", "boxes of other classes", "is of another class")
    if rules.difficult != "keep":
        judge(given.difficult, rules.difficult, "difficult boxes", "is difficult")
    if rules.crowd != "keep":
        judge(given.crowd, rules.crowd, "crowd boxes", "is a crowd")
    strange = np.any(~np.isfinite(given.boxes), axis=1)
    judge(strange, "refuse", "", "has a coordinate that is not a number")
    empty = given.flat | np.any(low >= high, axis=1)
    judge(empty, rules.empty, "boxes without area", "has no area", dropping("empty"), hint=True)
    edges = sizes[given.image][:, ::-1] if len(keep) else np.zeros((0, 2))
    with np.errstate(invalid="ignore"):
        away = np.any((high <= 0) | (low >= edges), axis=1)
        over = np.maximum(-low, high - edges).max(1, initial=-np.inf) > rules.tolerance
    remedy = 'repair them, or give rules=jc.BoxRules(outside="clip")'
    rule = "refuse" if rules.outside == "refuse" else "drop"
    judge(away, rule, "boxes outside", "lies outside of its image", remedy, hint=True)
    if rules.outside == "clip":
        for m in np.flatnonzero(over & keep).tolist():
            note = Note("boxes over the edge", "clipped", f"{name(m)} reaches over its image: clipped")
            notes.setdefault(int(given.image[m]), []).append(note)
    else:
        judge(over, rules.outside, "boxes over the edge", "reaches over its image", remedy, hint=True)
    kept = given.chosen(keep)
    most = np.where(np.isnan(edges), np.inf, edges)[keep]
    clipped = [np.clip(half, 0, most) for half in np.split(kept.boxes, 2, axis=1)]
    return Ruled(kept._replace(boxes=np.concatenate(clipped, 1)), notes, refused)


def counts(notes: Iterable[Note]) -> list[str]:
    """How many of each kind, in words: "boxes without area: 2 dropped"."""
    return [f"{what}: {count} {done}" for (what, done), count in Counter((n.what, n.done) for n in notes).items()]


def notes_of(examples: Examples) -> list[Note]:
    """All that is known, without reading an image, to have been dropped or clipped in a split."""
    noted = [note for i in getattr(examples, "noted", ()) for note in examples.notes(i)]  # pyright: ignore[reportAttributeAccessIssue]
    return [*getattr(examples, "dropped", ()), *noted]
