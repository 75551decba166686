"""Convolution in the form that is fastest for its shape on a CPU; on a GPU that of gpu_forms.py; else XLA's own.

XLA's CPU kernels are fast for dense convolutions on maps larger than the kernel. For others they fall back to plain
loops, up to a hundred times as slow as need be. Each form here is equal to the convolution up to rounding, and is made
of operations that differentiate, vectorize and shard like any other. benchmarks/convolutions.py measures them;
docs/speed.md has the table. If oneDNN is at hand, it computes what it can on a CPU (onednn.py).

The choice is no part of what jax.jit keeps a trace by: a function that was traced under `plain_convolutions` stays so.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn.ops import onednn
from jaxcnn.ops.gpu_forms import gpu_form
from jaxcnn.ops.platform import platform
from jaxcnn.ops.space_to_depth import convolve_blocks

NHWC = ("NHWC", "HWIO", "NHWC")
FEW_GROUPS = 8
"""So many are convolved one by one; more are first put together to as many. 32 convolutions a layer compile slowly."""
WIDE = 32
"""Channels from which XLA's dense convolutions are fast: groups that are put together have as many at least."""
_plain = contextvars.ContextVar("plain convolutions", default=False)


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """Traces convolutions as one equation each: to count them, or for a program that another device will run.

    Example: with plain_convolutions(): jaxpr = jax.make_jaxpr(forward)(variables, images)
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    lhs_dilation: Sequence[int] = (1, 1),
    rhs_dilation: Sequence[int] = (1, 1),
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> jax.Array:
    """`lax.conv_general_dilated` for [B, H, W, C] and kernels [h, w, C / groups, O]: what nn.Conv calls.

    The forms on a CPU, by shape:
      depthwise, as many groups as channels: the sum over the kernel's taps of shifted images times weights;
      two to eight groups: a convolution for each, side by side;
      more groups: neighbors are put together, with zeros between them in the kernel, until they are eight at most;
      1x1 without padding: a matrix product over the channels;
      a map smaller than the kernel: a matrix product with the image under each tap, side by side.

    Example: nn.Conv(64, (3, 3), conv_general_dilated=convolve)
    """

    def plain(images: jax.Array, kernel: jax.Array, groups: int = 1) -> jax.Array:
        return lax.conv_general_dilated(
            images,
            kernel,
            strides,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=rhs_dilation,
            dimension_numbers=NHWC,
            feature_group_count=groups,
            precision=precision,
        )

    groups, size, on = feature_group_count, kernel.shape[:2], platform()
    if _plain.get() or on not in ("cpu", "gpu") or tuple(lhs_dilation) != (1, 1) or 0 in images.shape:
        return plain(images, kernel, groups)
    covered = [(k - 1) * d + 1 for k, d in zip(size, rhs_dilation, strict=True)]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(images.shape[1:3], covered, strides, padding)
    if on == "cpu" and onednn.is_usable(images, kernel, padding, covered):
        return onednn.convolve(images, kernel, strides, padding, rhs_dilation, groups)
    if on == "gpu":
        form = gpu_form(kernel.shape, strides, padding, rhs_dilation, groups)
        if form == "space_to_depth":
            return convolve_blocks(images, kernel, strides, padding, precision)
        if form == "taps":
            return _depthwise(images, kernel, strides, padding, rhs_dilation)
        if form == "product":
            return _product(images, kernel, strides, padding, rhs_dilation, precision)
        return plain(images, kernel, groups)
    if groups > 1 and groups == images.shape[-1]:
        return _depthwise(images, kernel, strides, padding, rhs_dilation)
    if groups > FEW_GROUPS:
        fewer = max(n for n in range(1, FEW_GROUPS + 1) if groups % n == 0 and (n == 1 or images.shape[-1] >= n * WIDE))
        groups, kernel = fewer, _block_diagonal(kernel, groups, fewer)
    if groups > 1:
        parts = zip(jnp.split(images, groups, -1), jnp.split(kernel, groups, -1), strict=True)
        return jnp.concatenate([plain(*part) for part in parts], -1)
    is_small = any(side < extent for side, extent in zip(images.shape[1:3], covered, strict=True))
    if (size == (1, 1) and not any(map(any, padding))) or is_small:
        return _product(images, kernel, strides, padding, rhs_dilation, precision)
    return plain(images, kernel)


def _product(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    precision: Any,
) -> jax.Array:
    """[B, H, W, C], [h, w, C, O] -> [B, H', W', O]: a matrix product with the image under each tap, side by side."""
    columns = jnp.concatenate(_taps(images, kernel.shape[:2], strides, padding, dilation), -1)
    return jnp.matmul(columns, kernel.reshape(-1, kernel.shape[-1]), precision=precision)


def _block_diagonal(kernel: jax.Array, groups: int, fewer: int) -> jax.Array:
    """[h, w, C / groups, O] -> [h, w, C / fewer, O]: the same convolution in fewer groups, 0 between what was apart."""
    height, width, channels, filters = kernel.shape
    together = groups // fewer
    parts = kernel.reshape(height, width, 1, channels, fewer, together, filters // groups)
    diagonal = jnp.eye(together, dtype=kernel.dtype)[:, None, None, :, None]
    return (parts * diagonal).reshape(height, width, together * channels, filters)


def _depthwise(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> jax.Array:
    """[B, H, W, C], [h, w, 1, C * multiplier] -> [B, H', W', C * multiplier]; sums are taken in float32 at least."""
    wide = jnp.promote_types(images.dtype, jnp.float32)
    multiplier = kernel.shape[-1] // images.shape[-1]
    repeated = jnp.repeat(images, multiplier, -1) if multiplier > 1 else images
    weights = kernel.astype(wide).reshape(-1, kernel.shape[-1])
    taps = _taps(repeated, kernel.shape[:2], strides, padding, dilation)
    total = taps[0].astype(wide) * weights[0]
    for tap, weight in zip(taps[1:], weights[1:], strict=True):
        total += tap.astype(wide) * weight
    return total.astype(images.dtype)


def _taps(
    images: jax.Array,
    size: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> list[jax.Array]:
    """What lies under each tap of the kernel, row by row: size[0] * size[1] arrays [B, H', W', C]."""
    if any(map(any, padding)):
        images = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    batch, *sides, channels = images.shape
    ends = [side - (k - 1) * d for side, k, d in zip(sides, size, dilation, strict=True)]
    steps = (1, *strides, 1)
    return [  # lax.slice, since a stepped index of jnp is a gather
        lax.slice(images, (0, row, column, 0), (batch, row + ends[0], column + ends[1], channels), steps)
        for row in range(0, size[0] * dilation[0], dilation[0])
        for column in range(0, size[1] * dilation[1], dilation[1])
    ]
