"""VGG (Simonyan & Zisserman 2015): configurations A, A-LRN, B, C, D and E of Table 1.

Departures: `norm=True` is the batch-normalised form that torchvision calls vgg16_bn, which is not in the paper. The
paper starts its deep nets from net A's weights, and says that Glorot's initialisation makes this unnecessary; the
default here is He's (`init="he"`: normal, fan out, as torchvision), with N(0, 0.01) in the fully connected layers.
"glorot" and the paper's first choice, "normal_0.01" (section 3.1), are there for studies.
"""

from typing import Literal

import jax
from flax import linen as nn

from jaxcnn.models.heads import FC
from jaxcnn.models.layers import (
    KAIMING_FAN_OUT,
    Activation,
    Dtype,
    activate,
    batch_norm,
    check_window,
    conv,
    local_response_norm,
    max_pool,
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

INITIALIZERS = {
    "he": KAIMING_FAN_OUT,
    "glorot": nn.initializers.glorot_uniform(),
    "normal_0.01": nn.initializers.normal(0.01),
}


class VGG(nn.Module):
    """The convolutional part: five stages of 3x3 convolutions with stride 1, each followed by 2x2 max pooling.

    Attributes:
      variant: column of Table 1.
      norm: batch norm after each convolution.
      width: multiplies every width of Table 1; 1 in the paper.
      activation: after each convolution (and norm).
      init: of the convolutions' kernels; biases start at 0.
    """

    variant: Literal["A", "A-LRN", "B", "C", "D", "E"] = "D"
    norm: bool = False
    width: float = 1.0
    activation: Activation = "relu"
    init: Literal["he", "glorot", "normal_0.01"] = "he"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 224, 224, 3] -> stage1 [B, 224, 224, 64], ..., stage5 [B, 14, 14, 512], final [B, 7, 7, 512]."""
        check_window(x, 32, "the stack of five 2x2 poolings, at least")
        ends = {}
        for stage, widths in enumerate(TABLE_1[self.variant], 1):
            for layer, width in enumerate(widths, 1):
                kernel = 1 if width < 0 else 3
                x = conv(
                    max(1, round(abs(width) * self.width)),
                    kernel,
                    padding=kernel // 2,
                    name=f"conv{stage}_{layer}",
                    dtype=self.dtype,
                    kernel_init=INITIALIZERS[self.init],
                )(x)
                if self.norm:
                    x = batch_norm(train=train, name=f"bn{stage}_{layer}", dtype=self.dtype)(x)
                x = activate(x, self.activation)
            if self.variant == "A-LRN" and stage == 1:
                x = local_response_norm(x)
            ends[f"stage{stage}"] = x
            x = max_pool(x, 2, stride=2)
        return ends | {"final": x}


VGG_HEAD = FC(
    classes=1000, widths=(4096, 4096), names=("fc6", "fc7", "fc8"), grid=(7, 7), dropout=0.5, init="normal_0.01"
)
