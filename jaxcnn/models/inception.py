"""The inception module: parallel branches of convolutions and poolings whose maps are concatenated.

GoogLeNet, Inception-v3 and Inception-v4 differ in the branches, which their files hold as tables.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.models.layers import (
    Activation,
    Dtype,
    Init,
    Norm,
    Padding,
    activate,
    apply_norm,
    avg_pool,
    conv,
    max_pool,
    needs_bias,
)


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution of a branch. It keeps the size, or has no padding ("valid")."""

    name: str
    width: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    valid: bool = False

    @property
    def padding(self) -> tuple[int, int]:
        rows, columns = self.kernel if isinstance(self.kernel, tuple) else (self.kernel, self.kernel)
        return (0, 0) if self.valid else (rows // 2, columns // 2)


@dataclasses.dataclass(frozen=True)
class Pool:
    """A 3x3 pooling of a branch: with stride 1 it keeps the size, with stride 2 it has no padding."""

    kind: Literal["max", "average"]
    stride: int = 1
    count_padding: bool = True

    def __call__(self, x: jax.Array) -> jax.Array:
        padding = 1 if self.stride == 1 else 0
        if self.kind == "max":
            return max_pool(x, 3, stride=self.stride, padding=padding)
        return avg_pool(x, 3, stride=self.stride, padding=padding, count_padding=self.count_padding)


# Steps one after another; a tuple of convolutions reads the same map and is concatenated.
Branch = tuple[Conv | Pool | tuple[Conv, ...], ...]


class ConvNorm(nn.Module):
    """Convolution "conv", normalisation "bn" and activation; the convolution has biases where no scale and bias follow.

    Attributes:
      width: channels, times `multiplier`.
      epsilon: of the normalisation.
      bias_init: what the biases of the convolution start at.
    """

    width: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padding: Padding = 0
    multiplier: float = 1.0
    norm: Norm = "batch"
    epsilon: float = 1e-3
    activation: Activation = "relu"
    kernel_init: Init = "he_fan_in"
    bias_init: float = 0.0
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', width]."""
        x = conv(
            max(1, round(self.width * self.multiplier)),
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            bias=needs_bias(self.norm),
            name="conv",
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
        )(x)
        x = apply_norm(x, self.norm, train=train, name="bn", dtype=self.dtype, epsilon=self.epsilon)
        return activate(x, self.activation)


class Inception(nn.Module):
    """Attributes:
    branches: in the order of concatenation.
    unit: ConvNorm with the net's normalisation, activation and so on.
    """

    branches: tuple[Branch, ...]
    unit: Callable[..., ConvNorm]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', the branches' widths together]."""

        def apply(step: Conv | Pool, x: jax.Array) -> jax.Array:
            if isinstance(step, Pool):
                return step(x)
            unit = self.unit(step.width, step.kernel, stride=step.stride, padding=step.padding, name=step.name)
            return unit(x, train=train)

        maps = []
        for branch in self.branches:
            y = x
            for step in branch:
                y = jnp.concatenate([apply(s, y) for s in step], -1) if isinstance(step, tuple) else apply(step, y)
            maps.append(y)
        return jnp.concatenate(maps, -1)
