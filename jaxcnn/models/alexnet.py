"""AlexNet (Krizhevsky, Sutskever & Hinton 2012, section 3 and Figure 2) and its one-tower form (Krizhevsky 2014).

"2012" is the paper's net. Its two towers are groups: conv2, conv4 and conv5 see the maps of their own tower only
(`groups=2`), conv3 and the FC layers see both. The order is convolution, ReLU, response normalisation (conv1 and conv2,
over all maps of the layer: N in section 3.3), 3x3 max pooling with stride 2 (conv1, conv2, conv5). Dropout acts on the
outputs of both hidden FC layers. The input is 227x227: the paper writes 224, but the 55x55 maps of conv1 in Figure 2,
by 11x11 windows at stride 4 without padding, need 4 * 54 + 11 = 227.

Initialisation (section 5): N(0, 0.01^2); biases 1 in conv2, conv4, conv5 and the hidden FC layers, else 0.

`groups=1, norm="none"` is the one tower of the same widths that courses draw. "owt" is the one-tower net of "One weird
trick for parallelizing convolutional neural networks" (footnote 1) as torchvision has it: conv1 is padded by 2 for
224x224, and dropout comes before the hidden FC layers, not after them. There conv4 has 256 maps where the footnote says
384, and response normalisation is left out. Initialisation is PyTorch's default ("torch_uniform"), except that biases
start at 0, which PyTorch draws from the same interval as the kernel.

Caffe's bvlc_alexnet is "2012" with `norm="lrn_caffe"`; its bvlc_reference_caffenet also pools before it normalises
(`lrn_after_pool=True`). Not in the papers: the other norms and poolings, and `width`.
"""

from typing import ClassVar, Literal

import jax
from flax import linen as nn

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
    is_local,
    pool,
    pool_input,
)

# Width, kernel, stride and padding of conv1 to conv5.
Table = tuple[tuple[int, int, int, int], ...]
TABLES: dict[str, Table] = {
    "2012": ((96, 11, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1)),
    "owt": ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)),
}
POOLED = (1, 2, 5)
RESPONSE_NORMALISED = (1, 2)
GROUPED = (2, 4, 5)  # these also are the layers whose biases start at 1


class AlexNet(nn.Module):
    """The convolutional part: five convolutions, pooled after the first, the second and the last.

    Attributes:
      variant: "2012" or "owt".
      groups: of conv2, conv4 and conv5; the paper's towers.
      norm: "lrn" and "lrn_caffe" follow the activations of conv1 and conv2; others come between each convolution and
        its activation, with parameters bn1 to bn5.
      lrn_after_pool: response normalisation after the pooling instead of before it.
      pooling: after conv1, conv2 and conv5.
      ceil_mode: sizes of the overlapping pooling are rounded up.
      width: multiplies every width of the table; 1 in the paper.
      activation: after each convolution.
      kernel_init: of the convolutions' kernels.
      bias_init: of the biases of conv2, conv4 and conv5; the others start at 0.
    """

    variant: Literal["2012", "owt"] = "2012"
    groups: int = 2
    norm: Norm = "lrn"
    lrn_after_pool: bool = False
    pooling: Pooling = "overlapping"
    ceil_mode: bool = False
    width: float = 1.0
    activation: Activation = "relu"
    kernel_init: Init = "normal_0.01"
    bias_init: float = 1.0
    dtype: Dtype = "float32"

    tables: ClassVar[dict[str, Table]] = TABLES

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 227, 227, 3] -> conv1 [B, 55, 55, 96], conv2 [B, 27, 27, 256], conv3 to conv5 [B, 13, 13, ...], final.

        "final" is [B, 6, 6, 256]. The others are maps before pooling; response normalisation that precedes the pooling
        is in them.
        """
        check_window(x, self._smallest_input(), "the stack of convolutions and poolings")
        local = is_local(self.norm)
        ends = {}
        for layer, (width, kernel, stride, padding) in enumerate(self.tables[self.variant], 1):
            x = conv(
                self.groups * max(1, round(width * self.width / self.groups)),
                kernel,
                stride=stride,
                padding=padding,
                groups=self.groups if layer in GROUPED else 1,
                name=f"conv{layer}",
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                bias_init=self.bias_init if layer in GROUPED else 0.0,
            )(x)
            if not local:
                x = apply_norm(x, self.norm, train=train, name=f"bn{layer}", dtype=self.dtype)
            x = activate(x, self.activation)
            if local and layer in RESPONSE_NORMALISED and not self.lrn_after_pool:
                x = apply_norm(x, self.norm, train=train, name="lrn", dtype=self.dtype)
            ends[f"conv{layer}"] = x
            if layer in POOLED:
                x = pool(x, self.pooling, ceil_mode=self.ceil_mode)
            if local and layer in RESPONSE_NORMALISED and self.lrn_after_pool:
                x = apply_norm(x, self.norm, train=train, name="lrn", dtype=self.dtype)
        return ends | {"final": x}

    def _smallest_input(self) -> int:
        """Side of the smallest image that gives a last map of one position."""
        size = 1
        for layer, (_, kernel, stride, padding) in reversed([*enumerate(self.tables[self.variant], 1)]):
            if layer in POOLED:
                size = pool_input(size, self.pooling, ceil_mode=self.ceil_mode)
            size = (size - 1) * stride + kernel - 2 * padding
        return size


ALEXNET_HEAD = FC(
    classes=1000,
    widths=(4096, 4096),
    names=("fc6", "fc7", "fc8"),
    grid=(6, 6),
    dropout=0.5,
    kernel_init="normal_0.01",
    bias_init=1.0,
)
OWT_HEAD = ALEXNET_HEAD.clone(dropout_first=True, kernel_init="torch_uniform", bias_init=0.0)

TORCHVISION = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10, "fc6": 1, "fc7": 4, "fc8": 6}


def torchvision_name(model: Classifier, path: str) -> str:
    """torchvision's name of a layer: "backbone/conv2" -> "features.3", "head/fc7" -> "classifier.4"."""
    part, layer = path.split("/")
    return f"{'features' if part == 'backbone' else 'classifier'}.{TORCHVISION.get(layer, layer)}"
