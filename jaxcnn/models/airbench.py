"""The net of airbench94 for CIFAR-10 in seconds (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.1).

A 2x2 convolution of 24 maps without padding, then three groups of two 3x3 convolutions, the first of them before a 2x2
max pooling, each convolution before batch norm without a scale (decay 0.6, epsilon 1e-12) and GELU. The head takes the
largest value of each map and multiplies its logits by 1/9: 1,971,640 parameters.

Initialisation: as many filters of each 3x3 convolution as it has inputs pass on a channel each; all others are
PyTorch's defaults.

Departures: the first convolution is learned like any other, where airbench94 fixes it to the whitening of the training
set's patches of 2x2 and trains its bias for three epochs.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.models.layers import INITIALIZERS, Dtype, check_window


def identity_first(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """A kernel [3, 3, C, C'] whose first min(C, C') filters pass on one channel each."""
    kernel = INITIALIZERS["torch_uniform"](key, shape, dtype)
    same = min(shape[2:])
    return kernel.at[:, :, :, :same].set(0).at[1, 1, :same, :same].set(jnp.eye(same, dtype=dtype))


class Airbench(nn.Module):
    """The convolutional part.

    Attributes:
      widths: of the groups.
      stem_width: of the 2x2 convolution.
      decay: of batch norm's running statistics.
    """

    widths: tuple[int, ...] = (64, 256, 256)
    stem_width: int = 24
    decay: float = 0.6
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 32, 32, 3] -> stem [B, 31, 31, 24], group1 [B, 15, 15, 64], group2 [B, 7, 7, 256], group3 and final
        [B, 3, 3, 256]."""
        check_window(x, 2 ** len(self.widths) + 1, f"the stack of {len(self.widths)} poolings")
        init = INITIALIZERS["torch_uniform"]
        gelu = functools.partial(nn.gelu, approximate=False)
        conv = functools.partial(nn.Conv, padding=1, use_bias=False, kernel_init=identity_first, dtype=self.dtype)
        norm = functools.partial(nn.BatchNorm, momentum=self.decay, epsilon=1e-12, use_scale=False, dtype=self.dtype)
        stem = nn.Conv(self.stem_width, (2, 2), padding="VALID", kernel_init=init, dtype=self.dtype, name="stem")
        x = gelu(stem(x))
        ends = {"stem": x}
        for group, width in enumerate(self.widths, 1):
            for layer in (1, 2):
                x = conv(width, (3, 3), name=f"conv{group}_{layer}")(x)
                if layer == 1:
                    x = nn.max_pool(x, (2, 2), (2, 2))
                x = gelu(norm(not train, name=f"bn{group}_{layer}")(x))
            ends[f"group{group}"] = x
        return ends | {"final": x}


class AirbenchHead(nn.Module):
    """The largest value of each map, and a linear layer without biases whose logits are scaled down.

    Attributes:
      classes: number of logits.
      scale: of the logits.
    """

    classes: int = 10
    scale: float = 1 / 9
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, classes] float32."""
        x = x.max((1, 2))
        init = INITIALIZERS["torch_uniform"]
        dense = nn.Dense(self.classes, use_bias=False, kernel_init=init, dtype=self.dtype, name="fc")
        return self.scale * dense(x).astype(jnp.float32)
