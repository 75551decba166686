"""EfficientNet (Tan & Le 2019): B0 of Table 1, and B1 to B7 from it by the compound rule; EfficientNet-Lite0.

The compound rule (equation 3) multiplies widths by beta^phi and depths by alpha^phi and enlarges the input; the
authors' code rounds widths to multiples of 8 and depths up. The rows of MODELS hold its coefficients.

Defaults are torchvision's for B0 to B4 (padding by (k - 1) / 2 on every side, epsilon 1e-5, decay 0.9); `B5_NORM` is
torchvision's for B5 to B7 and the authors' for all. The authors pad by TensorFlow's rule: `padding="tf", epsilon=1e-3`
is timm's tf_efficientnet_b0 and so on.

EfficientNet-Lite (Liu 2020; `LITE`): ReLU6 for SiLU, no squeeze-and-excite, TensorFlow's padding, and stem, head and
the depths of the first and the last stage are not scaled.

Initialisation: the authors' code's. Convolutions: normal, variance 2 / fan out, where a depthwise kernel's fan out is
k * k (torchvision: k * k * C, which is nearly 0 beside an epsilon of 1e-3); last layer: uniform, bound 1 / sqrt(fan
out); biases 0.

Departures: AutoAugment and the RMSProp schedule are no part of the net. Stochastic depth divides what it keeps by the
survival probability, as the authors' code does.
"""

import math
from typing import Any, Literal

import jax
from flax import linen as nn

from jaxcnn.models.classifier import Classifier
from jaxcnn.models.heads import GAP
from jaxcnn.models.layers import (
    Activation,
    Dtype,
    Init,
    Norm,
    Padding,
    SqueezeExcite,
    activate,
    apply_norm,
    check_choices,
    check_window,
    conv,
    drop_path,
    needs_bias,
)

# Stages 2 to 8 of B0, here stage1 to stage7: expansion, kernel, stride of the first block, width, blocks.
TABLE_1 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STEM_WIDTH = 32
HEAD_WIDTH = 1280

B5_NORM: dict[str, Any] = {"epsilon": 1e-3, "decay": 0.99}
LITE: dict[str, Any] = {**B5_NORM, "activation": "relu6", "squeeze": 0.0, "padding": "tf", "scale_ends": False}


def round_width(width: float) -> int:
    """The nearest multiple of 8, at least 8, and the next one where rounding down would lose more than a tenth."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


class MBConv(nn.Module):
    """Inverted bottleneck (Sandler et al. 2018, Table 1) with squeeze-and-excite; shortcut where the shape allows it.

    Attributes:
      width: of the output.
      expansion: of the 1x1 convolution that comes first; none where it is 1.
      squeeze: width of squeeze-and-excite as a part of the block's input width; 0 for none.
      drop_path: probability that training drops the branch.
    """

    width: int
    expansion: int
    kernel: int
    stride: int
    squeeze: float
    drop_path: float
    padding: Literal["torch", "tf"]
    activation: Activation
    norm: Norm
    epsilon: float
    decay: float
    kernel_init: Init = "he_fan_out"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), width]."""
        branch = x
        inputs = x.shape[-1]
        hidden = inputs * self.expansion
        if self.expansion != 1:
            branch = conv_norm(self, branch, "expand", hidden, 1, train=train)
            branch = activate(branch, self.activation)
        branch = conv_norm(self, branch, "depthwise", hidden, self.kernel, self.stride, groups=hidden, train=train)
        branch = activate(branch, self.activation)
        if self.squeeze:
            width = max(1, int(inputs * self.squeeze))
            branch = SqueezeExcite(width, self.activation, self.kernel_init, self.dtype, name="se")(branch)
        branch = conv_norm(self, branch, "project", self.width, 1, train=train)
        if x.shape != branch.shape:
            return branch
        return x + drop_path(branch, self.drop_path, train=train)


class EfficientNet(nn.Module):
    """Stem, seven stages of MBConv blocks, and the 1x1 convolution before the pooling.

    Attributes:
      width: multiplies every width.
      depth: multiplies every stage's number of blocks.
      scale_ends: whether stem, last convolution and the depths of the first and the last stage are scaled too.
      squeeze: width of squeeze-and-excite as a part of the block's input width; 0 for none.
      drop_path: stochastic depth; block i of n is dropped with probability drop_path * i / n, i from 0.
      padding: "torch" for (k - 1) / 2 on every side, "tf" for TensorFlow's "SAME".
      activation: after each norm but those at the ends of the blocks, and in squeeze-and-excite.
      norm: after each convolution; without parameters in it convolutions have biases.
      epsilon: of the norm.
      decay: of batch norm's running statistics.
      kernel_init: of the convolutions' kernels.
    """

    width: float = 1.0
    depth: float = 1.0
    scale_ends: bool = True
    squeeze: float = 0.25
    drop_path: float = 0.2
    padding: Literal["torch", "tf"] = "torch"
    activation: Activation = "silu"
    norm: Norm = "batch"
    epsilon: float = 1e-5
    decay: float = 0.9
    kernel_init: Init = "he_fan_out"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 224, 224, 3] -> stem [B, 112, 112, 32], stage1 [B, 112, 112, 16], ..., final [B, 7, 7, 1280]."""
        check_choices(self)
        check_window(x, 1, "EfficientNet")
        x = activate(conv_norm(self, x, "stem", self._end_width(STEM_WIDTH), 3, 2, train=train), self.activation)
        ends = {"stem": x}
        depths = self.depths
        block = 0
        for stage, (expansion, kernel, stride, width, _) in enumerate(TABLE_1, 1):
            for number in range(depths[stage - 1]):
                x = MBConv(
                    width=round_width(width * self.width),
                    expansion=expansion,
                    kernel=kernel,
                    stride=1 if number else stride,
                    squeeze=self.squeeze,
                    drop_path=self.drop_path * block / sum(depths),
                    padding=self.padding,
                    activation=self.activation,
                    norm=self.norm,
                    epsilon=self.epsilon,
                    decay=self.decay,
                    kernel_init=self.kernel_init,
                    dtype=self.dtype,
                    name=f"stage{stage}_{number}",
                )(x, train=train)
                block += 1
            ends[f"stage{stage}"] = x
        x = activate(conv_norm(self, x, "head", self._end_width(HEAD_WIDTH), 1, train=train), self.activation)
        return ends | {"final": x}

    @property
    def depths(self) -> list[int]:
        """Blocks of each stage."""
        depths = [math.ceil(blocks * self.depth) for *_, blocks in TABLE_1]
        if not self.scale_ends:
            depths[0], depths[-1] = TABLE_1[0][-1], TABLE_1[-1][-1]
        return depths

    def _end_width(self, width: int) -> int:
        return round_width(width * self.width) if self.scale_ends else width


def conv_norm(
    net: MBConv | EfficientNet,
    x: jax.Array,
    name: str,
    width: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    *,
    train: bool,
) -> jax.Array:
    """Convolution `name`_conv and norm `name`_bn, made inside `net` with its fields."""
    padding: Padding = "tf" if net.padding == "tf" else kernel // 2
    # One input channel per output: He's fan in is the k * k that the authors' code has for fan out.
    init = "he_fan_in" if groups > 1 and net.kernel_init == "he_fan_out" else net.kernel_init
    x = conv(
        width,
        kernel,
        stride=stride,
        padding=padding,
        groups=groups,
        bias=needs_bias(net.norm),
        name=f"{name}_conv",
        dtype=net.dtype,
        kernel_init=init,
    )(x)
    return apply_norm(
        x, net.norm, train=train, name=f"{name}_bn", dtype=net.dtype, decay=net.decay, epsilon=net.epsilon
    )


EFFICIENTNET_HEAD = GAP(classes=1000, dropout=0.2, kernel_init="uniform_fan_out")


def torchvision_name(model: Classifier, path: str) -> str:
    """torchvision's name of a layer: "backbone/stage1_0/depthwise_conv" -> "features.1.0.block.0.0"."""
    stage, block, layer = _parse_path(path)
    name, _, kind = layer.replace("/", "_").partition("_")  # stem, fc, expand, se ... and conv, bn, fc1, fc2
    kind = {"conv": "0", "bn": "1", "": "1"}.get(kind, kind)
    if not stage:
        ends = {"stem": "features.0", "head": f"features.{len(TABLE_1) + 1}", "fc": "classifier"}
        return f"{ends[name]}.{kind}"
    steps = ["expand", "depthwise", "se", "project"][TABLE_1[stage - 1][0] == 1 :]  # no expansion by 1
    return f"features.{stage}.{block}.block.{steps.index(name)}.{kind}"


def timm_name(model: Classifier, path: str) -> str:
    """timm's name of a layer: "backbone/stage1_0/depthwise_conv" -> "blocks.0.0.conv_dw"."""
    stage, block, layer = _parse_path(path)
    if not stage:
        return TIMM_ENDS[layer]
    return f"blocks.{stage - 1}.{block}.{(TIMM_SEPARABLE if TABLE_1[stage - 1][0] == 1 else TIMM_BLOCK)[layer]}"


def efficientnet_pytorch_name(model: Classifier, path: str) -> str:
    """efficientnet_pytorch's name of a layer: "backbone/stage2_0/depthwise_conv" -> "_blocks.1._depthwise_conv"."""
    stage, block, layer = _parse_path(path)
    if not stage:
        ends = {"stem_conv": "conv_stem", "stem_bn": "bn0", "head_conv": "conv_head", "head_bn": "bn1"}
        return f"_{ends.get(layer, layer)}"
    norms = {"expand_bn": "bn0", "depthwise_bn": "bn1", "project_bn": "bn2"}
    squeeze = {"se/fc1": "se_reduce", "se/fc2": "se_expand"}
    return f"_blocks.{sum(model.backbone.depths[: stage - 1]) + block}._{(norms | squeeze).get(layer, layer)}"


TIMM_ENDS = {
    "stem_conv": "conv_stem",
    "stem_bn": "bn1",
    "head_conv": "conv_head",
    "head_bn": "bn2",
    "fc": "classifier",
}
TIMM_BLOCK = {
    "expand_conv": "conv_pw",
    "expand_bn": "bn1",
    "depthwise_conv": "conv_dw",
    "depthwise_bn": "bn2",
    "se/fc1": "se.conv_reduce",
    "se/fc2": "se.conv_expand",
    "project_conv": "conv_pwl",
    "project_bn": "bn3",
}
# Without the expansion.
TIMM_SEPARABLE = TIMM_BLOCK | {"depthwise_bn": "bn1", "project_conv": "conv_pw", "project_bn": "bn2"}


def _parse_path(path: str) -> tuple[int, int, str]:
    """(2, 0, "se/fc1") of "backbone/stage2_0/se/fc1"; stage 0 for what is in no block."""
    _, first, *rest = path.split("/")
    if not rest:
        return 0, 0, first
    stage, block = first.removeprefix("stage").split("_")
    return int(stage), int(block), "/".join(rest)
