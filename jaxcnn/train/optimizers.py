"""Optimizers as frozen dataclasses that build optax transformations, and the role of each parameter.

The learning rate in each is the peak; a schedule (schedules.py) multiplies it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import optax

from jaxcnn.errors import UserError

Decay = Literal["kernels", "all"]
Rate = Callable[[jax.Array], jax.Array]


def role(path: tuple[Any, ...]) -> str:
    """The role of a parameter by the last part of its path: 'kernel', 'bias', 'scale', 'coefficient', ..."""
    return str(getattr(path[-1], "key", path[-1]))


def decay_mask(params: Any, decay: Decay) -> Any:
    """A tree of bools, true where weight decay applies: every parameter, or convolution and dense kernels only."""
    return jax.tree_util.tree_map_with_path(lambda path, _: decay == "all" or role(path) == "kernel", params)


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum: v <- m v + g + wd w; w <- w - lr v (Sutskever et al. 2013).

    Weight decay is coupled: an L2 term added to the gradient before the momentum, as in the papers up to ResNet.
    AlexNet's own form multiplies the gradient by the rate before the momentum: equal while the rate is constant.
    """

    learning_rate: float = 0.1
    """Peak learning rate, for the whole (global) batch."""
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    """Coupled L2, added to the gradient before the momentum."""
    decay: Decay = "kernels"
    """What weight decay touches: kernels only (no biases, no normalisation), or all parameters."""

    def build(self, rate: Rate) -> optax.GradientTransformation:
        return optax.chain(
            _coupled_decay(self.weight_decay, self.decay),
            optax.sgd(rate, momentum=self.momentum or None, nesterov=self.nesterov),
        )


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015, Algorithm 1); with `weight_decay` AdamW (Loshchilov & Hutter 2019): decay decoupled."""

    learning_rate: float = 1e-3
    """Peak learning rate."""
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    """Decoupled (AdamW), multiplied by the learning rate."""
    decay: Decay = "kernels"

    def build(self, rate: Rate) -> optax.GradientTransformation:
        mask = lambda params: decay_mask(params, self.decay)  # noqa: E731
        return optax.adamw(rate, self.b1, self.b2, self.epsilon, weight_decay=self.weight_decay, mask=mask)


@dataclasses.dataclass(frozen=True)
class RMSProp:
    """RMSProp (Tieleman & Hinton 2012) with momentum, in TensorFlow's form or PyTorch's.

    "tensorflow": the epsilon inside the root, the mean square starts at 1 (what Inception and EfficientNet were
    trained with). "torch": the epsilon outside the root, the mean square starts at 0. In both, momentum gathers
    rate * gradient, which is TensorFlow's order; PyTorch's differs from it only while the rate changes.
    """

    learning_rate: float = 1e-2
    """Peak learning rate."""
    rho: float = 0.9
    """Decay of the mean square."""
    momentum: float = 0.9
    epsilon: float = 1e-3
    form: Literal["tensorflow", "torch"] = "tensorflow"
    weight_decay: float = 0.0
    """Coupled L2."""
    decay: Decay = "kernels"

    def build(self, rate: Rate) -> optax.GradientTransformation:
        tensorflow = self.form == "tensorflow"
        rms = optax.rmsprop(
            rate,
            decay=self.rho,
            eps=self.epsilon,
            initial_scale=1.0 if tensorflow else 0.0,
            eps_in_sqrt=tensorflow,
            momentum=self.momentum or None,
        )
        return optax.chain(_coupled_decay(self.weight_decay, self.decay), rms)


@dataclasses.dataclass(frozen=True)
class LARS:
    """Layer-wise adaptive rates for large batches (You et al. 2017); by default for kernels only."""

    learning_rate: float = 1.0
    """Peak learning rate."""
    momentum: float = 0.9
    nesterov: bool = False
    trust_coefficient: float = 1e-3
    weight_decay: float = 1e-4
    decay: Decay = "kernels"
    """What weight decay and the trust ratio touch."""

    def build(self, rate: Rate) -> optax.GradientTransformation:
        mask = lambda params: decay_mask(params, self.decay)  # noqa: E731
        return optax.lars(
            rate,
            weight_decay=self.weight_decay,
            weight_decay_mask=mask,
            trust_coefficient=self.trust_coefficient,
            trust_ratio_mask=mask,
            momentum=self.momentum,
            nesterov=self.nesterov,
        )


@dataclasses.dataclass(frozen=True)
class LAMB:
    """Adam with layer-wise adaptive rates (You et al. 2020)."""

    learning_rate: float = 1e-3
    """Peak learning rate."""
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-6
    weight_decay: float = 1e-2
    decay: Decay = "kernels"

    def build(self, rate: Rate) -> optax.GradientTransformation:
        mask = lambda params: decay_mask(params, self.decay)  # noqa: E731
        return optax.lamb(rate, self.b1, self.b2, self.epsilon, weight_decay=self.weight_decay, mask=mask)


Optimizer = SGD | Adam | RMSProp | LARS | LAMB


def build_optimizer(optimizer: Optimizer, rate: Rate, clip_norm: float | None) -> optax.GradientTransformation:
    """The optax transformation, with the gradient's global norm clipped first where `clip_norm` is given.

    Raises:
      UserError: a learning rate that is not positive, a negative decay, or a clip norm that is not positive.
    """
    if not optimizer.learning_rate > 0:
        raise UserError(f"optimizer.learning_rate is {optimizer.learning_rate}; it must be positive")
    if optimizer.weight_decay < 0:
        raise UserError(f"optimizer.weight_decay is {optimizer.weight_decay}; it must not be negative")
    if clip_norm is not None and not clip_norm > 0:
        raise UserError(f"clip_norm is {clip_norm}; it must be positive, or None for no clipping")
    built = optimizer.build(rate)
    return built if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), built)


def _coupled_decay(weight_decay: float, decay: Decay) -> optax.GradientTransformation:
    if weight_decay == 0:
        return optax.identity()
    return optax.add_decayed_weights(weight_decay, mask=lambda params: decay_mask(params, decay))
