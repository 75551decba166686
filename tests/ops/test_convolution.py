"""Every form of a convolution on a CPU is the convolution, with both gradients, whatever it is traced in."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.models.layers import conv
from jaxcnn.ops.convolution import convolve, plain_convolutions
from tests.compilation import quick
from tests.tiny_runs import finish

# height, width, channels, filters, kernel, stride, padding, groups, dilation: one of each form and its neighbours.
SHAPES = {
    "pointwise": (5, 4, 6, 7, (1, 1), (1, 1), ((0, 0), (0, 0)), 1, (1, 1)),
    "pointwise, strided": (5, 4, 6, 7, (1, 1), (2, 2), ((0, 0), (0, 0)), 1, (1, 1)),
    "pointwise, padded": (5, 4, 6, 7, (1, 1), (2, 2), ((1, 1), (0, 2)), 1, (1, 1)),
    "depthwise": (7, 6, 6, 6, (3, 3), (1, 1), ((1, 1), (1, 1)), 6, (1, 1)),
    "depthwise, strided": (8, 7, 6, 6, (5, 3), (2, 1), ((2, 1), (1, 0)), 6, (1, 1)),
    "depthwise, dilated": (8, 7, 6, 6, (3, 3), (1, 2), ((2, 2), (2, 2)), 6, (2, 2)),
    "depthwise, two filters each": (6, 6, 4, 8, (3, 3), (2, 2), "SAME", 4, (1, 1)),
    "depthwise, one tap": (4, 4, 3, 3, (1, 1), (1, 1), ((0, 0), (0, 0)), 3, (1, 1)),
    "groups": (6, 7, 8, 4, (3, 3), (2, 1), ((1, 1), (0, 1)), 4, (1, 1)),
    "groups, pointwise": (3, 3, 8, 6, (1, 1), (1, 1), ((0, 0), (0, 0)), 2, (1, 1)),
    "many groups": (4, 4, 18, 9, (3, 3), (1, 1), ((1, 1), (1, 1)), 9, (1, 1)),
    "many groups, strided": (5, 6, 64, 16, (3, 1), (2, 1), ((1, 1), (0, 0)), 16, (1, 1)),
    "many groups, wide": (3, 3, 256, 16, (1, 3), (1, 1), ((0, 0), (1, 1)), 16, (1, 1)),
    "small": (2, 2, 5, 4, (3, 3), (1, 1), ((1, 1), (1, 1)), 1, (1, 1)),
    "small, one side": (2, 9, 5, 4, (3, 3), (1, 2), ((1, 1), (0, 0)), 1, (1, 1)),
    "small, dilated": (4, 4, 5, 4, (3, 3), (1, 1), ((2, 2), (2, 2)), 1, (2, 2)),
    "small, tf": (1, 1, 5, 4, (5, 5), (2, 2), "SAME", 1, (1, 1)),
    "plain": (6, 6, 3, 4, (3, 3), (2, 2), "SAME", 1, (1, 1)),
    "plain, large kernel": (8, 9, 3, 4, (7, 5), (2, 1), ((3, 3), (2, 2)), 1, (1, 1)),
    "plain, dilated": (6, 7, 3, 4, (3, 3), (1, 1), ((2, 2), (2, 2)), 1, (2, 2)),
    "one channel": (6, 6, 1, 4, (3, 3), (1, 1), ((1, 1), (1, 1)), 1, (1, 1)),
}
# Of the forms that have any; the others are products and sums.
CONVOLUTIONS = {
    **dict.fromkeys(("plain", "plain, large kernel", "plain, dilated", "one channel", "pointwise, padded"), 1),
    **{"groups": 4, "groups, pointwise": 2, "many groups": 1, "many groups, strided": 2, "many groups, wide": 8},
}
SPREAD = ("pointwise", "depthwise, strided", "groups", "many groups, strided", "small", "plain")
"""Of each form one, on eight devices."""


def given(name, dtype: Any = np.float32, seeds=(), batch=3):
    height, width, channels, filters, kernel, stride, padding, groups, dilation = SHAPES[name]
    random = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(random.normal(size=(*seeds, *shape)), dtype)  # noqa: E731

    def form(images, weights):
        return convolve(images, weights, stride, padding, rhs_dilation=dilation, feature_group_count=groups)

    return form, draw(batch, height, width, channels), draw(*kernel, channels // groups, filters)


def outcomes(form, images, weights):
    """The convolution, its derivative along a direction, and the gradients for images and kernel."""

    def all_of(images, weights):
        out, derivative = jax.jvp(form, (images, weights), (jnp.sin(images), jnp.cos(weights)))
        gradients = jax.grad(lambda *of: jnp.sum(jnp.sin(form(*of)).astype(jnp.float32)), (0, 1))(images, weights)
        return out, derivative, *gradients

    return [np.asarray(x, np.float64) for x in quick(all_of)(images, weights)]


def plain(form):
    def traced(*arguments):
        with plain_convolutions():
            return form(*arguments)

    return traced


def assert_equal(ours, theirs, tolerance):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and np.abs(a - b).max() <= tolerance * max(1, np.abs(b).max())


@pytest.mark.parametrize("name", SHAPES)
def test_forms_are_the_convolution_with_both_gradients(name):
    form, images, weights = given(name)
    program = str(jax.make_jaxpr(form)(images, weights))
    assert program.count("conv_general_dilated[") == CONVOLUTIONS.get(name, 0)
    assert program.count("feature_group_count=1\n") == CONVOLUTIONS.get(name, 0)  # none of them has groups
    assert str(jax.make_jaxpr(plain(form))(images, weights)).count("conv_general_dilated[") == 1
    assert_equal(outcomes(form, images, weights), outcomes(plain(form), images, weights), 1e-5)


@pytest.mark.parametrize("name", ("pointwise", "depthwise, strided", "groups", "many groups, strided", "small"))
def test_forms_in_other_precisions_and_for_many_seeds(name):
    with jax.enable_x64(True):
        form, images, weights = given(name, np.float64)
        assert_equal(outcomes(form, images, weights), outcomes(plain(form), images, weights), 1e-13)
    form, images, weights = given(name, jnp.bfloat16)
    assert form(images, weights).dtype == jnp.bfloat16
    exact = plain(form)(images.astype(jnp.float32), weights.astype(jnp.float32))
    error = lambda out: np.abs(np.asarray(out, np.float32) - exact).max()  # noqa: E731
    # As near as XLA's own, or one rounding of the result to bfloat16, whose numbers have eight bits.
    assert error(form(images, weights)) <= max(error(plain(form)(images, weights)), np.abs(exact).max() * 2**-8)
    form, images, weights = given(name, seeds=(2,))
    each = [outcomes(plain(form), images[i], weights[i]) for i in range(2)]
    assert_equal(outcomes(jax.vmap(form), images, weights)[:1], [np.stack([e[0] for e in each])], 1e-5)


def test_forms_are_the_same_for_a_batch_on_eight_devices(tmp_path):
    file = tmp_path / "found.npz"
    finish(file, module="tests.ops.convolutions_on_devices", devices=8, optimized=False)
    found = np.load(file)
    for name in SPREAD:
        form, images, weights = given(name, batch=8)
        exact = outcomes(plain(form), images, weights)
        assert_equal([found[f"{name} {number}"] for number in range(len(exact))], exact, 1e-5)


def test_layers_use_the_forms_and_other_devices_do_not(monkeypatch):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, images):
            return conv(6, 3, groups=6, padding=1, name="conv", dtype="float32")(images)

    images = jnp.ones((1, 5, 5, 6))
    variables = Net().init(jax.random.key(0), images)
    program = lambda: str(jax.make_jaxpr(Net().apply)(variables, images))  # noqa: E731
    assert "conv_general_dilated[" not in program()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert program().count("conv_general_dilated[") == 1
