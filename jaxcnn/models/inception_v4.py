"""Inception-v4 (Szegedy et al. 2017), figures 3 to 9, with the filter counts of the figures and of Table 1.

Layers are named as in the released code (Conv2d_1a_3x3, Mixed_3a, ...), branches as in timm, by number. Batch
normalisation with epsilon 1e-3 after every convolution. Average poolings do not count their padding, as in the released
code. Dropout keeps 0.8 (figure 9); timm's default is none. The auxiliary classifier of the released code, which the
paper does not show, is left out.

Initialisation: the paper names none; the released code's is used, He's (fan in, normal cut off at two deviations) for
convolutions and Glorot's uniform for the linear layer.
"""

import functools
import re

import jax
from flax import linen as nn

from jaxcnn.models.classifier import Classifier
from jaxcnn.models.heads import GAP
from jaxcnn.models.inception import Branch, Conv, ConvNorm, Inception, Pool
from jaxcnn.models.layers import Activation, Dtype, Init, Norm, check_window

MEAN = Pool("average", count_padding=False)
MAX = Pool("max", stride=2)

# Figure 3: the first three convolutions of the stem.
STEM = (
    Conv("Conv2d_1a_3x3", 32, 3, stride=2, valid=True),
    Conv("Conv2d_2a_3x3", 32, 3, valid=True),
    Conv("Conv2d_2b_3x3", 64, 3),
)
# Figure 4, at 35x35.
INCEPTION_A: tuple[Branch, ...] = (
    (Conv("branch0", 96),),
    (Conv("branch1_0", 64), Conv("branch1_1", 96, 3)),
    (Conv("branch2_0", 64), Conv("branch2_1", 96, 3), Conv("branch2_2", 96, 3)),
    (MEAN, Conv("branch3_1", 96)),
)
# Figure 7 with k, l, m, n = 192, 224, 256, 384 (Table 1), from 35x35 to 17x17.
REDUCTION_A: tuple[Branch, ...] = (
    (Conv("branch0", 384, 3, stride=2, valid=True),),
    (Conv("branch1_0", 192), Conv("branch1_1", 224, 3), Conv("branch1_2", 256, 3, stride=2, valid=True)),
    (MAX,),
)
# Figure 5, at 17x17.
INCEPTION_B: tuple[Branch, ...] = (
    (Conv("branch0", 384),),
    (Conv("branch1_0", 192), Conv("branch1_1", 224, (1, 7)), Conv("branch1_2", 256, (7, 1))),
    (
        Conv("branch2_0", 192),
        Conv("branch2_1", 192, (7, 1)),
        Conv("branch2_2", 224, (1, 7)),
        Conv("branch2_3", 224, (7, 1)),
        Conv("branch2_4", 256, (1, 7)),
    ),
    (MEAN, Conv("branch3_1", 128)),
)
# Figure 8, from 17x17 to 8x8.
REDUCTION_B: tuple[Branch, ...] = (
    (Conv("branch0_0", 192), Conv("branch0_1", 192, 3, stride=2, valid=True)),
    (
        Conv("branch1_0", 256),
        Conv("branch1_1", 256, (1, 7)),
        Conv("branch1_2", 320, (7, 1)),
        Conv("branch1_3", 320, 3, stride=2, valid=True),
    ),
    (MAX,),
)
# Figure 6, at 8x8.
INCEPTION_C: tuple[Branch, ...] = (
    (Conv("branch0", 256),),
    (Conv("branch1_0", 384), (Conv("branch1_1a", 256, (1, 3)), Conv("branch1_1b", 256, (3, 1)))),
    (
        Conv("branch2_0", 384),
        Conv("branch2_1", 448, (3, 1)),
        Conv("branch2_2", 512, (1, 3)),
        (Conv("branch2_3a", 256, (1, 3)), Conv("branch2_3b", 256, (3, 1))),
    ),
    (MEAN, Conv("branch3_1", 256)),
)
# Figure 9: the three forks of the stem (figure 3), then 4 modules A, 7 B and 3 C with the reductions between them.
MODULES: dict[str, tuple[Branch, ...]] = {
    "Mixed_3a": ((MAX,), (Conv("conv", 96, 3, stride=2, valid=True),)),
    "Mixed_4a": (
        (Conv("branch0_0", 64), Conv("branch0_1", 96, 3, valid=True)),
        (
            Conv("branch1_0", 64),
            Conv("branch1_1", 64, (1, 7)),
            Conv("branch1_2", 64, (7, 1)),
            Conv("branch1_3", 96, 3, valid=True),
        ),
    ),
    "Mixed_5a": ((Conv("conv", 192, 3, stride=2, valid=True),), (MAX,)),
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_5e"), INCEPTION_A),
    "Mixed_6a": REDUCTION_A,
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_6f", "Mixed_6g", "Mixed_6h"), INCEPTION_B),
    "Mixed_7a": REDUCTION_B,
    **dict.fromkeys(("Mixed_7b", "Mixed_7c", "Mixed_7d"), INCEPTION_C),
}
# Modules that reduce the size, and the stage that ends before each.
REDUCTIONS = {"Mixed_5a": "stage2", "Mixed_6a": "stage3", "Mixed_7a": "stage4"}


class InceptionV4(nn.Module):
    """The convolutional part.

    Attributes:
      norm: after each convolution.
      modules: which of the modules; all by default.
      width: multiplies every width.
      activation: after each convolution and norm.
      kernel_init: of the kernels.
    """

    norm: Norm = "batch"
    modules: tuple[str, ...] = tuple(MODULES)
    width: float = 1.0
    activation: Activation = "relu"
    kernel_init: Init = "he_fan_in_truncated"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 299, 299, 3] -> stage1 [B, 147, 147, 64], stage2 [B, 71, 71, 192], stage3 [B, 35, 35, 384],
        stage4 [B, 17, 17, 1024], stage5 and final [B, 8, 8, 1536]; and every module's map, Mixed_3a to Mixed_7d.
        """
        check_window(x, 75, "the stack of five halvings without padding")
        unit = functools.partial(
            ConvNorm,
            multiplier=self.width,
            norm=self.norm,
            activation=self.activation,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
        )
        for step in STEM:
            layer = unit(step.width, step.kernel, stride=step.stride, padding=step.padding, name=step.name)
            x = layer(x, train=train)
        ends = {"stage1": x}
        for name in self.modules:
            if name in REDUCTIONS:
                ends[REDUCTIONS[name]] = x
            x = ends[name] = Inception(MODULES[name], unit, name=name)(x, train=train)
        return ends | {"stage5": x, "final": x}


INCEPTION_V4_HEAD = GAP(classes=1000, dropout=0.2, kernel_init="glorot_uniform")


def timm_name(model: Classifier, path: str) -> str:
    """timm's name of a layer: "backbone/Mixed_5b/branch1_0/conv" -> "features.6.branch1.0.conv"."""
    part, layer = path.split("/", 1)
    if part == "head":
        return "last_linear"
    block, *rest = layer.split("/")
    names = [step.name for step in STEM] + [*MODULES]
    if MODULES.get(block) is not INCEPTION_C or rest[0].startswith("branch3"):
        rest[0] = re.sub(r"^(branch\d)_", r"\1.", rest[0])
    return ".".join([f"features.{names.index(block)}", *rest])
