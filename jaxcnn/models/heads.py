"""Heads: from the last feature map to logits. FC flattens a fixed grid, GAP averages over all positions."""

import math

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jaxcnn.errors import UserError
from jaxcnn.models.layers import (
    INITIALIZERS,
    Activation,
    Dtype,
    Init,
    activate,
    adaptive_avg_pool,
    at_least_float32,
)


class FC(nn.Module):
    """Fully connected layers over a fixed grid: adaptive average pooling to `grid`, flatten, hidden layers, logits.

    At the paper's input size the pooling is the identity; other sizes work as in torchvision.

    Attributes:
      classes: number of logits.
      widths: of the hidden layers, none by default.
      names: of the layers, hidden ones first; fc1, fc2, ... where empty.
      grid: (height, width) that the last map is pooled to; None flattens it as it is.
      activation: after each hidden layer.
      dropout: probability; after each hidden layer.
      dropout_first: before each hidden layer instead.
      kernel_init: of the kernels.
      bias_init: of the hidden layers' biases; the last layer's start at 0.
    """

    classes: int
    widths: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    grid: tuple[int, int] | None = None
    activation: Activation = "relu"
    dropout: float = 0.0
    dropout_first: bool = False
    kernel_init: Init = "lecun_normal"
    bias_init: float = 0.0
    dtype: Dtype = "float32"

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Of the hidden layers and the last one."""
        return self.names or tuple(f"fc{i}" for i in range(1, len(self.widths) + 2))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, classes] float32."""
        names = self.layer_names
        if len(names) != len(self.widths) + 1:
            raise UserError(f"the FC head has widths {self.widths} and the output, but layer names {names}")
        if self.grid is not None:
            x = adaptive_avg_pool(x, self.grid)
        x = rearrange(x, "b h w c -> b (h w c)")
        for name, width in zip(names[:-1], self.widths, strict=True):
            if self.dropout_first:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = activate(self._dense(width, name, self.bias_init)(x), self.activation)
            if not self.dropout_first:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return self._dense(self.classes, names[-1], 0.0)(x).astype(jnp.float32)

    def score_map(self, x: jax.Array) -> jax.Array:
        """The scores at every place of the window `grid` in the map, [B, H, W, C] -> [B, H - h + 1, W - w + 1, classes]
        float32: the layers as convolutions, without dropout, and nothing pooled (Long et al. 2015, section 3.1).

        Raises UserError if the map is smaller than the window, or no window is known.
        """
        grid = self.grid
        for number, name in enumerate(self.layer_names):
            kernel, bias = _variables(self, name)
            if number == 0:
                rows, channels = kernel.shape[0], x.shape[-1]
                side = math.isqrt(rows // channels)
                if grid is None and side * side * channels != rows:
                    raise UserError(
                        f"the head's {name} reads a map of {rows // channels} positions that is not square; give the "
                        "head its height and width as grid"
                    )
                grid = grid or (side, side)
                if x.shape[1] < grid[0] or x.shape[2] < grid[1]:
                    raise UserError(
                        f"the head's window is {grid[0]}x{grid[1]} and the net's last map of this image "
                        f"{x.shape[1]}x{x.shape[2]}; give larger images"
                    )
                kernel = kernel.reshape(*grid, channels, kernel.shape[-1])
            else:
                kernel, x = kernel[None, None], activate(x, self.activation)
            x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = x + bias
        return x.astype(jnp.float32)

    def _dense(self, width: int, name: str, bias: float) -> nn.Dense:
        return nn.Dense(
            width,
            dtype=self.dtype,
            kernel_init=INITIALIZERS[self.kernel_init],
            bias_init=nn.initializers.constant(bias),
            name=name,
        )


class GAP(nn.Module):
    """Global average pooling and one linear layer (Lin et al. 2014, section 3.2; GoogLeNet section 5).

    Works at any input size, has (C + 1) * classes parameters, and gives class activation maps for free.
    """

    classes: int
    dropout: float = 0.0
    kernel_init: Init = "lecun_normal"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, classes] float32."""
        x = x.astype(at_least_float32(x)).mean((1, 2)).astype(x.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        dense = nn.Dense(self.classes, dtype=self.dtype, kernel_init=INITIALIZERS[self.kernel_init], name="fc")
        return dense(x).astype(jnp.float32)

    def score_map(self, x: jax.Array) -> jax.Array:
        """The scores at every position, [B, H, W, C] -> [B, H, W, classes] float32; the logits are their mean."""
        x, kernel, bias = promote_dtype(x, *_variables(self, "fc"), dtype=self.dtype)
        return (x @ kernel + bias).astype(jnp.float32)


def _variables(head: nn.Module, layer: str) -> tuple[jax.Array, jax.Array]:
    """Kernel and bias of one of its layers."""
    stored = head.variables["params"][layer]
    return stored["kernel"], stored["bias"]


class HintRegressor(nn.Module):
    """A 1x1 convolution that brings a student's map to a teacher's channels (FitNets' regressor, section 2.2).

    An auxiliary head: Classifier(backbone, head, aux={"stage2": HintRegressor(256)}).
    """

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, channels]."""
        return nn.Conv(self.channels, (1, 1), name="regressor")(x)
