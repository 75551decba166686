"""Memory: a split decoded once into arrays, for sets that fit."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxcnn.data.examples import BrokenExample, Examples


class Memory:
    """Examples whose images all have one shape, decoded: images uint8 [N, H, W, C], labels int32 [N].

    A broken example keeps its place: reading it raises what reading it from its source raised.
    """

    def __init__(self, examples: Examples, images: np.ndarray, labels: np.ndarray, broken: dict[int, BrokenExample]):
        self.name, self.version, self.split, self.classes = (
            examples.name,
            examples.version,
            examples.split,
            examples.classes,
        )
        self.examples, self.images, self.labels, self.broken = examples, images, labels, broken

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict:
        if i in self.broken:
            raise BrokenExample(*self.broken[i].args)
        return {"image": self.images[i], "label": int(self.labels[i])}

    def where(self, i: int) -> str:
        return self.examples.where(i)


def load(
    examples: Examples, limit: int, tolerated: int = 0, advance: Callable[[int], None] = lambda n: None
) -> Examples:
    """`examples` as Memory, or unchanged where they would need more than `limit` bytes or differ in shape.

    Args:
      examples: any random-access split.
      limit: the largest size of the decoded images, in bytes.
      tolerated: how many broken examples are let pass, to be met again where they are read.
      advance: called with the number of examples decoded so far.

    Raises:
      BrokenExample: there are more broken examples than `tolerated`.
    """
    if isinstance(examples, Memory) or not len(examples):
        return examples
    shape = _first_shape(examples, tolerated)
    if shape is None or len(examples) * int(np.prod(shape)) > limit:
        return examples
    images = np.zeros((len(examples), *shape), np.uint8)
    labels = np.zeros(len(examples), np.int32)
    broken: dict[int, BrokenExample] = {}

    def decode(part: range) -> bool:
        for i in part:
            try:
                example = examples[i]
            except BrokenExample as error:
                broken[i] = error
                if len(broken) > tolerated:
                    raise
                continue
            if example["image"].shape != shape:
                return False
            images[i], labels[i] = example["image"], example["label"]
        return True

    parts = [range(first, min(first + 500, len(examples))) for first in range(0, len(examples), 500)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            for part, alike in zip(parts, pool.map(decode, parts), strict=True):
                if not alike:
                    return examples
                advance(part.stop)
        finally:
            pool.shutdown(cancel_futures=True)
    return Memory(examples, images, labels, broken)


def _first_shape(examples: Examples, tolerated: int) -> tuple[int, ...] | None:
    def shapes() -> Iterator[tuple[int, ...]]:
        for i in range(min(tolerated + 1, len(examples))):
            try:
                yield examples[i]["image"].shape
            except BrokenExample:
                if i == tolerated:
                    raise

    return next(shapes(), None)
