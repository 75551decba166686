"""Squeeze-and-excitation nets against timm's ports of the authors' nets."""

import os

import jax
import jax.numpy as jnp
import pytest

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from tests.models.parity import check_evaluation, check_training, randomize, timm

SLOW = pytest.mark.skipif(
    "JAXCNN_SLOW_TESTS" not in os.environ, reason="takes long: set JAXCNN_SLOW_TESTS=1 to run it, too"
)
NAMES = ["se_resnet50", "se_resnet101", "se_resnet152", "senet154"]
SHALLOW = (2, 1, 1, 1)


def reference(name, **fields):
    """timm's "legacy" net of random weights, without the dropout that timm puts before every head."""
    net = timm().create_model("legacy_" + name.replace("_", ""), pretrained=False, drop_rate=0.0, **fields)
    return randomize(net)


def last_map(net, x):
    return net.forward_features(x)


@pytest.mark.parametrize("name", [name if name == "se_resnet50" else pytest.param(name, marks=SLOW) for name in NAMES])
def test_equals_timms(name):
    check_evaluation(name, reference(name), [(224, 224), (193, 225)], features=last_map)


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW) for name in NAMES])
def test_trains_as_timms(name):
    check_training(name, reference(name), (97, 113), dropout=0.0)


def test_shallow_senet154_equals_timms():
    """Every kind of block, in a net of five of them."""
    net = reference("senet154", layers=SHALLOW)
    check_evaluation("senet154", net, [(224, 224), (193, 225)], features=last_map, depth=SHALLOW)


@pytest.mark.parametrize("name", ["se_resnet50", "senet154"])
def test_shallow_forms_train_as_timms(name):
    check_training(name, reference(name, layers=SHALLOW), (97, 113), dropout=0.0, depth=SHALLOW)


def test_smallest_input():
    model = create_model("se_resnet50")
    for size in (5, 4):
        images = jnp.zeros((1, size, 9, 3))
        init = lambda images=images: model.init(jax.random.key(0), images, train=False)  # noqa: E731
        if size == 5:
            jax.eval_shape(init)
        else:
            with pytest.raises(UserError, match="needs 5x5"):
                jax.eval_shape(init)
