"""FastRCNNLoss and FasterRCNNLoss against readings of the papers box by box, and what must not change them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.box_head import RegionOutputs
from jaxcnn.models.rpn import AnchorOutputs, Proposals
from jaxcnn.ops.box_coding import BoxCoder
from jaxcnn.ops.matching import sample
from jaxcnn.tasks.rcnn_loss import FasterRCNNLoss, FastRCNNLoss, RPNLoss, draw_regions, region_losses, truth_of
from tests.compilation import quick

SIZE, CLASSES, IMAGES = (60, 80), 3, 3
RELEASED = FasterRCNNLoss(anchors=12, regions=9)


# What an image's losses are, one box after the other, in Python's numbers.


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    return width * height / (area(a) + area(b) - width * height)


def offsets_of(box, anchor, weights):
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x = (box[0] + box[2] - anchor[0] - anchor[2]) / 2 / width
    y = (box[1] + box[3] - anchor[1] - anchor[3]) / 2 / height
    values = (x, y, math.log((box[2] - box[0]) / width), math.log((box[3] - box[1]) / height))
    return [value * weight for value, weight in zip(values, weights, strict=True)]


def huber(difference, beta):
    size = abs(difference)
    return size**2 / 2 / beta if size < beta else size - beta / 2


def best_of(box, objects):
    """(the largest overlap, the first object that has it); objects are (box, class)."""
    values = [overlap(box, each) for each, _ in objects]
    return (max(values), values.index(max(values))) if values else (0.0, None)


def anchor_reading(loss, anchors, logits, offsets, objects, key):
    labels, owners = [], []
    inside = [
        not loss.inside or (a[0] >= 0 and a[1] >= 0 and a[2] <= SIZE[1] and a[3] <= SIZE[0]) for a in anchors.tolist()
    ]
    most = [
        max([overlap(a, box) for a, there in zip(anchors, inside, strict=True) if there] + [0]) for box, _ in objects
    ]
    for anchor, there in zip(anchors, inside, strict=True):
        value, owner = best_of(anchor, objects)
        is_best = any(overlap(anchor, box) == m > 0 for (box, _), m in zip(objects, most, strict=True))
        label = 1 if value >= 0.7 or is_best else 0 if value < 0.3 else -1
        labels.append(label if there else -1)
        owners.append(owner)
    drawn = [int(i) for i in sample(np.array(labels), key, loss.anchors, loss.positive_anchors).indices if i >= 0]
    assert sum(labels[i] for i in drawn) <= loss.anchors * loss.positive_anchors
    of_class = of_box = 0.0
    for i in drawn:
        probability = 1 / (1 + math.exp(-logits[i]))
        of_class -= math.log(probability if labels[i] else 1 - probability)
        if labels[i]:
            wanted = offsets_of(objects[owners[i]][0], anchors[i], (1, 1, 1, 1))
            of_box += sum(huber(x - y, loss.anchor_beta) for x, y in zip(offsets[i], wanted, strict=True))
    return of_class / max(1, len(drawn)), of_box / max(1, len(drawn))


def region_reading(loss, coder, proposals, valid, room, objects, places, answer, key):
    """`answer(box)` gives the logits and the offsets of a region; `room` rows are for objects, at `places`."""
    boxes = [list(box) for box in proposals] + [[0.0] * 4] * room
    there = [*valid, *[False] * room]
    for place, (box, _) in zip(places, objects, strict=True):
        boxes[len(proposals) + place], there[len(proposals) + place] = list(box), True
    labels, owners = [], []
    for box, counts in zip(boxes, there, strict=True):
        value, owner = best_of(box, objects)
        low, high = loss.matcher.negative
        label = 1 if value >= 0.5 else 0 if low <= value < high else -1
        labels.append(label if counts else -1)
        owners.append(owner)
    drawn = [int(i) for i in sample(np.array(labels), key, loss.regions, loss.positive).indices if i >= 0]
    of_class = of_box = 0.0
    for i in drawn:
        logits, offsets = answer(boxes[i])
        label = 1 + objects[owners[i]][1] if labels[i] else 0
        of_class += math.log(sum(math.exp(x) for x in logits)) - logits[label]
        if label:
            wanted = offsets_of(objects[owners[i]][0], boxes[i], coder.weights)
            of_box += sum(huber(x - y, loss.beta) for x, y in zip(offsets[label], wanted, strict=True))
    return of_class / max(1, len(drawn)), of_box / max(1, len(drawn))


def random_boxes(rng, *shape, reach=0.0):
    """Corners on whole pixels, some beyond the image by `reach` of its sides."""
    height, width = SIZE
    first = np.stack([rng.uniform(-reach * s, 0.8 * s, shape) for s in (width, height)], -1)
    sides = np.stack([rng.uniform(4, 0.6 * s, shape) for s in (width, height)], -1)
    last = np.minimum(first + sides, np.array([width, height]) * (1 + reach))
    return np.round(np.concatenate([first, np.maximum(last, first + 2)], -1)).astype(np.float32)


def random_truth(rng):
    """Padded rows hold garbage; the first image has no object, and one box no area."""
    boxes = random_boxes(rng, IMAGES, 4)
    classes = rng.integers(-1, CLASSES, (IMAGES, 4)).astype(np.int32)
    classes[0] = -1
    boxes[classes < 0] = rng.choice([np.nan, -1e9, 1e9, 7], (4,)).astype(np.float32)
    boxes[1, 0], classes[1, 0] = (5, 5, 5, 30), 1
    places = [[j for j in range(4) if classes[i, j] >= 0 and boxes[i, j, 2] > boxes[i, j, 0]] for i in range(IMAGES)]
    objects = [[(boxes[i, j].tolist(), int(classes[i, j])) for j in places[i]] for i in range(IMAGES)]
    return {"boxes": jnp.asarray(boxes), "classes": jnp.asarray(classes)}, objects, places


CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))


@functools.partial(quick, static_argnames="loss")
def ours(loss, outputs, proposals, batch, keys, weights):
    truth = truth_of(batch)
    drawn = draw_regions(proposals, truth, keys, CODER, loss.matcher, size=loss.regions, positive=loss.positive)
    said = (drawn.boxes @ weights).reshape(IMAGES, -1, 1 + CLASSES, 5)
    regions = region_losses(RegionOutputs(said[..., 0], said[..., 1:]), drawn, loss.beta)
    return loss.rpn.anchor_losses(outputs, truth, SIZE, BoxCoder(), keys) | regions


def check_against_readings(seed, loss, more=0):
    rng = np.random.default_rng(seed)
    batch, objects, places = random_truth(rng)
    anchors, boxes = random_boxes(rng, 30, reach=0.1), random_boxes(rng, IMAGES, 12)
    boxes[:, 2:6] = np.where(
        rng.random((IMAGES, 1, 1)) < 0.7, np.nan_to_num(batch["boxes"], nan=9)[:, :4], boxes[:, 2:6]
    )
    boxes = np.clip(boxes, 0, [SIZE[1], SIZE[0]] * 2).astype(np.float32)
    there = (rng.random((IMAGES, 12)) < 0.9) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    proposals = Proposals(jnp.where(there[..., None], boxes, 0), jnp.asarray(there, jnp.float32), jnp.asarray(there))
    logits, offsets = (rng.normal(0, 2, (IMAGES, 30, *more)).astype(np.float32) for more in ((), (4,)))
    outputs = AnchorOutputs(jnp.asarray(logits), jnp.asarray(offsets), jnp.asarray(anchors), (30,))
    weights = rng.normal(0, 0.02, (4, 5 * (1 + CLASSES))).astype(np.float32)
    keys = jax.random.split(jax.random.key(seed), IMAGES)
    longer = {  # the same with more padding, in which garbage stands
        "boxes": jnp.concatenate([batch["boxes"], jnp.full((IMAGES, more, 4), jnp.nan)], 1),
        "classes": jnp.concatenate([batch["classes"], jnp.full((IMAGES, more), -1)], 1),
    }
    found = ours(loss, outputs, proposals, longer, keys, weights)

    def answer(box):
        said = (np.array(box) @ weights).reshape(1 + CLASSES, 5)
        return said[:, 0].tolist(), said[:, 1:].tolist()

    for i in range(IMAGES):
        rpn = anchor_reading(loss, anchors, logits[i], offsets[i], objects[i], keys[i])
        head = region_reading(
            *(loss, CODER, np.asarray(proposals.boxes[i]), there[i], 4 + more, objects[i], places[i], answer, keys[i])
        )
        for name, expected in zip(loss.parts, (*rpn, *head), strict=True):
            assert float(found[name][i]) == pytest.approx(expected, rel=1e-4, abs=1e-5), (name, i)
    assert found["rpn_box_loss"][0] == found["box_loss"][0] == 0  # the image without objects
    return found


def test_the_losses_are_those_of_readings_box_by_box():
    found = [check_against_readings(seed, RELEASED, more=3) for seed in range(8)]
    for name in RELEASED.parts:  # the batches ask something
        assert np.mean([float(each[name][1:].max()) > 0 for each in found]) > 0.9


def small(**fields):
    """A narrow net, random weights and images; drawn by numpy: compiling the draws would take longer than the tests."""
    trunk = {"stages": (((3, 8, 4),), ((3, 16, 2),)), "norm": "none"}
    model = create_model("faster_rcnn_small", classes=CLASSES, width=0.5, **trunk, **fields)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(IMAGES, 64, 80, 3)), jnp.float32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))

    def draw(path, leaf):
        fan_in = math.prod(leaf.shape[:-1])
        values = rng.normal(0, (2 / fan_in) ** 0.5 if path[-1].key == "kernel" else 0.1, leaf.shape)
        return jnp.asarray(np.ones(leaf.shape) if path[-1].key in ("scale", "var") else values, jnp.float32)

    return model, jax.tree_util.tree_map_with_path(draw, shapes), images


@functools.cache
def trained_small():
    """(gradient, losses) of the small net as a function of the loss, its variables, the batch and the key."""
    model, variables, images = small()

    @quick
    def gradient(batch, key, weights):
        def total(params):
            losses, _ = LOSS.losses(model, {**variables, "params": params}, batch, train=True, rngs={"dropout": key})
            return sum(weights[name] * losses[name].sum() for name in LOSS.parts), losses

        return jax.grad(total, has_aux=True)(variables["params"])

    return gradient, images


LOSS = FasterRCNNLoss(anchors=32, regions=16)
ONE = dict.fromkeys(LOSS.parts, 1.0)
TRUTH = {
    "boxes": jnp.array([[[8.0, 8, 40, 40], [30, 10, 70, 50]], [[2, 4, 34, 40], [9, 9, 9, 9]], [[0, 0, 0, 0]] * 2]),
    "classes": jnp.array([[0, 2], [1, -1], [-1, -1]]),
}


def batch_of(images, boxes=TRUTH["boxes"], classes=TRUTH["classes"]):
    return {"image": images, "boxes": boxes, "classes": classes}


def test_padding_and_images_without_objects_are_finite_and_change_nothing():
    gradient, images = trained_small()
    expected = gradient(batch_of(images), jax.random.key(3), ONE)
    for name in LOSS.parts:
        assert expected[1][name].shape == (IMAGES,)
    assert expected[1]["box_loss"][2] == expected[1]["rpn_box_loss"][2] == 0  # no object
    assert expected[1]["class_loss"][2] > 0 and expected[1]["rpn_class_loss"][2] > 0
    for garbage in (np.nan, np.inf, -5.0, 1e30):
        boxes = jnp.where(TRUTH["classes"][..., None] >= 0, TRUTH["boxes"], garbage)
        again = gradient(batch_of(images, boxes), jax.random.key(3), ONE)
        for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(again), strict=True):
            assert np.isfinite(one).all()
            np.testing.assert_array_equal(one, other)


def test_no_gradient_flows_through_the_proposals():
    gradient, images = trained_small()
    head_only = {"rpn_class_loss": 0.0, "rpn_box_loss": 0.0, "class_loss": 1.0, "box_loss": 1.0}
    gradients, losses = gradient(batch_of(images), jax.random.key(3), head_only)
    assert losses["box_loss"][:2].min() > 0
    assert all(np.abs(each).max() == 0 for each in jax.tree.leaves(gradients["rpn"]))
    assert all(np.abs(each).max() > 0 for each in jax.tree.leaves([gradients["head"], gradients["backbone"]["conv1"]]))
    rpn_only = {name: 1.0 - weight for name, weight in head_only.items()}
    gradients, _ = gradient(batch_of(images), jax.random.key(3), rpn_only)
    assert all(np.abs(each).max() == 0 for each in jax.tree.leaves(gradients["head"]))
    assert all(np.abs(each).max() > 0 for each in jax.tree.leaves(gradients["rpn"]))


def test_training_draws_anew_and_evaluation_is_training_with_a_fixed_key():
    gradient, images = trained_small()
    _, one = gradient(batch_of(images), jax.random.key(3), ONE)
    _, other = gradient(batch_of(images), jax.random.key(4), ONE)
    assert not np.array_equal(one["rpn_class_loss"], other["rpn_class_loss"])
    model, variables, _ = small()
    evaluated = quick(lambda: LOSS.losses(model, variables, batch_of(images), train=False, rngs={})[0])()
    _, trained = gradient(batch_of(images), jax.random.key(0), ONE)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), evaluated, trained)


def test_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(0)
    batch, _, _ = random_truth(rng)
    anchors, keys = jnp.asarray(random_boxes(rng, 20)), jax.random.split(jax.random.key(0), IMAGES)

    @quick
    @functools.partial(jax.value_and_grad, argnums=(0, 1, 2, 3))
    def total(logits, offsets, scores, shifts):
        outputs, truth = AnchorOutputs(logits, offsets, anchors, (20,)), truth_of(batch)
        boxes = jnp.broadcast_to(anchors, (IMAGES, 20, 4))
        given = Proposals(boxes, jnp.ones((IMAGES, 20)), jnp.ones((IMAGES, 20), bool))
        drawn = draw_regions(given, truth, keys, CODER, RELEASED.matcher, size=9, positive=0.25)
        parts = RELEASED.rpn.anchor_losses(outputs, truth, SIZE, BoxCoder(), keys)
        parts |= region_losses(RegionOutputs(scores, shifts), drawn, RELEASED.beta)
        return sum(each.sum() for each in parts.values())

    with jax.enable_x64(True):
        shapes = ((IMAGES, 20), (IMAGES, 20, 4), (IMAGES, 9, 4), (IMAGES, 9, 4, 4))
        values = [rng.normal(size=shape) for shape in shapes]
        _, gradients = total(*values)
        ways = [rng.normal(size=shape) for shape in shapes]
        ahead, back = (total(*(v + h * w for v, w in zip(values, ways, strict=True)))[0] for h in (1e-6, -1e-6))
        along = sum(float((g * w).sum()) for g, w in zip(gradients, ways, strict=True))
    assert all(np.abs(each).max() > 0 for each in gradients)
    assert along == pytest.approx(float(ahead - back) / 2e-6, rel=1e-5)


def test_fast_rcnn_takes_its_proposals_from_the_batch():
    (model, variables, images), loss = small(rpn=None), FastRCNNLoss(regions=8, positive=0.5)
    assert "rpn" not in variables["params"]
    proposals = jnp.array([[[9.0, 8, 41, 42], [0, 0, 60, 60], [0, 0, 0, 0]]] * IMAGES)
    batch = batch_of(images) | {"proposals": proposals}
    valid = jnp.array([[True, True, False]] * IMAGES)
    given, truth, keys = (
        Proposals(proposals, valid * 1.0, valid),
        truth_of(batch),
        jax.random.split(jax.random.key(0), 3),
    )
    drawn = draw_regions(given, truth, keys, CODER, loss.matcher, size=8, positive=0.5)
    # Of the first image the proposal on an object, both objects, and the other as none; of the last, whose proposals
    # overlap nothing, none at all: 0.1 is the least.
    assert sorted(drawn.labels[0].tolist()[:4]) == [0, 1, 1, 3] and drawn.valid.sum(1).tolist()[::2] == [4, 0]

    @quick
    def run(proposals):
        rngs = {"dropout": jax.random.key(0)}
        return loss.losses(model, variables, batch | {"proposals": proposals}, train=True, rngs=rngs)[0]

    losses = run(proposals)
    assert losses.keys() == set(loss.parts)
    assert losses["class_loss"][0] > 0 and losses["class_loss"][2] == losses["box_loss"][2] == 0
    assert not np.array_equal(losses["class_loss"], run(proposals.at[:, 0].set(0))["class_loss"])


def test_mistakes_are_named():
    _, variables, images = small()
    with pytest.raises(UserError, match="FastRCNNLoss is the loss of a RegionDetector, such as fast_rcnn_vgg16, not"):
        FastRCNNLoss().losses(create_model("yolo_v1_small"), {}, batch_of(images), train=False, rngs={})
    with pytest.raises(UserError, match="RPNLoss is the loss of a RegionDetector with an RPN"):
        RPNLoss().losses(small(rpn=None)[0], variables, batch_of(images), train=False, rngs={})
    with pytest.raises(UserError, match="RPNLoss: anchors is 0"):
        RPNLoss(anchors=0)
    with pytest.raises(UserError, match="with an RPN, such as faster_rcnn_vgg16"):
        FasterRCNNLoss().losses(create_model("yolo_v1_small"), {}, batch_of(images), train=False, rngs={})
    with pytest.raises(UserError, match="FasterRCNNLoss: positive is 2"):
        FasterRCNNLoss(positive=2)
    other = FasterRCNNLoss.torchvision()
    assert (other.inside, other.regions, other.beta, other.anchors) == (False, 512, 1 / 9, 256)
    with pytest.raises(UserError, match="FastRCNNLoss: regions is 0"):
        FastRCNNLoss(regions=0)
