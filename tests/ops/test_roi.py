"""RoIPool and RoIAlign against torchvision's on 10,000 random boxes each, with gradients, and against loops by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.ops import roi
from tests.compilation import quick
from tests.torchvision_ops import torch, torchvision_ops

IMAGES, EACH = 20, 500  # 10,000 boxes
BINS = (3, 4)
GOLDEN = jnp.arange(64.0).reshape(1, 8, 8, 1), jnp.array([[[1.3, 1.7, 6.2, 5.9]]])
"""x and the box of the goldens that torchvision gave."""

# Single cases as one program each.
pool_of = quick(roi.roi_pool, static_argnums=(2, 3))
align_of = quick(roi.roi_align, static_argnums=(2, 3, 4, 5))

FORMS = [(samples, aligned) for samples in (2, 0) for aligned in (False, True)]


def case(seed, scale, image=60):
    """Maps of 15 x 13 or so, and boxes: most in the image, some over its edges, some without area, some turned."""
    rng = np.random.default_rng(seed)
    height, width = math.ceil(image * scale), math.ceil(image * scale) - 2
    features = rng.uniform(size=(IMAGES, height, width, 2)).astype(np.float32)
    first = rng.uniform(-image / 6, image, (IMAGES, EACH, 2))
    sides = rng.uniform(-image / 20, image * 0.8, (IMAGES, EACH, 2)) * rng.uniform(size=(IMAGES, EACH, 2))
    sides[:, ::50] = 0
    return features, np.concatenate([first, first + sides], -1).astype(np.float32)


def both(ours, theirs, features, boxes, seed=0):
    """Values, and the gradient of a random weighting of them, of both sides in our layout."""
    leaf = torch.tensor(features).permute(0, 3, 1, 2).contiguous().requires_grad_()
    wanted = theirs(leaf, list(torch.tensor(boxes)))
    weights = np.random.default_rng(seed).uniform(size=wanted.shape).astype(np.float32)
    wanted.backward(torch.tensor(weights))
    shape = (*boxes.shape[:2], *wanted.shape[1:])
    to_ours = lambda each: np.moveaxis(each.reshape(shape), 2, -1)  # noqa: E731

    @jax.jit
    def values_and_gradient(features, weights):
        values, pull = jax.vjp(lambda features: ours(features, boxes), features)
        return values, pull(weights)[0]

    values, gradient = values_and_gradient(features, to_ours(weights))
    return (
        np.asarray(values),
        to_ours(wanted.detach().numpy()),
        np.asarray(gradient),
        np.moveaxis(leaf.grad.numpy(), 1, -1),
    )


@pytest.mark.parametrize(("samples", "aligned"), FORMS)
def test_roi_align_is_torchvisions_on_10000_random_boxes(samples, aligned):
    ops, scale = torchvision_ops(), 1 / 4
    features, boxes = case(1, scale)
    values, wanted, gradient, their_gradient = both(
        lambda features, boxes: roi.roi_align(features, boxes, BINS, scale, samples, aligned),
        lambda features, boxes: ops.roi_align(features, boxes, BINS, scale, samples, aligned),
        features,
        boxes,
    )
    assert values.shape == (IMAGES, EACH, *BINS, 2)
    assert np.abs(values - wanted).max() < 1e-5
    # A position's gradient is a sum over some hundred boxes: errors are shares of it.
    assert (np.abs(gradient - their_gradient) / np.maximum(1, np.abs(their_gradient))).max() < 1e-5
    assert their_gradient.max() > 1


@pytest.mark.parametrize("scale", [1 / 4, 1.0])
def test_roi_pool_is_torchvisions_on_10000_random_boxes(scale):
    """Values in 100 steps, so that many are equal: the gradient goes to the first. At full scale bins have up to
    20 x 15 positions, several tiles of them."""
    ops = torchvision_ops()
    features, boxes = case(2, scale)
    features = np.floor(features * 100)
    values, wanted, gradient, their_gradient = both(
        lambda features, boxes: roi.roi_pool(features, boxes, BINS, scale),
        lambda features, boxes: ops.roi_pool(features, boxes, BINS, scale),
        features,
        boxes,
    )
    np.testing.assert_array_equal(values, wanted)
    assert (np.abs(gradient - their_gradient) / np.maximum(1, np.abs(their_gradient))).max() < 1e-5
    assert their_gradient.max() > 1


def test_goldens():
    features, boxes = GOLDEN
    np.testing.assert_array_equal(pool_of(features, boxes, 2, 1.0).reshape(2, 2), [[35, 38], [51, 54]])
    for aligned, golden in (
        (False, [[24.525, 26.975], [41.325, 43.775]]),
        (True, [[20.025, 22.475], [36.825, 39.275]]),
    ):
        found = align_of(features, boxes, 2, 1.0, 2, aligned).reshape(2, 2)
        np.testing.assert_allclose(found, golden, rtol=1e-6)


def test_of_a_ramp_a_bin_is_its_center():
    """f = x at pixel centers x + 0.5 of the image: what boxes that are edges ask for."""
    ramp = jnp.broadcast_to(jnp.arange(12.0)[:, None] + 0.5, (1, 10, 12, 1))
    boxes = jnp.array([[[2.0, 2, 8, 8], [1.5, 3, 10.25, 7]]])
    for samples in (1, 2, 3, 0):
        found = align_of(ramp, boxes, (2, 4), 1.0, samples, aligned=True)[0, ..., 0]
        for values, (left, _, right, _) in zip(found, boxes[0], strict=True):
            centers = left + (np.arange(4) + 0.5) * (right - left) / 4
            np.testing.assert_allclose(values, np.tile(centers, (2, 1)), rtol=1e-5)


@pytest.mark.parametrize("samples", [1, 0])
def test_one_pixel_outside_the_map_still_counts_as_its_edge(samples):
    """One sample a box, at -1, a little farther out, at the map's length and a little farther."""
    x = np.arange(1, 9, dtype=np.float32).reshape(1, 1, 8, 1)
    boxes = np.array([[[place - 0.5, 0, place + 0.5, 0] for place in (-1, -1.125, 8, 8.125)]], np.float32)
    found = align_of(jnp.array(x), jnp.array(boxes), 1, 1.0, samples, False).ravel()
    assert found.tolist() == [1, 0, 8, 0]
    theirs = torchvision_ops().roi_align(
        torch.tensor(x).permute(0, 3, 1, 2), list(torch.tensor(boxes)), 1, 1.0, samples
    )
    assert theirs.ravel().tolist() == [1, 0, 8, 0]


def test_halves_are_rounded_away_from_0():
    """2.5 and 4.5 are 3 and 5, which rounding to even ones would make 2 and 4; -0.5 is -1."""
    x = jnp.arange(8.0).reshape(1, 1, 8, 1)
    found = pool_of(x, jnp.array([[[2.5, 0, 4.5, 0], [5, 0, 6.5, 0], [-0.5, 0, 0.49999997, 0]]]), (1, 1), 1.0)
    assert found.ravel().tolist() == [5, 7, 0]


def test_a_box_of_57_positions_has_bins_as_float32_counts_them():
    """57 / 7 * 7 is more than 57 in float32, and the last bin has a position more."""
    x = np.arange(80, dtype=np.float32).reshape(1, 1, 80, 1)
    boxes = np.array([[[0, 0, size - 1, 0] for size in range(1, 80)]], np.float32)
    wanted = torchvision_ops().roi_pool(torch.tensor(x).permute(0, 3, 1, 2), list(torch.tensor(boxes)), (1, 7))
    found = np.asarray(pool_of(jnp.array(x), jnp.array(boxes), (1, 7), 1.0))[0, ..., 0, -1, 0]
    np.testing.assert_array_equal(found, wanted[:, 0, 0, -1].numpy())
    assert found[56] == 57 and found[55] == 55


def test_boxes_much_longer_than_the_map_have_their_exact_share():
    x = jnp.arange(9.0).reshape(1, 1, 9, 1)
    found = pool_of(x, jnp.array([[[-100.0, 0, 99, 0], [-1000, 0, 1e6, 0]]]), (1, 4), 1.0)
    assert found[0, :, 0, :, 0].tolist() == [[0, 0, 8, 0], [8, 0, 0, 0]]


@pytest.mark.parametrize("samples", [2, 0])
def test_padding_changes_nothing_and_has_no_gradient(samples):
    features, boxes = case(3, 1 / 4)
    features, boxes = features[:2], boxes[:2, :7]
    garbage = np.array([[0, 0, 0, 0], [-50, -50, 999, 999], [40, 40, 3, 3], [-1e9, 0, 1e12, 1]], np.float32)
    padded = np.concatenate([boxes, np.tile(garbage, (2, 1, 1))], 1)
    for pool in (
        lambda features, boxes: roi.roi_align(features, boxes, BINS, 1 / 4, samples, False),
        lambda features, boxes: roi.roi_pool(features, boxes, BINS, 1 / 4),
    ):
        run = quick(lambda f, b, pool=pool: (pool(f, b), jax.grad(lambda f: (pool(f, b)[:, :7] ** 2).sum())(f)))
        (alone, gradient), (values, their_gradient) = run(features, boxes), run(features, padded)
        np.testing.assert_allclose(values[:, :7], alone, atol=1e-6)
        np.testing.assert_allclose(their_gradient, gradient, atol=1e-5)
        assert np.isfinite(values).all() and np.isfinite(their_gradient).all()


def test_nothing_flows_to_the_boxes():
    features, boxes = GOLDEN
    for pool in (
        lambda boxes: roi.roi_align(features, boxes, 2, 1.0, 2, True).sum(),
        lambda boxes: roi.roi_align(features, boxes, 2, 1.0, 0, True).sum(),
        lambda boxes: roi.roi_pool(features, boxes, 2, 1.0).sum(),
    ):
        np.testing.assert_array_equal(quick(jax.grad(pool))(boxes), np.zeros((1, 1, 4)))


def test_no_boxes_and_halves_keep_shape_and_type():
    features = jnp.ones((2, 8, 8, 3), jnp.bfloat16)
    none = jnp.zeros((2, 0, 4))
    for samples in (2, 0):
        assert align_of(features, none, 7, 0.5, samples, True).shape == (2, 0, 7, 7, 3)
        found = align_of(features, jnp.full((2, 1, 4), jnp.array([2.0, 2, 9, 9])), 2, 0.5, samples, True)
        assert found.dtype == jnp.bfloat16 and (found == 1).all()
    assert pool_of(features, none, 7, 0.5).shape == (2, 0, 7, 7, 3)
    total = lambda f: roi.roi_pool(f, jnp.zeros((2, 1, 4)), 1, 0.5).sum().astype(jnp.float32)  # noqa: E731
    gradient = quick(jax.grad(total))(features)
    assert gradient.dtype == jnp.bfloat16 and gradient[:, 0, 0].tolist() == [[1] * 3] * 2


@pytest.mark.parametrize("samples", [2, 0])
def test_boxes_of_a_pyramid_are_pooled_from_their_levels_as_torchvisions(samples):
    torchvision_ops()
    from torchvision.ops import MultiScaleRoIAlign

    rng = np.random.default_rng(4)
    maps = [rng.uniform(size=(2, 256 >> i, 192 >> i, 2)).astype(np.float32) for i in (2, 3, 4, 5)]
    first, sides = rng.uniform(0, 120, (2, 40, 2)), 2 ** rng.uniform(3, 9.5, (2, 40, 2))
    boxes = np.minimum(np.concatenate([first, first + sides], -1), np.array([192, 256, 192, 256])).astype(np.float32)
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], (3, 4), samples, canonical_scale=60, canonical_level=4)
    torch_maps = {str(i): torch.tensor(each).permute(0, 3, 1, 2) for i, each in enumerate(maps)}
    wanted = theirs(torch_maps, list(torch.tensor(boxes)), [(256, 192)] * 2)
    wanted = np.moveaxis(wanted.numpy().reshape(2, 40, 2, 3, 4), 2, -1)
    levels = roi.pyramid_levels(boxes, 2, 5, size=60)
    assert set(np.asarray(levels).ravel()) == {2, 3, 4, 5}
    scales = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
    found = quick(lambda *maps: roi.pyramid_roi_align(maps, boxes, levels - 2, (3, 4), scales, samples, False))(*maps)
    assert np.abs(np.asarray(found) - wanted).max() < 1e-5


def test_levels_are_the_equation_of_the_paper():
    boxes = jnp.array(
        [[0.0, 0, 224, 224], [0, 0, 223, 223], [0, 0, 112, 112], [0, 0, 448, 448], [0, 0, 0, 0], [0, 0, 9e3, 9e3]]
    )
    assert roi.pyramid_levels(boxes, 2, 5).tolist() == [4, 3, 3, 5, 2, 5]


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(UserError, match=r"regions \(3, 4\) of features \(1, 8, 8, 1\)"):
        roi.roi_pool(GOLDEN[0], jnp.zeros((3, 4)), 2, 1.0)
    with pytest.raises(UserError, match=r"regions \(2, 3, 4\)"):
        roi.roi_align(GOLDEN[0], jnp.zeros((2, 3, 4)), 2, 1.0, 2, True)
