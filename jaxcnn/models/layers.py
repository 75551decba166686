"""Layers that several families share. Images are NHWC; padding is explicit, never "SAME" with a stride."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.ops.batch_norm import normalize_by_batch
from jaxcnn.ops.convolution import convolve
from jaxcnn.ops.window_max import window_max

Dtype = Literal["float32", "bfloat16", "float64"]
"""Of the computation; parameters stay float32. float64 is for checks, and needs jax_enable_x64."""
Activation = Literal["relu", "relu6", "tanh", "sigmoid", "scaled_tanh", "silu", "gelu", "leaky_relu", "identity"]
Init = Literal[
    "lecun_normal",
    "lecun_uniform",
    "glorot_uniform",
    "he_fan_out",
    "he_fan_in",
    "he_fan_in_truncated",
    "torch_uniform",
    "uniform_fan_out",
    "normal_0.01",
    "normal_0.001",
    "truncated_normal_0.1",
    "truncated_normal_0.01",
    "truncated_normal_0.001",
]
Norm = Literal["none", "batch", "frozen_batch", "layer", "group", "lrn", "lrn_caffe"]
Pooling = Literal["max", "average", "overlapping"]
Padding = int | tuple[int, int] | Literal["tf"]

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    # LeCun et al. 1998, appendix A: f(a) = A tanh(S a) with A = 1.7159 and S = 2/3, so that f(1) = 1.
    "scaled_tanh": lambda x: 1.7159 * jnp.tanh(x * (2 / 3)),
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    # Redmon et al. 2016, equation 2: a slope of 0.1 below zero.
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.1),
    "identity": lambda x: x,
}

INITIALIZERS: dict[str, Callable[..., jax.Array]] = {
    # LeCun et al. 1998b: variance 1 / fan in. Flax's and Keras's form: cut off at two deviations of the normal that it
    # is cut from, which is wider by what the cut takes.
    "lecun_normal": nn.initializers.lecun_normal(),
    # Caffe's "xavier": U(-b, b), b = sqrt(3 / fan in), the same variance.
    "lecun_uniform": nn.initializers.lecun_uniform(),
    # Glorot & Bengio 2010, equation 16: U(-b, b), b = sqrt(6 / (fan in + fan out)).
    "glorot_uniform": nn.initializers.glorot_uniform(),
    # He et al. 2015, equation 14 (fan out): normal, variance 2 / fan out, as torchvision's VGG and ResNet.
    "he_fan_out": nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
    # He et al. 2015, equation 10 (fan in): normal, variance 2 / fan in, as torchvision's DenseNet.
    "he_fan_in": nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
    # The same variance cut off like "lecun_normal": "he_normal" in JAX, Flax and Keras, and TF-Slim's default.
    "he_fan_in_truncated": nn.initializers.he_normal(),
    # PyTorch's default for layers that a paper's code leaves alone: U(-b, b), b = 1 / sqrt(fan in).
    "torch_uniform": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
    # EfficientNet's code for its last layer: U(-b, b), b = 1 / sqrt(fan out).
    "uniform_fan_out": nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform"),
    # AlexNet, section 5: normal, standard deviation 0.01.
    "normal_0.01": nn.initializers.normal(0.01),
    # Fast R-CNN, section 2.3, for the offsets of boxes.
    "normal_0.001": nn.initializers.normal(0.001),
    # TensorFlow's Inception-v3: normal, cut off at two standard deviations, which leaves 0.88 of the deviation named.
    "truncated_normal_0.1": nn.initializers.truncated_normal(0.1),
    "truncated_normal_0.01": nn.initializers.truncated_normal(0.01),
    "truncated_normal_0.001": nn.initializers.truncated_normal(0.001),
}


def activate(x: jax.Array, name: Activation) -> jax.Array:
    """Applies the activation of this name. Raises UserError for a name that is none."""
    if name not in ACTIVATIONS:
        raise UserError(f"no activation {name!r}{did_you_mean(name, ACTIVATIONS) or ';'} there is {[*ACTIVATIONS]}")
    return ACTIVATIONS[name](x)


@jax.custom_jvp
def relu_of_sum(x: jax.Array) -> jax.Array:
    """jax.nn.relu, the same in every bit, whose derivative asks where the result is positive and not where x is.

    For a sum of two maps: the result is kept for the layer that reads it, and the sum itself then is not. Behind a
    batch norm jax.nn.relu keeps less: its argument is computed again from the map that the norm's gradient reads too.
    """
    return jax.nn.relu(x)


@relu_of_sum.defjvp
def _relu_of_sum_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    out = relu_of_sum(*primals)
    return out, jnp.where(out > 0, tangents[0], 0)


def conv(
    width: int,
    kernel: int | tuple[int, int],
    *,
    name: str,
    dtype: Dtype,
    stride: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    dilation: int = 1,
    bias: bool = True,
    kernel_init: Init | Callable[..., jax.Array] = "lecun_normal",
    bias_init: float = 0.0,
) -> nn.Conv:
    """A convolution padded by `padding` zeros on every side, (rows, columns) apart, or by TensorFlow's rule ("tf").

    TensorFlow's "SAME" pads so that ceil(H / stride) rows come out, and puts an odd zero below and to the right.
    """
    if padding == "tf":
        around = "SAME"
    else:
        rows, columns = padding if isinstance(padding, tuple) else (padding, padding)
        around = [(rows, rows), (columns, columns)]
    return nn.Conv(
        width,
        kernel if isinstance(kernel, tuple) else (kernel, kernel),
        stride,
        around,
        kernel_dilation=dilation,
        feature_group_count=groups,
        use_bias=bias,
        dtype=dtype,
        kernel_init=INITIALIZERS[kernel_init] if isinstance(kernel_init, str) else kernel_init,
        bias_init=nn.initializers.constant(bias_init),
        conv_general_dilated=convolve,
        name=name,
    )


def apply_norm(
    x: jax.Array,
    kind: Norm,
    *,
    train: bool,
    name: str,
    dtype: Dtype,
    decay: float = 0.9,
    epsilon: float = 1e-5,
    scale_init: Callable[..., jax.Array] = nn.initializers.ones,
) -> jax.Array:
    """Normalises [B, H, W, C] as `kind` says; "none" is the identity.

    "batch": over (N, H, W) per channel (Ioffe & Szegedy 2015). Running statistics are decay * old + (1 - decay) * new,
    so PyTorch's momentum 0.1 is decay 0.9. The running variance is the biased one, as in the paper's training formula;
    PyTorch keeps the unbiased. "frozen_batch": by statistics, scale and bias that training
    does not change. "layer": over (H, W, C) per example (Ba et al. 2016), scale and bias per channel.
    "group": over groups of channels, 32 or the largest divisor of both (Wu & He 2018). "lrn": local response
    normalisation, without parameters, with AlexNet's constants; "lrn_caffe" with those that Caffe's definitions of
    AlexNet and GoogLeNet have: k = 1, and an alpha of 1e-4 that Caffe divides by the size. Statistics are float32.
    """
    common = {"epsilon": epsilon, "dtype": dtype, "scale_init": scale_init, "name": name}
    if kind == "none":
        return x
    if kind == "batch":
        norm = BatchNorm if train else nn.BatchNorm
        return norm(use_running_average=not train, momentum=decay, **common)(x)
    if kind == "frozen_batch":
        return FrozenBatchNorm(epsilon=epsilon, dtype=dtype, name=name)(x)
    if kind == "layer":
        return nn.LayerNorm(reduction_axes=(-3, -2, -1), feature_axes=-1, **common)(x)
    if kind == "group":
        return nn.GroupNorm(num_groups=math.gcd(32, x.shape[-1]), **common)(x)
    if kind == "lrn":
        return local_response_norm(x)
    if kind == "lrn_caffe":
        return local_response_norm(x, k=1.0, alpha=1e-4 / 5)
    raise UserError(f"no normalisation {kind!r}{did_you_mean(kind, get_args(Norm)) or ';'} there is {get_args(Norm)}")


class BatchNorm(nn.BatchNorm):
    """Flax's, for training, with a derivative that is written down (ops/batch_norm.py).

    With a mask, or with other choices than those of `apply_norm`, it is Flax's own.
    """

    @nn.compact
    def __call__(
        self, x: jax.Array, use_running_average: bool | None = None, *, mask: jax.Array | None = None
    ) -> jax.Array:
        """[..., C] -> [..., C]."""
        running = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        choices = (self.axis, self.axis_name, self.use_scale, self.use_bias, self.use_fast_variance)
        plain = choices == (-1, None, True, True, True) and self.force_float32_reductions
        if running or mask is not None or not plain or self.dtype is None:
            return super().__call__(x, use_running_average, mask=mask)
        shape, kind = (x.shape[-1],), jnp.promote_types(self.dtype, jnp.float32)
        statistics = [
            self.variable("batch_stats", name, init, shape, jnp.float32)
            for name, init in (("mean", jnp.zeros), ("var", jnp.ones))
        ]
        scale, bias = (
            self.param(name, init, shape, self.param_dtype).astype(kind)
            for name, init in (("scale", self.scale_init), ("bias", self.bias_init))
        )
        y, *moments = normalize_by_batch(x.astype(kind), scale, bias, self.epsilon)
        if not self.is_initializing():
            for variable, new in zip(statistics, moments, strict=True):
                variable.value = self.momentum * variable.value + (1 - self.momentum) * new
        return y.astype(self.dtype)


class FrozenBatchNorm(nn.Module):
    """Batch norm as an affine map that nothing changes: mean, var, scale and bias are all in "batch_stats".

    What detectors have in a backbone whose statistics come from ImageNet: a batch of two images has none of use
    (torchvision's FrozenBatchNorm2d). They are no parameters: no gradient, no weight decay.

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float = 1e-5
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        shape = (x.shape[-1],)
        zeros, ones = (lambda: jnp.zeros(shape, jnp.float32)), (lambda: jnp.ones(shape, jnp.float32))
        made = {"mean": zeros, "var": ones, "scale": ones, "bias": zeros}
        kind = jnp.promote_types(self.dtype, jnp.float32)
        mean, var, scale, bias = (
            self.variable("batch_stats", name, init).value.astype(kind) for name, init in made.items()
        )
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return (x * factor + (bias - mean * factor)).astype(self.dtype)


def is_local(norm: Norm) -> bool:
    """Whether this is local response normalisation, which papers have after few of the activations."""
    return norm in ("lrn", "lrn_caffe")


def needs_bias(norm: Norm) -> bool:
    """Whether a convolution needs a bias because this norm after it has none."""
    return norm == "none" or is_local(norm)


def drop_path(x: jax.Array, rate: float, *, train: bool) -> jax.Array:
    """Stochastic depth (Huang et al. 2016): in training, each example's branch is dropped with probability `rate`.

    What is kept is divided by 1 - rate (the paper scales at test time instead). Uses the "dropout" random stream.
    """
    if rate == 0:
        return x
    return nn.Dropout(rate, broadcast_dims=(1, 2, 3), deterministic=not train)(x)


class SqueezeExcite(nn.Module):
    """Squeeze and excitation (Hu et al. 2018, section 3): channels times gate(fc2(activation(fc1(their mean)))).

    Attributes:
      width: of the bottleneck; the paper's is C / 16.
    """

    width: int
    activation: Activation = "relu"
    kernel_init: Init = "he_fan_out"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        init = INITIALIZERS[self.kernel_init]
        mean = x.astype(at_least_float32(x)).mean((1, 2)).astype(x.dtype)
        hidden = activate(nn.Dense(self.width, dtype=self.dtype, kernel_init=init, name="fc1")(mean), self.activation)
        gate = jax.nn.sigmoid(nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=init, name="fc2")(hidden))
        return x * gate[:, None, None]


def max_pool(x: jax.Array, size: int, *, stride: int, padding: int = 0, ceil_mode: bool = False) -> jax.Array:
    """Max pooling, [B, H, W, C] -> [B, H', W', C] with H' = floor((H + 2 padding - size) / stride) + 1.

    With `ceil_mode` it is the ceiling, less a last window that would start in the padding: PyTorch's and Caffe's rule,
    by which the only window may be larger than the map.

    Among equal values the gradient goes to the first, row by row, as in PyTorch (ops/window_max.py).
    """
    check_window(x, size - 2 * padding - (stride - 1 if ceil_mode else 0), "max pooling")
    (top, bottom), (left, right) = (_pool_padding(side, size, stride, padding, ceil_mode) for side in x.shape[1:3])
    if top or bottom or left or right:
        x = jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=-jnp.inf)
    return window_max(x, size, stride)


def avg_pool(
    x: jax.Array, size: int, *, stride: int, padding: int = 0, ceil_mode: bool = False, count_padding: bool = True
) -> jax.Array:
    """Average pooling, [B, H, W, C] -> [B, H', W', C], in the sizes of `max_pool`.

    The divisor is the part of the window that lies in the image, or with `count_padding` in the padded image: what
    `ceil_mode` adds is never counted (PyTorch's rule).
    """
    check_window(x, size - 2 * padding - (stride - 1 if ceil_mode else 0), "average pooling")
    if padding == 0 and not ceil_mode:
        return nn.avg_pool(x, (size, size), (stride, stride), "VALID")
    window = [_pool_padding(side, size, stride, padding, ceil_mode) for side in x.shape[1:3]]
    sums = jax.lax.reduce_window(
        x.astype(at_least_float32(x)),
        0.0,
        jax.lax.add,
        (1, size, size, 1),
        (1, stride, stride, 1),
        [(0, 0), *window, (0, 0)],
    )
    counts = []
    for side, out in zip(x.shape[1:3], sums.shape[1:3], strict=True):
        first = np.arange(out) * stride - padding
        low, high = (-padding, side + padding) if count_padding else (0, side)
        counts.append(np.minimum(first + size, high) - np.maximum(first, low))
    return (sums / np.outer(*counts)[None, :, :, None].astype(sums.dtype)).astype(x.dtype)


def pool(x: jax.Array, kind: Pooling, *, ceil_mode: bool = False) -> jax.Array:
    """Pools [B, H, W, C] with stride 2 to half the size.

    "max" and "average": over 2x2. "overlapping": the maximum over 3x3 (Krizhevsky et al. 2012, section 3.4); its size
    is floor((H - 1) / 2), with `ceil_mode` the ceiling.
    """
    if kind == "max":
        return max_pool(x, 2, stride=2)
    if kind == "average":
        return avg_pool(x, 2, stride=2)
    if kind == "overlapping":
        return max_pool(x, 3, stride=2, ceil_mode=ceil_mode)
    raise UserError(f"no pooling {kind!r}{did_you_mean(kind, get_args(Pooling)) or ';'} there is {get_args(Pooling)}")


def pool_input(size: int, kind: Pooling, *, ceil_mode: bool = False) -> int:
    """The smallest input of `pool` that gives an output of this size."""
    if kind == "overlapping":
        return 2 * size if ceil_mode else 2 * size + 1
    return 2 * size


def _pool_padding(side: int, size: int, stride: int, padding: int, ceil_mode: bool) -> tuple[int, int]:
    """Zeros (or minus infinities) before and after one side of a pooling's input."""
    if not ceil_mode:
        return padding, padding
    out = -(-(side + 2 * padding - size) // stride) + 1
    if (out - 1) * stride >= side + padding:
        out -= 1
    return padding, max(padding, (out - 1) * stride + size - side - padding)


def adaptive_avg_pool(x: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Averages over a grid of bins, [B, H, W, C] -> [B, *grid, C]; the identity where the map has that size already.

    Bin i of n spans rows floor(i H / n) to ceil((i + 1) H / n), which is PyTorch's rule: bins may overlap, and a map
    smaller than the grid is repeated.
    """
    for axis, bins in ((1, grid[0]), (2, grid[1])):
        size = x.shape[axis]
        if size == bins:
            continue
        weights = np.zeros((bins, size), at_least_float32(x))
        for i in range(bins):
            first, last = i * size // bins, -(-(i + 1) * size // bins)
            weights[i, first:last] = 1 / (last - first)
        pooled = jnp.tensordot(x.astype(at_least_float32(x)), weights, ((axis,), (1,)), precision="highest")
        x = jnp.moveaxis(pooled, -1, axis).astype(x.dtype)
    return x


def local_response_norm(
    x: jax.Array, *, size: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> jax.Array:
    """AlexNet's response normalisation across channels (Krizhevsky et al. 2012, section 3.3).

    b_i = a_i / (k + alpha * sum over the `size` nearest channels j of a_j^2) ^ beta, with alpha on the sum as in the
    paper; Caffe and PyTorch divide alpha by `size` first. Computed in float32 at least.
    """
    squares = jnp.square(x.astype(at_least_float32(x)))
    half = size // 2
    sums = jax.lax.reduce_window(
        squares, 0.0, jax.lax.add, (1, 1, 1, size), (1, 1, 1, 1), [(0, 0)] * 3 + [(half, size - 1 - half)]
    )
    return (x / (k + alpha * sums) ** beta).astype(x.dtype)


def at_least_float32(x: jax.Array) -> jnp.dtype:
    """The type to take sums over x in."""
    return jnp.promote_types(x.dtype, jnp.float32)


def check_choices(module: nn.Module) -> None:
    """Raises UserError where a field of type Literal holds something else; the message names the nearest choice."""
    for field in dataclasses.fields(module):
        value = getattr(module, field.name, None)
        if isinstance(value, type | np.dtype):
            value = jnp.dtype(value).name  # jnp.bfloat16 is "bfloat16"
        choices = get_args(field.type)
        if get_origin(field.type) is Literal and value not in choices:
            hint = did_you_mean(str(value), map(str, choices)) or ";"
            if value == "he_normal":  # its name here before, for what elsewhere is the other one
                hint = "; write 'he_fan_out' (what it was here) or 'he_fan_in_truncated' (what JAX and Keras call so);"
            raise UserError(f"{type(module).__name__} has no {field.name} {value!r}{hint} there is {[*choices]}")


def check_window(x: jax.Array, size: int, what: str) -> None:
    """Raises UserError where a window of this size, without padding, does not fit into the map."""
    if min(x.shape[1:3]) < size:
        raise UserError(
            f"the input is too small for this net: {what} needs {size}x{size}, it is {x.shape[1]}x{x.shape[2]}"
        )


def is_same_layer(there: tuple[int, ...], here: tuple[int, ...]) -> bool:
    """Whether an array of this shape serves for one of the other: equal, or a dense kernel that is a convolution's.

    A fully connected layer on a flattened [H, W, C] map, [H * W * C, O], is the convolution [H, W, C, O] (Long et al.
    2015, section 3.1); a reshape makes one of the other.
    """
    return there == here or ((len(there), len(here)) == (2, 4) and there == (math.prod(here[:3]), here[3]))
