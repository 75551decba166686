"""The arithmetic of convolutional networks, worked through by hand: sizes, parameters, multiply-adds, fields.

A multiply-add is one multiplication and the addition of its result; biases add none.
"""

from collections.abc import Iterable
from math import prod


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """Positions of a window along one side: floor((N - K + 2P) / S) + 1."""
    return (size - kernel + 2 * padding) // stride + 1


def conv_parameters(
    kernel: tuple[int, int], in_channels: int, out_channels: int, *, groups: int = 1, bias: bool = True
) -> int:
    """(F * F * C + 1) * K: a filter over all input channels, and a bias, per output channel."""
    return (prod(kernel) * in_channels // groups + bias) * out_channels


def fc_parameters(inputs: int, outputs: int, *, bias: bool = True) -> int:
    """(N_in + 1) * N_out."""
    return (inputs + bias) * outputs


def flatten_weights(height: int, width: int, channels: int, outputs: int) -> int:
    """Weights of an FC layer that reads a flattened map. Global average pooling to `outputs` channels has 0 instead."""
    return fc_parameters(height * width * channels, outputs, bias=False)


def conv_multiply_adds(
    output: tuple[int, int], kernel: tuple[int, int], in_channels: int, out_channels: int, *, groups: int = 1
) -> int:
    """Output positions times the weights that each of them uses; `output` is (height, width)."""
    return prod(output) * conv_parameters(kernel, in_channels, out_channels, groups=groups, bias=False)


def fc_multiply_adds(inputs: int, outputs: int) -> int:
    """One per weight."""
    return fc_parameters(inputs, outputs, bias=False)


def grow_field(field: float, jump: float, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[float, float]:
    """Receptive field and jump behind a window, along one side.

    R_out = R_in + (K - 1) * jump_in with the kernel's dilated size for K, and jump_out = jump_in * S: the jump is the
    distance in the image between neighbouring positions, the product of the strides so far. It starts at (1, 1).
    """
    return field + (kernel - 1) * dilation * jump, jump * stride


def receptive_fields(windows: Iterable[tuple[int, int]]) -> list[int]:
    """The receptive field behind each (kernel, stride) of a stack of convolutions and poolings."""
    field, jump, fields = 1, 1, []
    for kernel, stride in windows:
        field, jump = grow_field(field, jump, kernel, stride)
        fields.append(field)
    return fields


def batch_norm_shape(shape: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Of the mean and the variance of [N, H, W, C]: over (N, H, W), one per channel."""
    return 1, 1, 1, shape[3]


def layer_norm_shape(shape: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Of the mean and the variance of [N, H, W, C]: over (H, W, C), one per example."""
    return shape[0], 1, 1, 1
