"""The gradient of max pooling, which is ours: against XLA's own without ties, against torch's with them.

In the forms of a CPU and of a GPU.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.data.synthetic import Synthetic
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models import create_model
from jaxcnn.models.layers import max_pool
from jaxcnn.ops.platform import traced_for
from jaxcnn.runs.batch_shapes import abstract_batch
from jaxcnn.runs.initial_state import abstract_state
from jaxcnn.runs.program import train_step
from jaxcnn.train.mesh import make_mesh
from jaxcnn.train.optimizers import SGD, build_optimizer
from tests.compilation import quick
from tests.models.parity import to_torch, torch


@pytest.fixture(autouse=True, params=["cpu", "gpu"])
def platform(request):
    with traced_for(request.param):
        yield request.param


SHAPES = [(2, 2, 0, False), (3, 2, 0, True), (3, 2, 1, False), (3, 1, 1, False), (5, 3, 2, True)]


def value_and_gradient(pool, x):
    """The pooled maps, and the gradient of a sum of them with fixed random weights."""
    weights = np.random.default_rng(1).normal(size=jax.eval_shape(pool, x).shape).astype(x.dtype)

    def both(x, weights):
        y, back = jax.vjp(pool, x)
        return y, back(weights)[0]

    return *quick(both)(x, weights), weights


@pytest.mark.parametrize("size, stride, padding, ceil_mode", SHAPES)
def test_with_ties_the_first_maximum_has_the_gradient_as_in_torch(size, stride, padding, ceil_mode):
    x = np.random.default_rng(0).integers(0, 3, (2, 11, 12, 3)).astype(np.float32)  # after a ReLU most are equal
    kind = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    y, gradient, weights = value_and_gradient(lambda x: max_pool(x, size, **kind), jnp.asarray(x))
    theirs = to_torch(x).requires_grad_()
    pooled = torch.nn.functional.max_pool2d(theirs, size, **kind)
    pooled.backward(to_torch(weights))
    np.testing.assert_array_equal(y, pooled.detach().numpy().transpose(0, 2, 3, 1))
    np.testing.assert_allclose(gradient, theirs.grad.numpy().transpose(0, 2, 3, 1), atol=1e-6)
    assert np.count_nonzero(gradient) > 20


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_ties_it_is_xlas_own_form(dtype):
    x = jnp.asarray(np.random.default_rng(2).permutation(256).reshape(2, 8, 8, 2)).astype(dtype)
    ours = value_and_gradient(lambda x: max_pool(x, 2, stride=2), x)
    theirs = value_and_gradient(lambda x: nn.max_pool(x, (2, 2), (2, 2)), x)
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype == jnp.dtype(dtype)
        np.testing.assert_array_equal(one, other)


def test_a_window_may_have_more_places_than_eight_bits_number():
    x = jnp.asarray(np.random.default_rng(6).permutation(156).reshape(1, 12, 13, 1), jnp.float32)
    ours = value_and_gradient(lambda x: max_pool(x, 12, stride=1), x)
    theirs = value_and_gradient(lambda x: nn.max_pool(x, (12, 12), (1, 1)), x)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-6)


def test_derivatives_of_a_derivative_and_forward_ones_agree():
    x = jnp.asarray(np.random.default_rng(3).normal(size=(1, 4, 4, 1)), jnp.float32)
    energy = lambda x: (max_pool(jnp.tanh(x), 2, stride=2) ** 2).sum()  # noqa: E731
    direction = jnp.ones_like(x)
    forward = quick(lambda x: jax.jvp(jax.grad(energy), (x,), (direction,))[1])(x)
    reverse = quick(jax.grad(lambda x: (jax.grad(energy)(x) * direction).sum()))(x)
    np.testing.assert_allclose(forward, reverse, atol=1e-6)
    assert np.count_nonzero(forward) == 4


def test_what_is_not_a_number_comes_through_training_as_through_evaluation():
    x = jnp.ones((1, 4, 4, 1)).at[0, 0, 1, 0].set(jnp.nan).at[0, 3, 3, 0].set(jnp.inf)
    pool = lambda x: max_pool(x, 2, stride=2)  # noqa: E731
    expected = [[np.nan, 1], [1, np.inf]]
    for y in (pool(x), value_and_gradient(pool, x)[0]):
        np.testing.assert_array_equal(y[0, :, :, 0], expected)


def test_places_in_eight_bits_are_all_that_is_kept():
    x = jnp.asarray(np.random.default_rng(4).normal(size=(2, 8, 8, 3)), jnp.bfloat16)
    kept = quick(lambda x: jax.vjp(lambda x: max_pool(x, 3, stride=2), x)[1])(x)
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(kept)] == [((2, 3, 3, 3), jnp.int8)]


def test_the_gradient_adds_up_in_float32():
    x = jnp.asarray(np.arange(9).reshape(1, 3, 3, 1) == 4, jnp.bfloat16)  # one maximum in four windows
    given = jnp.asarray([256, 1, 1, 0], jnp.bfloat16).reshape(1, 2, 2, 1)  # 256 + 1 is 256 in bfloat16, 258 is 258
    gradient = quick(lambda x: jax.vjp(lambda x: max_pool(x, 2, stride=1), x)[1](given)[0])(x)
    assert gradient[0, 1, 1, 0] == 258 and np.count_nonzero(gradient) == 1


def test_seeds_are_pooled_as_each_alone():
    x = jnp.asarray(np.random.default_rng(5).integers(0, 3, (2, 3, 7, 6, 2)), jnp.float32)
    gradient = jax.grad(lambda x: jnp.sum(max_pool(x, 3, stride=2) ** 2))
    each = quick(gradient)
    np.testing.assert_array_equal(quick(jax.vmap(gradient))(x), np.stack([each(one) for one in x]))


@pytest.mark.parametrize("name", ["alexnet", "vgg11_bn", "resnet18", "googlenet_bn"])
def test_no_train_step_for_a_gpu_needs_select_and_scatter(name, platform):
    """XLA refuses to compile that one for a GPU when asked for deterministic operations."""
    if platform == "cpu":
        return
    shape = (96, 96, 3)
    made = Experiment(
        create_model(name, classes=4), Data(shape, source=Synthetic(shape), batch_size=8), optimizer=SGD(momentum=0.9)
    )
    mesh = make_mesh(made.parallel)
    rate = lambda step: jnp.float32(0.1)  # noqa: E731
    step = train_step(made, build_optimizer(made.optimizer, rate, None), rate, log_every=1)
    state, batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),  # of no device: this one is no GPU
        (abstract_state(made, mesh), abstract_batch(made, mesh, 8, evaluated=False)),
    )
    text = jax.jit(step).trace(state, {}, batch).lower(lowering_platforms=("cuda",)).as_text()
    assert "convolution" in text and "select_and_scatter" not in text
