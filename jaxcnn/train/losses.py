"""Losses of a task: (params, stats, batch, key) -> scalar, new statistics and metric sums. Always float32."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.train.batch_norm import Group, grouped

Batch = dict[str, jax.Array]
Sums = dict[str, jax.Array]
LossFn = Callable[[Any, Any, Batch, jax.Array], tuple[jax.Array, tuple[Any, Sums]]]


@runtime_checkable
class Loss(Protocol):
    """A frozen dataclass: what training minimises the mean of. Evaluation reports the plain cross-entropy beside it.

    For a model with auxiliary heads it has `auxiliary_weight` too, the weight of each one's loss.
    """

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits [B, K] of any float type and integer labels [B] -> losses [B], float32."""
        ...


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy, with label smoothing (Szegedy et al. 2016, section 7) and weighted auxiliary heads."""

    label_smoothing: float = 0.0
    """The share of the target spread evenly over all classes, in [0, 1)."""
    auxiliary_weight: float = 0.3
    """Weight of each auxiliary head's loss (GoogLeNet section 5); of no effect where the model has none."""

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"loss.label_smoothing is {self.label_smoothing}; it must be at least 0 and below 1")
        if not 0 <= self.auxiliary_weight < float("inf"):
            raise UserError(f"loss.auxiliary_weight is {self.auxiliary_weight}; it must be at least 0, and finite")

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits [B, K] of any float type and integer labels [B] -> losses [B], float32."""
        logits = logits.astype(jnp.float32)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), self.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)


def classification_sums(logits: jax.Array, labels: jax.Array, losses: jax.Array, valid: jax.Array) -> Sums:
    """Sums over the examples that are `valid` [B]: loss, accuracy (top-1), top5 (from six classes on), count.

    An example is right in the top k when fewer than k classes have a logit above the label's, or equal to it with a
    lower index: a net whose logits are all equal does not score 100%.
    """
    logits = logits.astype(jnp.float32)
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    before = jnp.arange(logits.shape[-1]) < labels[:, None]
    rank = jnp.sum((logits > own) | ((logits == own) & before) | jnp.isnan(logits), axis=-1)
    # The loss of an example that is not valid may be anything, so it is selected away and not multiplied by zero.
    sums = {
        "loss": jnp.sum(jnp.where(valid, losses, 0.0)),
        "accuracy": jnp.sum(valid & (rank < 1)).astype(jnp.int32),
    }
    if logits.shape[-1] > 5:
        sums["top5"] = jnp.sum(valid & (rank < 5)).astype(jnp.int32)
    return sums | {"count": jnp.sum(valid).astype(jnp.int32)}


def zero_sums(classes: int) -> Sums:
    """The neutral element of `classification_sums`."""
    sums = {"loss": jnp.zeros((), jnp.float32), "accuracy": jnp.zeros((), jnp.int32)}
    if classes > 5:
        sums["top5"] = jnp.zeros((), jnp.int32)
    return sums | {"count": jnp.zeros((), jnp.int32)}


def make_classification_loss(
    model: nn.Module, normalize: Callable[[jax.Array], jax.Array], loss: Loss, bn_group: Group = "global"
) -> LossFn:
    """The training loss of a classifier on a batch {"image": uint8 [B,H,W,C], "label": int32 [B]}.

    Batch norm takes its statistics over `bn_group` examples in a row, or over the whole batch.
    """

    def loss_fn(params, stats, batch, key):
        images = normalize(batch["image"])
        with contextlib.nullcontext() if bn_group == "global" else grouped(bn_group):
            outputs, updated = model.apply(
                {"params": params, **stats},
                images,
                train=True,
                rngs={"dropout": key},
                mutable=list(stats),
                method="outputs",
            )
        losses = loss(outputs.logits, batch["label"])
        total = losses.mean()
        for logits in outputs.aux.values():
            total += loss.auxiliary_weight * loss(logits, batch["label"]).mean()
        everything = jnp.ones(losses.shape, bool)
        return total, (updated, classification_sums(outputs.logits, batch["label"], losses, everything))

    return loss_fn
