"""Batch norm by the statistics of a batch, whose derivative is written down (Ioffe & Szegedy 2015, section 3).

What JAX makes of the forward formula sums over the batch three times on the way back, and keeps the sum of squares and
the square of the mean apart. By the paper's formula two sums are enough, those of the gradients of bias and scale: less
to read for a device, and fewer and smaller kernels to compile (docs/speed.md).
"""

import functools
import math

import jax
from jax import lax


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def normalize_by_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[..., C], [C], [C] -> x normalised for each channel, scaled and shifted [..., C], its mean and its variance [C].

    The variance is E[x^2] - E[x]^2, as Flax has it, and not below 0: where rounding would have it there, it has no
    derivative. All are of the type of `x`, float32 or wider.

    >>> import jax.numpy as jnp
    >>> y, mean, var = normalize_by_batch(jnp.array([[1.0], [3.0]]), jnp.ones(1), jnp.zeros(1), 0.0)
    >>> y.ravel().tolist(), mean.item(), var.item()
    ([-1.0, 1.0], 2.0, 1.0)
    """
    return _normalize(x, scale, bias, epsilon)


@normalize_by_batch.defjvp
def _jvp(
    epsilon: float, primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    x, scale, bias = primals
    dx, dscale, dbias = tangents
    y, mean, var = _normalize(x, scale, bias, epsilon)
    inverse = lax.rsqrt(lax.add(var, _like(var, epsilon)))
    factor, centred = lax.mul(inverse, scale), lax.sub(x, _over(x, mean))
    dmean, covariance = _mean(dx), _mean(lax.mul(dx, centred))
    nothing = _like(var, 0)
    covariance = lax.select(lax.gt(var, nothing), covariance, nothing)
    slope = lax.mul(lax.sub(dscale, lax.mul(lax.mul(factor, inverse), covariance)), inverse)
    offset = lax.sub(dbias, lax.mul(factor, dmean))
    # The vectors are added up before they meet the maps: transposed, each map is summed once for all of them.
    dy = lax.add(lax.add(lax.mul(dx, _over(x, factor)), lax.mul(centred, _over(x, slope))), _over(x, offset))
    return (y, mean, var), (dy, dmean, lax.add(covariance, covariance))


def _normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    # jax.lax throughout: a deep net has a hundred of these, and Python is on the way to the first step.
    mean, square = _mean(x), _mean(lax.square(x))
    var = lax.max(_like(mean, 0), lax.sub(square, lax.square(mean)))
    factor = lax.mul(lax.rsqrt(lax.add(var, _like(var, epsilon))), scale)
    return lax.add(lax.mul(lax.sub(x, _over(x, mean)), _over(x, factor)), _over(x, bias)), mean, var


def _mean(x: jax.Array) -> jax.Array:
    """[..., C] -> [C]."""
    total = lax.reduce_sum(x, tuple(range(x.ndim - 1)))
    return lax.div(total, _like(total, math.prod(x.shape[:-1])))


def _over(x: jax.Array, vector: jax.Array) -> jax.Array:
    """[C] -> the shape of `x`, [..., C]."""
    return lax.broadcast_in_dim(vector, x.shape, (x.ndim - 1,))


def _like(vector: jax.Array, value: float) -> jax.Array:
    return lax.full(vector.shape, value, vector.dtype)
