"""CAM and Grad-CAM against each other, finite differences and PyTorch's hooks."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import create_model
from jaxcnn.errors import UserError
from jaxcnn.explain.cam import cam, cut, gradcam, upsample
from jaxcnn.models import FC, GAP, Classifier, Segmenter
from jaxcnn.models.fcn import SkipHead
from jaxcnn.ops.upsampling import Grid, bilinear_weights, pixels
from tests.nets import TinyNet

IMAGES = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
CLASSES = jnp.array([1, 2])


class Two(nn.Module):
    """Two convolutions around a pooling; the first map also reaches the end by a shortcut."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.relu(nn.Conv(5, (3, 3), name="conv1")(x))
        ends = {"stage1": x}
        y = nn.max_pool(x, (2, 2), (2, 2))
        y = nn.relu(nn.Conv(5, (3, 3), name="conv2")(y)) + nn.avg_pool(x, (2, 2), (2, 2))
        return ends | {"final": y}


def net(head):
    model = Classifier(Two(), head)
    return model, model.init(jax.random.key(1), IMAGES, train=False)


def test_cam_is_gradcam_up_to_scale_on_gap_and_a_linear_layer():
    for model, size in [(Classifier(Two(), GAP(classes=4)), 8), (create_model("resnet20_cifar"), 4)]:
        variables = jax.jit(lambda model=model: model.init(jax.random.key(1), IMAGES, train=False))()
        both = jax.jit(lambda v, model=model: (cam(model, v, IMAGES, CLASSES), gradcam(model, v, IMAGES, CLASSES)))
        signed, positive = both(variables)
        assert signed.shape == positive.shape == (2, size, size) and positive.max() > 0
        np.testing.assert_allclose(np.maximum(signed, 0) / size**2, positive, rtol=1e-5, atol=1e-7)


def test_the_mean_of_a_cam_is_the_logit_without_its_bias():
    model, variables = net(GAP(classes=4))
    logits = model.apply(variables, IMAGES, train=False)[jnp.arange(2), CLASSES]
    maps = cam(model, variables, IMAGES, CLASSES)
    np.testing.assert_allclose(
        maps.mean((1, 2)), logits - variables["params"]["head"]["fc"]["bias"][CLASSES], rtol=1e-4
    )


@pytest.mark.parametrize("endpoint", ["stage1", "final"])
def test_gradcam_against_finite_differences(endpoint):
    """Of the net behind the endpoint written out by hand in float64: a channel's weight is the slope of the logit while
    the whole channel is raised, over the number of its positions.
    """
    model, variables = net(FC(classes=4, widths=(6,), activation="tanh"))
    maps = np.asarray(model.apply(variables, IMAGES, train=False, method="features")[endpoint], np.float64)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
        head = params["head"]

        @jax.jit
        def rest(maps):
            if endpoint == "stage1":
                pooled = nn.max_pool(maps, (2, 2), (2, 2))
                y = nn.relu(nn.Conv(5, (3, 3)).apply({"params": params["backbone"]["conv2"]}, pooled))
                maps = y + nn.avg_pool(maps, (2, 2), (2, 2))
            hidden = jnp.tanh(maps.reshape(2, -1) @ head["fc1"]["kernel"] + head["fc1"]["bias"])
            return (hidden @ head["fc2"]["kernel"] + head["fc2"]["bias"])[np.arange(2), CLASSES]

        step = 1e-6
        slopes = [(rest(maps + step * row) - rest(maps - step * row)) / (2 * step) for row in np.eye(5)]
        assert slopes[0].dtype == np.float64
    weights = np.stack(slopes, 1) / (maps.shape[1] * maps.shape[2])
    expected = np.maximum(np.einsum("bhwc,bc->bhw", maps, weights), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(
        gradcam(model, variables, IMAGES, CLASSES, endpoint), expected, rtol=1e-4, atol=1e-5 * expected.max()
    )


def test_gradcam_against_hooks_of_the_same_net_in_torch():
    from tests.models import parity

    torch = parity.torch
    torch.manual_seed(0)
    reference = parity.torchvision().resnet18(num_classes=7).eval()
    variables = jax.tree.map(jnp.asarray, parity.from_torch("resnet18", reference.state_dict(), classes=7))
    images, classes = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32), np.array([3, 5])
    kept = {}
    for module, endpoint in (("layer2", "stage3"), ("layer4", "final")):
        reference.get_submodule(module).register_forward_hook(lambda *args, name=endpoint: kept.update({name: args[2]}))
    logits = reference(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    model = create_model("resnet18", 7)
    found = jax.jit(lambda v: {end: gradcam(model, v, images, classes, end) for end in kept})(variables)
    for endpoint, maps in kept.items():
        (gradients,) = torch.autograd.grad(logits[np.arange(2), classes].sum(), maps, retain_graph=True)
        expected = torch.relu((gradients.mean((2, 3), keepdim=True) * maps).sum(1)).detach().numpy()
        assert found[endpoint].shape == expected.shape and expected.max() > 0
        np.testing.assert_allclose(found[endpoint], expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_the_net_behind_a_cut_is_the_net():
    model, variables = net(GAP(classes=4))
    maps, rest = cut(model, variables, IMAGES, "stage1")
    np.testing.assert_allclose(rest(maps), model.apply(variables, IMAGES, train=False), rtol=1e-6)
    assert np.abs(rest(maps + 1) - rest(maps)).max() > 0.01


def test_a_class_that_nothing_speaks_for_has_a_map_of_zeros():
    model, variables = net(GAP(classes=4))
    kernel = variables["params"]["head"]["fc"]["kernel"]
    variables["params"]["head"]["fc"]["kernel"] = kernel.at[:, 1].set(-1.0)
    maps = gradcam(model, variables, IMAGES, CLASSES)
    assert (maps[0] == 0).all() and maps[1].max() > 0 and np.isfinite(maps).all()


def test_upsampling_keeps_the_middle_of_each_position():
    large = np.asarray(upsample(jnp.arange(6.0).reshape(1, 2, 3), (10, 15)))[0]
    np.testing.assert_allclose(large[2::5, 2::5], np.arange(6.0).reshape(2, 3), atol=1e-6)


def test_what_cannot_be_explained_is_refused():
    model, variables = net(FC(classes=4))
    with pytest.raises(UserError, match=r"CAM needs a head of global average pooling .*not FC; use gradcam"):
        cam(model, variables, IMAGES, CLASSES)
    with pytest.raises(UserError, match=r"no endpoint 'stage2'; did you mean 'stage1'\?"):
        gradcam(model, variables, IMAGES, CLASSES, "stage2")
    linear = create_model("linear")
    with pytest.raises(UserError, match="is the image itself"):
        gradcam(linear, linear.init(jax.random.key(0), IMAGES, train=False), IMAGES, CLASSES)
    with pytest.raises(UserError, match="TinyNet has no feature maps"):
        cut(TinyNet(), {}, IMAGES, "final")


def test_gradcam_of_a_segmenter_is_of_the_pixels_that_it_gives_to_the_class():
    """The gradient of the logits of chosen pixels alone, here by the bilinear weights, which the sum is linear in."""
    model = Segmenter(Two(), SkipHead(4, (("final", 2, 0.5),)))
    variables = model.init(jax.random.key(1), IMAGES, train=False)
    score = jax.random.normal(jax.random.key(2), (1, 1, 5, 4)).at[..., 3].set(-9)  # the map has nothing below 0
    variables["params"]["head"]["score_final"]["kernel"] = score
    final = model.apply(variables, IMAGES, train=False, method="features")["final"]
    labels = np.asarray(model.apply(variables, IMAGES, train=False)).argmax(-1)
    height, width = labels.shape[1:]
    rows, columns = (
        bilinear_weights(Grid(0.5, 2, n), pixels(m), "repeat")
        for n, m in zip(final.shape[1:3], (height, width), strict=True)
    )
    seen = []
    for image, label in itertools.product(range(len(IMAGES)), range(4)):
        chosen = labels[image] == label
        seen.append(chosen.any())
        chosen = chosen if chosen.any() else np.ones_like(chosen)
        # The weight of each position of the map in the sum; that of a channel is its mean times the class's kernel.
        share = (rows.T @ chosen @ columns).mean()
        expected = nn.relu(share * final[image] @ score[0, 0][:, label])
        found = gradcam(model, variables, IMAGES[image][None], jnp.array([label]))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert any(seen) and not all(seen), "classes that are predicted somewhere, and nowhere"
