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
        _check_smoothing(self.label_smoothing)

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits [..., K] of any float type and integer labels [...] -> losses [...], float32."""
        logits = logits.astype(jnp.float32)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), self.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)


@dataclasses.dataclass(frozen=True)
class BinaryCrossEntropy:
    """Each class is a yes or no of its own, as in ResNet strikes back (Wightman et al. 2021, section 3.1).

    An image that Mixup or CutMix mixed has both labels in their shares. Departure: that paper's code can make every
    share above a threshold a whole yes.
    """

    label_smoothing: float = 0.0
    """The share of the target spread evenly over all classes, in [0, 1)."""
    sum_classes: bool = False
    """Sum the classes' losses and not their mean: the gradient is that many times as large."""

    def __post_init__(self):
        _check_smoothing(self.label_smoothing)

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits [..., K] of any float type and integer labels [...] -> losses [...], float32."""
        logits = logits.astype(jnp.float32)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), self.label_smoothing)
        losses = optax.sigmoid_binary_cross_entropy(logits, targets)
        return losses.sum(-1) if self.sum_classes else losses.mean(-1)


@dataclasses.dataclass(frozen=True)
class FocalLoss:
    """The cross-entropy times (1 - p)^gamma, p the label's probability: what is easy counts less (Lin et al. 2017)."""

    gamma: float = 2.0

    def __post_init__(self):
        if self.gamma != 0 and not 1 <= self.gamma < float("inf"):  # between them the gradient of p = 1 is infinite
            raise UserError(f"gamma is {self.gamma}; it must be 0, which is the cross-entropy, or at least 1")

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits [..., K] of any float type and integer labels [...] -> losses [...], float32."""
        loss = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
        return loss if self.gamma == 0 else (-jnp.expm1(-loss)) ** self.gamma * loss


def check_weights(field: str, weights: tuple[float, ...] | None) -> None:
    """Raises UserError, which names the field, unless the weights of classes are finite, at least 0, and not all 0."""
    if weights is None:
        return
    if not isinstance(weights, tuple | list) or any(isinstance(weight, str) for weight in weights):
        raise UserError(f"{field} is {weights!r}; give a tuple of numbers, one for each class in label order")
    for weight in weights:
        if not 0 <= weight < float("inf"):
            raise UserError(f"{field} has the weight {weight}; weights must be at least 0, and finite")
    if not any(weights):
        raise UserError(f"{field} are {weights}; one at least must be above 0")


def _check_smoothing(share: float) -> None:
    if not 0 <= share < 1:
        raise UserError(f"label_smoothing is {share}; it must be at least 0 and below 1")


def smooth_l1(difference: jax.Array, beta: float) -> jax.Array:
    """Girshick 2015, equation 3, with beta = 1 / sigma^2 in the place of 1: of each element."""
    size = jnp.abs(difference)
    if beta == 0:
        return size
    return jnp.where(size < beta, jnp.square(size) / (2 * beta), size - beta / 2)
