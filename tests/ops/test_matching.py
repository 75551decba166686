"""Matching against torchvision's Matcher and by hand; minibatches that have their size and do not see padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as jc
from jaxcnn.ops import boxes as box
from jaxcnn.ops.matching import Matcher, sample
from tests.compilation import quick
from tests.ops.random_boxes import random_boxes
from tests.torchvision_ops import torch, torchvision_ops


@pytest.mark.parametrize("best", [False, True])
def test_matches_are_torchvisions(best):
    torchvision_ops()
    from torchvision.models.detection._utils import Matcher as Theirs

    theirs = Theirs(0.7, 0.3, allow_low_quality_matches=best)
    match = jax.jit(jax.vmap(Matcher(0.7, (0.0, 0.3), best), (0, None)))
    rng = np.random.default_rng(0)
    # Overlaps in steps of 1/8, so that many are equal; a truth that overlaps nothing is the departure, so none is 0.
    overlaps = rng.integers(1, 9, (100, 40, 5)).astype(np.float32) / 8
    overlaps *= np.array([8, 5, 4, 2, 1], np.float32) / 8  # so that some truths' best are below 0.7
    found = match(overlaps, np.ones(5, bool))
    seen = set()
    for case, truths, labels in zip(overlaps, *map(np.asarray, found), strict=True):
        wanted = theirs(torch.tensor(case.T)).numpy()
        np.testing.assert_array_equal(labels, np.where(wanted >= 0, 1, np.where(wanted == -1, 0, -1)))
        np.testing.assert_array_equal(truths[wanted >= 0], wanted[wanted >= 0])
        seen |= set(labels)
    assert seen == {-1, 0, 1}


def test_the_best_anchors_of_a_truth_are_all_positive_and_learn_what_they_overlap_most():
    overlaps = jnp.array([[0.2, 0.0], [0.2, 0.5], [0.1, 0.6], [0.0, 0.0]])
    matches = Matcher(0.7, (0.0, 0.3), best=True)(overlaps, jnp.array([True, True]))
    assert matches.labels.tolist() == [1, 1, 1, 0]  # 0 and 1 tie for the first truth
    assert matches.truths.tolist() == [0, 1, 1, 0]
    assert Matcher(0.7, (0.0, 0.3))(overlaps, jnp.array([True, True])).labels.tolist() == [0, -1, -1, 0]


def test_a_truth_that_overlaps_nothing_makes_nothing_positive():
    overlaps = jnp.array([[0.9, 0.0], [0.1, 0.0]])
    assert Matcher(0.7, (0.0, 0.3), best=True)(overlaps, jnp.array([True, True])).labels.tolist() == [1, 0]


def test_thresholds_count_as_the_papers():
    overlaps = jnp.array([[0.5], [0.49], [0.1], [0.09], [0.0]])
    assert Matcher(0.5, (0.1, 0.5))(overlaps, jnp.array([True])).labels.tolist() == [1, 0, 0, -1, -1]
    assert Matcher(0.7, (0.0, 0.3))(jnp.array([[0.7], [0.3]]), jnp.array([True])).labels.tolist() == [1, -1]


@pytest.mark.parametrize("best", [False, True])
def test_padded_truths_change_nothing_whatever_they_hold(best):
    rng = np.random.default_rng(1)
    anchors, truths = random_boxes(rng, (200,)), random_boxes(rng, (4,))
    garbage = np.concatenate([truths, anchors[:2], np.full((1, 4), np.nan, np.float32), np.zeros((1, 4), np.float32)])
    match = quick(Matcher(0.5, (0.0, 0.4), best))
    iou = quick(box.iou)
    alone = match(iou(anchors, truths), np.ones(4, bool))
    padded = match(iou(anchors, garbage), np.arange(8) < 4)
    for a, b in zip(alone, padded, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (np.asarray(alone.labels) == 1).sum() > 4


def test_without_truths_all_are_negative():
    for overlaps, valid in ((jnp.zeros((3, 0)), jnp.zeros(0, bool)), (jnp.full((3, 2), jnp.nan), jnp.zeros(2, bool))):
        matches = Matcher(0.7, (0.0, 0.3), best=True)(overlaps, valid)
        assert matches.labels.tolist() == [0, 0, 0] and matches.truths.tolist() == [0, 0, 0]


quick_sample = quick(sample, static_argnums=(2, 3))


def draw(labels, seed=0, size=8, fraction=0.5):
    found = quick_sample(jnp.asarray(labels), jax.random.key(seed), size, fraction)
    return np.asarray(found.indices), np.asarray(found.positive)


def test_a_minibatch_has_its_share_of_positives_and_is_filled_with_negatives():
    labels = np.array([1] * 10 + [0] * 20 + [-1] * 5)
    for seed in range(20):
        indices, positive = draw(labels, seed)
        assert positive.tolist() == [True] * 4 + [False] * 4
        assert (labels[indices] == positive).all() and len(set(indices)) == 8
    few = np.array([-1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1])
    indices, positive = draw(few)
    assert positive.sum() == 1 and indices[0] == 1 and (few[indices[1:]] == 0).all() and len(set(indices)) == 8


def test_a_minibatch_that_cannot_be_filled_is_padded():
    indices, positive = draw([1, 1, -1, 0])
    assert set(indices[:3]) == {0, 1, 3} and positive.tolist() == [True, True] + [False] * 6
    assert (indices[3:] == -1).all()
    assert quick_sample(jnp.array([1, 1, -1, 0]), jax.random.key(0), 8, 0.5).valid.sum() == 3
    for labels in ([], [-1, -1]):
        indices, positive = draw(np.array(labels, int))
        assert (indices == -1).all() and not positive.any()
    assert draw([1, 1, 1, 0, 0], size=2, fraction=0)[0].tolist()[0] in (3, 4)


def test_padding_behind_the_boxes_does_not_change_the_draw():
    rng = np.random.default_rng(2)
    labels = rng.integers(-1, 2, 300)
    for more in (212, 1000):
        padded = np.concatenate([labels, np.full(more, -1)])
        for a, b in zip(draw(labels, 5, 64, 0.25), draw(padded, 5, 64, 0.25), strict=True):
            np.testing.assert_array_equal(a, b)


def test_every_box_is_drawn_as_often_and_each_key_draws_others():
    labels = jnp.array([1] * 6 + [0] * 12 + [-1] * 2)
    keys = jax.random.split(jax.random.key(0), 4000)
    indices = np.asarray(jax.jit(jax.vmap(lambda key: sample(labels, key, 8, 0.5).indices))(keys))
    counts = np.bincount(indices.ravel(), minlength=20)
    # 4 of 6 and 4 of 12: means 2666.7 and 1333.3, deviations 29.8 each
    assert np.abs(counts[:6] - 4000 * 4 / 6).max() < 5 * 29.8
    assert np.abs(counts[6:18] - 4000 * 4 / 12).max() < 5 * 29.8
    assert (counts[18:] == 0).all()
    assert Matcher is jc.Matcher
