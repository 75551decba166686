"""Batch norm by a batch's statistics: Flax's numbers, and derivatives that are as exact, from two sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.extend.core import jaxprs_in_params

from jaxcnn.models.layers import BatchNorm, apply_norm
from jaxcnn.ops.batch_norm import normalize_by_batch

EPSILON = 1e-5


def flax(x, scale, bias):
    """The same by Flax: statistics that forget all but this batch are those of this batch."""
    norm = nn.BatchNorm(use_running_average=False, momentum=0.0, epsilon=EPSILON, dtype=x.dtype)
    empty = {"mean": jnp.zeros_like(scale), "var": jnp.ones_like(scale)}
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": empty}
    y, updated = norm.apply(variables, x, mutable=["batch_stats"])
    return y, updated["batch_stats"]["mean"], updated["batch_stats"]["var"]


def ours(x, scale, bias):
    return normalize_by_batch(x, scale, bias, EPSILON)


def inputs(kind, shape=(4, 5, 3, 6), offset=3.0):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape) * rng.uniform(0.1, 4, shape[-1]) + offset
    return tuple(jnp.asarray(each, kind) for each in (x, rng.normal(size=shape[-1]), rng.normal(size=shape[-1])))


def directions(of, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), of)


def assert_close(one, other, **tolerances):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerances), one, other)


@pytest.mark.parametrize("shape", [(4, 5, 3, 6), (16, 6), (1, 7, 7, 2)])
def test_values_are_those_of_flax(shape):
    given = inputs("float32", shape, offset=0.5)
    assert_close(jax.jit(ours)(*given), jax.jit(flax)(*given), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 5, 3, 6), (16, 6), (1, 7, 7, 2)])
def test_derivatives_of_first_and_second_order_are_exact_forward_and_backward(shape):
    """Of what a net reads, and of the statistics."""
    with jax.enable_x64(True):
        given = inputs("float64", shape)
        values, back = jax.vjp(ours, *given)
        expected_values, expected_back = jax.vjp(flax, *given)
        cotangents, tangents = directions(values), directions(given, 2)
        close = {"rtol": 1e-9, "atol": 1e-10}
        assert_close(values, expected_values, **close)
        assert_close(back(cotangents), expected_back(cotangents), **close)
        assert_close(jax.jvp(ours, given, tangents), jax.jvp(flax, given, tangents), **close)

        def curved(norm):
            return lambda *given: sum(jnp.sum(jnp.sin(value)) for value in norm(*given))

        twice = [jax.jvp(jax.grad(curved(norm), (0, 1, 2)), given, tangents)[1] for norm in (ours, flax)]
        assert_close(*twice, rtol=1e-8, atol=1e-8)
        assert max(np.abs(each).max() for each in twice[0]) > 1e-3


@pytest.mark.parametrize("offset", [0.0, 3.0, 30.0])
def test_gradients_in_float32_are_no_less_exact_than_those_of_flax(offset):
    def gradients(norm, kind):
        given = inputs(kind, (16, 9, 9, 4), offset)

        def of(*given):
            values, back = jax.vjp(norm, *given)
            return back((directions(values[0]), *map(jnp.zeros_like, values[1:])))

        return jax.jit(of)(*given)

    with jax.enable_x64(True):
        exact = gradients(flax, "float64")
    mine, theirs = (
        [np.abs(a - np.asarray(b)).max() for a, b in zip(gradients(norm, "float32"), exact, strict=True)]
        for norm in (ours, flax)
    )
    for name, one, other, size in zip(("x", "scale", "bias"), mine, theirs, exact, strict=True):
        assert one <= 2 * other + 1e-6 * np.abs(size).max(), name


def full_sums(jaxpr, size):
    """How many sums over arrays of so many numbers there are, with those of what is called."""
    inner = sum(full_sums(each, size) for equation in jaxpr.eqns for each in jaxprs_in_params(equation.params))
    own = (equation for equation in jaxpr.eqns if equation.primitive.name == "reduce_sum")
    return inner + sum(equation.invars[0].aval.size == size for equation in own)


def test_the_batch_is_summed_twice_forward_and_twice_backward():
    given = inputs("float32")

    def sums(norm):
        def gradients(cotangent, *given):
            _, back = jax.vjp(lambda *given: norm(*given)[0], *given)
            return back(cotangent)

        return full_sums(jax.make_jaxpr(gradients)(given[0], *given).jaxpr, given[0].size)

    assert sums(ours) == 4 < sums(flax)


@pytest.mark.parametrize("deviation, offset", [(1.0, 1e4), (0.05, 255.0)])
def test_a_variance_that_rounding_makes_0_has_no_derivative(deviation, offset):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(16, 9, 9, 20)) * deviation + offset, jnp.float32)
    weights = jnp.asarray(rng.normal(size=x.shape), jnp.float32)

    # Not compiled: a program may compute the variance twice, and round it otherwise.
    (_, _, var), back = jax.vjp(ours, x, jnp.ones(20), jnp.zeros(20))
    gradients, *_ = back((weights, jnp.zeros(20), jnp.zeros(20)))
    expected = (weights - weights.mean((0, 1, 2))) / np.sqrt(EPSILON)
    assert (var == 0).any()
    np.testing.assert_allclose(gradients[..., var == 0], expected[..., var == 0], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("shape", [(4, 0), (0,), (0, 3)])
def test_nothing_is_normalised_to_nothing(shape):
    y, mean, var = ours(*(jnp.zeros(each) for each in (shape, shape[-1:], shape[-1:])))
    assert y.shape == shape and mean.shape == var.shape == shape[-1:]


def test_the_layer_has_parameters_and_statistics_of_flax_and_takes_masks():
    x = inputs("float32", offset=0.5)[0]
    made = [
        kind(use_running_average=False, momentum=0.9, epsilon=EPSILON, dtype="float32")
        for kind in (BatchNorm, nn.BatchNorm)
    ]
    variables = [norm.init(jax.random.key(0), x) for norm in made]
    assert_close(*variables)
    assert_close(*(norm.apply(variables[0], x, mutable=["batch_stats"]) for norm in made), rtol=1e-5, atol=1e-5)
    running = [norm.clone(use_running_average=True).apply(variables[0], x) for norm in made]
    np.testing.assert_array_equal(*running)
    mask = jnp.arange(4)[:, None, None, None] < 2
    masked = [norm.apply(variables[0], x, mask=mask, mutable=["batch_stats"]) for norm in made]
    assert_close(*masked)
    assert np.abs(masked[0][0] - made[0].apply(variables[0], x, mutable=["batch_stats"])[0]).max() > 1e-3


@pytest.mark.parametrize(
    "choice", [{"use_scale": False}, {"use_bias": False}, {"axis": 1}, {"use_fast_variance": False}, {"dtype": None}]
)
def test_other_choices_are_those_of_flax(choice):
    x = inputs("bfloat16" if "dtype" in choice else "float32")[0]
    ours, theirs = (
        norm(use_running_average=False, **({"dtype": "float32"} | choice)).init_with_output(jax.random.key(0), x)
        for norm in (BatchNorm, nn.BatchNorm)
    )
    assert_close(ours, theirs)
    assert [a.dtype for a in jax.tree.leaves(ours)] == [a.dtype for a in jax.tree.leaves(theirs)]


def test_statistics_of_bfloat16_are_float32():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return apply_norm(x, "batch", train=True, name="norm", dtype="bfloat16")

    x = inputs("bfloat16")[0]
    y, updated = Net().init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16 and {leaf.dtype for leaf in jax.tree.leaves(updated)} == {jnp.dtype("float32")}
    wide = ours(x.astype(jnp.float32), jnp.ones(6), jnp.zeros(6))[0]
    np.testing.assert_array_equal(np.asarray(y, np.float32), np.asarray(wide.astype(jnp.bfloat16), np.float32))


def test_each_batch_norm_of_a_net_is_captured_once():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return apply_norm(x, "batch", train=train, name="norm", dtype="float32")

    x = inputs("float32")[0]
    variables = Net().init(jax.random.key(0), x, False)
    for train in (False, True):
        _, updated = Net().apply(variables, x, train, capture_intermediates=True, mutable=True)
        assert len(updated["intermediates"]["norm"]["__call__"]) == 1


def test_a_constant_channel_has_finite_values_and_gradients():
    x = jnp.full((4, 3, 3, 2), 7.1)
    values, back = jax.vjp(ours, x, jnp.ones(2), jnp.zeros(2))
    assert all(np.isfinite(each).all() for each in (*values, *back(directions(values))))
