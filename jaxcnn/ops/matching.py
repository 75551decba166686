"""Which ground truth each anchor or proposal learns, and the random minibatch of them (Ren et al. 2015, section 3.1.2).

Ground truths are padded to a fixed number with a mask, anchors and proposals to fixed numbers with the label -1, and
neither changes what is chosen of the others.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Matches(NamedTuple):
    """For each of A anchors or proposals."""

    truths: jax.Array
    """int32 [A]: the ground truth that it overlaps most, the first of several; 0 if there is none at all."""
    labels: jax.Array
    """int32 [A]: 1 positive, 0 negative, -1 neither: ignored in the loss."""


@dataclasses.dataclass(frozen=True)
class Matcher:
    """Labels by the largest IoU with any ground truth.

    The RPN's is Matcher(0.7, (0.0, 0.3), best=True), that of Faster R-CNN's head Matcher(), of Fast R-CNN's head
    Matcher(0.5, (0.1, 0.5)). As torchvision's Matcher and py-faster-rcnn's anchor_target_layer, with a departure: a
    ground truth that overlaps nothing has no best anchors, where theirs makes all that it does not overlap positive.

    Attributes:
      positive: positive from this IoU on.
      negative: negative from the first IoU on and below the second.
      best: the anchors that overlap some ground truth more than all others do are positive, ties all, whatever the IoU
        (the paper's condition i). Such an anchor learns the truth that it overlaps most itself, which may be another.
    """

    positive: float = 0.5
    negative: tuple[float, float] = (0.0, 0.5)
    best: bool = False

    def __call__(self, overlaps: ArrayLike, valid: ArrayLike) -> Matches:
        """Matches A boxes with G ground truths.

        Args:
          overlaps: [A, G] of `boxes.iou(anchors, truths)`.
          valid: bool [G], False for padding.

        Example: Matcher()(boxes.iou(proposals, truths), classes >= 0).
        """
        overlaps = jnp.asarray(overlaps)
        if overlaps.shape[1] == 0:
            largest, truths = jnp.zeros(overlaps.shape[0]), jnp.zeros(overlaps.shape[0], jnp.int32)
            best = jnp.zeros(overlaps.shape[0], bool)
        else:
            overlaps = jnp.where(jnp.asarray(valid), overlaps, 0)
            largest, truths = overlaps.max(1), overlaps.argmax(1).astype(jnp.int32)
            most = overlaps.max(0)
            best = ((overlaps == most) & (most > 0)).any(1)
        low, high = self.negative
        labels = jnp.where((largest >= low) & (largest < high), 0, -1)
        labels = jnp.where(largest >= self.positive, 1, labels)
        return Matches(truths, jnp.where(best, 1, labels) if self.best else labels)


class Sample(NamedTuple):
    """A minibatch of `size` boxes, the positives first, then the negatives, then padding."""

    indices: jax.Array
    """int32 [size]: of the boxes; -1 for padding."""
    positive: jax.Array
    """bool [size]."""

    @property
    def valid(self) -> jax.Array:
        """bool [size]: not padding."""
        return self.indices >= 0


@functools.partial(jax.jit, static_argnames=("size", "positive_fraction"))
def sample(labels: ArrayLike, key: jax.Array, size: int, positive_fraction: float) -> Sample:
    """At most size * positive_fraction random positives, filled up with random negatives, without replacement.

    256 and 0.5 in the RPN, 128 and 0.25 in the head (Ren et al. 2015, section 3.1.3; Girshick 2015, section 2.3);
    torchvision's BalancedPositiveNegativeSampler. If there are fewer negatives than room, the sample is smaller.

    The draw of a box depends on the key and its index only, so that padding behind the boxes changes nothing.

    Args:
      labels: [A], 1 positive, 0 negative, -1 neither (padding, too).
      key: a JAX key of its own for each image and step.

    Example: sample(matches.labels, key, 256, 0.5).indices
    """
    labels = jnp.asarray(labels)
    # 31 bits, so that a sign is left for what must not be drawn. A prefix of the draw does not depend on its length.
    priority = jax.lax.convert_element_type(jax.random.bits(key, labels.shape, jnp.uint32) >> 1, jnp.int32)
    most = int(size * positive_fraction)
    positives, negatives = (
        jax.lax.top_k(jnp.where(labels == label, priority, -1), min(count, labels.size))[1]
        for label, count in ((1, most), (0, size))
    )
    many = jnp.minimum((labels == 1).sum(), most)
    few = (labels == 0).sum()
    slot = jnp.arange(size)
    of_negatives = jnp.clip(slot - many, 0, max(negatives.size - 1, 0))
    if labels.size == 0:
        return Sample(jnp.full(size, -1, jnp.int32), jnp.zeros(size, bool))
    chosen = jnp.where(slot - many < few, negatives[of_negatives], -1)
    if positives.size:
        chosen = jnp.where(slot < many, positives[jnp.clip(slot, 0, positives.size - 1)], chosen)
    return Sample(chosen.astype(jnp.int32), slot < many)
