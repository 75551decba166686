"""Average precision against pycocotools, against a slow reading of voc_eval.py's rules, and by hand."""

import contextlib
import io
import math

import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.metrics.average_precision import METRICS, check_truth, coco, measure, voc
from jaxcnn.metrics.detections import as_detections, gather
from jaxcnn.metrics.hits import hits_of_images, match

PROTOCOLS = tuple(METRICS)


def boxes_of(random, count, scale):
    low = random.integers(0, scale, (count, 2))
    return np.concatenate([low, low + random.integers(1, scale // 2, (count, 2))], 1).astype(float)


def random_set(seed):
    """(detections, truth, classes) of few images: some empty, of small to large objects, with crowds and difficult
    ones, at times a class without objects; every other set has many equal scores, every tenth over 100 detections of a
    class in an image.
    """
    random = np.random.default_rng(seed)
    classes, many, scale = int(random.integers(1, 5)), seed % 10 == 0, (40, 150, 400)[seed % 3]
    detections, truths = [], []
    for _ in range(int(random.integers(1, 6))):
        objects = int(random.integers(0, 7)) if random.random() > 0.2 else 0
        true = boxes_of(random, objects, scale)
        kinds = random.integers(0, max(1, classes - 1), objects)
        count = int(random.integers(100, 180)) if many else int(random.integers(0, 12))
        count = 0 if random.random() < 0.15 else count
        found, given = boxes_of(random, count, scale), random.integers(0, classes, count)
        for k in range(count):
            if objects and random.random() < 0.6:
                which = random.integers(objects)
                found[k] = true[which] + random.integers(-4, 5, 4) * random.integers(0, 2)
                found[k, 2:], given[k] = np.maximum(found[k, 2:], found[k, :2] + 1), kinds[which]
        scores = random.integers(0, 8, count) / 8 if seed % 2 else random.random(count)
        detections.append({"boxes": found, "scores": scores, "classes": given * (not many)})
        area = (true[:, 2:] - true[:, :2]).prod(1) * random.uniform(0.5, 1, objects)
        flags = {name: random.random(objects) < 0.2 for name in ("crowd", "difficult")}
        truths.append({"boxes": true, "classes": kinds, "area": area} | flags)
    return detections, truths, classes


def by_pycocotools(detections, truths, classes):
    coco_module = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    def side(boxes):
        return [[float(x), float(y), float(right - x), float(below - y)] for x, y, right, below in boxes]

    annotations, results = [], []
    for i, (found, truth) in enumerate(zip(detections, truths, strict=True), 1):
        for box, kind, crowd, area in zip(
            side(truth["boxes"]), truth["classes"], truth["crowd"], truth["area"], strict=True
        ):
            entry = {"id": len(annotations) + 1, "image_id": i, "category_id": int(kind) + 1, "bbox": box}
            annotations.append(entry | {"iscrowd": int(crowd), "area": float(area)})
        for box, kind, score in zip(side(found["boxes"]), found["classes"], found["scores"], strict=True):
            results.append({"image_id": i, "category_id": int(kind) + 1, "bbox": box, "score": float(score)})
    images = [{"id": i + 1} for i in range(len(truths))]
    categories = [{"id": kind + 1, "name": str(kind)} for kind in range(classes)]

    def opened(entries):
        made = coco_module.COCO()
        made.dataset = {"images": images, "annotations": entries, "categories": categories}
        made.createIndex()
        return made

    with contextlib.redirect_stdout(io.StringIO()):
        truth = opened(annotations)
        evaluation = COCOeval(truth, truth.loadRes(results) if results else opened([]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def test_cocos_twelve_numbers_are_pycocotools_on_200_random_sets():
    seen = set()
    for seed in range(200):
        sides = random_set(seed)
        ours, theirs = coco(*sides), by_pycocotools(*sides)
        assert tuple(ours.metrics) == METRICS["coco"]
        np.testing.assert_allclose([*ours.metrics.values()], theirs.stats, atol=1e-9, rtol=0, err_msg=str(seed))
        for kind, value in enumerate(ours.classes):
            each = theirs.eval["precision"][:, :, kind, 0, 2]
            assert math.isclose(value, each[each > -1].mean() if (each > -1).any() else -1, abs_tol=1e-9)
        detections, truths, _ = sides
        seen |= {"absent"} if -1 in ours.classes else set()
        seen |= {"empty"} if any(not len(truth["classes"]) for truth in truths) else set()
        seen |= {"crowd"} if any(truth["crowd"].any() for truth in truths) else set()
        seen |= {"many"} if any(len(found["classes"]) > 100 for found in detections) else set()
        seen |= {"ties"} if any(len(set(found["scores"])) < len(found["scores"]) for found in detections) else set()
        seen |= {"nothing found"} if not sum(len(found["classes"]) for found in detections) else set()
    assert seen == {"absent", "empty", "crowd", "many", "ties", "nothing found"}


def slow_voc(detections, truths, kind, protocol):
    """voc_eval.py's rules, read one detection at a time, in its inclusive pixels that count from 1."""
    lines = []
    for i, found in enumerate(detections):
        for box, given, score in zip(found["boxes"], found["classes"], found["scores"], strict=True):
            if given == kind:
                lines.append((-score, len(lines), i, (box[0] + 1, box[1] + 1, box[2], box[3])))
    records, objects = [], 0
    for truth in truths:
        mine = [k for k, given in enumerate(truth["classes"]) if given == kind]
        inclusive = [truth["boxes"][k] + (1, 1, 0, 0) for k in mine]
        difficult = [truth["difficult"][k] or truth["crowd"][k] for k in mine]
        records.append((inclusive, difficult, [False] * len(mine)))
        objects += len(mine) - sum(difficult)
    if not objects:
        return float("nan")
    right = wrong = 0
    points = []
    for _, _, image, box in sorted(lines):
        boxes, difficult, taken = records[image]
        most, which = -math.inf, None
        for k, true in enumerate(boxes):
            width = min(box[2], true[2]) - max(box[0], true[0]) + 1
            height = min(box[3], true[3]) - max(box[1], true[1]) + 1
            inside = max(width, 0) * max(height, 0)
            sizes = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, true)]
            share = inside / (sum(sizes) - inside)
            if share > most:
                most, which = share, k
        if most > 0.5:
            if not difficult[which]:
                right, wrong = (right, wrong + 1) if taken[which] else (right + 1, wrong)
                taken[which] = True
        else:
            wrong += 1
        if right + wrong:
            points.append((right / objects, right / (right + wrong)))
    if protocol == "voc07":
        return sum(max((p for r, p in points if r >= t), default=0) for t in np.arange(0, 1.1, 0.1)) / 11
    total, before = 0.0, 0.0
    for place, (recall, _) in enumerate(points):
        total += (recall - before) * max(p for _, p in points[place:])
        before = recall
    return total


@pytest.mark.parametrize("protocol", ["voc07", "voc10"])
def test_vocs_numbers_are_those_of_a_slow_reading_of_its_rules(protocol):
    difficult = second = 0
    for seed in range(100):
        detections, truths, classes = random_set(seed)
        if seed % 10 == 0:
            detections = [{name: part[:40] for name, part in found.items()} for found in detections]
        ours = voc(detections, truths, classes, protocol=protocol)
        slow = [slow_voc(detections, truths, kind, protocol) for kind in range(classes)]
        np.testing.assert_allclose(ours.classes, slow, atol=1e-12)
        assert ours.value == pytest.approx(np.nanmean(slow) if not np.isnan(slow).all() else math.nan, nan_ok=True)
        hits = match(gather(detections, truths, classes))
        difficult, second = difficult + hits.ignored.sum(), second + ((hits.iou > 0.5) & ~hits.right).sum()
    assert difficult > 100 and second > 100


def shown(right, objects=4):
    """Detections that are right or wrong, by falling score, in an image of `objects` true boxes."""
    true = np.array([[20 * k, 0, 20 * k + 10, 10] for k in range(objects)], float)
    places = np.where(right, np.cumsum(right) - 1, objects + 1)
    found = np.stack([20 * places, 0 * places, 20 * places + 10, 0 * places + 10], 1)
    scores = np.linspace(0.9, 0.1, len(found))
    return (
        [{"boxes": found, "scores": scores, "classes": np.zeros(len(found), int)}],
        [{"boxes": true, "classes": np.zeros(objects, int)}],
        1,
    )


def test_the_protocols_differ_by_known_amounts_on_a_set_by_hand():
    """Right, wrong, right, wrong, right of four objects: precision 1, 2/3 and 3/5 up to recall 1/4, 1/2 and 3/4."""
    sides = shown([True, False, True, False, True])
    assert measure("voc07", *sides).value == pytest.approx((3 * 1 + 3 * 2 / 3 + 2 * 3 / 5) / 11, abs=1e-12)  # .5636
    assert measure("voc10", *sides).value == pytest.approx((1 + 2 / 3 + 3 / 5) / 4, abs=1e-12)  # .5667
    metrics = measure("coco", *sides).metrics
    assert metrics["coco_ap50"] == pytest.approx((26 + 25 * 2 / 3 + 25 * 3 / 5) / 101, abs=1e-12)  # .5710
    assert metrics["coco_ar100"] == 0.75 and metrics["coco_ar1"] == 0.25 and metrics["coco_ap_large"] == -1
    curve = measure("voc10", *sides).curves[0]
    assert curve.recall.tolist() == [0.25, 0.25, 0.5, 0.5, 0.75]
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3, 1 / 2, 3 / 5])
    assert np.array_equal(curve.recall, measure("coco", *sides).curves[0].recall)


def test_rules_by_hand():
    one = {"boxes": np.array([[0, 0, 10, 10.0]]), "classes": np.array([0])}

    def values(boxes, truth=one):
        found = {"boxes": boxes, "scores": np.linspace(0.9, 0.8, len(boxes)), "classes": np.zeros(len(boxes), int)}
        return [measure(protocol, [found], [truth], 1) for protocol in PROTOCOLS]

    half = values([[0, 0, 10, 5]])  # an IoU of 0.5 is not above 0.5, and it is at least 0.5
    assert [half[0].value, half[1].value, round(half[2].metrics["coco_ap50"], 9)] == [0, 0, 1]
    again = values([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]])
    assert again[1].curves[0].precision.tolist() == [1, 1 / 2, 1 / 3] and again[2].curves[0].precision[1] == 0.5
    both = {"boxes": np.array([[0, 0, 10, 10.0], [20, 0, 30, 10]]), "classes": np.zeros(2, int)}
    marked = values([[20, 0, 30, 10], [0, 0, 10, 10]], both | {"difficult": np.array([False, True])})
    assert [each.value for each in marked] == [1, 1, 1] and marked[0].objects.tolist() == [1]
    assert marked[0].curves[0].precision.tolist() == [1.0] and marked[2].objects.tolist() == [2]
    crowd = values([[20, 0, 24, 4], [22, 2, 26, 6], [0, 0, 10, 10]], both | {"crowd": np.array([False, True])})
    assert [each.value for each in crowd] == pytest.approx([1 / 3, 1 / 3, 1])  # VOC knows no crowds


def test_of_two_equal_overlaps_coco_takes_the_later_box():
    """The first detection overlaps both boxes by 0.8; above 0.5 the second one fits the earlier box alone."""
    no = np.zeros(2, bool)
    truth = {"boxes": np.array([[0, 0, 10, 8], [0, 2, 10, 10.0]]), "classes": np.zeros(2, int), "crowd": no}
    truth["area"] = np.full(2, 80.0)
    found = {"boxes": np.array([[0, 0, 10, 10], [0, 0, 10, 7.0]]), "scores": [0.9, 0.8], "classes": np.zeros(2, int)}
    ours = coco([found], [truth], 1)
    assert ours.metrics["coco_ap75"] == pytest.approx(1)
    np.testing.assert_allclose([*ours.metrics.values()], by_pycocotools([found], [truth], 1).stats, atol=1e-9)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_truth_given_as_detections_scores_one(protocol):
    for seed in range(30):
        _, truths, classes = random_set(seed)
        counting = [(~truth["crowd"] & (protocol == "coco" or ~truth["difficult"])).sum() for truth in truths]
        if not sum(counting):
            with pytest.raises(UserError, match=f"of {len(truths)} images none has an object that counts"):
                check_truth(protocol, truths, classes)
            continue
        found = as_detections(truths)
        assert [len(each["scores"]) for each in found] == [(~truth["crowd"]).sum() for truth in truths]
        measured = measure(protocol, found, truths, classes)
        assert measured.value == pytest.approx(1, abs=1e-12)
        check_truth(protocol, truths, classes)
    twice = [{"boxes": [[0, 0, 5, 5], [0, 0, 5, 5]], "classes": [1, 1]}]
    if protocol != "coco":
        with pytest.raises(UserError, match=r"val: .* score 0.5.* by voc.*box 1 of image 0, of class 1 \(0, 0, 5, 5\)"):
            check_truth(protocol, twice, 2, "val")
    with pytest.raises(UserError, match="not 1"):
        shares = [{"boxes": [[0, 0, 0, 0.0], [1, 1, 5, 5]], "classes": [0, 0]}]
        check_truth(protocol, shares, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_orders_of_images_and_boxes_change_nothing(protocol):
    for seed in range(12):
        detections, truths, classes = random_set(seed)
        random = np.random.default_rng(seed)
        plain = measure(protocol, detections, truths, classes)
        order = random.permutation(len(truths))
        moved = [detections[i] for i in order], [truths[i] for i in order]
        ids = measure(protocol, *moved, classes, ids=order.tolist())
        assert ids.metrics == plain.metrics or math.isnan(plain.value)
        for found in detections:
            found["scores"] = found["scores"] + np.arange(len(found["scores"])) / 1e6  # no two are equal
        plain = measure(protocol, detections, truths, classes, ids=range(len(truths)))
        shuffled = [
            [{name: part[places] for name, part in each.items()} for each in side for places in [_places(random, each)]]
            for side in (detections, truths)
        ]
        again = measure(protocol, *shuffled, classes)
        np.testing.assert_allclose([*again.metrics.values()], [*plain.metrics.values()], atol=1e-12)


def _places(random, image):
    return random.permutation(len(image["classes"]))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_found_is_zero_and_nothing_to_be_found_is_told_apart(protocol):
    detections, truths, classes = random_set(3)
    nothing = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "classes": np.zeros(0, int)}
    assert measure(protocol, [nothing] * len(truths), truths, classes).value == 0
    assert measure(protocol, [], [], 2).value == (-1 if protocol == "coco" else pytest.approx(math.nan, nan_ok=True))
    empty = {"boxes": np.zeros((0, 4)), "classes": np.zeros(0, int)}
    value = measure(protocol, detections, [empty] * len(truths), classes).value
    assert value == -1 if protocol == "coco" else math.isnan(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_padded_records_are_read_as_lists_are(protocol):
    for seed in range(8):
        detections, truths, classes = random_set(seed)
        padded = []
        for side in (detections, truths):
            most = max(len(each["classes"]) for each in side) + 2
            arrays = {}
            for name in side[0]:
                fill = {"classes": -1.0, "boxes": 7.0, "scores": 0.95}.get(name, 0.0)
                rows = np.full((len(side), most, *np.shape(side[0][name])[1:]), fill)
                for i, each in enumerate(side):
                    rows[i, 1 : 1 + len(each[name])] = each[name]  # padding in front as well
                arrays[name] = rows.astype(np.float64 if name == "area" else side[0][name].dtype)
            padded.append(arrays)
        one, other = measure(protocol, detections, truths, classes), measure(protocol, *padded, classes)
        np.testing.assert_equal(one.metrics, other.metrics)


def test_hits_name_the_rows_of_each_image():
    truths = [
        {"boxes": [[0, 0, 9, 9]], "classes": [1]},
        {"boxes": [[9, 9, 9, 9], [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], "classes": [-1, 0, 0, 1]},
    ]
    truths[1]["difficult"], truths[0]["difficult"] = [False, False, True, False], [False]
    found = [
        {"boxes": [], "scores": [], "classes": []},
        {
            "boxes": [[0, 0, 10, 9], [7, 7, 7, 7], [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]],
            "scores": [0.5, 1.0, 0.9, 0.8, 0.7],
            "classes": [0, -1, 0, 0, 0],
        },
    ]
    first, second = hits_of_images(found, truths, 2)
    assert first.missed.tolist() == [True] and not len(first.right)
    assert second.right.tolist() == [False, False, True, False, False]
    assert second.wrong.tolist() == [True, False, False, False, True]  # a second one, and one of another class
    assert second.partner.tolist() == [-1, -1, 1, -1, -1] and second.iou.tolist() == [0.9, 0, 1, 1, 0]
    assert second.missed.tolist() == [False, False, False, True]
    for seed in range(20):
        detections, truths, classes = random_set(seed)
        each, measured = hits_of_images(detections, truths, classes), voc(detections, truths, classes)
        assert sum(hits.right.sum() + hits.missed.sum() for hits in each) == measured.objects.sum()
        assert sum((hits.right | hits.wrong).sum() for hits in each) == sum(len(c.scores) for c in measured.curves)


def test_mistakes_are_named():
    detections, truths, classes = random_set(1)
    with pytest.raises(UserError, match=r"protocol is 'voc7'; did you mean 'voc07'.*\? there is voc07, voc10, coco"):
        measure("voc7", detections, truths, classes)
    for wrong, match_ in (
        ((detections[:-1], truths, classes), "and the truth of"),
        ((detections, truths, 1), "is of class"),
        (([{"boxes": [], "classes": []}] * len(truths), truths, classes), "no scores"),
        (([{"boxes": [[0, 0, 1, 1]], "classes": [0], "scores": []}] * len(truths), truths, classes), "1 classes and 0"),
    ):
        with pytest.raises(ValueError, match=match_):
            voc(*wrong)
    with pytest.raises(ValueError, match="different ids"):
        voc(detections, truths, classes, ids=[0] * len(truths))
