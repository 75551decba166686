"""The forms of a convolution on a GPU, traced for one and computed here: each is the convolution, with gradients."""

import json
import pathlib
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.gpu_forms import SHAPES as MEASURED
from benchmarks.gpu_forms import best_forms
from jaxcnn.models import create_model
from jaxcnn.ops import gpu_forms
from jaxcnn.ops.convolution import convolve, plain_convolutions
from jaxcnn.ops.gpu_forms import FORMS, POSSIBLE, kind_of
from jaxcnn.ops.platform import traced_for
from tests.compilation import quick
from tests.ops.test_convolution import assert_equal, outcomes, plain

STORED = pathlib.Path(__file__).parents[2] / "docs/results/gpu_forms.json"
NONE = ((0, 0), (0, 0))
# height, width, channels, filters, kernel, stride, padding, groups; the first few have few channels and a stride.
SHAPES = {
    "ResNet's 7x7": (16, 14, 3, 4, (7, 7), (2, 2), ((3, 3), (3, 3)), 1),
    "ResNet's, odd sides": (15, 13, 3, 4, (7, 7), (2, 2), ((3, 3), (3, 3)), 1),
    "EfficientNet's 3x3": (8, 9, 3, 4, (3, 3), (2, 2), "SAME", 1),
    "Inception's 3x3": (9, 8, 3, 4, (3, 3), (2, 2), NONE, 1),
    "AlexNet's 11x11": (23, 19, 3, 4, (11, 11), (4, 4), ((2, 2), (2, 2)), 1),
    "AlexNet's, unpadded": (27, 19, 3, 4, (11, 11), (4, 4), NONE, 1),
    "one channel, strides apart": (9, 10, 1, 4, (5, 3), (3, 2), ((4, 1), (1, 0)), 1),
    "VGG's 3x3": (6, 5, 3, 4, (3, 3), (1, 1), ((1, 1), (1, 1)), 1),
    "depthwise": (7, 6, 6, 6, (3, 3), (2, 2), ((1, 1), (1, 1)), 6),
    "grouped": (5, 5, 8, 8, (3, 3), (1, 1), ((1, 1), (1, 1)), 4),
    "pointwise": (5, 4, 6, 7, (1, 1), (2, 2), NONE, 1),
    "dense": (5, 4, 8, 7, (3, 3), (1, 1), ((1, 1), (1, 1)), 1),
}
STRIDED = list(SHAPES)[:7]


def given(name, dtype: Any = np.float32, seeds=()):
    height, width, channels, filters, kernel, stride, padding, groups = SHAPES[name]
    random = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(random.normal(size=(*seeds, *shape)), dtype)  # noqa: E731

    def form(images, weights):
        with traced_for("gpu"):
            return convolve(images, weights, stride, padding, feature_group_count=groups)

    return form, draw(2, height, width, channels), draw(*kernel, channels // groups, filters)


def convolutions(form, *shapes):
    """The strides of the convolutions that it is made of."""
    jaxpr = jax.make_jaxpr(form)(*shapes)
    return [e.params["window_strides"] for e in jaxpr.eqns if e.primitive.name == "conv_general_dilated"]


@pytest.mark.parametrize("name", STRIDED)
def test_strided_ones_of_few_channels_are_convolutions_of_blocks(name):
    form, images, weights = given(name)
    assert convolutions(form, images, weights) == [(1, 1)]
    assert_equal(outcomes(form, images, weights), outcomes(plain(form), images, weights), 2e-5)


def test_blocks_in_other_precisions_and_for_many_seeds():
    name = "ResNet's, odd sides"
    with jax.enable_x64(True):
        form, images, weights = given(name, np.float64)
        assert_equal(outcomes(form, images, weights), outcomes(plain(form), images, weights), 1e-13)
    form, images, weights = given(name, jnp.bfloat16)
    out = quick(form)(images, weights)
    exact = plain(form)(images.astype(jnp.float32), weights.astype(jnp.float32))
    assert out.dtype == jnp.bfloat16 and np.abs(out.astype(jnp.float32) - exact).max() <= np.abs(exact).max() * 2**-8
    form, images, weights = given(name, seeds=(2,))
    each = np.stack([plain(form)(images[i], weights[i]) for i in range(2)])
    assert_equal([quick(jax.vmap(form))(images, weights)], [each], 1e-5)


@pytest.mark.parametrize("name", [name for name in SHAPES if name not in STRIDED])
def test_every_form_that_the_table_may_take_is_the_convolution(name, monkeypatch):
    form, images, weights = given(name)
    *_, stride, padding, groups = SHAPES[name]
    kind = kind_of(weights.shape, stride, padding, (1, 1), groups)
    assert FORMS[kind] == "xla" and convolutions(form, images, weights) == [stride]
    for other in POSSIBLE[kind][1:]:
        monkeypatch.setitem(gpu_forms.FORMS, kind, other)
        form, images, weights = given(name)  # anew: JAX keeps a function's trace
        assert convolutions(form, images, weights) == []
        assert_equal(outcomes(form, images, weights), outcomes(plain(form), images, weights), 1e-5)


def test_the_table_is_of_forms_that_are_possible():
    assert FORMS.keys() == POSSIBLE.keys() and all(form in POSSIBLE[kind] for kind, form in FORMS.items())


def test_the_table_is_the_measured_one():
    if STORED.exists():
        stored = json.loads(STORED.read_text())
        assert stored["forms"] == best_forms(stored["convolutions"]) == {kind: FORMS[kind] for kind in stored["forms"]}
    else:  # all is XLA's own but what was measured by a patch
        assert {kind for kind, form in FORMS.items() if form != "xla"} == {"few channels, strided"}


def test_a_form_wins_by_its_time_over_all_shapes_of_a_kind():
    parts = ("forward", "gradient of images", "gradient of weights")
    row = lambda kind, **forms: {"kind": kind, "ms": {f: dict(zip(parts, ms, strict=True)) for f, ms in forms.items()}}  # noqa: E731
    rows = {
        "a": row("depthwise", xla=(1, 1, 2), taps=(1, 1, 1)),
        "b": row("depthwise", xla=(1, 1, 1), taps=(1, 1, 1.2)),
        "c": row("pointwise", xla=(1, 1, 1), product=(1, 1, 0.9)),  # not by enough
        "d": row("few channels", xla=(1, 9, 1), product=(1, 1, 1.1)),  # the image has no gradient
    }
    assert best_forms(rows) == {"depthwise": "taps", "pointwise": "xla", "few channels": "xla"}
    assert {
        kind_of((k, k, c // g, f), (s, s), [(p, p)] * 2, (1, 1), g) for _, c, f, k, s, p, g in MEASURED.values()
    } == {kind for kind, forms in POSSIBLE.items() if len(forms) > 1}


def test_other_platforms_and_counting_have_the_convolution_itself():
    _, images, weights = given("ResNet's 7x7")
    form = lambda images, weights: convolve(images, weights, (2, 2), ((3, 3), (3, 3)))  # noqa: E731
    for platform in ("cpu", "tpu"):
        with traced_for(platform):
            assert convolutions(form, images, weights) == [(2, 2)]
    with traced_for("gpu"), plain_convolutions():
        assert convolutions(form, images, weights) == [(2, 2)]


@pytest.mark.parametrize("name, first", [("resnet18", 12), ("efficientnet_b0", 12), ("alexnet", 48), ("vgg11", 3)])
def test_nets_take_them_for_a_gpu_with_the_same_parameters(name, first):
    model = create_model(name, classes=4)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    made = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    with traced_for("gpu"):
        jaxpr = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(made, images)  # takes its parameters
    channels = [
        e.invars[0].aval.shape[-1] for e in equations(jaxpr.jaxpr) if e.primitive.name == "conv_general_dilated"
    ]
    assert channels[0] == first


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def test_fifty_steps_lose_as_with_the_plain_forms():
    """In float64, where what fifty steps make of rounding is far from what a wrong gradient would."""
    model = create_model("resnet18", classes=3, dtype="float64", depth=(1,), width=0.125)
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        images, labels = jnp.asarray(random.normal(size=(4, 20, 20, 3))), jnp.asarray([0, 1, 2, 1])
        variables = jax.tree.map(lambda x: x.astype(jnp.float64), model.init(jax.random.key(0), images, train=False))

        def losses(variables):
            def loss(params, stats):
                out, new = model.apply({"params": params, **stats}, images, train=True, mutable=["batch_stats"])
                return -jnp.take_along_axis(jax.nn.log_softmax(out), labels[:, None], 1).mean(), new

            def step(carry, _):
                params, stats = carry
                (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params, stats)
                return (jax.tree.map(lambda p, g: p - 0.02 * g, params, grads), stats), value

            stats = {"batch_stats": variables["batch_stats"]}
            (params, _), values = jax.lax.scan(step, (variables["params"], stats), None, 50)
            return values, params["backbone"]["conv1"]["kernel"]

        with plain_convolutions(), traced_for("cpu"):
            expected, theirs = quick(losses)(variables)
        jax.clear_caches()
        with traced_for("gpu"):
            found, ours = quick(losses)(variables)
    assert expected[-1] < 0.5 * expected[0]
    assert np.any(ours != theirs)  # else it is the same program; logits are float32, and so are losses
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
