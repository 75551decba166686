"""VGG (Simonyan & Zisserman 2015): configurations A, A-LRN, B, C, D and E of Table 1.

Initialisation: Glorot's, which section 3.1 names as the one that needs no pre-training of net A first; it suits the
paper's input, RGB of 0..255 minus its mean: He's keeps that scale up to the logits and diverges at the paper's rate.
"normal_0.01" is the paper's first choice as its released configuration files have it, N(0, 0.01^2) (the text says
variance 0.01, with which no deep net trains).

Not in the paper: `norm="batch"`, the batch-normalised form that torchvision calls vgg16_bn, with torchvision's
initialisation ("he_fan_out"; N(0, 0.01^2) in the FC layers); `pooling`, `width`, `stages`; `stacked`
is section 2.3's comparison.
"""

from typing import Literal

import jax
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.models.classifier import Classifier
from jaxcnn.models.heads import FC
from jaxcnn.models.layers import (
    Activation,
    Dtype,
    Init,
    Norm,
    Pooling,
    activate,
    apply_norm,
    check_window,
    conv,
    local_response_norm,
    needs_bias,
    pool,
    pool_input,
)

# A width per 3x3 convolution; a negative one is a 1x1.
TABLE_1 = {
    "A": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "A-LRN": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "B": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "C": ((64, 64), (128, 128), (256, 256, -256), (512, 512, -512), (512, 512, -512)),
    "D": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    "E": ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}


class VGG(nn.Module):
    """The convolutional part: five stages of 3x3 convolutions with stride 1, each followed by 2x2 max pooling.

    Attributes:
      variant: column of Table 1.
      norm: after each convolution.
      pooling: after each stage; "overlapping" with sizes rounded up, so that it halves them as the others do.
      width: multiplies every width of Table 1; 1 in the paper.
      stages: how many of the five stages there are, for small images.
      stacked: False puts one convolution of the same receptive field in the place of each stage's 3x3 ones (section
        2.3): 5x5 for two, 7x7 for three.
      activation: after each convolution (and norm).
      kernel_init: of the convolutions' kernels; biases start at 0.
    """

    variant: Literal["A", "A-LRN", "B", "C", "D", "E"] = "D"
    norm: Norm = "none"
    pooling: Pooling = "max"
    width: float = 1.0
    stages: int = 5
    stacked: bool = True
    activation: Activation = "relu"
    kernel_init: Init = "glorot_uniform"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 224, 224, 3] -> stage1 [B, 224, 224, 64], ..., stage5 [B, 14, 14, 512], final [B, 7, 7, 512]."""
        smallest = 1
        for _ in range(self.stages):
            smallest = pool_input(smallest, self.pooling, ceil_mode=True)
        check_window(x, smallest, f"the stack of {self.stages} poolings")
        if not self.stacked and self.variant == "C":
            raise UserError("stacked=False has no form of C, whose 1x1 convolutions widen no receptive field")
        ends = {}
        for number in range(1, self.stages + 1):
            x = ends[f"stage{number}"] = self.stage(x, number, train=train)
            x = pool(x, self.pooling, ceil_mode=True)
        return ends | {"final": x}

    def stage(self, x: jax.Array, number: int, *, train: bool) -> jax.Array:
        """The convolutions of one stage, counted from 1: [B, H, W, C] -> [B, H, W, C']."""
        widths, side = TABLE_1[self.variant][number - 1], 3
        if not self.stacked:
            widths, side = widths[-1:], 2 * len(widths) + 1
        for layer, width in enumerate(widths, 1):
            kernel = 1 if width < 0 else side
            x = conv(
                max(1, round(abs(width) * self.width)),
                kernel,
                padding=kernel // 2,
                name=f"conv{number}_{layer}",
                dtype=self.dtype,
                kernel_init=self.kernel_init,
            )(x)
            x = apply_norm(x, self.norm, train=train, name=f"bn{number}_{layer}", dtype=self.dtype)
            x = activate(x, self.activation)
        return local_response_norm(x) if self.variant == "A-LRN" and number == 1 else x


VGG_HEAD = FC(
    classes=1000,
    widths=(4096, 4096),
    names=("fc6", "fc7", "fc8"),
    grid=(7, 7),
    dropout=0.5,
    kernel_init="glorot_uniform",
)
VGG_BN_HEAD = VGG_HEAD.clone(kernel_init="normal_0.01")


def timm_name(model: Classifier, path: str) -> str:
    """timm's name of a layer: as torchvision's, but "head/fc7" -> "pre_logits.fc2" (a convolution), "head.fc" last."""
    part, layer = path.split("/")
    if part != "head":
        return torchvision_name(model, path)
    number = model.head.layer_names.index(layer) + 1
    return "head.fc" if number == len(model.head.layer_names) else f"pre_logits.fc{number}"


def torchvision_name(model: Classifier, path: str) -> str:
    """torchvision's name of a layer: "backbone/conv1_2" -> "features.2", "head/fc7" -> "classifier.3"."""
    part, layer = path.split("/")
    if part == "head":
        return f"classifier.{3 * model.head.layer_names.index(layer)}"
    indices, index = {}, 0
    for stage, widths in enumerate(TABLE_1[model.backbone.variant], 1):
        for number in range(1, len(widths) + 1):
            indices[f"conv{stage}_{number}"] = index
            if not needs_bias(model.backbone.norm):  # it has parameters of its own
                index += 1
                indices[f"bn{stage}_{number}"] = index
            index += 2  # the convolution or the norm, and the ReLU
        index += 1  # the pooling
    return f"features.{indices[layer]}"
