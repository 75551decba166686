"""ZFNet (Zeiler & Fergus 2014, section 3.1 and Figure 3): AlexNet with other numbers and the order ReLU, pool, norm.

"base" has 7x7 windows at stride 2 in conv1, 5x5 at stride 2 in conv2, AlexNet's widths and no towers; "wide" is the
paper's larger net of Table 2 and Table 3: 512, 1024 and 512 maps in conv3, conv4 and conv5.

Figure 3 fixes the sizes 224, 110, 55, 26, 13, 13, 13, 6 and gives no padding. Here conv1 is padded by 1, conv2 not at
all, conv3 to conv5 by 1, and the sizes of the 3x3 pooling with stride 2 are rounded up, which is the only other place
where the figure needs pixels beyond the edge.

"Contrast normalised across feature maps", after the poolings of conv1 and conv2, comes without a formula. Here it is
AlexNet's response normalisation with AlexNet's constants, which are those of Caffe2's ZFNet-512 too.

Initialisation: the paper sets all weights "to 10^-2" and the biases to 0. Equal weights would never part, so it is read
as AlexNet's N(0, 0.01^2). Not here: the paper's clipping of each filter's RMS to 0.1 in training, which is a matter of
the optimizer.
"""

from typing import ClassVar, Literal

from jaxcnn.models.alexnet import ALEXNET_HEAD, AlexNet, Table

TABLES: dict[str, Table] = {
    "base": ((96, 7, 2, 1), (256, 5, 2, 0), (384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1)),
    "wide": ((96, 7, 2, 1), (256, 5, 2, 0), (512, 3, 1, 1), (1024, 3, 1, 1), (512, 3, 1, 1)),
}


class ZFNet(AlexNet):
    """The convolutional part; fields as of AlexNet, defaults as of the paper.

    [B, 224, 224, 3] -> conv1 [B, 110, 110, 96], conv2 [B, 26, 26, 256], conv3 to conv5 [B, 13, 13, ...], final
    [B, 6, 6, 256 or 512].

    Attributes:
      variant: "base" or "wide".
    """

    variant: Literal["base", "wide"] = "base"  # pyright: ignore[reportIncompatibleVariableOverride]  # other tables
    groups: int = 1
    lrn_after_pool: bool = True
    ceil_mode: bool = True
    bias_init: float = 0.0

    tables: ClassVar[dict[str, Table]] = TABLES


ZFNET_HEAD = ALEXNET_HEAD.clone(bias_init=0.0)
