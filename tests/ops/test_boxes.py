"""Areas, overlaps, clipping and coding of boxes against torchvision's on 10,000 random cases, and by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as jc
from jaxcnn.errors import UserError
from jaxcnn.ops import boxes as box
from jaxcnn.ops.box_coding import BoxCoder
from tests.compilation import quick
from tests.ops.random_boxes import random_boxes
from tests.torchvision_ops import torch, torchvision_ops

CASES = 10_000

FAMILY = {  # ours, torchvision's
    "iou": "box_iou",
    "giou": "generalized_box_iou",
    "diou": "distance_box_iou",
    "ciou": "complete_box_iou",
}


@pytest.mark.parametrize("name", FAMILY)
def test_overlaps_are_torchvisions_on_random_pairs(name):
    """A hundred times the 10,000 cases: every pair of 1,000 and 1,000 boxes."""
    theirs = getattr(torchvision_ops(), FAMILY[name])
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, (1000,)), random_boxes(rng, (1000,))
    ours = np.asarray(jax.jit(getattr(box, name))(a, b))
    wanted = theirs(torch.tensor(a), torch.tensor(b)).numpy()
    assert ours.shape == wanted.shape == (1000, 1000)
    assert np.abs(ours - wanted).max() < 1e-5
    assert (wanted > 0.3).sum() > 10_000, "too few of the boxes overlap"


@pytest.mark.parametrize("name", FAMILY)
def test_each_box_with_its_partner_is_the_diagonal(name):
    a, b = random_boxes(np.random.default_rng(1), (2, 50))
    pairs, partners = (quick(getattr(box, each)) for each in (name, f"paired_{name}"))
    np.testing.assert_allclose(partners(a, b), np.diagonal(pairs(a, b)), atol=1e-6)
    np.testing.assert_allclose(quick(jax.vmap(getattr(box, f"paired_{name}")))(a, b), partners(a, b), atol=1e-6)


@pytest.mark.parametrize("name", ["giou", "diou", "ciou"])
def test_gradients_of_losses_are_torchvisions(name):
    losses = {"giou": "generalized", "diou": "distance", "ciou": "complete"}
    theirs = getattr(torchvision_ops(), f"{losses[name]}_box_iou_loss")
    a, b = random_boxes(np.random.default_rng(2), (2, 200))
    leaf = torch.tensor(a, requires_grad=True)
    theirs(leaf, torch.tensor(b), reduction="sum").backward()
    ours = jax.jit(jax.grad(lambda a: (1 - getattr(box, f"paired_{name}")(a, b)).sum()))(jnp.asarray(a))
    assert np.abs(np.asarray(ours) - leaf.grad.numpy()).max() < 1e-5


def test_overlaps_by_hand():
    a = jnp.array([[0.0, 0, 2, 2], [0, 0, 4, 1]])
    b = jnp.array([[1.0, 0, 3, 2], [5, 5, 6, 6], [0, 0, 2, 2]])
    np.testing.assert_allclose(quick(box.iou)(a, b), [[1 / 3, 0, 1], [2 / 6, 0, 2 / 6]], rtol=1e-6)
    np.testing.assert_allclose(quick(box.intersection_over_first)(a, b), [[0.5, 0, 1], [0.5, 0, 0.5]])
    np.testing.assert_allclose(box.area(a), [4, 4])
    # 1 + 1 pixels in a hull of 36: 0 - 34 / 36; centers 4.5 apart each way, the hull's diagonal 6 * sqrt(2)
    far = jnp.array([[0.0, 0, 1, 1]]), jnp.array([[5.0, 5, 6, 6]])
    assert math.isclose(quick(box.giou)(*far)[0, 0], -34 / 36, rel_tol=1e-6)
    assert math.isclose(quick(box.diou)(*far)[0, 0], -50 / 72, rel_tol=1e-6)
    assert math.isclose(quick(box.ciou)(*far)[0, 0], -50 / 72, rel_tol=1e-6)  # both are square


def test_a_crowds_overlap_is_pycocotools():
    mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed: not run")
    rng = np.random.default_rng(3)
    a, b = random_boxes(rng, (40,)), random_boxes(rng, (30,))
    theirs = mask.iou(*(np.asarray(box.to_xywh(each), np.float64) for each in (a, b)), [1] * len(b))
    np.testing.assert_allclose(quick(box.intersection_over_first)(a, b), theirs, atol=1e-5)


def test_the_last_pixel_counts_if_it_is_added():
    """voc_eval.py's overlap: (min - max + 1) in both directions, areas with + 1."""
    rng = np.random.default_rng(4)
    a, b = (np.floor(random_boxes(rng, (20,))) for _ in range(2))
    for i in range(20):
        width = min(a[i, 2], b[i, 2]) - max(a[i, 0], b[i, 0]) + 1
        height = min(a[i, 3], b[i, 3]) - max(a[i, 1], b[i, 1]) + 1
        areas = [(each[i, 2] - each[i, 0] + 1) * (each[i, 3] - each[i, 1] + 1) for each in (a, b)]
        common = max(width, 0) * max(height, 0)
        found = quick(box.paired_iou)(box.from_inclusive(a[i]), box.from_inclusive(b[i]))
        assert math.isclose(found, common / (sum(areas) - common), abs_tol=1e-6)
    np.testing.assert_array_equal(box.to_inclusive(box.from_inclusive(a)), a)


NOTHING = jnp.array(
    [[0.0, 0, 0, 0], [5, 5, 5, 9], [5, 5, 9, 5], [9, 9, 5, 5], [504, 337, 504, 337], [1e9, 1e9, 1e9, 1e9]]
)
"""Padding, no width, no height, turned around, a box of BCCD's, and far away."""


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou", "intersection_over_first"])
def test_boxes_without_area_overlap_nothing_and_have_finite_gradients(name):
    there = jnp.array([[1.0, 1, 8, 8], [0, 0, 600, 400]])
    every = jnp.concatenate([NOTHING, there])
    values = quick(getattr(box, name))(every, every)
    assert np.isfinite(values).all()
    if name in ("iou", "intersection_over_first"):
        assert (values[:6] == 0).all() and (values[:, :6] == 0).all()
    gradient = quick(jax.grad(lambda a: getattr(box, name)(a, every).sum()))(every)
    assert np.isfinite(gradient).all()


def test_overlaps_of_no_boxes_have_their_shape():
    shape = lambda name, *shapes: jax.eval_shape(getattr(box, name), *map(jnp.zeros, shapes)).shape  # noqa: E731
    assert shape("iou", (0, 4), (3, 4)) == (0, 3) and shape("ciou", (3, 4), (0, 4)) == (3, 0)
    assert shape("iou", (2, 0, 4), (2, 5, 4)) == (2, 0, 5)
    assert quick(box.iou)(jnp.zeros((0, 4)), jnp.ones((3, 4))).shape == (0, 3)


def test_what_are_no_boxes_is_said():
    with pytest.raises(UserError, match=r"an array \(3, 5\); they must be \[..., 4\]"):
        box.area(jnp.zeros((3, 5)))
    with pytest.raises(UserError, match=r"every pair take .* not \(4,\) and \(2, 4\).*paired_iou"):
        box.iou(jnp.zeros(4), jnp.zeros((2, 4)))


def test_whole_numbers_and_halves_are_counted_in_float32():
    whole = jnp.array([[0, 0, 3000, 3000]], jnp.int16)
    assert box.area(whole)[0] == 9e6 and box.iou(whole, whole).dtype == jnp.float32
    assert box.area(jnp.array([[0, 0, 300, 300]], jnp.float16))[0] == 90_000


def test_clipping_and_sizes_are_torchvisions():
    ops = torchvision_ops()
    boxes = random_boxes(np.random.default_rng(5), (CASES,)) * 3 - 80
    clipped = ops.clip_boxes_to_image(torch.tensor(boxes), (60, 100))
    np.testing.assert_array_equal(jax.jit(lambda b: box.clip(b, (60, 100)))(boxes), clipped.numpy())
    kept = ops.remove_small_boxes(clipped, 16).numpy()
    np.testing.assert_array_equal(np.flatnonzero(box.is_large(clipped.numpy(), 16)), kept)
    assert 100 < len(kept) < CASES - 100
    assert box.is_large([[4, 4, 20, 20], [4, 4, 20, 19], [0, 0, 0, 0]], 16).tolist() == [True, False, False]


def test_each_image_of_a_batch_has_its_size():
    boxes = jnp.tile(jnp.array([-5.0, -5, 1000, 1000]), (2, 3, 1))
    heights, widths = jnp.array([60, 70]), jnp.array([100, 110])
    clipped = box.clip(boxes, (heights[:, None], widths[:, None]))
    np.testing.assert_array_equal(clipped[:, 0], [[0, 0, 100, 60], [0, 0, 110, 70]])


def test_inside_counts_the_edges():
    boxes = jnp.array([[0.0, 0, 100, 60], [-0.1, 0, 5, 5], [0, 0, 100.1, 5], [0, 0, 5, 60.1], [math.nan, 0, 1, 1]])
    assert box.inside(boxes, (60, 100)).tolist() == [True, False, False, False, False]
    assert box.is_empty(NOTHING).all() and not box.is_empty(boxes[:4]).any() and box.is_empty(boxes[4])


def test_forms_of_boxes_are_torchvisions_and_come_back():
    convert = torchvision_ops().box_convert
    boxes = random_boxes(np.random.default_rng(6), (200,))
    for name, to, back in (("cxcywh", box.to_center, box.from_center), ("xywh", box.to_xywh, box.from_xywh)):
        np.testing.assert_allclose(to(boxes), convert(torch.tensor(boxes), "xyxy", name).numpy(), atol=1e-5)
        np.testing.assert_allclose(back(to(boxes)), boxes, atol=1e-4)
    tfds = box.to_normalized_yxyx(jnp.array([10.0, 20, 30, 80]), (100, 50))
    np.testing.assert_allclose(tfds, [0.2, 0.2, 0.8, 0.6], rtol=1e-6)
    np.testing.assert_allclose(box.from_normalized_yxyx(tfds, (100, 50)), [10, 20, 30, 80], rtol=1e-6)


def test_a_flip_moves_the_pixels_of_the_box_and_scaling_those_of_the_image():
    image = np.zeros((6, 10))
    image[1:3, 2:7] = 1
    xmin, ymin, xmax, ymax = np.asarray(box.flip(jnp.array([2.0, 1, 7, 3]), 10), int)
    assert image[:, ::-1][ymin:ymax, xmin:xmax].sum() == image.sum() == (xmax - xmin) * (ymax - ymin)
    np.testing.assert_allclose(box.scale(jnp.array([2.0, 1, 7, 3]), (2, 0.5)), [1, 2, 3.5, 6])


WEIGHTS = [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_coding_is_torchvisions_both_ways_on_10000_random_cases(weights):
    torchvision_ops()
    from torchvision.models.detection._utils import BoxCoder as Theirs

    rng = np.random.default_rng(7)
    boxes, anchors = random_boxes(rng, (CASES,)), random_boxes(rng, (CASES,))
    theirs, ours = Theirs(weights), BoxCoder(weights)
    offsets = np.asarray(jax.jit(ours.encode)(boxes, anchors))
    wanted = theirs.encode_single(torch.tensor(boxes), torch.tensor(anchors)).numpy()
    assert (np.abs(offsets - wanted) / np.maximum(1, np.abs(wanted))).max() < 1e-5
    predicted = (rng.normal(size=(CASES, 4)) * np.array([1, 1, 3, 3]) * weights).astype(np.float32)
    assert (predicted[:, 2:] / np.array(weights[2:]) > ours.clip).any(), "nothing was clipped"
    decoded = np.asarray(jax.jit(ours.decode)(predicted, anchors))
    wanted = theirs.decode_single(torch.tensor(predicted), torch.tensor(anchors)).numpy()
    # An edge near 0 of a wide box is the difference of large numbers: errors are shares of the box's largest edge.
    assert (np.abs(decoded - wanted) / np.maximum(1, np.abs(wanted).max(-1, keepdims=True))).max() < 1e-5
    kept = ((boxes[:, 2:] - boxes[:, :2]) / (anchors[:, 2:] - anchors[:, :2]) < 1000 / 16).all(-1)
    assert kept.sum() > CASES * 0.9
    np.testing.assert_allclose(np.asarray(ours.decode(offsets, anchors))[kept], boxes[kept], atol=2e-3)


def test_the_released_form_is_the_formulas_of_its_file():
    """bbox_transform and bbox_transform_inv of py-faster-rcnn, one box at a time, and 1 pixel more on the way back."""
    rng = np.random.default_rng(8)
    boxes, anchors = (np.floor(random_boxes(rng, (50,))).astype(np.float64) for _ in range(2))
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0), clip=None, inclusive=True)
    found = np.asarray(coder.encode(boxes, anchors))
    for b, a, offsets in zip(boxes, anchors, found, strict=True):
        width, height, from_width, from_height = b[2] - b[0] + 1, b[3] - b[1] + 1, a[2] - a[0] + 1, a[3] - a[1] + 1
        dx = (b[0] + 0.5 * width - a[0] - 0.5 * from_width) / from_width
        dy = (b[1] + 0.5 * height - a[1] - 0.5 * from_height) / from_height
        wanted = np.array([dx, dy, math.log(width / from_width), math.log(height / from_height)])
        np.testing.assert_allclose(offsets, wanted / np.array([0.1, 0.1, 0.2, 0.2]), atol=1e-4)
    np.testing.assert_allclose(coder.decode(found, anchors), boxes + np.array([0, 0, 1, 1]), atol=1e-3)


def test_means_are_taken_before_the_weights():
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0), means=(0.5, 0.0, 0.0, 0.1))
    anchor, moved = jnp.array([0.0, 0, 4, 4]), jnp.array([2.0, 0, 6, 4])
    np.testing.assert_allclose(BoxCoder((10, 10, 5, 5)).encode(moved, anchor), [5, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(coder.encode(moved, anchor), [0, 0, 0, -0.5], atol=1e-6)
    np.testing.assert_allclose(coder.decode(coder.encode(moved, anchor), anchor), moved, atol=1e-5)


def test_offsets_of_padding_are_finite_and_so_are_gradients():
    there = jnp.tile(jnp.array([1.0, 1, 8, 8]), (6, 1))
    for function in (BoxCoder().encode, BoxCoder().decode):
        both = jax.jit(jax.value_and_grad(lambda *operands, f=function: f(*operands).sum(), (0, 1)))
        for operands in ((NOTHING, there), (there, NOTHING), (NOTHING, NOTHING)):
            assert all(np.isfinite(each).all() for each in jax.tree.leaves(both(*operands)))


def test_offsets_of_every_class_take_one_proposal():
    offsets, proposals = jnp.zeros((5, 3, 4)), jnp.asarray(random_boxes(np.random.default_rng(9), (5,)))
    decoded = BoxCoder().decode(offsets, proposals[:, None])
    np.testing.assert_allclose(decoded, jnp.broadcast_to(proposals[:, None], (5, 3, 4)), atol=1e-5)
    assert BoxCoder is jc.BoxCoder
