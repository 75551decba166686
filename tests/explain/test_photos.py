"""Grad-CAM of a trained net on real photos: EfficientNet-Lite0 lights the cat, the cup and the flower."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data import imagenet
from jaxcnn.data.transforms import CenterCrop, Resize
from jaxcnn.explain.cam import gradcam, upsample
from jaxcnn.models import create_model
from jaxcnn.runs.import_weights import preparation

# Drawn by hand into the prepared photos, 224x224: (left, top, right, bottom).
CAT = (0, 0, 210, 224)
CUP = (30, 0, 190, 190)
FLOWER = (22, 34, 188, 200)


@pytest.fixture(scope="module")
def photos():
    pytest.importorskip("skimage", reason="scikit-image is not installed (pip install -e '.[test]'): not run")
    import skimage.data
    import sklearn.datasets

    prepared = preparation("efficientnet_lite0")
    images = (skimage.data.chelsea(), skimage.data.coffee(), sklearn.datasets.load_sample_image("flower.jpg"))
    resize, crop = Resize(prepared.resize, prepared.method), CenterCrop(prepared.crop)
    return [crop(resize(image, None), None) for image in images]


@pytest.fixture(scope="module")
def explain():
    """(image uint8 [H, W, 3], WordNet's word) -> the map at the image's size [H, W] and the class's probability."""
    from tests.models import parity

    file, *_ = parity.trained_lite0()
    model, normalize = create_model("efficientnet_lite0"), preparation("efficientnet_lite0").normalize
    variables = jax.tree.map(jnp.asarray, parity.from_torch("efficientnet_lite0", file))
    labels = {words.split(", ")[0]: label for label, words in enumerate(imagenet.names().values())}

    @jax.jit
    def both(variables, images, labels):
        logits = model.apply(variables, images, train=False)
        maps = upsample(gradcam(model, variables, images, labels), images.shape[1:3])
        return maps[0], jax.nn.softmax(logits)[0, labels[0]]

    return lambda image, word: both(variables, normalize(jnp.asarray(image)[None]), jnp.array([labels[word]]))


def assert_lit(heat, box):
    """The peak lies in the box, and outside of it the map is at most two thirds as strong as on average."""
    left, top, right, bottom = box
    row, column = np.unravel_index(np.argmax(heat), heat.shape)
    assert top <= row < bottom and left <= column < right
    inside = np.zeros(heat.shape, bool)
    inside[top:bottom, left:right] = True
    assert heat[~inside].mean() < 2 / 3 * heat.mean(), (heat[~inside].mean(), heat.mean())


def test_each_photo_is_lit_where_its_object_is(photos, explain):
    for image, word, box, least in zip(
        photos, ("tiger cat", "espresso", "daisy"), (CAT, CUP, FLOWER), (0.2, 0.8, 0.2), strict=True
    ):
        heat, probability = explain(image, word)
        assert probability > least
        assert_lit(np.asarray(heat), box)


def test_side_by_side_each_class_lights_its_own_photo(photos, explain):
    """One image of three photos: the map of a class is that of its object and not of what is conspicuous."""
    image = np.concatenate(photos, axis=1)
    for place, word in enumerate(("tiger cat", "espresso", "daisy")):
        heat = np.asarray(explain(image, word)[0])
        shares = [part.sum() / heat.sum() for part in np.split(heat, 3, axis=1)]
        assert np.argmax(shares) == place and shares[place] > 0.75, (word, shares)
        assert np.argmax(heat) % heat.shape[1] // 224 == place
