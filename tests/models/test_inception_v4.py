"""Inception-v4 against timm's, with random weights."""

import jax
import jax.numpy as jnp
import pytest

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from tests.models.parity import check_evaluation, check_training, randomize, timm
from tests.slow import slow


def test_smallest_input_is_75():
    model = create_model("inception_v4", width=0.125)

    def shapes(*size):
        images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
        return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0], images)

    assert shapes(75, 91).shape == (2, 1000)
    with pytest.raises(UserError, match="needs 75x75"):
        shapes(91, 74)


def theirs():
    return randomize(timm().create_model("inception_v4", pretrained=False))


def test_evaluation_equals_timms():
    check_evaluation("inception_v4", theirs(), [(299, 299)], features=lambda net, images: net.forward_features(images))


@slow
def test_training_equals_timms():
    check_training("inception_v4", theirs(), (107, 123), dropout=0.0)
