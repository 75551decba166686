"""Sampling: how often the examples of each class are trained on, if not as often as there are of them."""

import dataclasses
import functools
import math
from fractions import Fraction

import numpy as np

from jaxcnn.data.draws import philox_key
from jaxcnn.data.examples import Examples
from jaxcnn.data.fields import Fields
from jaxcnn.data.splits import known_labels
from jaxcnn.errors import UserError

BALANCE = 0xA0761D6478BD642F  # keeps these keys apart from those of the shuffle and of the augmentation
LONGEST = 2**27
"""Of a block, in examples."""


@dataclasses.dataclass(frozen=True)
class Balanced:
    """Each class is trained on equally often, or in these shares; of a class every example equally often.

    An epoch keeps its length. A class of few images is gone through several times in it, one of many in part, and the
    next epoch goes on with those that are left. A class without images has no share.

    Example: Balanced((1, 1, 2)) shows the last of three classes as often as the two others together.
    """

    weights: tuple[float, ...] = ()
    """One for each class; their sum does not matter. (): equal."""

    def __post_init__(self):
        for weight in self.weights:
            if not 0 <= weight < math.inf:
                raise UserError(f"sampling.weights has {weight}; weights must be at least 0, and finite")
        if self.weights and not any(self.weights):
            raise UserError(f"sampling.weights are {self.weights}; one at least must be above 0")

    def order(self, labels: np.ndarray, classes: tuple[str, ...]) -> "BalancedOrder":
        """The order of examples with these labels, int [N]; those with a negative one are left out.

        Raises UserError if there are other weights than classes, or a class with a weight has no example.
        """
        if self.weights and len(self.weights) != len(classes):
            raise UserError(
                f"data.sampling.weights has {len(self.weights)} entries, but there are {len(classes)} classes"
            )
        counts = np.bincount(labels[labels >= 0], minlength=len(classes))
        weights = self.weights or tuple((counts > 0).astype(float).tolist())
        lacking = [name for name, weight, count in zip(classes, weights, counts, strict=True) if weight and not count]
        if lacking:
            raise UserError(
                f"data.sampling.weights: no image of {', '.join(lacking[:5])} to sample; give it the weight 0"
            )
        return BalancedOrder(labels, weights)


class BalancedOrder:
    """The endless stream of examples, as a pure function of the seed and the position.

    It is cut into blocks, of an epoch each, or of several if some class's share of one is less than an example. Of
    block b a class has the positions that lie between its bounds, floor(W n (b + 1)) - floor(W n b), W the classes'
    weights up to it: in any number of blocks its share is right to an example. Where in the block they lie is shuffled;
    which examples they are goes through the class's own shuffled epochs, on from where the block before ended.

    Args:
      labels: int [N]; examples with a negative one are not sampled.
      weights: of each class.
    """

    def __init__(self, labels: np.ndarray, weights: tuple[float, ...]):
        self.labels, self.weights = np.asarray(labels, np.int64), weights
        total = sum(map(Fraction, weights))
        shares = [Fraction(weight) / total for weight in weights]
        self._bounds = [sum(shares[: k + 1], Fraction(0)) for k in range(len(shares))]
        smallest = min(share for share in shares if share)
        self.block = len(labels) * math.ceil(1 / (smallest * len(labels)))
        if self.block > LONGEST:
            raise UserError(
                f"data.sampling.weights: a class has {float(smallest):.1e} of the images; give it more, or 0"
            )
        self._examples = [np.flatnonzero(self.labels == k) for k in range(len(weights))]
        self._made = functools.lru_cache(maxsize=4)(self._make)

    def __reduce__(self):
        return BalancedOrder, (self.labels, self.weights)

    def indices(self, seed: int, start: int, stop: int) -> np.ndarray:
        """The examples at positions [start, stop) of the stream, int64 [stop - start]."""
        first, last = start // self.block, (stop - 1) // self.block
        found = np.concatenate([self._made(seed, block) for block in range(first, last + 1)])
        return found[start - first * self.block : stop - first * self.block]

    def _make(self, seed: int, block: int) -> np.ndarray:
        ends = [math.floor(bound * self.block * block) for bound in (Fraction(0), *self._bounds)]
        after = [math.floor(bound * self.block * (block + 1)) for bound in (Fraction(0), *self._bounds)]
        # How many of each class there were before this block, and after it.
        spans = [(ends[k + 1] - ends[k], after[k + 1] - after[k]) for k in range(len(self.weights))]
        parts = [
            self._examples[k][_shuffled(seed, k + 1, len(self._examples[k]), *span)]
            for k, span in enumerate(spans)
            if span[1] > span[0]
        ]
        return np.concatenate(parts)[_permutation(seed, 0, block, self.block)]


def order_of(sampling: Balanced | None, examples: Examples, fields: Fields) -> BalancedOrder | None:
    """The order of a split's examples for batches of these fields; None: that of shuffled epochs.

    Raises UserError as `Balanced.order`; or the batches hold no label, or the images have none.
    """
    if sampling is None:
        return None
    if "label" not in fields:
        raise UserError("data.sampling goes by labels, and the task reads none")
    return sampling.order(known_labels(examples, "data.sampling"), examples.classes)


def _shuffled(seed: int, stream: int, n: int, start: int, stop: int) -> np.ndarray:
    """Positions [start, stop) of the endless stream of shuffled epochs of n, int64."""
    epochs = range(start // n, (stop - 1) // n + 1)
    joined = np.concatenate([_permutation(seed, stream, epoch, n) for epoch in epochs])
    return joined[start - epochs[0] * n : stop - epochs[0] * n]


def _permutation(seed: int, stream: int, number: int, n: int) -> np.ndarray:
    """Of n, drawn from (seed, stream, number): sorted raw Philox words, as the shuffle of whole epochs."""
    key = philox_key((seed | stream << 32) ^ BALANCE, number)
    return np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable")
