"""DenseNet (Huang et al. 2017): the ImageNet nets of Table 1 and the CIFAR nets of section 3, basic and BC.

Layer l of a block reads the concatenation of the block's input and of the maps of layers 1 to l - 1 (equation 2), and
adds `growth` maps of its own. Every convolution but the stem's comes after BN and ReLU; none has a bias.

CIFAR (section 3, "Implementation details"): three blocks at 32x32, 16x16 and 8x8, a 3x3 stem of 16 channels (BC: twice
the growth rate) without norm or pooling, and dropout 0.2 after every convolution but the first where the data is not
augmented (`conv_dropout=0.2`).

Initialisation: He's (section 4.2), normal with variance 2 / fan in, as torchvision has it; the classifier's is
PyTorch's default with biases at 0.

Not in the paper: `combine="add"`. Departures from torchvision: with `conv_dropout`, the bottleneck's and the
transition's convolutions are followed by dropout too, as the paper says; torchvision drops the 3x3's output only.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.models.classifier import Classifier
from jaxcnn.models.heads import GAP
from jaxcnn.models.layers import (
    Activation,
    Dtype,
    Init,
    Norm,
    activate,
    apply_norm,
    avg_pool,
    check_choices,
    check_window,
    conv,
    max_pool,
    needs_bias,
)

# Layers of each dense block. 161 has growth 48 and a stem of 96 channels, the others 32 and 64.
TABLE_1 = {
    121: (6, 12, 24, 16),
    161: (6, 12, 36, 24),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),
}


class DenseLayer(nn.Module):
    """BN-ReLU-conv3x3, after BN-ReLU-conv1x1 to `bottleneck` channels where there is a bottleneck (section 3)."""

    width: int
    bottleneck: int
    norm: Norm
    activation: Activation
    dropout: float
    kernel_init: Init = "he_fan_in"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, width]."""
        steps = [(self.bottleneck, 1), (self.width, 3)] if self.bottleneck else [(self.width, 3)]
        for number, (width, kernel) in enumerate(steps, 1):
            x = apply_norm(x, self.norm, train=train, name=f"norm{number}", dtype=self.dtype)
            x = activate(x, self.activation)
            x = conv(
                width,
                kernel,
                padding=kernel // 2,
                bias=needs_bias(self.norm),
                name=f"conv{number}",
                dtype=self.dtype,
                kernel_init=self.kernel_init,
            )(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x


class Transition(nn.Module):
    """BN-ReLU-conv1x1 and 2x2 average pooling between two blocks (section 3, "Pooling layers").

    The ReLU is the authors' code's and torchvision's; the paper names the other three.
    """

    width: int
    norm: Norm
    activation: Activation
    dropout: float
    kernel_init: Init = "he_fan_in"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H // 2, W // 2, width]."""
        x = activate(apply_norm(x, self.norm, train=train, name="norm", dtype=self.dtype), self.activation)
        x = conv(
            self.width, 1, bias=needs_bias(self.norm), name="conv", dtype=self.dtype, kernel_init=self.kernel_init
        )(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return avg_pool(x, 2, stride=2)


class DenseNet(nn.Module):
    """Stem, dense blocks with transitions between them, BN and ReLU.

    Attributes:
      depth: layers of each block.
      growth: channels that each layer adds, the paper's k.
      stem: "imagenet" is 7x7 with stride 2, norm, activation and 3x3 max pooling with stride 2; "cifar" is 3x3.
      stem_width: channels of the stem.
      bottleneck: width of each layer's 1x1 convolution in units of `growth`; 0 for none.
      compression: a transition keeps this part of the channels, the paper's theta.
      combine: "concatenate", or "add" for a pre-activation residual net of the same depth to compare with: every layer
        is as wide as its block's input, to which it is added; blocks begin with the widths of the concatenating net.
      conv_dropout: probability; after every convolution but the first.
      activation: after each norm.
      norm: before each convolution but the first; without parameters in it convolutions have biases.
      kernel_init: of the convolutions' kernels.
    """

    depth: tuple[int, ...] = TABLE_1[121]
    growth: int = 32
    stem: Literal["imagenet", "cifar"] = "imagenet"
    stem_width: int = 64
    bottleneck: int = 4
    compression: float = 0.5
    combine: Literal["concatenate", "add"] = "concatenate"
    conv_dropout: float = 0.0
    activation: Activation = "relu"
    norm: Norm = "batch"
    kernel_init: Init = "he_fan_in"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 224, 224, 3] -> stem [B, 112, 112, 64], denseblock1 [B, 56, 56, 256], ..., final [B, 7, 7, 1024].

        The blocks' maps are before norm and activation, "final" is after both.
        """
        check_choices(self)
        halvings = len(self.depth) - 1
        smallest = 4 * 2**halvings - 3 if self.stem == "imagenet" else 2**halvings
        check_window(x, smallest, f"DenseNet with {len(self.depth)} blocks")
        x = self._stem(x, train)
        ends = {"stem": x}
        if self.stem == "imagenet":
            x = max_pool(x, 3, stride=2, padding=1)
        common = {
            "norm": self.norm,
            "activation": self.activation,
            "dropout": self.conv_dropout,
            "kernel_init": self.kernel_init,
            "dtype": self.dtype,
        }
        width = self.stem_width
        for block, layers in enumerate(self.depth, 1):
            wide = self.growth if self.combine == "concatenate" else width
            for number in range(1, layers + 1):
                name = f"denseblock{block}_denselayer{number}"
                new = DenseLayer(wide, self.bottleneck * self.growth, **common, name=name)(x, train=train)
                x = jnp.concatenate([x, new], -1) if self.combine == "concatenate" else x + new
            ends[f"denseblock{block}"] = x
            width += layers * self.growth
            if block < len(self.depth):
                width = int(self.compression * width)
                x = Transition(width, **common, name=f"transition{block}")(x, train=train)
        x = apply_norm(x, self.norm, train=train, name="norm5", dtype=self.dtype)
        return ends | {"final": activate(x, self.activation)}

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        bias = needs_bias(self.norm)
        common = {"bias": bias, "name": "conv0", "dtype": self.dtype, "kernel_init": self.kernel_init}
        if self.stem == "cifar":
            return conv(self.stem_width, 3, padding=1, **common)(x)
        x = conv(self.stem_width, 7, stride=2, padding=3, **common)(x)
        return activate(apply_norm(x, self.norm, train=train, name="norm0", dtype=self.dtype), self.activation)


DENSENET_HEAD = GAP(classes=1000, kernel_init="torch_uniform")
DENSENET_CIFAR_HEAD = GAP(classes=10, kernel_init="torch_uniform")


def torchvision_name(model: Classifier, path: str) -> str:
    """torchvision's name: "backbone/denseblock1_denselayer1/norm1" -> "features.denseblock1.denselayer1.norm1"."""
    part, layer = path.split("/", 1)
    return "classifier" if part == "head" else "features." + layer.replace("_", ".").replace("/", ".")


def torchvision_file_name(model: Classifier, path: str) -> str:
    """The name in the files that torchvision offers for download: "features.denseblock1.denselayer1.norm.1"."""
    name = torchvision_name(model, path)
    return f"{name[:-1]}.{name[-1]}" if "denselayer" in name else name
