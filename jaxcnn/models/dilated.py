"""FCN on dilated ResNets, as torchvision has them: fcn_resnet50 and fcn_resnet101.

Strides of the last stages become dilations (Yu & Koltun 2016; Chen et al. 2018, section 3.1), so that the last map has
an eighth of the image's size, whose classes a 3x3 convolution, batch norm, ReLU, dropout 0.1 and a 1x1 convolution
score; bilinear resizing (align_corners=False) brings them to the image's size. The auxiliary head reads stage4.

Initialisation: the backbone as ResNet; the head's convolutions U(-b, b), b = 1 / sqrt(fan in), biases 0 (torchvision:
drawn as the kernels). Departure: the running variance is the biased one (models/layers.py).
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.models.layers import Dtype, Init, Norm, apply_norm, conv, needs_bias
from jaxcnn.models.resnet import Block, ResNet
from jaxcnn.models.resnet import torchvision_name as resnet_name
from jaxcnn.models.segmenter import Segmenter
from jaxcnn.ops.upsampling import pixels, stretched, upsample


class DilatedBlock(Block):
    """A residual block whose 3x3 convolutions have holes.

    Attributes:
      dilation: distance of the kernel's points.
    """

    dilation: int = 1

    def conv3x3(self, width: int, *, stride: int, name: str) -> nn.Module:
        """Every 3x3 convolution of F is made here."""
        return conv(
            width,
            3,
            stride=stride,
            padding=self.dilation,
            groups=self.groups,
            dilation=self.dilation,
            bias=needs_bias(self.norm),
            kernel_init=self.kernel_init,
            name=name,
            dtype=self.dtype,
        )


class DilatedResNet(ResNet):
    """A ResNet for images whose stages keep their size from `output_stride` on; layers and paths are those of ResNet.

    A stage that keeps its size dilates twice as much as the one before; its first block does as that one does.

    Attributes:
      output_stride: of the last map: 32 dilates nothing, 16 the last stage, 8 the last two.
    """

    output_stride: Literal[8, 16, 32] = 8

    def make_block(self, stage: int, number: int, kind: type[Block] = DilatedBlock, **fields) -> Block:
        """The block layer{stage}_{number}, dilated in the place of a stride beyond `output_stride`."""
        if self.stem == "3x3" or len(self.depth) != 4:
            raise UserError(
                f"output_stride is of ResNets with a stem of stride 4 and four stages, not {self.stem!r}, {self.depth}"
            )
        before, after = (max(1, 2 ** (each + 1) // self.output_stride) for each in (stage - 1, stage))
        stride = 2 if stage > 1 and number == 0 and before == after else 1
        dilation = before if number == 0 else after
        return super().make_block(stage, number, kind, stride=stride, dilation=dilation, **fields)


class FCNHead(nn.Module):
    """torchvision's: 3x3 convolution to a quarter of the channels, norm, ReLU, dropout, 1x1 convolution, resizing.

    Attributes:
      classes: number of logits of a pixel.
    """

    classes: int
    dropout: float = 0.1
    norm: Norm = "batch"
    kernel_init: Init = "torch_uniform"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, ends: Mapping[str, jax.Array], size: tuple[int, int], *, train: bool) -> jax.Array:
        """{"final": [B, h, w, C]} of images of (height, width) -> [B, H, W, classes] float32."""
        x = ends["final"]
        x = conv(
            x.shape[-1] // 4,
            3,
            padding=1,
            bias=needs_bias(self.norm),
            kernel_init=self.kernel_init,
            name="conv",
            dtype=self.dtype,
        )(x)
        x = jax.nn.relu(apply_norm(x, self.norm, train=train, name="bn", dtype=self.dtype))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = conv(self.classes, 1, kernel_init=self.kernel_init, name="score", dtype=self.dtype)(x)
        rows, columns = (stretched(old, new) for old, new in zip(x.shape[1:3], size, strict=True))
        return upsample(x, (rows, columns), (pixels(size[0]), pixels(size[1])), "repeat").astype(jnp.float32)


FCN_HEAD = FCNHead(classes=21)
FCN_AUX = {"stage4": FCN_HEAD}


def torchvision_name(model: Segmenter, path: str) -> str:
    """torchvision's name of a layer: "backbone/layer1_0/bn1" -> "backbone.layer1.0.bn1", "head/bn" ->
    "classifier.1", "aux_stage4/score" -> "aux_classifier.4".
    """
    part, layer = path.split("/", 1)
    if part == "backbone":
        return f"backbone.{resnet_name(cast(Any, model), path)}"
    number = {"conv": 0, "bn": 1, "score": 4}[layer]
    return f"{'classifier' if part == 'head' else 'aux_classifier'}.{number}"
