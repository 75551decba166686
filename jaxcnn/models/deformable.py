"""Deformable convolution: Dai et al. 2017 (v1), and modulated, Zhu et al. 2019 (v2).

Equation 2 of v1 and equation 1 of v2, for every kernel point k with its position p_k in the grid:

    y(p) = sum_k  w_k * x(p + p_k + offset_k(p)) * modulation_k(p)         (v1: the modulation is 1)

x between pixels is bilinear (v1, equations 3 and 4) and zero outside the image: pixel centres are at whole numbers, and
a point less than one pixel outside still has its share of the border pixel. So do v2's released code, torchvision and
ONNX's DeformConv. v1's released code clamped the last pixel's share instead and cut at the image's edge: not done here.

Offsets are counted in input pixels, (dy, dx) for every kernel point, row by row. Where they are whole numbers, as the
zeros at the start are, x has a kink: the gradient is that of the pixel below and to the right, as in the papers' code.

ResNets with it: `resnet50_dcn` has v1 in the 3x3 convolutions of the last stage (v1 section 2.3), `resnet50_dcnv2` has
v2 in those of stages 3 to 5 (v2 section 3.1). Departures: they are classifiers, so that the last stage keeps its stride
of 2 where the papers' detectors have 1 with dilation 2; the stride is in the (deformable) 3x3 as in resnet50, whose
layers have the same paths here (so that a run starts from its weights with `--init-from.exclude '*/conv_offset/*'`);
one offset group. Initialisation: as resnet50, He's, with offsets of zero.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.models.layers import INITIALIZERS, Dtype, Init, conv, needs_bias
from jaxcnn.models.resnet import Block, ResNet


class DeformConv(nn.Module):
    """A convolution whose sampling points are moved by offsets that a second convolution makes of the same input.

    That one, `conv_offset`, has the kernel size, stride, padding and dilation of the first, a bias, and starts at zero
    (v1 section 2.3, v2 section 3.2): training starts from the plain convolution. Its channels are (dy, dx) of every
    kernel point, then for v2 the modulations before their sigmoid, each for every offset group: 18 or 27 for one group
    of a 3x3. The modulation starts at 0.5, so that v2 starts from half the plain convolution (without its bias), which
    a batch norm undoes when it sees batches, but not when it evaluates with another net's statistics.

    The learning rate of `conv_offset` belongs to the training: v1 uses that of the other layers, v2 a tenth of it.

    Attributes:
      width: output channels.
      kernel: its height and width.
      padding: zeros on every side.
      modulated: v2.
      offset_groups: groups of input channels with their own offsets; the papers' text has 1, v1's released code 4.
      kernel_init: of the kernel; biases start at 0.
    """

    width: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    modulated: bool = False
    offset_groups: int = 1
    bias: bool = True
    kernel_init: Init = "lecun_normal"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', width], H' as in a plain convolution."""
        channels = x.shape[-1]
        shape = (self.kernel, self.kernel, channels, self.width)
        kernel = self.param("kernel", INITIALIZERS[self.kernel_init], shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,)) if self.bias else None
        points = self.offset_groups * self.kernel**2
        out = conv(
            (3 if self.modulated else 2) * points,
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            kernel_init=nn.initializers.zeros,
            name="conv_offset",
            dtype=self.dtype,
        )(x)
        y = deform_conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            out[..., : 2 * points],
            jax.nn.sigmoid(out[..., 2 * points :]) if self.modulated else None,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        return y if bias is None else y + bias.astype(self.dtype)


class DeformableBlock(Block):
    """A residual block whose 3x3 convolutions are deformable; fields as those of DeformConv."""

    modulated: bool = False
    offset_groups: int = 1

    def conv3x3(self, width: int, *, stride: int, name: str) -> nn.Module:
        """Every 3x3 convolution of F is made here."""
        if self.groups != 1:
            raise UserError(f"groups is {self.groups}; a deformable convolution has no groups")
        return DeformConv(
            width,
            stride=stride,
            padding=1,
            modulated=self.modulated,
            offset_groups=self.offset_groups,
            bias=needs_bias(self.norm),
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name=name,
        )


class DeformableResNet(ResNet):
    """A ResNet with deformable 3x3 convolutions; its other layers and their paths are those of ResNet.

    Attributes:
      deformable: the stages that have them, by the number of their endpoint: 5 is the last of an ImageNet net's.
      modulated: v2.
      offset_groups: groups of channels with their own offsets.
    """

    deformable: tuple[int, ...] = (5,)
    modulated: bool = False
    offset_groups: int = 1

    def make_block(self, stage: int, number: int, kind: type[Block] = Block, **fields) -> Block:
        """The block layer{stage}_{number}, deformable where its endpoint stage{stage + 1} is named."""
        if not set(self.deformable) <= {*range(2, len(self.depth) + 2)}:
            raise UserError(f"deformable is {self.deformable}; the stages are 2 to {len(self.depth) + 1}")
        if stage + 1 in self.deformable:
            kind = DeformableBlock
            fields |= {"modulated": self.modulated, "offset_groups": self.offset_groups}
        return super().make_block(stage, number, kind, **fields)


def deform_conv(
    x: jax.Array,
    kernel: jax.Array,
    offsets: jax.Array,
    modulation: jax.Array | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> jax.Array:
    """The deformable convolution itself, in the type of `x`; positions and sums are at least float32.

    One kernel point at a time: four gathers and a matrix product, and the backward pass gathers again. Memory: inputs,
    outputs and, whatever the kernel size, some 3 float32 maps [B, H', W', C] forward and 12 backward (as XLA counts
    for a CPU); the papers' code holds kh * kw maps. Time: that of the convolution and of 4 * kh * kw gathers.

    Args:
      x: [B, H, W, C].
      kernel: [kh, kw, C, O].
      offsets: [B, H', W', G * kh * kw * 2], (dy, dx) fastest; G groups of C / G channels.
      modulation: [B, H', W', G * kh * kw], multiplies the samples.

    Returns:
      [B, H', W', O].

    Raises:
      UserError: the shapes do not fit together.
    """
    (batch, _, _, channels), (rows, columns, _, width) = x.shape, kernel.shape
    points = rows * columns
    out = [
        (side + 2 * padding - dilation * (size - 1) - 1) // stride + 1
        for side, size in zip(x.shape[1:3], (rows, columns), strict=True)
    ]
    groups = offsets.shape[-1] // (2 * points)
    wanted = (batch, *out, max(groups, 1) * points * 2)
    if min(out) < 1 or offsets.shape != wanted or kernel.shape[2] != channels or channels % max(groups, 1):
        raise UserError(
            f"deformable convolution of {x.shape} by {kernel.shape}: the offsets are {offsets.shape}, not {wanted}, "
            f"or the channels do not divide into {groups} groups"
        )
    if modulation is not None and modulation.shape != (*wanted[:3], groups * points):
        raise UserError(
            f"deformable convolution: the modulation is {modulation.shape}, not {(*wanted[:3], groups * points)}"
        )
    wide = jnp.promote_types(x.dtype, jnp.float32)
    # Kernel points first, to scan over them; places as one axis P.
    steps = {
        "kernel": kernel.reshape(points, channels, width),
        "offsets": offsets.reshape(batch, -1, groups, points, 2).transpose(3, 0, 1, 2, 4).astype(wide),
        "tap": jnp.stack(jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij"), -1).reshape(-1, 2),
    }
    if modulation is not None:
        steps["modulation"] = modulation.reshape(batch, -1, groups, points).transpose(3, 0, 1, 2).astype(wide)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(out[0]), jnp.arange(out[1]), indexing="ij"), -1).reshape(-1, 1, 2)
    corner = grid * stride - padding

    @jax.checkpoint
    def product(x: jax.Array, step: dict[str, jax.Array]) -> jax.Array:
        positions = corner + step["tap"] * dilation + step["offsets"]  # [B, P, G, 2]
        samples = bilinear(x, positions)
        if "modulation" in step:
            samples = samples * step["modulation"][..., None]
        samples = samples.reshape(batch, -1, channels).astype(x.dtype)
        return jnp.dot(samples, step["kernel"], preferred_element_type=wide)

    start = jnp.zeros((batch, out[0] * out[1], width), wide)
    y, _ = jax.lax.scan(lambda y, step: (y + product(x, step), None), start, steps)
    return y.reshape(batch, *out, width).astype(x.dtype)


def bilinear(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Values of [B, H, W, C] at `positions` [B, P, G, 2], (row, column), bilinear and zero outside.

    Returns:
      [B, P, G, C / G] in the type of `positions`: channel group g at its own positions.
    """
    batch, height, width, channels = x.shape
    groups = positions.shape[2]
    pixels = x.reshape(batch, height * width, groups, channels // groups)
    low = jnp.floor(positions)
    part = positions - low
    # A position far outside must not overflow the integer: from -2 and from H on, both its pixels are outside.
    row = jnp.clip(low[..., 0], -2, height).astype(jnp.int32)
    column = jnp.clip(low[..., 1], -2, width).astype(jnp.int32)

    # One corner after the other, its pixels gathered again in the backward pass: half the memory of all four at once.
    @jax.checkpoint
    def share_of(pixels: jax.Array, part: jax.Array, corner: jax.Array) -> jax.Array:
        i, j = row + corner[0], column + corner[1]
        inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
        values = jnp.take_along_axis(pixels, jnp.where(inside, i * width + j, 0)[..., None], axis=1)
        vertical, horizontal = jnp.moveaxis(jnp.where(corner == 1, part, 1 - part), -1, 0)
        return values * jnp.where(inside, vertical * horizontal, 0)[..., None]

    start = jnp.zeros((*positions.shape[:3], channels // groups), positions.dtype)
    corners = jnp.asarray([(0, 0), (0, 1), (1, 0), (1, 1)])
    return jax.lax.scan(lambda sums, corner: (sums + share_of(pixels, part, corner), None), start, corners)[0]
