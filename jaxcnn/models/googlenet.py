"""GoogLeNet (Szegedy et al. 2015): Table 1, with the two auxiliary classifiers of section 5 as heads of their own.

Local response normalisation is where figure 3 has it, after the first pooling and before the second; the paper gives no
constants, these are Caffe's (bvlc_googlenet, a replication with the first author's help): alpha 1e-4 / 5, k 1. Poolings
round up as Caffe's do, which gives the sizes of Table 1. The classifier is average pooling over all positions (7x7 at
224x224), dropout 0.4 and one linear layer.

Initialisation: the paper names none; bvlc_googlenet's is used, "xavier" kernels (uniform, variance 1 / fan in) and
biases of 0.2 everywhere but in the layers that make logits.

Not in the paper: other norms, `width`, and the form of torchvision (`googlenet_bn`): batch normalisation
with epsilon 1e-3 and no biases, 3x3 convolutions where the paper has 5x5 (`large_kernel`), 2x2 pooling before module
5a (`last_pool`), dropout 0.2, N(0, 0.01^2) kernels, and auxiliary classifiers that pool to 4x4 adaptively. The weights
that torchvision publishes for it read images normalised with mean 0.5 and standard deviation 0.5.
"""

import functools
import re
from typing import Literal

import jax
from flax import linen as nn

from jaxcnn.models.classifier import Classifier
from jaxcnn.models.heads import FC, GAP
from jaxcnn.models.inception import Branch, Conv, ConvNorm, Inception, Pool
from jaxcnn.models.layers import (
    Activation,
    Dtype,
    Init,
    Norm,
    adaptive_avg_pool,
    apply_norm,
    avg_pool,
    check_window,
    is_local,
    max_pool,
)

# Widths of #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
TABLE_1 = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def branches(row: str, large_kernel: int, naive: bool) -> tuple[Branch, ...]:
    """Figure 2(b), the module with 1x1 reductions, or figure 2(a), the naive one; layers as torchvision names them."""
    one, reduce3, three, reduce5, five, projection = TABLE_1[row]
    large3, large5 = Conv("branch2_1", three, 3), Conv("branch3_1", five, large_kernel)
    if naive:
        return (Conv("branch1", one),), (large3,), (large5,), (Pool("max"),)
    return (
        (Conv("branch1", one),),
        (Conv("branch2_0", reduce3), large3),
        (Conv("branch3_0", reduce5), large5),
        (Pool("max"), Conv("branch4_1", projection)),
    )


class GoogLeNet(nn.Module):
    """The convolutional part: two stages of plain convolutions, then nine inception modules in three stages.

    Attributes:
      norm: "lrn" and "lrn_caffe" are where the paper has them, twice; any other follows each convolution.
      naive: modules without the 1x1 reductions and the pooling's projection, figure 2(a).
      large_kernel: side of the kernel in the 5x5 branch.
      last_pool: side of the pooling before module 5a.
      modules: which rows of Table 1; others than all need `aux` heads that read what is left.
      width: multiplies every width of Table 1.
      activation: after each convolution (and norm).
      kernel_init: of the kernels.
      bias_init: what the biases of the convolutions start at, where there are any.
    """

    norm: Norm = "lrn_caffe"
    naive: bool = False
    large_kernel: Literal[5, 3] = 5
    last_pool: Literal[3, 2] = 3
    modules: tuple[str, ...] = tuple(TABLE_1)
    width: float = 1.0
    activation: Activation = "relu"
    kernel_init: Init = "lecun_uniform"
    bias_init: float = 0.2
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 224, 224, 3] -> stage1 [B, 112, 112, 64], stage2 [B, 56, 56, 192], stage3 [B, 28, 28, 480],
        stage4 [B, 14, 14, 832], stage5 and final [B, 7, 7, 1024]; and every module's map, inception3a to inception5b.
        """
        check_window(x, 31 if self.last_pool == 3 else 15, "the stack of five halvings")
        local = is_local(self.norm)
        unit = functools.partial(
            ConvNorm,
            multiplier=self.width,
            norm="none" if local else self.norm,
            activation=self.activation,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            dtype=self.dtype,
        )
        pool = functools.partial(max_pool, stride=2, ceil_mode=True)
        response_norm = functools.partial(apply_norm, kind=self.norm, train=train, name="lrn", dtype=self.dtype)
        ends = {}
        ends["stage1"] = unit(64, 7, stride=2, padding=3, name="conv1")(x, train=train)
        x = pool(ends["stage1"], 3)
        if local:
            x = response_norm(x)
        x = unit(64, 1, name="conv2")(x, train=train)
        x = unit(192, 3, padding=1, name="conv3")(x, train=train)
        if local:
            x = response_norm(x)
        ends["stage2"] = x
        x = pool(x, 3)
        stage = 3
        for row in self.modules:
            if int(row[0]) > stage:
                ends[f"stage{stage}"] = x
                x = pool(x, 3 if stage == 3 else self.last_pool)
                stage += 1
            module = Inception(branches(row, self.large_kernel, self.naive), unit, name=f"inception{row}")
            x = ends[f"inception{row}"] = module(x, train=train)
        return ends | {f"stage{stage}": x, "final": x}


class GoogLeNetAuxiliaryHead(FC):
    """The auxiliary classifier (section 5): 5x5 average pooling with stride 3, 1x1 convolution with 128 filters, FC.

    The 4x4 grid that this gives at 14x14 is kept by adaptive pooling at other sizes, as in `FC`.

    Attributes:
      widths: of the hidden layer.
      norm: after the convolution; no local response normalisation.
      adaptive: pool to the grid at once, as torchvision.
      width: multiplies the convolution's.
      bias_init: of the convolution and the hidden layer.
    """

    widths: tuple[int, ...] = (1024,)
    grid: tuple[int, int] = (4, 4)  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen: only read
    dropout: float = 0.7
    kernel_init: Init = "lecun_uniform"
    norm: Norm = "lrn_caffe"
    adaptive: bool = False
    width: float = 1.0
    bias_init: float = 0.2

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, classes] float32."""
        if not self.adaptive and min(x.shape[1:3]) >= 5:
            x = avg_pool(x, 5, stride=3)
        x = adaptive_avg_pool(x, self.grid)
        norm = "none" if is_local(self.norm) else self.norm
        x = ConvNorm(
            128,
            multiplier=self.width,
            norm=norm,
            activation=self.activation,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            dtype=self.dtype,
            name="conv",
        )(x, train=train)
        return super().__call__(x, train=train)


GOOGLENET_HEAD = GAP(classes=1000, dropout=0.4, kernel_init="lecun_uniform")
GOOGLENET_AUX = {
    "inception4a": GoogLeNetAuxiliaryHead(classes=1000),
    "inception4d": GoogLeNetAuxiliaryHead(classes=1000),
}
GOOGLENET_BN_HEAD = GAP(classes=1000, dropout=0.2, kernel_init="normal_0.01")
GOOGLENET_BN_AUX = {
    name: head.clone(norm="batch", adaptive=True, kernel_init="normal_0.01", bias_init=0.0)
    for name, head in GOOGLENET_AUX.items()
}


def torchvision_name(model: Classifier, path: str) -> str:
    """torchvision's name of a layer: "backbone/inception3a/branch2_1/conv" -> "inception3a.branch2.1.conv".

    The auxiliary heads "aux_inception4a" and "aux_inception4d" are aux1 and aux2.
    """
    part, layer = path.split("/", 1)
    if part.startswith("aux_"):
        layer = f"aux{1 + sorted(model.aux).index(part.removeprefix('aux_'))}/{layer}"
    return re.sub(r"(branch\d)_", r"\1.", layer).replace("/", ".")
