"""Inception-v3 (Szegedy et al. 2016, sections 3 to 6), in the form of its released code, as torchvision has it.

From the paper: 5x5 convolutions factored into two 3x3 (figure 5), n x n into 1 x n and n x 1 with n = 7 at 17x17
(figure 6), wide filter banks at 8x8 (figure 7), size reduction by parallel convolutions and pooling (figure 10), batch
normalisation everywhere, also in the auxiliary classifier (section 4). Label smoothing (section 7) is the loss's.

Where the released code departs from the paper: 299x299 stem without padding, of five convolutions; the modules at 35x35
keep one 5x5 branch; factored branches have widths of 128 to 192. Where torchvision departs from the released code: the
average poolings count their padding, and dropout is 0.5 (0.2 in the released code). The weights that torchvision
publishes read images normalised with mean 0.5 and standard deviation 0.5.

Initialisation: the released code's, a normal distribution of deviation 0.1 cut off at two deviations; in the auxiliary
classifier 0.01 for the 5x5 convolution and 0.001 for the linear layer. torchvision has the same deviations but cuts at
-2 and 2, that is not at all.
"""

import functools

import jax
from flax import linen as nn

from jaxcnn.models.classifier import Classifier
from jaxcnn.models.heads import GAP
from jaxcnn.models.inception import Branch, Conv, ConvNorm, Inception, Pool
from jaxcnn.models.layers import Activation, Dtype, Init, Norm, adaptive_avg_pool, avg_pool, check_window, max_pool

# The convolutions before the modules, with max pooling (3x3, stride 2) after stage 1 and stage 2.
STEM = {
    "stage1": (
        Conv("Conv2d_1a_3x3", 32, 3, stride=2, valid=True),
        Conv("Conv2d_2a_3x3", 32, 3, valid=True),
        Conv("Conv2d_2b_3x3", 64, 3),
    ),
    "stage2": (Conv("Conv2d_3b_1x1", 80), Conv("Conv2d_4a_3x3", 192, 3, valid=True)),
}


def figure_5(projection: int) -> tuple[Branch, ...]:
    """The module at 35x35."""
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, 5)),
        (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, 3), Conv("branch3x3dbl_3", 96, 3)),
        (Pool("average"), Conv("branch_pool", projection)),
    )


def figure_6(width: int) -> tuple[Branch, ...]:
    """The module at 17x17."""
    return (
        (Conv("branch1x1", 192),),
        (Conv("branch7x7_1", width), Conv("branch7x7_2", width, (1, 7)), Conv("branch7x7_3", 192, (7, 1))),
        (
            Conv("branch7x7dbl_1", width),
            Conv("branch7x7dbl_2", width, (7, 1)),
            Conv("branch7x7dbl_3", width, (1, 7)),
            Conv("branch7x7dbl_4", width, (7, 1)),
            Conv("branch7x7dbl_5", 192, (1, 7)),
        ),
        (Pool("average"), Conv("branch_pool", 192)),
    )


# The module at 8x8.
FIGURE_7: tuple[Branch, ...] = (
    (Conv("branch1x1", 320),),
    (Conv("branch3x3_1", 384), (Conv("branch3x3_2a", 384, (1, 3)), Conv("branch3x3_2b", 384, (3, 1)))),
    (
        Conv("branch3x3dbl_1", 448),
        Conv("branch3x3dbl_2", 384, 3),
        (Conv("branch3x3dbl_3a", 384, (1, 3)), Conv("branch3x3dbl_3b", 384, (3, 1))),
    ),
    (Pool("average"), Conv("branch_pool", 192)),
)

MODULES: dict[str, tuple[Branch, ...]] = {
    "Mixed_5b": figure_5(32),
    "Mixed_5c": figure_5(64),
    "Mixed_5d": figure_5(64),
    "Mixed_6a": (
        (Conv("branch3x3", 384, 3, stride=2, valid=True),),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, 3),
            Conv("branch3x3dbl_3", 96, 3, stride=2, valid=True),
        ),
        (Pool("max", stride=2),),
    ),
    "Mixed_6b": figure_6(128),
    "Mixed_6c": figure_6(160),
    "Mixed_6d": figure_6(160),
    "Mixed_6e": figure_6(192),
    "Mixed_7a": (
        (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, 3, stride=2, valid=True)),
        (
            Conv("branch7x7x3_1", 192),
            Conv("branch7x7x3_2", 192, (1, 7)),
            Conv("branch7x7x3_3", 192, (7, 1)),
            Conv("branch7x7x3_4", 192, 3, stride=2, valid=True),
        ),
        (Pool("max", stride=2),),
    ),
    "Mixed_7b": FIGURE_7,
    "Mixed_7c": FIGURE_7,
}
# Modules that reduce the size, and the stage that ends before each.
REDUCTIONS = {"Mixed_6a": "stage3", "Mixed_7a": "stage4"}


class InceptionV3(nn.Module):
    """The convolutional part: five convolutions, then eleven modules in three stages.

    Attributes:
      norm: after each convolution.
      modules: which of the modules; all by default. Others need `aux` heads that read what is left.
      width: multiplies every width.
      activation: after each convolution and norm.
      kernel_init: of the kernels.
    """

    norm: Norm = "batch"
    modules: tuple[str, ...] = tuple(MODULES)
    width: float = 1.0
    activation: Activation = "relu"
    kernel_init: Init = "truncated_normal_0.1"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """[B, 299, 299, 3] -> stage1 [B, 147, 147, 64], stage2 [B, 71, 71, 192], stage3 [B, 35, 35, 288],
        stage4 [B, 17, 17, 768], stage5 and final [B, 8, 8, 2048]; and every module's map, Mixed_5b to Mixed_7c.
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
        ends = {}
        for stage, steps in STEM.items():
            for step in steps:
                layer = unit(step.width, step.kernel, stride=step.stride, padding=step.padding, name=step.name)
                x = layer(x, train=train)
            ends[stage] = x
            x = max_pool(x, 3, stride=2)
        for name in self.modules:
            if name in REDUCTIONS:
                ends[REDUCTIONS[name]] = x
            x = ends[name] = Inception(MODULES[name], unit, name=name)(x, train=train)
        return ends | {"stage5": x, "final": x}


class InceptionV3AuxiliaryHead(GAP):
    """The auxiliary classifier (section 4): 5x5 average pooling with stride 3, 1x1 and 5x5 convolutions, linear.

    At 17x17 the poolings give 5x5 and 1x1. Maps smaller than 17x17 are pooled to 5x5 adaptively; torchvision refuses
    them.

    Attributes:
      norm, width, activation: as in the backbone.
      kernel_init: of the linear layer.
      conv0_init: of the 1x1 convolution.
      conv1_init: of the 5x5 convolution.
    """

    kernel_init: Init = "truncated_normal_0.001"
    conv0_init: Init = "truncated_normal_0.1"
    conv1_init: Init = "truncated_normal_0.01"
    norm: Norm = "batch"
    width: float = 1.0
    activation: Activation = "relu"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, classes] float32."""
        x = avg_pool(x, 5, stride=3) if min(x.shape[1:3]) >= 17 else adaptive_avg_pool(x, (5, 5))
        unit = functools.partial(
            ConvNorm, multiplier=self.width, norm=self.norm, activation=self.activation, dtype=self.dtype
        )
        x = unit(128, 1, kernel_init=self.conv0_init, name="conv0")(x, train=train)
        x = unit(768, 5, kernel_init=self.conv1_init, name="conv1")(x, train=train)
        return super().__call__(x, train=train)


INCEPTION_V3_HEAD = GAP(classes=1000, dropout=0.5, kernel_init="truncated_normal_0.1")
INCEPTION_V3_AUX = {"Mixed_6e": InceptionV3AuxiliaryHead(classes=1000)}


def torchvision_name(model: Classifier, path: str) -> str:
    """torchvision's name of a layer: "backbone/Mixed_5b/branch1x1/conv" -> "Mixed_5b.branch1x1.conv"; timm's too."""
    part, layer = path.split("/", 1)
    return ("AuxLogits." if part.startswith("aux_") else "") + layer.replace("/", ".")
