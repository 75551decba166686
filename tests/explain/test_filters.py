"""Filters, templates and feature maps are the net's own numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import create_model
from jaxcnn.errors import UserError
from jaxcnn.explain.filters import feature_maps, first_filters, templates


def built(name, shape, **fields):
    model, images = create_model(name, **fields), jax.random.normal(jax.random.key(0), (2, *shape))
    return model, jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(images), images


def test_templates_make_the_logits():
    model, variables, images = built("linear", (6, 5, 1), classes=3)
    images_of_weights = templates(model, variables, (6, 5, 1))
    assert images_of_weights.shape == (3, 6, 5, 1)
    logits = np.einsum("bhwc,khwc->bk", images, images_of_weights) + variables["params"]["head"]["fc"]["bias"]
    np.testing.assert_allclose(logits, model.apply(variables, images, train=False), rtol=1e-4, atol=1e-5)


def test_first_filters_are_the_first_kernels():
    model, variables, _ = built("lenet5", (32, 32, 1))
    path, weights = first_filters(model, variables, (32, 32, 1))
    assert path == "backbone/c1" and weights.shape == (6, 5, 5, 1)
    np.testing.assert_array_equal(weights[4, ..., 0], variables["params"]["backbone"]["c1"]["kernel"][..., 0, 4])


def test_the_first_layer_of_an_mlp_has_filters_of_the_images_size():
    model, variables, images = built("mlp", (4, 3, 1), widths=(7,), names=("fc1", "fc2"))
    path, weights = first_filters(model, variables, (4, 3, 1))
    assert path == "head/fc1" and weights.shape == (7, 4, 3, 1)
    hidden = images.reshape(2, -1) @ variables["params"]["head"]["fc1"]["kernel"]
    np.testing.assert_allclose(np.einsum("bhwc,khwc->bk", images, weights), hidden, rtol=1e-4, atol=1e-5)


def test_feature_maps_are_those_of_features():
    model, variables, images = built("lenet5", (32, 32, 1))
    ends = model.apply(variables, images, train=False, method="features")
    np.testing.assert_array_equal(feature_maps(model, variables, images, "stage2"), ends["stage2"])
    with pytest.raises(UserError, match=r"no endpoint 'stge2'; did you mean 'stage2'"):
        feature_maps(model, variables, images, "stge2")


def test_a_net_that_is_not_linear_has_no_templates():
    model, variables, _ = built("lenet5", (32, 32, 1))
    with pytest.raises(UserError, match="only a linear net"):
        templates(model, variables, (32, 32, 1))
    mlp = create_model("mlp", widths=(7,), names=("fc1", "fc2"))
    with pytest.raises(UserError, match="only a linear net"):
        templates(mlp, mlp.init(jax.random.key(0), jnp.zeros((1, 4, 3, 1)), train=False), (4, 3, 1))
