"""Losses of logits, one value for each label, always in float32; and the distance of numbers that are regressed."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax

from jaxcnn.errors import UserError


@runtime_checkable
class Loss(Protocol):
    """A frozen dataclass: what training minimises the mean of. Evaluation reports the plain cross-entropy."""

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits [..., K] of any float type and integer labels [...] -> losses [...], float32."""
        ...


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy, with label smoothing (Szegedy et al. 2016, section 7)."""

    label_smoothing: float = 0.0
    """The share of the target spread evenly over all classes, in [0, 1)."""

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing is {self.label_smoothing}; it must be at least 0 and below 1")

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits [..., K] of any float type and integer labels [...] -> losses [...], float32."""
        logits = logits.astype(jnp.float32)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), self.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)


def smooth_l1(difference: jax.Array, beta: float) -> jax.Array:
    """Girshick 2015, equation 3, with beta = 1 / sigma^2 in the place of 1: of each element."""
    size = jnp.abs(difference)
    if beta == 0:
        return size
    return jnp.where(size < beta, jnp.square(size) / (2 * beta), size - beta / 2)
