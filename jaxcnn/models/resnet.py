"""Deep residual learning (He et al. 2016): ResNet-18 to 152 (Table 1), plain nets and the CIFAR nets of section 4.2.

Also wide residual nets of torchvision's form (Zagoruyko & Komodakis 2016) and ResNeXt (Xie et al. 2017, Table 1).

Initialisation: He's, normal with variance 2 / fan out, which section 3.4 names and torchvision does; the linear layer
is torchvision's, U(-b, b) with b = 1 / sqrt(fan in). Norm scales start at 1, all biases at 0. Batch norm: decay 0.9,
epsilon 1e-5. The convolutions have no bias where a norm with a bias of its own follows.

Departures: resnet50, 101 and 152 have a stage's stride in the 3x3 convolution, as torchvision and MLPerf ("v1.5");
the paper has it in the first 1x1: resnet50_v1. Padding is symmetric, as in PyTorch. Not in the paper:
squeeze and excitation, stochastic depth, other norms, activations and poolings, `zero_init`, `width`, `without`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.models.classifier import Classifier
from jaxcnn.models.heads import GAP
from jaxcnn.models.layers import (
    Activation,
    Dtype,
    Init,
    Norm,
    SqueezeExcite,
    activate,
    apply_norm,
    avg_pool,
    check_choices,
    check_window,
    conv,
    drop_path,
    max_pool,
    needs_bias,
    relu_of_sum,
)

# Kind of block, blocks per stage.
TABLE_1: dict[int, tuple[Literal["basic", "bottleneck"], tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
# The first stage's width, then (kernel, stride, width in units of that) of each convolution before the blocks.
# ImageNet, CIFAR, and the three of SENet-154.
STEMS = {
    "7x7": (64, ((7, 2, 1),)),
    "3x3": (16, ((3, 1, 1),)),
    "3x3x3": (64, ((3, 2, 1), (3, 1, 1), (3, 1, 2))),
}

Shortcut = Literal["A", "B", "C", "none"]


class Block(nn.Module):
    """activation(F(x) + shortcut(x)), F two 3x3 convolutions, or a bottleneck: 1x1, 3x3, 1x1 (Figure 5).

    Attributes:
      widths: of the convolutions; two make a basic block, three a bottleneck. The last is the block's.
      stride: of the block.
      strided: number of the convolution, 1 or 2, that has this stride.
      shortcut: "A" identity, subsampled and with zeros for new channels; "B" a projection where the shape changes and
        the identity elsewhere; "C" a projection always; "none" plain.
      projection: side of the projection's kernel.
      groups: of the 3x3 convolutions.
      se: reduction of squeeze and excitation of F(x); 0 has none.
      drop_path: probability that F(x) is dropped in training.
      zero_init: the last norm's scale starts at 0, so that the block starts as its shortcut.
      skip: leave F(x) out.
    """

    widths: tuple[int, ...]
    stride: int = 1
    strided: int = 1
    shortcut: Shortcut = "B"
    projection: int = 1
    groups: int = 1
    se: int = 0
    drop_path: float = 0.0
    zero_init: bool = False
    skip: bool = False
    activation: Activation = "relu"
    norm: Norm = "batch"
    kernel_init: Init = "he_fan_out"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), widths[-1]]."""
        if self.shortcut == "none":
            return self._unchanged(x) if self.skip else activate(self._residual(x, train), self.activation)
        shortcut = self._shortcut(x, train)
        if self.skip:
            return activate(shortcut, self.activation)
        residual = drop_path(self._residual(x, train), self.drop_path, train=train)
        total = residual + shortcut
        return relu_of_sum(total) if self.activation == "relu" else activate(total, self.activation)

    def conv3x3(self, width: int, *, stride: int, name: str) -> nn.Module:
        """Every 3x3 convolution of F is made here."""
        return self._conv(width, 3, stride, name, self.groups)

    def _residual(self, x: jax.Array, train: bool) -> jax.Array:
        kernels = (3, 3) if len(self.widths) == 2 else (1, 3, 1)
        for number, (width, kernel) in enumerate(zip(self.widths, kernels, strict=True), 1):
            stride, last = self.stride if number == self.strided else 1, number == len(kernels)
            if kernel == 3:
                x = self.conv3x3(width, stride=stride, name=f"conv{number}")(x)
            else:
                x = self._conv(width, 1, stride, f"conv{number}")(x)
            x = self.apply_norm(x, f"bn{number}", train, zero=last and self.zero_init)
            if not last:
                x = activate(x, self.activation)
        if self.se:
            width = max(1, x.shape[-1] // self.se)
            x = SqueezeExcite(width, self.activation, self.kernel_init, self.dtype, name="se")(x)
        return x

    def _shortcut(self, x: jax.Array, train: bool) -> jax.Array:
        same = self.stride == 1 and x.shape[-1] == self.widths[-1]
        if self.shortcut == "C" or (self.shortcut == "B" and not same):
            x = self._conv(self.widths[-1], self.projection, self.stride, "downsample_0")(x)
            return self.apply_norm(x, "downsample_1", train)
        zeros = self.widths[-1] - x.shape[-1]
        return x if same else jnp.pad(x[:, :: self.stride, :: self.stride], [(0, 0)] * 3 + [(0, zeros)])

    def _unchanged(self, x: jax.Array) -> jax.Array:
        if self.stride != 1 or x.shape[-1] != self.widths[-1]:
            raise UserError(f"without: {self.name} changes the map's shape; a plain net cannot do without it")
        return x

    def _conv(self, width: int, kernel: int, stride: int, name: str, groups: int = 1) -> nn.Conv:
        return conv(
            width,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=needs_bias(self.norm),
            kernel_init=self.kernel_init,
            name=name,
            dtype=self.dtype,
        )

    def apply_norm(self, x: jax.Array, name: str, train: bool, zero: bool = False) -> jax.Array:
        """The norm behind a convolution; `zero`: its scale starts at 0."""
        scale_init = nn.initializers.zeros if zero else nn.initializers.ones
        return apply_norm(x, self.norm, train=train, name=name, dtype=self.dtype, scale_init=scale_init)


class ResNet(nn.Module):
    """Everything before the global average pooling.

    Attributes:
      block: "basic", of two 3x3 convolutions, or "bottleneck", four times as wide at its end.
      depth: blocks per stage; each stage but the first halves the map and doubles the width.
      stem: "7x7" with stride 2 and max pooling after it; "3x3" for CIFAR, stages from 16 wide; "3x3x3" SENet-154's.
      stride_in: the convolution of a bottleneck that has the stage's stride, "3x3" (v1.5) or "1x1" (the paper's).
      shortcut: options A, B and C of section 4.1, or "none": the plain net.
      projection: side of the projections' kernels in the stages that halve the map.
      groups: of the 3x3 convolutions (ResNeXt's cardinality).
      inner_widths: of a bottleneck's first and second convolution, in units of a quarter of its output.
      width: multiplies every width; 1 in the paper.
      pooling: after the stem.
      ceil_pooling: pool without padding, the last window partly outside, as Caffe; not padded by 1, as torchvision.
      se: reduction of squeeze and excitation in every block; 0 has none, SENet's is 16.
      drop_path: stochastic depth (Huang et al. 2016), the last block's probability; it grows linearly from 0.
      zero_init: the last norm's scale of every block starts at 0 (Goyal et al. 2017, section 5.1).
      without: names of blocks, such as "layer3_2", whose residual branch is left out, as Veit et al. 2016 did with a
        trained net; it needs no other variables. A plain net leaves out the block.
      activation, norm: after each convolution.
      kernel_init: of the convolutions' kernels.
    """

    block: Literal["basic", "bottleneck"] = "bottleneck"
    depth: tuple[int, ...] = (3, 4, 6, 3)
    stem: Literal["7x7", "3x3", "3x3x3"] = "7x7"
    stride_in: Literal["1x1", "3x3"] = "3x3"
    shortcut: Shortcut = "B"
    projection: int = 1
    groups: int = 1
    inner_widths: tuple[float, float] = (1.0, 1.0)
    width: float = 1.0
    pooling: Literal["max", "average"] = "max"
    ceil_pooling: bool = False
    se: int = 0
    drop_path: float = 0.0
    zero_init: bool = False
    without: tuple[str, ...] = ()
    activation: Activation = "relu"
    norm: Norm = "batch"
    kernel_init: Init = "he_fan_out"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 224, 224, 3] -> stage1 [B, 112, 112, 64], stage2 [B, 56, 56, 256], ..., stage5 = final [B, 7, 7, 2048].

        Basic blocks: stage2 is 64 wide, stage5 512. CIFAR: [B, 32, 32, 3] -> stage1 [B, 32, 32, 16], stage2 the same,
        stage3 [B, 16, 16, 32], stage4 = final [B, 8, 8, 64].
        """
        self._check_fields()
        check_window(x, 5 if self.ceil_pooling and self.stem != "3x3" else 1, "the stem with its pooling")
        ends = {"stage1": self._stem(x, train)}
        x = ends["stage1"] if self.stem == "3x3" else self._pool(ends["stage1"])
        for stage, blocks in enumerate(self.depth, 1):
            for number in range(blocks):
                x = self.make_block(stage, number)(x, train=train)
            ends[f"stage{stage + 1}"] = x
        return ends | {"final": x}

    def make_block(self, stage: int, number: int, kind: type[Block] = Block, **fields) -> Block:
        """The block layer{stage}_{number}, stages from 1 and blocks from 0.

        `fields` are further ones of `kind`, and `stride` in place of the stage's.
        """
        base = round(STEMS[self.stem][0] * self.width) * 2 ** (stage - 1)
        widths = (base, base)
        if self.block == "bottleneck":
            widths = (*(round(base * factor) for factor in self.inner_widths), 4 * base)
        index = sum(self.depth[: stage - 1]) + number + 1
        name = f"layer{stage}_{number}"
        return kind(
            widths,
            stride=fields.pop("stride", 2 if stage > 1 and number == 0 else 1),
            strided=2 if self.block == "bottleneck" and self.stride_in == "3x3" else 1,
            shortcut=self.shortcut,
            projection=self.projection if stage > 1 else 1,
            groups=self.groups,
            se=self.se,
            drop_path=self.drop_path * index / sum(self.depth),
            zero_init=self.zero_init,
            skip=name in self.without,
            activation=self.activation,
            norm=self.norm,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name=name,
            **fields,
        )

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        base, convolutions = STEMS[self.stem]
        for number, (kernel, stride, factor) in enumerate(convolutions, 1):
            x = conv(
                round(base * self.width) * factor,
                kernel,
                stride=stride,
                padding=kernel // 2,
                bias=needs_bias(self.norm),
                kernel_init=self.kernel_init,
                name=f"conv{number}",
                dtype=self.dtype,
            )(x)
            x = activate(self.apply_norm(x, f"bn{number}", train), self.activation)
        return x

    def apply_norm(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        """The norm behind a convolution of the stem."""
        return apply_norm(x, self.norm, train=train, name=name, dtype=self.dtype)

    def _pool(self, x: jax.Array) -> jax.Array:
        padding = 0 if self.ceil_pooling else 1
        if self.pooling == "average":
            return avg_pool(x, 3, stride=2, padding=padding, ceil_mode=self.ceil_pooling, count_padding=False)
        return max_pool(x, 3, stride=2, padding=padding, ceil_mode=self.ceil_pooling)

    def _check_fields(self) -> None:
        check_choices(self)
        names = [f"layer{stage}_{number}" for stage, blocks in enumerate(self.depth, 1) for number in range(blocks)]
        for name in self.without:
            if name not in names:
                raise UserError(f"without: no block {name!r}{did_you_mean(name, names) or '; there is'} {names}")
        if self.shortcut == "none" and self.drop_path:
            raise UserError("drop_path: a plain net has no shortcut that could stand in for a dropped block")


RESNET_HEAD = GAP(classes=1000, kernel_init="torch_uniform")
CIFAR_HEAD = GAP(classes=10, kernel_init="torch_uniform")


def torchvision_name(model: Classifier, path: str) -> str:
    """torchvision's name of a layer: "backbone/layer1_0/downsample_1" -> "layer1.0.downsample.1", "head/fc" -> "fc"."""
    return path.split("/", 1)[1].replace("/", ".").replace("_", ".")
