"""Detections and the truth of a set of images, as the metrics of detection take them.

One image is a dict; boxes are (xmin, ymin, xmax, ymax), edges in pixels of the image as its source gave it:

    detections  {"boxes": [D, 4], "scores": [D], "classes": [D]}
    truth       {"boxes": [G, 4], "classes": [G], "difficult": bool [G], "crowd": bool [G], "area": [G]}; the last three
                may be missing: no box is so, and an area is its box's

A set is a list of these, or one dict of arrays with the images in front, {"boxes": [N, D, 4], ...}, as the records of
an evaluation are. A row whose class is negative is padding and counts nowhere.

The order of images and of boxes changes nothing but which of equal scores comes first. That is the one of the earlier
image, or of the smaller id where `ids` are given, and within an image the earlier one: with ids, and without equal
scores of one class in one image, no order changes anything.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Images = Sequence[Mapping[str, Any]] | Mapping[str, Any]

OPTIONAL: dict[str, type] = {"difficult": bool, "crowd": bool, "area": np.float64}
"""Parts of the truth that may be missing."""


class Boxes(NamedTuple):
    """The boxes of all images, one after another, without padding."""

    image: np.ndarray
    """int64 [M], ascending: the image's index in `Scenes.order`."""
    row: np.ndarray
    """int64 [M]: the box's row in its image, padding included."""
    boxes: np.ndarray
    """float64 [M, 4]."""
    classes: np.ndarray
    """int64 [M]."""
    others: dict[str, np.ndarray]
    """What else is known of each, [M]: "scores", or "difficult", "crowd" and "area"."""

    def __len__(self) -> int:
        return len(self.image)


class Scenes(NamedTuple):
    """Both sides of a set."""

    order: np.ndarray
    """int64 [N]: the images in the order in which equal scores come, as indices of the set."""
    found: Boxes
    true: Boxes

    def images(self) -> list[tuple[int, slice, slice]]:
        """(place, its detections, its true boxes) of each image that has either."""
        edges = np.arange(len(self.order) + 1)
        found, true = (np.searchsorted(side.image, edges).tolist() for side in (self.found, self.true))
        return [
            (i, slice(found[i], found[i + 1]), slice(true[i], true[i + 1]))
            for i in range(len(self.order))
            if found[i] < found[i + 1] or true[i] < true[i + 1]
        ]


def gather(detections: Images, truths: Images, classes: int, ids: Sequence[Any] | None = None) -> Scenes:
    """Both sides of a set, checked.

    Args:
      detections: of each image.
      truths: of each image, in the same order.
      classes: how many there are.
      ids: of the images, all different, to be sorted by.

    Raises:
      ValueError: the sides are of different numbers of images, arrays do not fit each other, or a class is not below
        `classes`: a mistake of the caller.
    """
    count = count_images(detections)
    if count_images(truths) != count:
        raise ValueError(f"there are detections of {count} images, and the truth of {count_images(truths)}")
    order = np.arange(count)
    if ids is not None:
        if len(ids) != count or len(set(ids)) < count:
            raise ValueError(f"there are {count} images, and {len(set(ids))} different ids")
        order = np.array(sorted(range(count), key=lambda i: ids[i]), np.int64)
    found, true = _columns(detections, order, {"scores": np.float64}), _columns(truths, order, OPTIONAL)
    for name, side in (("detection", found), ("true box", true)):
        if len(side) and side.classes.max() >= classes:
            raise ValueError(f"a {name} is of class {side.classes.max()}, and there are {classes}, from 0")
    return Scenes(order, found, true)


def count_images(images: Images) -> int:
    return len(images["classes"]) if isinstance(images, Mapping) else len(images)


def _columns(images: Images, order: np.ndarray, others: dict[str, type]) -> Boxes:
    if isinstance(images, Mapping):
        kinds = np.asarray(images["classes"]).astype(np.int64)[order]
        image, row = np.nonzero(kinds >= 0)
        boxes = np.asarray(images["boxes"])[order][image, row].astype(np.float64)
        given = {name: np.asarray(images[name])[order][image, row] for name in others if name in images}
        kinds = kinds[image, row]
    else:
        each = [_of_image(images[i], others) for i in order.tolist()]
        image = np.repeat(np.arange(len(each)), [len(kinds) for _, kinds, _ in each])
        row = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(kinds)) for _, kinds, _ in each)])
        boxes = np.concatenate([np.zeros((0, 4)), *(boxes for boxes, _, _ in each)])
        kinds = np.concatenate([np.zeros(0, np.int64), *(kinds for _, kinds, _ in each)])
        real = kinds >= 0
        given = {
            name: np.concatenate([np.zeros(0), *(extra[name] for _, _, extra in each)])[real]
            for name in others
            if all(name in extra for _, _, extra in each)
        }
        image, row, boxes, kinds = image[real], row[real], boxes[real], kinds[real]
    if "scores" in others and "scores" not in given:
        raise ValueError("detections have no scores")
    no = np.zeros(len(boxes), bool)
    known = {"area": (boxes[:, 2:] - boxes[:, :2]).prod(1), "difficult": no, "crowd": no} | given
    filled = {name: known[name].astype(kind) for name, kind in others.items()}
    return Boxes(image, row, boxes, kinds, filled)


def _of_image(
    image: Mapping[str, Any], others: dict[str, type]
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    kinds = np.asarray(image["classes"]).astype(np.int64).reshape(-1)
    boxes = np.asarray(image["boxes"], np.float64).reshape(-1, 4)
    extra = {name: np.asarray(image[name]).reshape(-1) for name in others if name in image}
    for name, value in (("boxes", boxes), *extra.items()):
        if len(value) != len(kinds):
            raise ValueError(f"an image has {len(kinds)} classes and {len(value)} {name}")
    return boxes, kinds, extra


def overlaps(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """Intersection over union of every pair, [D, 4] and [G, 4] -> float64 [D, G]; 0 if it is not a number.

    With `crowd`, bool [G], the overlap with those is the share of the first box that lies in them (pycocotools).
    """
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    inside = np.where((sides > 0).all(-1), sides.prod(-1), 0.0)
    first, second = ((each[:, 2:] - each[:, :2]).prod(-1) for each in (boxes, others))
    whole = first[:, None] + second[None] - inside
    if crowd is not None:
        whole = np.where(crowd, first[:, None], whole)
    return np.divide(inside, whole, out=np.zeros_like(inside), where=(whole > 0) & (inside > 0))


def as_detections(truths: Images) -> list[dict[str, np.ndarray]]:
    """The true boxes as detections with score 1, crowds left out, since nobody is asked to find one."""
    count = count_images(truths)
    true = _columns(truths, np.arange(count), OPTIONAL)
    edges = np.searchsorted(true.image, np.arange(count + 1))
    wanted = [np.arange(*edges[i : i + 2])[~true.others["crowd"][edges[i] : edges[i + 1]]] for i in range(count)]
    return [{"boxes": true.boxes[i], "classes": true.classes[i], "scores": np.ones(len(i))} for i in wanted]
