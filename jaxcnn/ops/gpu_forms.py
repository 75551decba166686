"""The form of a convolution on a GPU, by its class: a table that benchmarks/gpu_forms.py measures.

Only the first row has been measured (docs/speed.md). The others are XLA's own: by the count of bytes no form of ours
moves fewer. Shifted multiply-adds read and write a depthwise convolution's maps as often as cuDNN does, and its
gradient of the weights is a sum for each tap, 9 to 25 passes if XLA does not fuse them.
"""

from collections.abc import Sequence
from typing import Literal

from jaxcnn.ops.space_to_depth import UNIT, is_worth_it

Kind = Literal["few channels, strided", "few channels", "depthwise", "grouped", "pointwise", "dense"]
Form = Literal["xla", "space_to_depth", "taps", "product"]
FORMS: dict[Kind, Form] = {
    "few channels, strided": "space_to_depth",
    "few channels": "xla",
    "depthwise": "xla",
    "grouped": "xla",
    "pointwise": "xla",
    "dense": "xla",
}
POSSIBLE: dict[Kind, tuple[Form, ...]] = {
    "few channels, strided": ("xla", "space_to_depth"),
    "few channels": ("xla", "product"),
    "depthwise": ("xla", "taps"),
    "grouped": ("xla",),
    "pointwise": ("xla", "product"),
    "dense": ("xla",),
}
"""The forms that a kind has, XLA's own first."""


def kind_of(
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
) -> Kind:
    """The class of a convolution with a kernel of this shape, (h, w, C / groups, O)."""
    *size, channels, _ = kernel
    if groups > 1:
        return "depthwise" if channels == 1 else "grouped"
    if tuple(dilation) == (1, 1) and is_worth_it(channels, size, strides, padding):
        return "few channels, strided"
    if channels * 2 <= UNIT:
        return "few channels"
    return "pointwise" if size == [1, 1] and not any(map(any, padding)) else "dense"


def gpu_form(
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
) -> Form:
    """The form that the table has for it.

    Example: gpu_form((7, 7, 3, 64), (2, 2), ((3, 3), (3, 3)), (1, 1), 1)  # "space_to_depth"
    """
    return FORMS[kind_of(kernel, strides, padding, dilation, groups)]
