"""Localisation accuracy and the recall of proposals, against loops and by hand."""

import math

import numpy as np
import pytest
from scipy import ndimage

from jaxcnn.metrics.localization import baselines, contour_boxes, localization_accuracy, max_box_acc
from jaxcnn.metrics.proposal_recall import proposal_recall
from tests.metrics.test_average_precision import boxes_of


def iou(box, other):
    sides = [min(box[k + 2], other[k + 2]) - max(box[k], other[k]) for k in (0, 1)]
    inside = max(sides[0], 0) * max(sides[1], 0)
    areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (box, other)]
    return inside / (sum(areas) - inside) if inside else 0.0


def test_localization_accuracy_is_that_of_a_loop():
    random = np.random.default_rng(0)
    boxes, labels, predicted = boxes_of(random, 200, 30), random.integers(0, 3, 200), random.integers(0, 3, 200)
    truths = []
    for box in boxes:
        true = np.concatenate([boxes_of(random, 2, 30), box[None] + random.integers(-3, 4, 4), np.full((1, 4), 7)])
        truths.append({"boxes": true, "classes": np.array([*random.integers(0, 3, 3), -1])})
    top1 = known = total = 0
    for i in range(200):
        pairs = zip(truths[i]["boxes"], truths[i]["classes"], strict=True)
        best = max([iou(boxes[i], true) for true, kind in pairs if kind == labels[i]], default=0)
        known += best >= 0.5
        top1 += best >= 0.5 and labels[i] == predicted[i]
        total += best
    found = localization_accuracy(boxes, truths, labels, predicted)
    assert found == pytest.approx(
        {"top1_localization": top1 / 200, "gt_known_localization": known / 200, "mean_box_iou": total / 200}
    )
    assert 0 < top1 < known < 200
    assert all(math.isnan(value) for value in localization_accuracy([], [], [], []).values())


def test_baselines_by_hand():
    truths = [
        {"boxes": [[0, 0, 10, 20]], "classes": [1]},  # half of the image, on the left
        {"boxes": [[5, 0, 15, 20], [0, 0, 1, 1]], "classes": [0, 1]},  # half of it, in the middle
    ]
    found = baselines(truths, [[20, 20], [20, 20]], [1, 0])
    assert found["whole_image"] == {0.3: 1.0, 0.5: 1.0, 0.7: 0.0}  # IoU 0.5
    assert found["center_box"] == {0.3: 1.0, 0.5: 0.5, 0.7: 0.5}  # IoU 1/3 and 1


def test_boxes_around_contours_are_those_of_the_parts():
    random = np.random.default_rng(1)
    heat = ndimage.gaussian_filter(random.random((40, 50)), 2)
    stretched = ((heat - heat.min()) / (heat.max() - heat.min()) * 255).astype(np.uint8)
    levels = contour_boxes(heat)
    assert len(levels) == 256 and not len(levels[255])
    for level in range(0, 255, 7):
        parts, _ = ndimage.label(stretched > level, np.ones((3, 3)))
        there = {(s[1].start, s[0].start, s[1].stop, s[0].stop) for s in ndimage.find_objects(parts)}
        assert there <= {tuple(map(int, box)) for box in levels[level]}
    assert [len(boxes) for boxes in contour_boxes(np.ones((5, 5)))] == [0] * 256


def map_of(*rectangles):
    heat = np.zeros((40, 40))
    for (left, top, right, bottom), value in rectangles:
        heat[top:bottom, left:right] = value
    return heat


A, B, C = (2, 2, 12, 12), (20, 20, 38, 38), (2, 22, 14, 34)


def test_one_level_serves_the_whole_set():
    """A alone above 0.6, A and B below: the first image needs a high level, the second a low one."""
    maps = [map_of((A, 1.0), (B, 0.6)), map_of((A, 0.3), (C, 0.0), (B, 1.0))]
    truths = [{"boxes": [A], "classes": [0]}, {"boxes": [B], "classes": [0]}]
    found = max_box_acc(maps, truths, [0, 0], right=[True, False])
    assert (
        found.max_box_acc == 1.0
        and found.max_box_acc_level == pytest.approx(0.6)
        and found.max_box_acc_and_class == 0.5
    )
    opposed = [maps[0], map_of((A, 1.0), (B, 0.55))]
    found = max_box_acc(opposed, truths, [0, 0])
    assert found.max_box_acc == 0.5  # each alone has a level at which it is right
    assert [max_box_acc(opposed[i : i + 1], truths[i : i + 1], [0]).max_box_acc for i in (0, 1)] == [1, 1]
    assert found.max_box_acc_v2 == 1.0 and math.isnan(
        found.max_box_acc_and_class
    )  # any contour's box: A's and B's are both there
    assert found.curve.shape == (256,) and found.curve.max() == 0.5


def test_other_classes_and_thresholds_of_v2():
    wide = (A[0], A[1], A[2], A[1] + 6)  # IoU 0.6 with A
    found = max_box_acc([map_of((wide, 1.0))], [{"boxes": [A, B], "classes": [3, 1]}], [3])
    assert found.by_threshold == {0.3: 1.0, 0.5: 1.0, 0.7: 0.0} and found.max_box_acc_v2 == pytest.approx(2 / 3)
    assert max_box_acc([map_of((B, 1.0))], [{"boxes": [A, B], "classes": [3, 1]}], [3]).max_box_acc == 0
    assert math.isnan(max_box_acc([], [], []).max_box_acc)


def test_recall_of_proposals_is_that_of_a_loop():
    random = np.random.default_rng(2)
    proposals, truths = [], []
    for _ in range(20):
        flags = {name: random.random(5) < 0.2 for name in ("difficult", "crowd")}
        truths.append({"boxes": boxes_of(random, 5, 30), "classes": np.array([0, 1, 1, 0, -1])} | flags)
        near = truths[-1]["boxes"][:3] + random.integers(-2, 3, (3, 4))
        proposals.append(random.permutation(np.concatenate([near, boxes_of(random, 20, 30)])))
    for most in (None, 10):
        best = [
            max(iou(box, true) for box in given[:most])
            for given, truth in zip(proposals, truths, strict=True)
            for k, true in enumerate(truth["boxes"])
            if not (truth["difficult"][k] or truth["crowd"][k] or truth["classes"][k] < 0)
        ]
        found = proposal_recall(proposals, truths, most=most)
        assert found == {f"recall_{t}": np.mean([share >= t / 100 for share in best]) for t in (50, 70)}
        assert 0 < found["recall_70"] < found["recall_50"] < 1
    assert proposal_recall([np.zeros((3, 4))], [{"boxes": [[0, 0, 5, 5]], "classes": [0]}])["recall_50"] == 0
    assert math.isnan(proposal_recall([[]], [{"boxes": np.zeros((0, 4)), "classes": []}])["recall_50"])
