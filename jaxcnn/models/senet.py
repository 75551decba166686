"""Squeeze-and-excitation networks (Hu et al. 2018): SE-ResNet-50, 101, 152 (Table 1) and SENet-154 (appendix).

The nets are residual nets whose every block rescales the channels of its residual by what it sees as a whole:
`layers.SqueezeExcite`, with biases, reduction 16. `se=16` adds it to any other residual net.

SE-ResNet has a stage's stride in the first 1x1 convolution, as the residual paper. SENet-154 is a ResNeXt-152 of
64 groups, and: the first 1x1 of each block half as wide as its 3x3, three 3x3 convolutions instead of the stem's 7x7,
3x3 projections where the map is halved, dropout 0.2 before the linear layer.

Initialisation: He's, as in the residual paper (section 5: the authors follow it), for the layers of squeeze and
excitation too; the linear layer as in resnet.py. As in the authors' Caffe nets, the max pooling is not padded and its
last window may be partly outside the map. Departures: none.
"""

from typing import Any, Literal

from jaxcnn.models.classifier import Classifier
from jaxcnn.models.resnet import RESNET_HEAD, ResNet


class SENet(ResNet):
    """A residual net with squeeze and excitation, with the defaults of SE-ResNet-50; fields as in ResNet."""

    stride_in: Literal["1x1", "3x3"] = "1x1"
    ceil_pooling: bool = True
    se: int = 16


# SENet-154's differences from SE-ResNet-152.
SENET_154: dict[str, Any] = {"stem": "3x3x3", "stride_in": "3x3", "projection": 3, "groups": 64, "inner_widths": (2, 4)}
SENET_154_HEAD = RESNET_HEAD.clone(dropout=0.2)


def timm_name(model: Classifier, path: str) -> str:
    """timm's name of a layer in its legacy_se... nets: "backbone/layer1_0/se/fc1" -> "layer1.0.se_module.fc1"."""
    layer = path.split("/", 1)[1].replace("/", ".").replace("_", ".").replace(".se.", ".se_module.")
    if path.startswith("head/"):
        return "last_linear"
    return layer if layer.startswith("layer") else f"layer0.{layer}"
