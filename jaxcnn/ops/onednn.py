"""A convolution that oneDNN computes on a CPU, with all that XLA's own can do: derivatives, vmap, other devices.

A convolution is linear in images and kernel, and so is each of its two gradients: three functions, of which each is the
others' transpose. That makes them one primitive of JAX with a kind, whose derivatives of every order, forward and
backward, are the primitive again. oneDNN (https://github.com/uxlfoundation/oneDNN) is called where a program is
compiled for a CPU; for any other device the same primitive is lowered to XLA's convolution.
"""

import enum
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import core, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxcnn.ops import onednn_library

NHWC = ("NHWC", "HWIO", "NHWC")


class Kind(enum.IntEnum):
    """What is computed from what; onednn.cc has the same numbers."""

    FORWARD = 0  # images, kernel -> result
    IMAGES = 1  # result, kernel -> images
    KERNEL = 2  # images, result -> kernel


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
) -> jax.Array:
    """float32 [B, H, W, C], [h, w, C / groups, O] -> [B, H', W', O], as `jaxcnn.ops.convolution.convolve`."""
    sides = [
        (size + sum(around) - (taps - 1) * apart - 1) // stride + 1
        for size, taps, stride, around, apart in zip(
            images.shape[1:3], kernel.shape[:2], strides, padding, dilation, strict=True
        )
    ]
    return convolution_p.bind(
        images,
        kernel,
        kind=Kind.FORWARD,
        images=images.shape,
        kernel=kernel.shape,
        result=(images.shape[0], *sides, kernel.shape[-1]),
        strides=tuple(strides),
        padding=tuple(map(tuple, padding)),
        dilation=tuple(dilation),
        groups=groups,
    )


def is_usable(images: jax.Array, kernel: jax.Array, padding: Sequence[tuple[int, int]], covered: Sequence[int]) -> bool:
    """Whether oneDNN is at hand, and the faster way for such arrays, of which a kernel covers `covered` pixels.

    That is float32 on one device, where XLA has nothing to divide; a map of three quarters of the kernel's extent at
    least, for on a smaller one a matrix product is faster; and images for half of the cores at least, for each is one
    core's.
    """
    return (
        images.dtype == kernel.dtype == jnp.float32
        and jax.device_count() == 1
        and all(zeros >= 0 for around in padding for zeros in around)
        and all(4 * side >= 3 * extent for side, extent in zip(images.shape[1:3], covered, strict=True))
        and 2 * images.shape[0] >= onednn_library.cores()
        and onednn_library.version() is not None
    )


def computed_by() -> str:
    """Who computes float32 convolutions in this process, for a run's record: "XLA", or "oneDNN" and a version."""
    version = onednn_library.version() if jax.default_backend() == "cpu" and jax.device_count() == 1 else None
    return f"oneDNN {version}" if version else "XLA"


convolution_p = Primitive("onednn_convolution")
"""Parameters: `kind`; the shapes of images, kernel and result without the axes that vmap put in front; the geometry."""


def _shape(kind: Kind, images: Any, kernel: Any, result: Any) -> tuple[int, ...]:
    return {Kind.FORWARD: result, Kind.IMAGES: images, Kind.KERNEL: kernel}[kind]


def _abstract(a: Any, b: Any, *, kind: Kind, images: Any, kernel: Any, result: Any, **_: Any) -> Any:
    shape = _shape(kind, images, kernel, result)
    return core.ShapedArray((*max(a.shape[:-4], b.shape[:-4], key=len), *shape), a.dtype)


@functools.partial(jax.jit, static_argnums=2)
def _run(a: jax.Array, b: jax.Array, parameters: tuple[tuple[str, Any], ...]) -> jax.Array:
    return convolution_p.bind(a, b, **dict(parameters))


def _transpose_first(cotangent: jax.Array, a: ad.UndefinedPrimal, b: jax.Array, *, kind: Kind, **shapes: Any) -> Any:
    to = Kind.FORWARD if kind == Kind.IMAGES else Kind.IMAGES
    given = (b, cotangent) if kind == Kind.KERNEL else (cotangent, b)
    return _summed(convolution_p.bind(*given, kind=to, **shapes), a)


def _transpose_second(cotangent: jax.Array, a: jax.Array, b: ad.UndefinedPrimal, *, kind: Kind, **shapes: Any) -> Any:
    to = Kind.FORWARD if kind == Kind.KERNEL else Kind.KERNEL
    given = (cotangent, a) if kind == Kind.IMAGES else (a, cotangent)
    return _summed(convolution_p.bind(*given, kind=to, **shapes), b)


def _summed(made: jax.Array, operand: ad.UndefinedPrimal) -> jax.Array:
    """Of one array that served all members of a vmap, the sum of what each of them says."""
    return made.sum(tuple(range(made.ndim - operand.aval.ndim)))


def _batch(arrays: Sequence[jax.Array], axes: Sequence[int | None], **parameters: Any) -> tuple[jax.Array, int]:
    """A further axis in front. An array without any such axis stays as it is: it serves all members."""
    size = next(array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)
    moved = [array if axis is None else jnp.moveaxis(array, axis, 0) for array, axis in zip(arrays, axes, strict=True)]
    inner = [array.shape[axis is not None : -4] for array, axis in zip(moved, axes, strict=True)]
    lead = (size, *max(inner, key=len))
    full = []
    for array, axis, within in zip(moved, axes, inner, strict=True):
        if axis is not None:
            array = array.reshape(size, *(1,) * (len(lead) - 1 - len(within)), *array.shape[1:])
        if axis is not None or within:
            array = jnp.broadcast_to(array, (*lead, *array.shape[-4:]))
        full.append(array)
    return convolution_p.bind(*full, **parameters), 0


def _by_xla(a: jax.Array, b: jax.Array, **parameters: Any) -> jax.Array:
    """The same by XLA's own convolution: what other devices run."""
    one = functools.partial(_one_by_xla, **parameters)
    for _ in range(max(a.ndim, b.ndim) - 4):
        one = jax.vmap(one, in_axes=(0 if a.ndim > 4 else None, 0 if b.ndim > 4 else None))
    return one(a, b)


def _one_by_xla(
    a: jax.Array,
    b: jax.Array,
    *,
    kind: Kind,
    images: tuple[int, ...],
    kernel: tuple[int, ...],
    result: tuple[int, ...],
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int,
) -> jax.Array:
    def forward(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            images,
            kernel,
            strides,
            padding,
            rhs_dilation=dilation,
            dimension_numbers=NHWC,
            feature_group_count=groups,
        )

    if kind == Kind.FORWARD:
        return forward(a, b)
    if kind == Kind.IMAGES:
        return jax.linear_transpose(lambda x: forward(x, b), jax.ShapeDtypeStruct(images, a.dtype))(a)[0]
    return jax.linear_transpose(lambda w: forward(a, w), jax.ShapeDtypeStruct(kernel, a.dtype))(b)[0]


def _by_onednn(
    context: mlir.LoweringRuleContext,
    a: Any,
    b: Any,
    *,
    kind: Kind,
    images: Any,
    kernel: Any,
    result: Any,
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Any:
    return jax.ffi.ffi_lowering(onednn_library.TARGET)(
        context,
        a,
        b,
        kind=np.int64(kind),
        groups=np.int64(groups),
        strides=np.array(strides, np.int64),
        dilation=np.array(dilation, np.int64),
        padding=np.array(padding, np.int64).ravel(),
    )


convolution_p.def_abstract_eval(_abstract)
convolution_p.def_impl(lambda a, b, **parameters: _run(a, b, tuple(sorted(parameters.items()))))
ad.defbilinear(convolution_p, _transpose_first, _transpose_second)
batching.primitive_batchers[convolution_p] = _batch
mlir.register_lowering(convolution_p, mlir.lower_fun(_by_xla, multiple_results=False))
mlir.register_lowering(convolution_p, _by_onednn, platform="cpu")
