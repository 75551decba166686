"""The segmentation task: losses by hand, metrics by scikit-learn on 1 to 8 devices, mistakes, and what it shows."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, jaccard_score, recall_score

from jaxcnn.errors import UserError
from jaxcnn.metrics.confusion import from_words
from jaxcnn.tasks.class_map import overlay_classes, palette
from jaxcnn.tasks.losses import CrossEntropy
from jaxcnn.tasks.segmentation import Segmentation
from jaxcnn.tasks.task import Task, score_of
from jaxcnn.train.optimizers import SGD
from tests.tasks import many_devices
from tests.tasks.segmenters import Given, Pixelwise
from tests.tiny_runs import finish

CLASSES = 4


def example(seed=0, shape=(3, 5, 6), ignored=0.3):
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, CLASSES, shape).astype(np.uint8)
    masks[rng.random(shape) < ignored] = 255
    return {"image": rng.normal(size=(*shape, CLASSES)).astype(np.float32), "mask": masks}


def training_loss(task, batch, model=None, variables=None):
    return task.loss(model or Given(CLASSES), variables or {}, batch, train=True, rngs={})


def by_hand(logits, masks, weights=None, ignored=(255,)):
    """Weighted losses and weights of the pixels that count, one by one."""
    losses, kept = [], []
    for pixel in np.ndindex(masks.shape):
        label = masks[pixel]
        if label not in ignored:
            weight = weights[label] if weights else 1.0
            losses.append(-weight * log_softmax(logits[pixel].astype(np.float64))[label])
            kept.append(weight)
    return np.array(losses), np.array(kept)


@pytest.mark.parametrize("weights", [None, (1.0, 0.0, 2.5, 0.5)])
@pytest.mark.parametrize("ignore", [255, 2])
def test_losses_are_those_by_hand(weights, ignore):
    batch = example()
    losses, kept = by_hand(batch["image"], batch["mask"], weights, {ignore, 255})
    other, _ = by_hand(-batch["image"], batch["mask"], weights, {ignore, 255})
    task = Segmentation(class_weights=weights, ignore=ignore)
    mean, _, sums = training_loss(task, batch)
    np.testing.assert_allclose(mean, (losses.sum() + 0.5 * other.sum()) / kept.sum(), rtol=1e-5)
    np.testing.assert_allclose(task.metrics(jax.device_get(sums), {})["loss"], losses.sum() / kept.sum(), rtol=1e-5)
    assert from_words(sums["confusion"]).sum() == len(kept)
    task = dataclasses.replace(task, reduction="sum", auxiliary_weight=0.25)
    total, _, _ = training_loss(task, batch)
    np.testing.assert_allclose(total, (losses.sum() + 0.25 * other.sum()) / 3, rtol=1e-5)  # of three images


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_batch_of_ignored_pixels_has_the_loss_0_and_no_gradient(reduction):
    batch = example(ignored=2)
    task = Segmentation(reduction=reduction)
    value, gradient = jax.value_and_grad(lambda x: training_loss(task, batch | {"image": x})[0])(batch["image"])
    assert value == 0 and not np.asarray(gradient).any()
    metrics = task.metrics(jax.device_get(training_loss(task, batch)[2]), {})
    assert metrics.pop("count") == 3 and all(map(math.isnan, metrics.values()))


def steps_of(reduction, rate, decay):
    """The parameters after each of five steps of the paper's optimizer on images of 5 x 6 pixels that all count."""
    model, task = Pixelwise(CLASSES), Segmentation(reduction=reduction)
    variables = model.init(jax.random.key(0), np.zeros((1, 5, 6, CLASSES)), train=False)
    optimizer = SGD(learning_rate=rate, momentum=0.99, weight_decay=decay, decay="kernels").build(lambda step: rate)
    state, after = optimizer.init(variables["params"]), []
    for seed in range(5):
        batch = example(seed, ignored=0)

        def loss(params, batch=batch):
            return training_loss(task, batch, model, {"params": params})[0]

        updates, state = optimizer.update(jax.grad(loss)(variables["params"]), state, variables["params"])
        variables = {"params": optax.apply_updates(variables["params"], updates)}
        after.append(variables["params"])
    return after


def test_the_sum_at_a_rate_is_the_mean_at_the_rate_times_height_times_width():
    """And its weight decay is the mean's over that. The FCN's recipe in both forms: momentum 0.99."""
    pixels, rate, decay = 5 * 6, 1e-3, 0.3
    as_sum = steps_of("sum", rate, decay)
    as_mean = steps_of("mean", rate * pixels, decay / pixels)
    start = steps_of("sum", 0, decay)[0]
    for ours, theirs, first in zip(*map(jax.tree.leaves, (as_sum[-1], as_mean[-1], start)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
        assert np.abs(ours - first).max() > 1e-3  # both have moved


def test_training_is_smoothed_and_evaluation_is_plain():
    batch = example() | {"valid": np.ones(3, bool)}
    smooth = Segmentation(criterion=CrossEntropy(label_smoothing=0.3), class_weights=(1.0, 2.0, 3.0, 4.0))
    plain, kept = by_hand(batch["image"], batch["mask"])
    sums, records = smooth.outputs(Given(CLASSES), {}, batch)
    assert records == {}
    np.testing.assert_allclose(smooth.metrics(jax.device_get(sums), {})["loss"], plain.sum() / kept.sum(), rtol=1e-5)
    assert abs(training_loss(smooth, batch)[0] - training_loss(Segmentation(), batch)[0]) > 0.01


def test_metrics_are_scikit_learns_on_1_to_8_devices_with_an_uneven_last_batch(tmp_path):
    finish(tmp_path / "found.json", module="tests.tasks.many_devices", devices=8, optimized=False)
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == ["1", "2", "4", "8"]
    logits, masks = many_devices.examples()
    kept = masks != 255
    true, given = masks[kept], logits.argmax(-1)[kept]
    each = jaccard_score(true, given, labels=[0, 1, 2, 4], average=None)
    losses, weights = by_hand(logits, masks)
    filled = np.concatenate([batch["mask"] for batch in many_devices.batches()])
    assert len(filled) == 24 and 19 % 8
    for devices in found.values():
        metrics = devices["metrics"]
        assert metrics["count"] == 19
        assert [metrics[f"iou_{name}"] for name in "abce"] == pytest.approx(each, abs=1e-12)
        assert math.isnan(metrics["iou_d"]) and metrics["mean_iou"] == pytest.approx(each.mean(), abs=1e-12)
        assert metrics["pixel_accuracy"] == pytest.approx(accuracy_score(true, given), abs=1e-12)
        assert metrics["mean_accuracy"] == pytest.approx(recall_score(true, given, average="macro"), abs=1e-12)
        weighted = jaccard_score(true, given, average="weighted")
        assert metrics["frequency_weighted_iou"] == pytest.approx(weighted, abs=1e-12)
        assert metrics["loss"] == pytest.approx(losses.sum() / weights.sum(), rel=1e-5)
        assert devices["loss"] == pytest.approx(found["1"]["loss"], rel=1e-6)
        assert devices["gradient"] == pytest.approx(found["1"]["gradient"], rel=1e-6)
        # As many pixels in all, however unevenly they lie in the microbatches.
        for steps in (name for name in devices if name.endswith("steps")):
            for microbatches in devices[steps].values():
                assert microbatches == pytest.approx(found["1"][steps]["1"], rel=1e-5)
        assert devices["gathers"] == 0  # each device counts its own images


def test_it_is_a_task_that_is_judged_by_the_mean_iou():
    task = Segmentation(classes=("sky", "road"))
    assert isinstance(task, Task) and score_of(task) == "mean_iou"
    assert list(task.directions)[1:] == [
        "pixel_accuracy",
        "mean_accuracy",
        "frequency_weighted_iou",
        "loss",
        "iou_sky",
        "iou_road",
    ]
    assert task.directions["loss"] == "lower" and task.directions["iou_sky"] == "higher"
    field = task.fields((12, 16, 3))["mask"]
    assert (field.empty(2) == 255).all() and field.empty(2).shape == (2, 12, 16)


class FourClasses:
    name, split, classes = "streets", "train", ("sky", "road", "car", "tree")


@pytest.mark.parametrize(
    "task, classes, told",
    [
        (Segmentation(), 3, r"the model has 3 classes, but streets/train has 4; create the model with classes=4"),
        (Segmentation(class_weights=(1, 2)), 4, r"task.class_weights has 2 entries, but streets/train has 4"),
        (Segmentation(classes=("sky",)), 4, r"task.classes has 1 entries"),
        (Segmentation(classes=("sky", "car", "road", "tree")), 4, r"'car' for label 1, which is 'road' in streets"),
    ],
)
def test_what_does_not_fit_the_examples_is_refused(task, classes, told):
    with pytest.raises(UserError, match=told):
        task.check(Given(classes), FourClasses())


def test_what_fits_is_taken():
    for names in ((), FourClasses.classes, ("class0", "class1", "class2", "class3")):  # the last: made-up data
        Segmentation(classes=names).check(Given(4), FourClasses())


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"reduction": "average"}, '"mean" or "sum"'),
        ({"class_weights": (1.0, -1.0)}, "at least 0"),
        ({"class_weights": (0.0, 0.0)}, "above 0"),
        ({"auxiliary_weight": float("nan")}, "at least 0"),
        ({"ignore": 256}, "from 0 to 255"),
    ],
)
def test_fields_that_cannot_be_meant_are_refused(fields, told):
    with pytest.raises(UserError, match=told):
        Segmentation(**fields)


def test_logits_of_another_size_are_refused():
    batch = example()
    with pytest.raises(UserError, match=r"logits are \[3, 5, 6, 4\], but for masks \[3, 5, 5\]"):
        training_loss(Segmentation(), batch | {"mask": batch["mask"][:, :, :5]})


def test_an_answer_says_what_covers_the_image_and_shows_it():
    logits = np.zeros((1, 4, 10, CLASSES), np.float32)
    logits[..., 1], logits[:, :1, :, 3], logits[:, 3:, 4:, 2] = 1, 2, 2
    task, image = Segmentation(), np.full((4, 10, 3), 200, np.uint8)
    (labels,) = np.asarray(task.predict(Given(CLASSES), {}, jnp.asarray(logits)))
    assert labels.dtype == np.uint8 and labels[0].tolist() == [3] * 10 and labels[3].tolist() == [1] * 4 + [2] * 6
    answer = task.answer(labels, image, FourClasses.classes, top=2)
    assert answer.rows == [("road", "60.0%"), ("tree", "25.0%")]
    assert answer.values == {"coverage": {"road": 0.6, "tree": 0.25, "car": 0.15}}
    assert (answer.pictures["mask"] == labels).all()
    assert (answer.pictures["classes"] == palette()[labels]).all()
    assert in_legend(answer.pictures["overlay"]) == [1, 2, 3]


def in_legend(picture):
    """The labels whose color lies beneath the photo of 4 x 10 pixels, which is enlarged."""
    beneath = picture[4 * picture.shape[1] // 10 :].reshape(-1, 3)
    return [label for label in range(1, CLASSES) if (beneath == palette()[label]).all(-1).sum() > 50]


def test_a_legend_names_the_classes_that_there_are():
    labels = np.full((4, 10), 1, np.uint8)
    labels[0] = 3
    assert in_legend(overlay_classes(np.zeros((4, 10, 3), np.uint8), labels, FourClasses.classes)) == [1, 3]


def test_a_map_over_a_photo_leaves_unlabeled_pixels():
    photo = np.full((2, 2, 1), 100, np.uint8)
    drawn = overlay_classes(photo, np.array([[1, 255], [0, 255]], np.uint8), opacity=0.5)
    assert drawn.tolist() == [[[114, 50, 50], [100, 100, 100]], [[50, 50, 50], [100, 100, 100]]]


def test_the_palette_is_pascal_vocs():
    colors = palette()[[0, 1, 2, 3, 8, 15, 20, 255]].tolist()
    assert colors == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [64, 0, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]
