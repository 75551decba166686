"""Layers that several families share. Images are NHWC; padding is explicit, never "SAME" with a stride."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn.errors import UserError, did_you_mean

Dtype = Literal["float32", "bfloat16"]
Activation = Literal["relu", "tanh", "sigmoid", "scaled_tanh", "silu", "gelu", "identity"]
Init = Literal["lecun_normal", "glorot_uniform", "he_normal", "normal_0.01"]

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    # LeCun et al. 1998, appendix A: f(a) = A tanh(S a) with A = 1.7159 and S = 2/3, so that f(1) = 1.
    "scaled_tanh": lambda x: 1.7159 * jnp.tanh(x * (2 / 3)),
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "identity": lambda x: x,
}

INITIALIZERS: dict[str, Callable[..., jax.Array]] = {
    # LeCun et al. 1998b: variance 1 / fan in.
    "lecun_normal": nn.initializers.lecun_normal(),
    # Glorot & Bengio 2010, equation 16: U(-b, b), b = sqrt(6 / (fan in + fan out)).
    "glorot_uniform": nn.initializers.glorot_uniform(),
    # He et al. 2015, equation 14 (fan out): normal, variance 2 / fan out, as torchvision's VGG and ResNet.
    "he_normal": nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
    # AlexNet, section 5: normal, standard deviation 0.01.
    "normal_0.01": nn.initializers.normal(0.01),
}


def activate(x: jax.Array, name: Activation) -> jax.Array:
    """Applies the activation of this name. Raises UserError for a name that is none."""
    if name not in ACTIVATIONS:
        raise UserError(f"no activation {name!r}{did_you_mean(name, ACTIVATIONS) or ';'} there is {[*ACTIVATIONS]}")
    return ACTIVATIONS[name](x)


def conv(
    width: int,
    kernel: int,
    *,
    name: str,
    dtype: Dtype,
    stride: int = 1,
    padding: int = 0,
    init: Init | Callable[..., jax.Array] = "lecun_normal",
) -> nn.Conv:
    """A square convolution with bias, padded by `padding` zeros on every side; `init` is of its kernel."""
    kernel_init = INITIALIZERS[init] if isinstance(init, str) else init
    window, pad = (kernel, kernel), [(padding, padding)] * 2
    return nn.Conv(width, window, stride, pad, dtype=dtype, kernel_init=kernel_init, name=name)


def batch_norm(*, train: bool, name: str, dtype: Dtype, decay: float = 0.9, epsilon: float = 1e-5) -> nn.BatchNorm:
    """Batch normalisation over (N, H, W) per channel (Ioffe & Szegedy 2015).

    Running statistics are decay * old + (1 - decay) * new, so PyTorch's momentum 0.1 is decay 0.9. The running variance
    is the biased one, as in the paper's training formula; PyTorch keeps the unbiased. Statistics are float32.
    """
    return nn.BatchNorm(use_running_average=not train, momentum=decay, epsilon=epsilon, dtype=dtype, name=name)


def max_pool(x: jax.Array, size: int, *, stride: int) -> jax.Array:
    """Max pooling without padding: floor((H - size) / stride) + 1 rows come out. [B, H, W, C] -> [B, H', W', C]."""
    check_window(x, size, "max pooling")
    return nn.max_pool(x, (size, size), (stride, stride), "VALID")


def avg_pool(x: jax.Array, size: int, *, stride: int) -> jax.Array:
    """Average pooling without padding. [B, H, W, C] -> [B, H', W', C]."""
    check_window(x, size, "average pooling")
    return nn.avg_pool(x, (size, size), (stride, stride), "VALID")


def adaptive_avg_pool(x: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Averages over a grid of bins, [B, H, W, C] -> [B, *grid, C]; the identity where the map has that size already.

    Bin i of n spans rows floor(i H / n) to ceil((i + 1) H / n), which is PyTorch's rule: bins may overlap, and a map
    smaller than the grid is repeated.
    """
    for axis, bins in ((1, grid[0]), (2, grid[1])):
        size = x.shape[axis]
        if size == bins:
            continue
        weights = np.zeros((bins, size), np.float32)
        for i in range(bins):
            first, last = i * size // bins, -(-(i + 1) * size // bins)
            weights[i, first:last] = 1 / (last - first)
        pooled = jnp.tensordot(x.astype(jnp.float32), weights, ((axis,), (1,)), precision="highest")
        x = jnp.moveaxis(pooled, -1, axis).astype(x.dtype)
    return x


def local_response_norm(
    x: jax.Array, *, size: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> jax.Array:
    """AlexNet's response normalisation across channels (Krizhevsky et al. 2012, section 3.3).

    b_i = a_i / (k + alpha * sum over the `size` nearest channels j of a_j^2) ^ beta, with alpha on the sum as in the
    paper; Caffe and PyTorch divide alpha by `size` first. Computed in float32.
    """
    squares = jnp.square(x.astype(jnp.float32))
    half = size // 2
    sums = jax.lax.reduce_window(
        squares, 0.0, jax.lax.add, (1, 1, 1, size), (1, 1, 1, 1), [(0, 0)] * 3 + [(half, size - 1 - half)]
    )
    return (x / (k + alpha * sums) ** beta).astype(x.dtype)


def check_window(x: jax.Array, size: int, what: str) -> None:
    """Raises UserError where a window of this size, without padding, does not fit into the map."""
    if min(x.shape[1:3]) < size:
        raise UserError(
            f"the input is too small for this net: {what} needs {size}x{size}, it is {x.shape[1]}x{x.shape[2]}"
        )
