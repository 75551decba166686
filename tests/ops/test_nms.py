"""Non-maximum suppression against torchvision's on 10,000 random cases, and against one box after the other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.ops import nms as ops_nms
from jaxcnn.ops.nms import BLOCK
from tests.compilation import quick
from tests.ops.random_boxes import random_boxes
from tests.torchvision_ops import torch, torchvision_ops

CASES = 10_000
# Single cases as one program each.
nms, class_nms = quick(ops_nms.nms, static_argnums=3), quick(ops_nms.class_nms, static_argnums=4)


def one_by_one(boxes, scores, threshold, size, classes=None):
    """Greedy suppression in float64 as it is told: [size] padded with -1."""
    boxes, classes = np.asarray(boxes, np.float64), np.zeros(len(scores)) if classes is None else classes
    sides = np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - np.maximum(boxes[:, None, :2], boxes[:, :2])
    common, areas = np.maximum(sides, 0).prod(-1), (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    above = common > threshold * (areas[:, None] + areas - common)
    kept = []
    for i in np.argsort(-np.asarray(scores), kind="stable"):
        if not (above[i, kept] & (classes[i] == classes[kept])).any():
            kept.append(i)
    return np.array([*kept, *[-1] * size][:size])


def crowded(rng, shape, places=4):
    """Boxes in quarters of pixels around a few places, so that chains of overlaps are long and many IoUs are equal."""
    centers = rng.integers(60, 160, (*shape[:-1], places, 2)) / 2.0
    which = rng.integers(0, places, shape)
    center = np.take_along_axis(centers, which[..., None], -2) + rng.integers(-24, 25, (*shape, 2)) / 4
    half = rng.integers(24, 80, (*shape, 2)) / 4
    return np.concatenate([center - half, center + half], -1).astype(np.float32)


@pytest.mark.parametrize("classes", [0, 3])
def test_indices_are_torchvisions_on_10000_random_cases(classes):
    """Of 1 to 48 boxes, padded to 48; scores in 64 steps, with ties, if without classes: theirs with classes has no
    order then. 0.7 rounds down in float32, where the rule of equality is the same in float64."""
    ops, width = torchvision_ops(), 48
    rng = np.random.default_rng(classes)
    boxes, counts = crowded(rng, (CASES, width)), rng.integers(1, width + 1, CASES)
    if classes:
        scores = rng.permuted(np.tile(np.arange(width, dtype=np.float32), (CASES, 1)), axis=1)
    else:
        scores = rng.integers(0, 64, (CASES, width)).astype(np.float32) / 64
    labels = rng.integers(0, classes + 1, (CASES, width))
    thresholds = rng.choice(np.array([0.25, 0.5, 0.7], np.float32), CASES)
    valid = np.arange(width) < counts[:, None]
    call = jax.jit(jax.vmap(lambda *case: ops_nms.class_nms(*case[:4], width, case[4])))
    found = np.asarray(call(boxes, scores, labels, thresholds, valid))
    dropped = 0
    for row, count, b, s, c, t in zip(found, counts, boxes, scores, labels, thresholds, strict=True):
        theirs = [torch.tensor(each[:count]) for each in (b, s, c)]
        t = round(float(t), 6)
        wanted = ops.batched_nms(*theirs, t) if classes else ops.nms(*theirs[:2], t)
        assert row[: len(wanted)].tolist() == wanted.tolist() and (row[len(wanted) :] == -1).all()
        dropped += count - len(wanted)
    assert dropped > counts.sum() / 4


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (BLOCK, [BLOCK]), (3 * BLOCK + 7, [5, BLOCK + 30, 800])])
def test_blocks_do_not_show(count, sizes):
    rng = np.random.default_rng(count)
    boxes, scores = crowded(rng, (count,), places=60), rng.integers(0, 50, count) / 64
    wanted = one_by_one(boxes, scores, 0.75, count)
    assert count < 3 * BLOCK or 2 * BLOCK < (wanted >= 0).sum() < count
    for size in sizes:
        np.testing.assert_array_equal(nms(boxes, scores, 0.75, size), [*wanted, *[-1] * size][:size])


def test_random_boxes_with_large_sets_are_torchvisions():
    ops = torchvision_ops()
    rng = np.random.default_rng(1)
    boxes, scores = random_boxes(rng, (3000,), image=800, smallest=8), rng.normal(size=3000).astype(np.float32)
    for threshold in (0.3, 0.5, 0.7):
        wanted = ops.nms(torch.tensor(boxes), torch.tensor(scores), threshold).numpy()
        found = np.asarray(nms(boxes, scores, threshold, 3000))
        np.testing.assert_array_equal(found[found >= 0], wanted)


def test_a_chain_in_which_each_drops_the_next_but_one_keeps_every_second():
    """As many sweeps as boxes, over several blocks."""
    count = 2 * BLOCK + 10
    first = np.arange(count) * 4.0
    boxes = np.stack([first, 0 * first, first + 8, 0 * first + 8], -1)  # IoU with the next one: 1/3
    kept = np.asarray(nms(boxes, -np.arange(count, dtype=np.float32), 0.3, count))
    np.testing.assert_array_equal(kept[: count // 2], np.arange(0, count, 2))
    assert (kept[count // 2 :] == -1).all()


def test_ties_go_to_the_lower_index():
    boxes = np.tile(np.array([[0.0, 0, 4, 4], [0, 0, 4, 4], [10, 10, 14, 14]], np.float32), (4, 1))
    assert nms(boxes[:3], np.ones(3), 0.5, 3).tolist() == [0, 2, -1]  # torchvision's golden
    assert nms(boxes, np.zeros(12), 0.5, 5).tolist() == [0, 2, -1, -1, -1]
    assert nms(boxes, np.array([-0.0, 0.0] * 6), 0.5, 3).tolist() == [0, 2, -1]
    assert nms(boxes[:1].repeat(300, 0), np.ones(300), 1.0, 300).tolist() == list(range(300))


def test_an_overlap_equal_to_the_threshold_survives():
    ops = torchvision_ops()
    half = np.array([[0, 0, 4, 4], [0, 0, 4, 2]], np.float32)
    scores = np.array([2, 1], np.float32)
    assert nms(half, scores, 0.5, 2).tolist() == ops.nms(*map(torch.tensor, (half, scores)), 0.5).tolist() == [0, 1]
    assert nms(half, scores, np.nextafter(np.float32(0.5), np.float32(0)), 2).tolist() == [0, -1]
    three_tenths = np.array([[0, 0, 10, 1], [0, 0, 3, 1]], np.float32)
    assert nms(three_tenths, scores, 0.3, 2).tolist() == [0, 1]
    # the departure that the docstring names
    assert ops.nms(*map(torch.tensor, (three_tenths, scores)), 0.3).tolist() == [0]


def test_padding_changes_nothing_whatever_it_holds():
    rng = np.random.default_rng(2)
    boxes, scores, classes = crowded(rng, (100,)), rng.normal(size=100), rng.integers(0, 3, 100)
    alone = np.asarray(class_nms(boxes, scores, classes, 0.5, 60))
    garbage = np.concatenate([boxes[:50], np.full((20, 4), np.nan), np.full((20, 4), 1e30), np.zeros((10, 4))])
    noise = np.concatenate([np.full(50, 99.0), np.full(25, np.nan), np.full(25, np.inf)])
    padded = [np.concatenate(each) for each in ((boxes, garbage), (scores, noise), (classes, classes))]
    np.testing.assert_array_equal(class_nms(*padded, 0.5, 60, np.arange(200) < 100), alone)
    for score in (-np.inf, np.nan):
        padded[1] = np.concatenate([scores, np.full(100, score)])
        np.testing.assert_array_equal(class_nms(*padded, 0.5, 60), alone)
    order = rng.permutation(200)  # padding between the boxes as well
    found = np.asarray(class_nms(*(each[order] for each in padded), 0.5, 60))
    np.testing.assert_array_equal(np.where(found >= 0, order[found], -1), alone)


def test_nothing_to_keep():
    none = nms(np.zeros((0, 4)), np.zeros(0), 0.5, 3)
    assert none.tolist() == [-1] * 3 and none.dtype == jnp.int32
    assert nms(np.zeros((4, 4)), np.ones(4), 0.5, 3, np.zeros(4, bool)).tolist() == [-1] * 3
    assert nms(np.zeros((4, 4)), np.ones(4), 0.5, 0).shape == (0,)


def test_boxes_without_area_drop_nothing():
    boxes = np.array([[3, 3, 3, 3], [3, 3, 3, 3], [0, 0, 9, 9], [5, 5, 2, 2]], np.float32)
    assert nms(boxes, np.arange(4.0), 0.0, 4).tolist() == [3, 2, 1, 0]


def test_classes_of_boxes_with_large_coordinates_stay_apart():
    """Offsets per class would round these: at 16,777,216 the next float32 is 2 away."""
    rng = np.random.default_rng(3)
    boxes, classes = crowded(rng, (200,)) * 8 + 2.0**22, rng.integers(0, 80, 200)
    scores = rng.permutation(200).astype(np.float32)
    np.testing.assert_array_equal(
        class_nms(boxes, scores, classes, 0.5, 200), one_by_one(boxes, scores, 0.5, 200, classes)
    )


def test_a_batch_is_its_images_one_by_one():
    rng = np.random.default_rng(4)
    boxes, scores = crowded(rng, (5, 300)), rng.normal(size=(5, 300))
    together = quick(jax.vmap(functools.partial(ops_nms.nms, threshold=0.4, size=70)))(boxes, scores)
    for row, b, s in zip(together, boxes, scores, strict=True):
        np.testing.assert_array_equal(row, one_by_one(b, np.float32(s), 0.4, 70))


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(UserError, match=r"boxes \(2, 5, 4\), scores \(2, 5\).*jax.vmap"):
        nms(np.zeros((2, 5, 4)), np.zeros((2, 5)), 0.5, 3)
