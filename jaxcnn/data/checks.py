"""Checks of an example's parts where they enter: what a source must return, and what its owner does if it does not.

Anything else would train in silence: floats in 0..1 are black when they are cut to uint8, a label outside the classes
has no loss, and a box without area makes one that is not finite.
"""

import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from jaxcnn.data.encoded import Encoded
from jaxcnn.data.examples import BrokenExample, Example, Examples
from jaxcnn.errors import UserError

IGNORED = 255
"""The value of a mask's pixels that no loss and no metric counts."""
WANTED = {
    "image": "uint8 [H, W, C]",
    "label": "a whole number",
    "mask": "uint8 [H, W]",
    "boxes": "float32 [N, 4]",
    "classes": "int32 [N]",
    "difficult": "bool [N]",
    "crowd": "bool [N]",
    "area": "float32 [N]",
    "proposals": "float32 [P, 4]",
    "points": "float32 [N, 2]",
    "labels": "int32 [N]",
    "unsure": "int32 [N]",
}
FLAGS = ("difficult", "crowd")
"""Parts of boxes that a source may leave out: no box is so."""
PLACED = {
    "original_size": lambda image: np.array(image.shape[:2], np.int32),
    "placement": lambda image: np.array([1, 1, 0, 0], np.float32),
}
"""Parts that say where an example's image comes from; a source need not give them (data/fields.py)."""


class Checked:
    """Examples that hold what has been checked, so that nobody need check it again each time that it is read."""


def check_example(examples: Examples, i: int, example: Any, names: Iterable[str]) -> Example:
    """The parts of example `i` that are named, if they are what `Example` (data/examples.py) says.

    "image" is always among the names. A part that `Example` does not tell of is taken as it is.

    Raises:
      BrokenExample: the example is damaged: a label or a pixel of its mask names no class, its mask has another size
        than its image, a box has no area.
      UserError: a part is missing or has another type or shape: a mistake of the source and not of one example.
    """
    try:
        checked = {name: example[name] for name in names}
    except (TypeError, KeyError, IndexError):
        checked = _with_known(examples, i, example, tuple(names))
    image = checked["image"]
    if not isinstance(image, Encoded) and not (
        isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.size
    ):
        raise UserError(f"{examples.where(i)}: the image is {described(image)}, but {image_wanted(image)}")
    for name, part in checked.items():
        if name == "label":
            if type(part) is not int or not 0 <= part < len(examples.classes):
                checked[name] = check_label(examples, i, part)
        elif name in _CHECKS:
            _CHECKS[name](examples, i, checked)
    return checked


def check_label(examples: Examples, i: int, label: Any) -> int:
    """`label` as a Python int.

    Raises:
      BrokenExample: it names no class (TFDS writes -1 for the hidden labels of a test split).
      UserError: it is not a whole number, which is a mistake of the source and not of one example.
    """
    classes = len(examples.classes)
    try:
        number = operator.index(label)
    except TypeError:
        raise UserError(
            f"{examples.where(i)}: the label is {described(label)}, but a label is a whole number in [0, {classes}): "
            "the place of the class in `classes`"
        ) from None
    if not 0 <= number < classes:
        start = "; labels count from 0: where a source's own start at 1, it returns label - 1" * (number >= classes)
        raise BrokenExample(i, examples.where(i), f"label {number} is outside [0, {classes}){start}")
    return number


def check_mask(examples: Examples, i: int, mask: Any, size: tuple[int, int]) -> None:
    """Checks a mask, uint8 [H, W] of an image of this size, each value a class or IGNORED.

    Raises:
      BrokenExample: it has another size, or a value that is neither.
      UserError: it has another type or other axes.
    """
    if not (isinstance(mask, np.ndarray) and mask.dtype == np.uint8 and mask.ndim == 2):
        raise UserError(f"{examples.where(i)}: the mask is {described(mask)}, but {_mask_wanted(mask)}")
    if mask.shape != size:
        raise BrokenExample(i, examples.where(i), f"the mask has {_by(mask.shape)} pixels, the image {_by(size)}")
    strange = mask >= len(examples.classes)
    strange &= mask != IGNORED
    if strange.any():
        row, column = np.argwhere(strange)[0].tolist()
        values = np.unique(mask[strange]).tolist()
        shown = ", ".join(map(str, values[:5])) + ", ..." * (len(values) > 5)
        raise BrokenExample(
            i,
            examples.where(i),
            f"the mask has the value{'s' * (len(values) > 1)} {shown} (first in row {row}, column {column}), but the "
            f"classes are 0 to {len(examples.classes) - 1}, and {IGNORED} is ignored",
        )


def check_boxes(examples: Examples, i: int, boxes: Any, size: tuple[int, int]) -> None:
    """Checks boxes, float32 [N, 4], (xmin, ymin, xmax, ymax) inside of an image of this size, each with an area.

    Raises:
      BrokenExample: a box has no area or reaches over the image.
      UserError: they have another type or other axes.
    """
    _check_array(examples, i, "boxes", boxes, np.float32, (4,))
    height, width = size
    low, high = boxes[:, :2], boxes[:, 2:]
    outside = ~((low >= 0) & (high <= (width, height))).all(1)
    if outside.any():
        hint = box_format(boxes, size)
        raise BrokenExample(
            i,
            examples.where(i),
            f"{_box(boxes, outside)} reaches over the image of {_by(size)}; boxes are (xmin, ymin, xmax, ymax) in "
            f"pixels, edges in [0, width] x [0, height]{hint}",
        )
    flat = ~(low < high).all(1)
    if flat.any():
        raise BrokenExample(i, examples.where(i), f"{_box(boxes, flat)} has no area{box_format(boxes, size)}")
    if len(boxes) and boxes.max() <= 1 < min(size):
        raise BrokenExample(
            i, examples.where(i), f"every box lies in one pixel: {_box(boxes, ~flat)}{box_format(boxes, size)}"
        )


def check_proposals(examples: Examples, i: int, proposals: Any, size: tuple[int, int]) -> None:
    """Checks proposals, float32 [P, 4], (xmin, ymin, xmax, ymax) inside of an image of this size.

    Raises:
      BrokenExample: one reaches over the image.
      UserError: they have another type or other axes.
    """
    _check_array(examples, i, "proposals", proposals, np.float32, (4,))
    height, width = size
    outside = ~((proposals >= 0) & (proposals <= (width, height, width, height))).all(1)
    if outside.any():
        raise BrokenExample(
            i,
            examples.where(i),
            f"of its proposals {_box(proposals, outside)} reaches over the image of {_by(size)}",
        )


def check_points(examples: Examples, i: int, points: Any, size: tuple[int, int]) -> None:
    """Checks points, float32 [N, 2], (x, y) inside of an image of this size, or NaN if the image does not show them."""
    _check_array(examples, i, "points", points, np.float32, (2,))
    height, width = size
    outside = (~np.isnan(points) & ~((points >= 0) & (points <= (width, height)))).any(1)
    if outside.any():
        number = int(np.flatnonzero(outside)[0])
        raise BrokenExample(
            i,
            examples.where(i),
            f"point {number} {tuple(points[number].tolist())} lies outside of the image of {_by(size)}; points are "
            "(x, y) in pixels, and NaN where the image does not show them",
        )


def described(value: object) -> str:
    """A value for a message: an array by its type, shape and range, others by their type and what they hold."""
    if isinstance(value, np.ndarray) and value.ndim:
        bounds = f", from {value.min()} to {value.max()}" if value.size and value.dtype.kind in "biuf" else ""
        return f"an array of {value.dtype} {list(value.shape)}{bounds}"
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {str(value)[:60]}"


def image_wanted(image: object) -> str:
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


def _mask_wanted(mask: object) -> str:
    wanted = f"a mask is a NumPy array of uint8 [H, W], the class of each pixel, {IGNORED} where it is ignored"
    if not isinstance(mask, np.ndarray):
        return f"{wanted}; return np.asarray(mask, np.uint8)"
    if mask.ndim == 3 and mask.shape[2] == 1:
        return f"{wanted}; return mask[..., 0]"
    if mask.ndim == 3:
        return f"{wanted}; turn its colors into classes, or read a palette image without converting it to RGB"
    if mask.dtype != np.uint8:
        return f"{wanted}; where its values are classes already: return mask.astype(np.uint8)"
    return wanted


def _with_known(examples: Examples, i: int, example: Any, names: tuple[str, ...]) -> Example:
    """The named parts of an example that lacks some; a flag that it does not tell of is false, and an image is where
    it came from. UserError for others."""
    if isinstance(example, dict):
        known = {name: np.zeros(len(example["boxes"]), bool) for name in FLAGS if "boxes" in example}
        if isinstance(image := example.get("image"), np.ndarray | Encoded):
            known |= {name: of(image) for name, of in PLACED.items()}
        if "labels" in example:
            known["unsure"] = np.zeros(0, np.int32)
        if isinstance(boxes := example.get("boxes"), np.ndarray) and boxes.shape[1:] == (4,):
            known["area"] = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        if not set(names) - (known | example).keys():
            return {name: (known | example)[name] for name in names}
    needed = ", ".join(f'"{name}", {WANTED.get(name, "which its task reads")}' for name in names)
    lacking = "proposals" in names and not (isinstance(example, dict) and "proposals" in example)
    hint = "; WithProposals adds proposals to a source" if lacking else ""
    if "labels" in names and isinstance(example, dict) and "classes" in example:
        hint = "; ImageLabels(source) makes labels of boxes"
    raise UserError(
        f"{examples.where(i)}: the source returned {described(example)}, but an example is a dict with {needed}{hint}"
    )


def _check_array(examples: Examples, i: int, name: str, value: Any, dtype: type, axes: tuple[int, ...]) -> None:
    """Raises UserError unless the part is an array of this type with the shape [N, *axes]."""
    if not (isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim and value.shape[1:] == axes):
        shape = ", ".join(map(str, (-1, *axes)))
        raise UserError(
            f"{examples.where(i)}: {name} is {described(value)}, but {name} is {WANTED[name]}; "
            f"return np.asarray({name}, np.{'bool_' if dtype is np.bool_ else dtype.__name__}).reshape({shape})"
        )


def _of_boxes(name: str, dtype: type) -> Callable[[Examples, int, Example], None]:
    """The check of an array that says something of each box."""

    def check(examples: Examples, i: int, example: Example) -> None:
        value = example[name]
        _check_array(examples, i, name, value, dtype, ())
        if "boxes" in example and len(value) != len(example["boxes"]):
            raise BrokenExample(
                i, examples.where(i), f"there are {len(example['boxes'])} boxes, but {name} has {len(value)} entries"
            )
        strange = (value < 0) | (value >= len(examples.classes)) if name == "classes" else np.zeros(0, bool)
        if strange.any():
            number = int(np.flatnonzero(strange)[0])
            raise BrokenExample(
                i,
                examples.where(i),
                f"box {number} is of class {value[number]}, outside [0, {len(examples.classes)}); classes count from 0",
            )

    return check


def _of_image(name: str) -> Callable[[Examples, int, Example], None]:
    """The check of a list of classes of an image."""

    def check(examples: Examples, i: int, example: Example) -> None:
        _check_array(examples, i, name, example[name], np.int32, ())
        for number in example[name].tolist():
            check_label(examples, i, number)

    return check


def _box(boxes: np.ndarray, wrong: np.ndarray) -> str:
    number = int(np.flatnonzero(wrong)[0])
    return f"box {number} ({', '.join(f'{edge:g}' for edge in boxes[number])})"


def box_format(boxes: np.ndarray, size: tuple[float, float]) -> str:
    """What format the boxes of an image of this size, (height, width), seem to have, if it is another one."""
    if not np.isfinite(boxes).all() or not np.isfinite(size).all() or boxes.min() < 0:
        return ""

    def fits(xmin: np.ndarray, ymin: np.ndarray, xmax: np.ndarray, ymax: np.ndarray) -> bool:
        inside = (xmin >= 0) & (ymin >= 0) & (xmax <= size[1]) & (ymax <= size[0])
        return bool((inside & (xmin < xmax) & (ymin < ymax)).all())

    a, b, c, d = boxes.T
    if boxes.max() <= 1 < min(size):
        return "; they look like shares of the image: multiply by its width and height"
    if fits(a, b, c, d):
        return ""
    if fits(b, a, d, c):
        return "; they look like (ymin, xmin, ymax, xmax): return boxes[:, [1, 0, 3, 2]]"
    if fits(a, b, a + c, b + d):
        return "; they look like (x, y, width, height): return (x, y, x + width, y + height)"
    if fits(a - c / 2, b - d / 2, a + c / 2, b + d / 2):
        return (
            "; they look like (middle x, middle y, width, height): return (x - width / 2, y - height / 2, "
            "x + width / 2, y + height / 2)"
        )
    return ""


def _by(size: tuple[int, ...]) -> str:
    return f"{size[0]} x {size[1]} (height x width)"


_CHECKS: dict[str, Callable[[Examples, int, Example], None]] = {
    "mask": lambda examples, i, example: check_mask(examples, i, example["mask"], example["image"].shape[:2]),
    "boxes": lambda examples, i, example: check_boxes(examples, i, example["boxes"], example["image"].shape[:2]),
    "classes": _of_boxes("classes", np.int32),
    "difficult": _of_boxes("difficult", np.bool_),
    "crowd": _of_boxes("crowd", np.bool_),
    "area": _of_boxes("area", np.float32),
    "proposals": lambda examples, i, example: check_proposals(
        examples, i, example["proposals"], example["image"].shape[:2]
    ),
    "labels": _of_image("labels"),
    "unsure": _of_image("unsure"),
    "points": lambda examples, i, example: check_points(examples, i, example["points"], example["image"].shape[:2]),
}
