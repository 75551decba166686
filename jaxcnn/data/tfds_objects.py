"""The objects of TFDS's detection sets: which features hold them, and what their numbers mean.

TFDS stores a box as shares of the image, (ymin, xmin, ymax, xmax), but not all of its sets count alike: "voc" divides
VOC's own numbers, whose first pixel is 1 and whose last is inside, and "kitti" counts y from the bottom.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxcnn.data.box_rules import UNKNOWN, UNLABELED, Annotations, BoxRules, ruled
from jaxcnn.data.boxed import parts as of_boxes
from jaxcnn.data.examples import Example
from jaxcnn.errors import UserError, did_you_mean

INCLUSIVE = ("voc",)
FROM_BOTTOM = ("kitti",)
CLASSES = ("label", "type", "category")
"""Names that the class of an object has in TFDS's sets, if it has several features of this kind."""
FLAGS = {"difficult": "is_difficult", "crowd": "is_crowd", "area": "area"}


class Objects(NamedTuple):
    """Where in a record the objects are."""

    feature: str
    box: str
    kind: str
    flags: dict[str, str]
    """{"difficult": "is_difficult"}, those that the set has."""
    names: tuple[str, ...]
    """Of the set's classes."""
    relative: bool
    set_name: str


def find_objects(features: Any, asked: bool | str, name: str, where: str) -> Objects:
    """The feature with the objects. UserError if there is none, or if it cannot be told which."""
    import tensorflow_datasets as tfds

    kinds = tfds.features

    def inside(key: str) -> dict[str, Any]:
        inner = getattr(features[key], "feature", None)
        return dict(inner.items()) if isinstance(inner, kinds.FeaturesDict) else {}

    fitting = [key for key in sorted(features) if any(isinstance(f, kinds.BBoxFeature) for f in inside(key).values())]
    if asked is True and len(fitting) != 1:
        found = f"several: {', '.join(fitting)}; name one" if fitting else "none"
        raise UserError(f"{where}: of features with the boxes of objects it has {found}")
    feature = fitting[0] if asked is True else str(asked)
    if feature not in fitting:
        hint = did_you_mean(feature, fitting) or ";"
        raise UserError(
            f"{where}: objects={feature!r} is not a feature with boxes{hint} those that fit: "
            f"{', '.join(fitting) or 'none'}"
        )
    inner = inside(feature)
    boxes = [key for key, each in sorted(inner.items()) if isinstance(each, kinds.BBoxFeature)]
    labels = [key for key, each in sorted(inner.items()) if isinstance(each, kinds.ClassLabel)]
    kind = next((key for key in CLASSES if key in labels), labels[0] if len(labels) == 1 else None)
    if kind is None or len(boxes) > 1:
        raise UserError(f"{where}: it cannot be told which of {', '.join(sorted(inner))} in {feature!r} is meant")
    flags = {part: key for part, key in FLAGS.items() if key in inner}
    relative = getattr(inner[boxes[0]].bbox_format, "name", "REL").startswith("REL")
    return Objects(feature, boxes[0], kind, flags, tuple(inner[kind].names), relative, name.partition("/")[0])


def annotations(
    objects: Objects, record: Any, size: tuple[int, int], classes: tuple[str, ...], rules: BoxRules
) -> Annotations:
    """The objects of a record of an image of this size. ValueError if one is of a class that the rules refuse."""
    found = record[objects.feature]
    written = np.array(found[objects.box], np.float64).reshape(-1, 4)
    ymin, xmin, ymax, xmax = written.T
    if objects.set_name in FROM_BOTTOM:
        ymin, ymax = 1 - ymax, 1 - ymin
    boxes = np.stack([xmin, ymin, xmax, ymax], 1)
    if objects.relative:
        boxes = boxes * (size[1], size[0], size[1], size[0])
    if objects.set_name in INCLUSIVE:
        boxes = boxes - (1, 1, 0, 0)
    numbers = np.array(found[objects.kind], np.int64).reshape(-1)
    wanted = {name: label for label, name in enumerate(classes)}
    kinds = np.full(len(numbers), UNLABELED, np.int32)
    for index, number in enumerate(numbers.tolist()):
        if number >= 0:
            kinds[index] = wanted.get(objects.names[number], UNKNOWN)
            if kinds[index] == UNKNOWN and rules.unknown == "refuse":
                raise ValueError(
                    f"box {index} is of class {objects.names[number]!r}, which is not in the list; leave such boxes "
                    'out by rules=jc.BoxRules(unknown="drop")'
                )
    no = np.zeros(len(boxes), bool)
    flags = {name: np.array(found[key]).reshape(-1) for name, key in objects.flags.items()}
    return Annotations(
        image=np.zeros(len(boxes), np.int64),
        boxes=boxes,
        classes=kinds,
        difficult=flags.get("difficult", no).astype(bool),
        crowd=flags.get("crowd", no).astype(bool),
        area=flags.get("area"),
        written=written,
        flat=~((xmin < xmax) & (ymin < ymax)),
        names=classes,
    )


def parts(given: Annotations, rules: BoxRules, size: tuple[int, int]) -> Example:
    """The parts of an example. ValueError if the rules refuse it."""
    left = ruled(rules, given, np.array([size], float))
    if left.refused:
        raise ValueError(left.refused[0])
    if not len(left.kept.boxes) and rules.no_objects == "refuse":
        raise ValueError("it has no object")
    return of_boxes(left.kept)
