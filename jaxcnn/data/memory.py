"""Memory: a split decoded once into arrays, for sets that fit."""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxcnn.data.examples import BrokenExample, Example, Examples, read
from jaxcnn.data.transforms import DETERMINISTIC, Transform


class Memory:
    """Examples as arrays: images uint8 [N, H, W, C] and labels int32 [N].

    A broken example keeps its place: reading it raises what reading it from its source raised.
    """

    def __init__(self, examples: Examples, images: np.ndarray, labels: np.ndarray, broken: dict[int, BrokenExample]):
        self.name, self.version, self.split = examples.name, examples.version, examples.split
        self.classes = examples.classes
        self.images, self.labels, self.broken = images, labels, broken
        self.source = examples

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Example:
        if i in self.broken:
            raise BrokenExample(*self.broken[i].args)
        return {"image": self.images[i], "label": int(self.labels[i])}

    def where(self, i: int) -> str:
        return self.source.where(i)


def load(
    examples: Examples,
    transforms: tuple[Transform, ...],
    limit: int,
    tolerated: int = 0,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[Examples, tuple[Transform, ...]]:
    """`examples` decoded into Memory, with the transforms that are still to be applied to each.

    The deterministic transforms at the front are applied here, once. Where the images would take more than `limit`
    bytes, or differ in shape, both come back as they are.

    Args:
      examples: any random-access split.
      transforms: of each image, in order.
      limit: the largest size of the decoded images, in bytes.
      tolerated: how many broken examples are let pass, to be met again where they are read.
      advance: called with the number of examples decoded so far.

    Raises:
      BrokenExample: there are more broken examples than `tolerated`.
      UserError: the source does not return images of uint8 and labels.
    """
    unchanged = (examples, transforms)
    first = tuple(itertools.takewhile(lambda transform: isinstance(transform, DETERMINISTIC), transforms))
    rng = np.random.default_rng(0)  # which deterministic transforms do not use

    def prepared(i: int) -> Example:
        return read(examples, i, first, rng)

    shape = _first_shape(prepared, min(tolerated + 1, len(examples)))
    if shape is None or len(examples) * int(np.prod(shape)) > limit:
        return unchanged
    images = np.zeros((len(examples), *shape), np.uint8)
    labels = np.zeros(len(examples), np.int32)
    broken: dict[int, BrokenExample] = {}

    def decode(part: range) -> bool:
        """Whether all images of this part have the shape of the first."""
        for i in part:
            try:
                example = prepared(i)
            except BrokenExample as error:
                broken[i] = error
                if len(broken) > tolerated:
                    raise
                continue
            if example["image"].shape != shape:
                return False
            images[i], labels[i] = example["image"], example["label"]
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
    return Memory(examples, images, labels, broken), transforms[len(first) :]


def _first_shape(prepared: Callable[[int], Example], tries: int) -> tuple[int, ...] | None:
    for i in range(tries):
        try:
            return prepared(i)["image"].shape
        except BrokenExample:
            if i == tries - 1:
                raise
    return None
