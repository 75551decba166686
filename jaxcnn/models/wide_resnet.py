"""Wide residual networks for CIFAR (Zagoruyko & Komodakis 2016, Table 1): WRN-depth-widening, such as WRN-28-10.

Blocks of two 3x3 convolutions, each after batch norm and ReLU (He et al. 2016b, "Identity mappings"), dropout between
them; three stages of (depth - 4) / 6 blocks, `widening` times 16, 32 and 64 wide. Where a block changes the width its
shortcut is a 1x1 convolution of what the first norm and ReLU made, as in the authors' code; else it is the identity.
`wide_resnet50_2` of resnet.py, for ImageNet, is another net: with norms after the convolutions.

Initialisation: He's, normal with variance 2 / fan out, as in the authors' code; the linear layer is PyTorch's, with
biases at 0. Departures: none known.
"""

import functools

import jax
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.models.layers import Activation, Dtype, Init, Norm, activate, apply_norm, check_choices, conv, needs_bias


class WideBlock(nn.Module):
    """x + F(x), F norm, ReLU, conv, norm, ReLU, dropout, conv (Figure 1d).

    Attributes:
      width: of both convolutions.
      stride: of the block.
      dropout: probability, between the convolutions.
    """

    width: int
    stride: int = 1
    dropout: float = 0.0
    activation: Activation = "relu"
    norm: Norm = "batch"
    kernel_init: Init = "he_fan_out"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), width]."""
        make = functools.partial(conv, bias=needs_bias(self.norm), kernel_init=self.kernel_init, dtype=self.dtype)
        before = activate(self._norm(x, "norm1", train), self.activation)
        if x.shape[-1] == self.width and self.stride == 1:
            shortcut = x
        else:
            shortcut = make(self.width, 1, stride=self.stride, name="shortcut")(before)
        x = make(self.width, 3, stride=self.stride, padding=1, name="conv1")(before)
        x = activate(self._norm(x, "norm2", train), self.activation)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return shortcut + make(self.width, 3, padding=1, name="conv2")(x)

    def _norm(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        return apply_norm(x, self.norm, train=train, name=name, dtype=self.dtype)


class WideResNet(nn.Module):
    """Everything before the global average pooling. Raises UserError if depth - 4 is no multiple of 6.

    Attributes:
      depth: number of convolutions but for those of the shortcuts, as the paper counts.
      widening: the paper's k.
      dropout: probability, in each block; the paper's WRN-28-10 with dropout has 0.3.
      activation, norm: before each convolution but the first.
      kernel_init: of the convolutions' kernels.
    """

    depth: int = 28
    widening: float = 10
    dropout: float = 0.0
    activation: Activation = "relu"
    norm: Norm = "batch"
    kernel_init: Init = "he_fan_out"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 32, 32, 3] -> stage1 [B, 32, 32, 16], stage2 [B, 32, 32, 160], stage3 [B, 16, 16, 320], stage4 and
        final [B, 8, 8, 640]; "final" is after the last norm and ReLU."""
        check_choices(self)
        blocks, rest = divmod(self.depth - 4, 6)
        if rest or blocks < 1:
            raise UserError(f"WideResNet: depth is {self.depth}; it must be 6 n + 4, such as 16, 22, 28 or 40")
        unit = functools.partial(
            WideBlock,
            dropout=self.dropout,
            activation=self.activation,
            norm=self.norm,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
        )
        bias = needs_bias(self.norm)
        x = conv(16, 3, padding=1, bias=bias, name="conv", kernel_init=self.kernel_init, dtype=self.dtype)(x)
        ends = {"stage1": x}
        for stage, base in enumerate((16, 32, 64), 1):
            for number in range(blocks):
                stride = 2 if stage > 1 and number == 0 else 1
                width = max(1, round(base * self.widening))
                x = unit(width, stride, name=f"layer{stage}_{number}")(x, train=train)
            ends[f"stage{stage + 1}"] = x
        x = apply_norm(x, self.norm, train=train, name="norm", dtype=self.dtype)
        return ends | {"final": activate(x, self.activation)}
