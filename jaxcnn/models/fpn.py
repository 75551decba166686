"""Feature pyramid network (Lin et al. 2017): maps of one width at the strides 4, 8, 16 and 32, each with deep features.

As torchvision's fasterrcnn_resnet50_fpn has it: a 1x1 convolution of every stage of a ResNet (C2 to C5) to 256
channels; from coarse to fine, the coarser sum is repeated to the finer map's size and added; a 3x3 convolution of each
sum gives p2 to p5 (section 3 and Figure 3). p6, for the largest anchors only, is every second position of p5.

Initialisation: the ResNet's own; the pyramid's convolutions U(-b, b), b = sqrt(3 / fan in), biases 0, as torchvision.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.models.layers import Norm, apply_norm, conv
from jaxcnn.models.resnet import Block, ResNet

LEVELS = ("p2", "p3", "p4", "p5")


class PyramidBlock(Block):
    """A residual block whose norms have an epsilon of their own."""

    epsilon: float = 1e-5

    def apply_norm(self, x: jax.Array, name: str, train: bool, zero: bool = False) -> jax.Array:
        """The norm behind a convolution; `zero`: its scale starts at 0."""
        start = nn.initializers.zeros if zero else nn.initializers.ones
        fields: dict[str, Any] = {"dtype": self.dtype, "epsilon": self.epsilon, "scale_init": start}
        return apply_norm(x, self.norm, train=train, name=name, **fields)


class ResNetFPN(ResNet):
    """A ResNet with a pyramid over its four stages; layers and paths of the ResNet are those of ResNet.

    Attributes:
      norm: of the ResNet; "frozen_batch" keeps the statistics, scales and biases that it is given.
      epsilon: of the norms. 0 as in torchvision's detector on COCO (COCO_V1), whose weights were trained so; 1e-5 in a
        detector that was trained from ImageNet's weights (weights_backbone). Weights do not say which they are of.
      pyramid: channels of the pyramid's maps.
    """

    norm: Norm = "frozen_batch"
    epsilon: float = 0.0
    pyramid: int = 256

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 800, 800, 3] -> stage1 to stage5 of ResNet; p2 [B, 200, 200, 256], p3, p4, p5 [B, 25, 25, 256], p6 and
        final, which is p5."""
        if self.stem == "3x3" or len(self.depth) != 4:
            raise UserError(f"a pyramid needs a stem of stride 4 and four stages, not {self.stem!r}, {self.depth}")
        ends = super().__call__(x, train=train)
        above: jax.Array | None = None
        for number in (3, 2, 1, 0):
            lateral = self._conv(ends[f"stage{number + 2}"], 1, f"inner_{number}")
            above = lateral if above is None else lateral + repeated(above, (lateral.shape[1], lateral.shape[2]))
            ends[LEVELS[number]] = self._conv(above, 3, f"layer_{number}")
        return ends | {"p6": ends["p5"][:, ::2, ::2], "final": ends["p5"]}

    def make_block(self, stage: int, number: int, kind: type[Block] = PyramidBlock, **fields) -> Block:
        """The block layer{stage}_{number}."""
        return super().make_block(stage, number, kind, epsilon=self.epsilon, **fields)

    def apply_norm(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        """The norm behind a convolution of the stem."""
        return apply_norm(x, self.norm, train=train, name=name, dtype=self.dtype, epsilon=self.epsilon)

    def _conv(self, x: jax.Array, kernel: int, name: str) -> jax.Array:
        fields: dict[str, Any] = {
            "padding": kernel // 2,
            "kernel_init": "lecun_uniform",
            "dtype": self.dtype,
            "name": name,
        }
        return conv(self.pyramid, kernel, **fields)(x)


def repeated(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """[B, h, w, C] -> [B, H, W, C], each position the nearest one's value: PyTorch's "nearest", floor(i h / H)."""
    rows, columns = (np.arange(new) * old // new for old, new in zip(x.shape[1:3], size, strict=True))
    return jnp.take(jnp.take(x, rows, axis=1), columns, axis=2)
