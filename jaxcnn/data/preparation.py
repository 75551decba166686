"""Preparation: one example from its source to the row of a batch, for training, evaluation, Memory and prediction."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxcnn.data.checks import PLACED, Checked, check_example, described, image_wanted
from jaxcnn.data.encoded import Encoded
from jaxcnn.data.examples import BrokenExample, Example, Examples, stored
from jaxcnn.data.fields import Field, Fields
from jaxcnn.data.geometry import MOVED, move, move_image
from jaxcnn.data.transforms import Geometric, Transform
from jaxcnn.errors import UserError

NOTHING: Mapping[str, Any] = MappingProxyType({})


class TransformMistake(UserError):
    """A transform cannot be used for these parts at all: a mistake of the experiment and not of one example."""


def read(
    examples: Examples, i: int, transforms: tuple[Transform, ...], rng: np.random.Generator, fields: Fields
) -> Example:
    """Example `i`, checked, after these transforms, as the row of a batch of these fields: the only way into one.

    Args:
      examples: the split.
      i: which of it.
      transforms: in order.
      rng: what they draw from.
      fields: the arrays of the batch; those that an example does not fill are padded at their end.

    Raises:
      BrokenExample: it cannot be read, it is damaged (data/checks.py), a transform does not take its image (a crop that
        is larger, say), its image comes out in another shape, or it has more of a part than the batch has room for.
      UserError: the source or a transform returns something else than images of uint8 and the parts of these fields.
    """
    given = stored(examples, i) if transforms else examples[i]
    example = given if isinstance(examples, Checked) else check_example(examples, i, given, fields)
    example = transform_example(examples, i, example, transforms, rng)
    for name, part in example.items():
        if name == "image":
            if part.shape != (shape := fields["image"].shape):
                raise BrokenExample(i, examples.where(i), _other_shape(given["image"], part, shape, transforms))
        elif name != "label":
            example[name] = padded(examples, i, name, part, fields[name])
    return example


def transform_example(
    examples: Examples, i: int, example: Example, transforms: tuple[Transform, ...], rng: np.random.Generator
) -> Example:
    """A checked example after these transforms. Raises as `read`; the image may have any shape."""
    try:
        return transformed(example, transforms, rng)
    except BrokenExample:
        raise
    except TransformMistake as error:
        raise UserError(f"{examples.where(i)}: {error}") from error
    except UserError as error:
        raise BrokenExample(i, examples.where(i), str(error)) from error


def placed(
    image: np.ndarray, transforms: tuple[Transform, ...], rng: np.random.Generator, parts: Mapping[str, Any] = NOTHING
) -> Example:
    """An image, with these parts or nothing else, after these transforms, and where it came from: "image",
    "original_size" and "placement" (data/fields.py), by which `to_original` (data/geometry.py) tells boxes in it in the
    image itself.

    Raises: as `transformed`.
    """
    placing = {name: of(image) for name, of in PLACED.items()}
    return transformed({"image": image, **parts} | placing, transforms, rng)


def transformed(example: Example, transforms: tuple[Transform, ...], rng: np.random.Generator) -> Example:
    """The parts of an example after these transforms, as a new dict.

    Example: transformed({"image": image}, data.preprocess, rng)["image"]

    Raises:
      UserError: a transform does not take this image.
      TransformMistake: a transform returns something else than an image, does not see a part that lies in the image and
        has to be moved with it, or mirrors points without being told which of them are pairs.
    """
    if isinstance(example["image"], Encoded):
        example, transforms = _decoded(example, transforms, rng)
    image = example["image"]
    if MOVED.isdisjoint(example):
        for transform in transforms:
            image = transform(image, rng)
    else:
        for transform in transforms:
            example = _with_its_parts(example, transform, rng)
        image = example["image"]
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3):
        raise TransformMistake(
            f"after the transforms ({_names(transforms)}) the image is {described(image)}, but {image_wanted(image)}"
        )
    return example | {"image": image}


def _decoded(
    example: Example, transforms: tuple[Transform, ...], rng: np.random.Generator
) -> tuple[Example, tuple[Transform, ...]]:
    """An example whose image is decoded, as far as its first transform needs it, and the transforms that are left."""
    first = transforms[0] if transforms else None
    if not isinstance(first, Geometric) or type(first).__call__ is not Geometric.__call__:
        return example | {"image": example["image"].decoded()}, transforms
    if not MOVED.isdisjoint(example):
        return _with_its_parts(example, first, rng), transforms[1:]
    return example | {"image": move_image(example["image"], first.draw(example["image"].shape, rng))}, transforms[1:]


def _with_its_parts(example: Example, transform: Transform, rng: np.random.Generator) -> Example:
    """An example with parts that lie in its image, after one transform. TransformMistake if one is left behind."""
    if isinstance(transform, Geometric):
        if "points" in example and getattr(transform, "pairs", ()) is None:
            raise TransformMistake(
                f"{transform}: the example has points; name those that change places when the image is mirrored, as in "
                f"{type(transform).__name__}(pairs=((0, 1),)) for the two eyes, or pairs=() if none does"
            )
        return move(example, transform.draw(example["image"].shape, rng))
    before = example["image"]
    if getattr(transform, "image_alone", False):
        parts = " and ".join(sorted(MOVED & example.keys()))
        raise TransformMistake(f"{transform} moves pixels of the image alone, and the example has {parts}")
    image = transform(before, rng)
    if np.shape(image)[:2] != before.shape[:2]:
        parts = " and ".join(sorted(MOVED & example.keys()))
        raise TransformMistake(
            f"{transform} makes an image of {before.shape[:2]} one of {np.shape(image)[:2]} (height, width), but sees "
            f"the image alone, and the example has {parts}; let it extend jc.Geometric and draw(shape, rng) a "
            "jc.Geometry (docs/own_parts.md has an example)"
        )
    return example | {"image": image}


def padded(examples: Examples, i: int, name: str, part: object, field: Field) -> np.ndarray:
    """A part of an example as one row of a batch's array: padded at the end of its first axis with `fill`.

    Raises:
      BrokenExample: it is longer than the batch has room for.
      UserError: its other axes are not those of the field.
    """
    value = np.asarray(part)
    if value.shape == field.shape:
        return value
    if value.ndim != len(field.shape) or value.shape[1:] != field.shape[1:]:
        raise UserError(f"{examples.where(i)}: {name} is {described(value)}, but its batch takes {list(field.shape)}")
    if len(value) > field.shape[0]:
        raise BrokenExample(
            i,
            examples.where(i),
            f"there are {len(value)} {name}, and a batch takes {field.shape[0]} of an image; let the task take more",
        )
    row = field.empty(1)[0]
    row[: len(value)] = value
    return row


def _other_shape(given: np.ndarray, image: np.ndarray, shape: tuple[int, ...], transforms: tuple) -> str:
    after = f" and after the transforms {image.shape}" if transforms else ""
    advice = "add a transform that brings it there, such as Resize and CenterCrop"
    if image.shape[2] != shape[2]:
        advice = f"Folder and Tfds return {shape[2]} channels with channels={shape[2]}"
    return f"the image is {given.shape}{after}, but data.image_shape is {shape}; {advice}"


def _names(transforms: tuple[Transform, ...]) -> str:
    return ", ".join(str(transform) for transform in transforms)
