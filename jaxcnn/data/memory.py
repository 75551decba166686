"""Memory: a split decoded once into arrays, for sets that fit."""

import itertools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxcnn.data.checks import Checked, check_example
from jaxcnn.data.examples import BrokenExample, Example, Examples
from jaxcnn.data.fields import Fields
from jaxcnn.data.preparation import padded, transform_example
from jaxcnn.data.transforms import DETERMINISTIC, Transform

OF_IMAGE = ("image", "mask")
"""The parts whose size is the image's, and so not yet a batch's while transforms are to follow."""


class Memory(Checked):
    """Examples as arrays, one for each field: "image" uint8 [N, H, W, C], "label" int32 [N].

    A part of varying length (boxes) is padded at its end; `lengths` has its own, int32 [N]. A broken example keeps its
    place: reading it raises what reading it from its source raised.
    """

    def __init__(
        self,
        examples: Examples,
        arrays: dict[str, np.ndarray],
        lengths: dict[str, np.ndarray],
        broken: dict[int, BrokenExample],
    ):
        self.name, self.version, self.split = examples.name, examples.version, examples.split
        self.classes = examples.classes
        self.arrays, self.lengths, self.broken = arrays, lengths, broken
        self.source = examples
        self._scalars = [(name, array.tolist()) for name, array in arrays.items() if array.ndim == 1]
        self._whole = [(name, array) for name, array in arrays.items() if array.ndim > 1 and name not in lengths]
        self._cut = [(name, arrays[name], lengths[name]) for name in lengths]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    def __len__(self) -> int:
        return len(self.arrays["image"])

    def __getitem__(self, i: int) -> Example:
        if i in self.broken:
            raise BrokenExample(*self.broken[i].args)
        example: Example = {name: array[i] for name, array in self._whole}
        for name, values in self._scalars:
            example[name] = values[i]
        for name, array, lengths in self._cut:
            example[name] = array[i, : lengths[i]]
        return example

    def where(self, i: int) -> str:
        return self.source.where(i)


def load(
    examples: Examples,
    transforms: tuple[Transform, ...],
    fields: Fields,
    limit: int,
    tolerated: int = 0,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[Examples, tuple[Transform, ...]]:
    """`examples` decoded into Memory, with the transforms that are still to be applied to each.

    The deterministic transforms at the front are applied here, once. If the arrays would take more than `limit` bytes,
    the images differ in shape, one has more boxes than a batch takes and a crop may change that, or a crop shrinks
    images as it loads them, both come back as they are.

    Args:
      examples: any random-access split.
      transforms: of each example, in order.
      fields: the parts that are kept; how many boxes, say, is theirs, and the image's size what these transforms make.
      limit: the largest size of the arrays, in bytes.
      tolerated: how many broken examples are let pass, to be met again when they are read.
      advance: called with the number of examples decoded so far.

    Raises:
      BrokenExample: there are more broken examples than `tolerated`.
      UserError: the source does not return images of uint8 and the parts of these fields.
    """
    unchanged = (examples, transforms)
    first = tuple(itertools.takewhile(lambda transform: isinstance(transform, DETERMINISTIC), transforms))
    rest = transforms[len(first) :]
    if any(getattr(transform, "shrink_on_load", False) for transform in rest):
        return unchanged  # what is in memory must not change pixels
    rng = np.random.default_rng(0)  # which deterministic transforms do not use

    def prepared(i: int) -> Example:
        return transform_example(examples, i, check_example(examples, i, examples[i], fields), first, rng)

    shape = _first_shape(prepared, min(tolerated + 1, len(examples)))
    if shape is None:
        return unchanged
    shapes = {name: field.shape for name, field in fields.items()}
    shapes |= {name: shape[: len(shapes[name])] for name in OF_IMAGE if name in shapes}
    size = sum(math.prod(shapes[name]) * np.dtype(field.dtype).itemsize for name, field in fields.items())
    if len(examples) * size > limit:
        return unchanged
    arrays = {name: np.full((len(examples), *shapes[name]), field.fill, field.dtype) for name, field in fields.items()}
    longer = [name for name, field in fields.items() if field.shape and name not in OF_IMAGE]
    lengths = {name: np.zeros(len(examples), np.int32) for name in longer}
    broken: dict[int, BrokenExample] = {}

    def decode(part: range) -> bool:
        """Whether the examples of this part fit: images have the shape of the first, and of no part there is more than
        a batch takes, unless no transform follows that may take some away.
        """
        for i in part:
            try:
                example = prepared(i)
                for name in lengths:
                    lengths[name][i] = len(example[name])
                    if rest and lengths[name][i] > fields[name].shape[0]:
                        return False
                    example[name] = padded(examples, i, name, example[name], fields[name])
            except BrokenExample as error:
                broken[i] = error
                if len(broken) > tolerated:
                    raise
                continue
            if example["image"].shape != shape:
                return False
            for name, value in example.items():
                arrays[name][i] = value
        return True

    parts = [range(start, min(start + 500, len(examples))) for start in range(0, len(examples), 500)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for part, alike in zip(parts, pool.map(decode, parts), strict=True):
                if not alike:
                    return unchanged
                advance(part.stop)
        finally:
            pool.shutdown(cancel_futures=True)
    return Memory(examples, arrays, lengths, broken), rest


def _first_shape(prepared: Callable[[int], Example], tries: int) -> tuple[int, ...] | None:
    for i in range(tries):
        try:
            return prepared(i)["image"].shape
        except BrokenExample:
            if i == tries - 1:
                raise
    return None
