"""What a Classifier says of images and calls that it cannot take: what is wrong, and what to write."""

import jax
import jax.numpy as jnp
import pytest

from jaxcnn.errors import UserError
from jaxcnn.models import GAP, create_model

IMAGES = jnp.zeros((2, 16, 16, 3))


@pytest.fixture(scope="module")
def model():
    return create_model("vgg11_bn", stages=1, width=0.125, head=GAP(classes=3))


@pytest.fixture(scope="module")
def variables(model):
    return model.init(jax.random.key(0), IMAGES, train=False)


@pytest.mark.parametrize(
    "images, message",
    [
        (IMAGES[0], r"images are \[B, H, W, C\], not \[16, 16, 3\]; a single one is image\[None\]"),
        (IMAGES.astype(jnp.uint8), r"images are uint8, but a model takes normalised floats"),
        (IMAGES[..., :1], r"images \[2, 16, 16, 1\] do not fit .* as many channels as those of init"),
        (IMAGES.transpose(0, 3, 1, 2), r"images \[2, 3, 16, 16\] do not fit .*channels come last: images.transpose"),
    ],
)
@pytest.mark.parametrize("method", ["__call__", "features", "outputs"])
def test_images_that_do_not_fit(images, message, method, model, variables):
    with pytest.raises(UserError, match=message):
        model.apply(variables, images, train=False, method=method)


def test_channels_first_is_seen_at_init_too(model):
    with pytest.raises(
        UserError, match=r"not \[2, 3, 16, 16\]; the channels come last: images.transpose\(0, 2, 3, 1\)"
    ):
        model.init(jax.random.key(0), IMAGES.transpose(0, 3, 1, 2), train=False)


def test_training_without_mutable_statistics_says_what_to_write(model, variables):
    with pytest.raises(UserError, match=r'train=True updates .* mutable=\["batch_stats"\]'):
        model.apply(variables, IMAGES, train=True)
    logits, updated = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    assert logits.shape == (2, 3) and updated["batch_stats"]


def test_a_net_without_statistics_trains_without_them():
    model = create_model("vgg11", stages=1, width=0.125, head=GAP(classes=3))
    variables = model.init(jax.random.key(0), IMAGES, train=False)
    assert model.apply(variables, IMAGES, train=True).shape == (2, 3)


def test_train_must_be_said(model, variables):
    with pytest.raises(TypeError, match="train"):
        model.apply(variables, IMAGES)
