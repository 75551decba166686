"""Receptive fields: where the theoretical one lies, and that the measured one lies within it."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.explain.receptive import receptive_field, seen
from jaxcnn.models import GAP, Classifier, create_model
from jaxcnn.summary.summary import summarize


class Strided(nn.Module):
    """Padding, strides and dilation of every kind; no pooling of 2, in which XLA loses a NaN."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(3, (4, 3), (2, 1), padding=((0, 3), (2, 0)), name="conv1")(x)
        ends = {"stage1": x}
        x = nn.Conv(3, (3, 3), kernel_dilation=2, padding=((2, 2), (1, 3)), name="conv2")(x)
        x = nn.max_pool(jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))), (3, 3), (2, 2))
        return ends | {"final": x[:, 1:, ::2]}


def built(model, shape):
    images = jax.random.normal(jax.random.key(0), (1, *shape))
    return model, jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(images), images[0]


def reached(model, variables, image, endpoint):
    """What each position depends on, by the NaNs that arrive at it: {axis: [pixels, positions]}."""
    apply = jax.jit(lambda x: jnp.isnan(model.apply(variables, x[None], train=False, method="features")[endpoint][0]))
    marks = {}
    for axis in (0, 1):
        lines = [apply(image.at[(slice(None),) * axis + (n,)].set(jnp.nan)) for n in range(image.shape[axis])]
        marks[axis] = np.stack([np.asarray(line).any((1 - axis, 2)) for line in lines])
    return marks


@pytest.mark.parametrize(
    "name, shape, endpoint",
    [
        ("strided", (23, 19, 3), "stage1"),
        ("strided", (23, 19, 3), "final"),
        ("lenet5", (32, 32, 1), "stage2"),
        ("resnet18", (49, 49, 3), "stage3"),
    ],
)
def test_the_theoretical_field_is_what_a_position_depends_on(name, shape, endpoint):
    model = Classifier(Strided(), GAP(classes=3)) if name == "strided" else create_model(name)
    model, variables, image = built(model, shape)
    marks = reached(model, variables, image, endpoint)
    height, width = (marks[axis].shape[1] for axis in (0, 1))
    end = summarize(model, shape).endpoints[endpoint]
    for row, column in itertools.product(range(height), range(width)):
        rows, columns = np.flatnonzero(marks[0][:, row]), np.flatnonzero(marks[1][:, column])
        expected = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert seen(end, (row, column), shape[:2]) == expected, (row, column)


@pytest.mark.parametrize("endpoint", ["stage1", "stage2"])
def test_the_effective_field_lies_within_the_theoretical_one(endpoint):
    model, variables, image = built(create_model("resnet20_cifar"), (40, 44, 3))
    field = receptive_field(model, variables, image, endpoint)
    left, top, right, bottom = field.box
    inside = np.zeros(field.heat.shape, bool)
    inside[top:bottom, left:right] = True
    assert inside.sum() == field.area and not inside.all()
    assert field.heat[inside].max() > 0 and not field.heat[~inside].any()
    assert 0 < field.effective <= field.area


def test_the_gradient_is_that_of_the_position():
    """A net of one convolution: the gradient of its mean over channels is the mean kernel."""
    model = Classifier(Strided(), GAP(classes=3))
    model, variables, image = built(model, (23, 19, 3))
    field = receptive_field(model, variables, image, "stage1", (5, 7))
    assert field.box == (5, 10, 8, 14) and field.size == (4, 3)
    kernel = variables["params"]["backbone"]["conv1"]["kernel"].mean(-1)
    np.testing.assert_allclose(field.heat[10:14, 5:8], np.abs(kernel).sum(-1), rtol=1e-5)


def test_a_position_without_gradient_has_no_effective_field():
    model, variables, image = built(create_model("lenet5"), (32, 32, 1))
    dead = jax.tree.map(jnp.zeros_like, variables)
    assert receptive_field(model, dead, image, "stage2").effective == 0
