"""Localisation as a task: what is learned, what is counted, and in whose pixels."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.synthetic import Synthetic
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models import GAP, VGG, Classifier, create_model
from jaxcnn.models.localizer import Localizer, LocalizerOutputs, RegressionHead
from jaxcnn.runs.initial_state import initial_state
from jaxcnn.runs.program import train_step
from jaxcnn.summary.summary import summarize
from jaxcnn.tasks.localization import BoxRegression, Localization, Located
from jaxcnn.train.init_from import InitFrom, chosen
from jaxcnn.train.optimizers import Adam, build_optimizer

SHAPE = (40, 60, 3)
CLASSES = 3
SIDES = np.float32([60, 40, 60, 40])


class Oracle(nn.Module):
    """Answers with what is written into the image: the class, the box in parts of the sides, and two landmarks."""

    classes: int = CLASSES

    def outputs(self, images, *, train):
        logits = jax.nn.one_hot(images[:, 0, 0, 0].astype(jnp.int32), CLASSES) * 50
        return LocalizerOutputs(logits, images[:, 1, :4, 0][:, None], images[:, 2, :4, 0].reshape(-1, 2, 2))


def batch(images=6, seed=0):
    """Images that tell their truth to the oracle: the second of three boxes is the largest, and the last image has
    none. Original: 80 x 180, so that x is resized to a third and y to a half."""
    rng = np.random.default_rng(seed)
    made = {name: field.empty(images) for name, field in Localization(points=2, max_boxes=4).fields(SHAPE).items()}
    made["boxes"][:, 0] = (1, 1, 5, 6)
    first = rng.uniform(0, 15, (images, 2)).astype(np.float32)
    made["boxes"][:, 1] = np.concatenate([first, first + rng.uniform(12, 24, first.shape).astype(np.float32)], -1)
    made["boxes"][:, 2] = (0, 0, 60, 40)
    made["classes"][:, :3] = rng.integers(0, CLASSES, (images, 3))
    made["difficult"][:, 2] = True
    made["classes"][-1] = -1
    made["points"][:] = rng.uniform(0, 40, (images, 2, 2))
    made["points"][0, 1] = np.nan
    made["original_size"][:] = (80, 180)
    made["placement"][:] = (1 / 3, 1 / 2, 0, 0)
    picture = np.zeros((images, *SHAPE), np.float32)
    picture[:, 0, 0, 0] = made["classes"][:, 1]
    low, high = made["boxes"][:, 1, :2], made["boxes"][:, 1, 2:]
    picture[:, 1, :4, 0] = np.concatenate([(low + high) / 2, high - low], -1) / SIDES
    picture[:, 2, :4, 0] = np.nan_to_num(made["points"] / SIDES[:2]).reshape(images, 4)
    return made | {"image": picture, "valid": np.ones(images, bool)}


def evaluated(given, **fields):
    task = Localization(points=2, **fields)
    sums, records = task.outputs(Oracle(), {}, jax.tree.map(jnp.asarray, given))
    kept = {name: np.asarray(value)[given["valid"]] for name, value in records.items()}
    return task.metrics(jax.tree.map(np.asarray, sums), kept)


def test_the_truth_scores_1_and_what_is_wrong_is_told_apart():
    found = evaluated(batch(12))
    assert [found[name] for name in ("top1_localization", "gt_known_localization", "accuracy")] == [1, 1, 1]
    assert found["mean_box_iou"] == pytest.approx(1, abs=1e-5) and found["count"] == 12
    assert found["normalized_mean_error"] == pytest.approx(0, abs=1e-5) and found["loss"] == pytest.approx(0, abs=1e-5)
    assert found["whole_image_localization"] < 1
    assert found.keys() == Localization(points=2).directions.keys() | {"count"}
    wrong = batch(12)
    wrong["image"][:, 0, 0, 0] = (wrong["image"][:, 0, 0, 0] + 1) % CLASSES
    found = evaluated(wrong)
    assert (found["top1_localization"], found["accuracy"], found["gt_known_localization"]) == (0, 0, 1)
    wrong = batch(12)
    wrong["image"][:, 1, :2, 0] += 0.5  # parts of the sides
    found = evaluated(wrong)
    assert (found["top1_localization"], found["accuracy"], found["gt_known_localization"]) == (0, 1, 0)


def test_boxes_and_landmarks_are_compared_in_the_original_image():
    """A landmark 1 pixel beside in x there is 1/3 here; the error is over the root of the area there."""
    given = batch(2)
    given["image"][0, 2, 0, 0] += 1 / 60
    low, high = given["boxes"][0, 1, :2], given["boxes"][0, 1, 2:]
    area = (high - low).prod() * 6
    assert evaluated(given)["normalized_mean_error"] == pytest.approx(3 / np.sqrt(area), rel=1e-4)
    task = Localization(points=1)
    here = Located(np.ones(1), np.float32([3, 4, 30, 20]), np.float32([[6, 8]]))
    there = task.to_original(here, given["placement"][0], (80, 180))
    np.testing.assert_allclose(there.boxes, (9, 8, 90, 40), rtol=1e-6)
    np.testing.assert_allclose(there.points, [(18, 16)], rtol=1e-6)


def test_each_class_may_have_a_box_of_its_own_and_the_true_ones_counts():
    class PerClass(Oracle):
        def outputs(self, images, *, train):
            said = super().outputs(images, train=train)
            own = jax.nn.one_hot(images[:, 3, 0, 0].astype(jnp.int32), CLASSES)[..., None]
            return LocalizerOutputs(said.logits, said.boxes * own + 9 * (1 - own), said.points)

    given = batch(5)
    given["image"][:, 3, 0, 0] = given["classes"][:, 1]
    task = Localization(points=2)
    losses, counted = task._of(
        PerClass().apply({}, given["image"], train=True, method="outputs"), given, task.criterion
    )
    assert counted.sum() == 4 and float(losses["box_loss"][:4].max()) < 1e-6
    said = task.predict(PerClass(), {}, given["image"])
    np.testing.assert_allclose(said.boxes[:4], given["boxes"][:4, 1], atol=1e-4)


@pytest.mark.parametrize("distance", ["euclidean", "smooth_l1"])
@pytest.mark.parametrize("coordinates", ["center", "edges"])
def test_the_loss_of_boxes_is_that_of_a_loop(distance, coordinates):
    rng = np.random.default_rng(1)
    predicted, true = rng.uniform(-0.5, 1.5, (2, 200, 4)).astype(np.float32)
    found = BoxRegression(distance, 0.2, coordinates)(predicted, true)
    for row in range(200):
        total = 0.0
        for axis in range(4):
            one, other = predicted[row].astype(float), true[row].astype(float)
            if coordinates == "edges":
                sign = -1 if axis < 2 else 1
                difference = (
                    one[axis % 2] + sign * one[2 + axis % 2] / 2 - other[axis % 2] - sign * other[2 + axis % 2] / 2
                )
            else:
                difference = one[axis] - other[axis]
            if distance == "euclidean":
                total += difference**2 / 2
            else:
                total += difference**2 / 0.4 if abs(difference) < 0.2 else abs(difference) - 0.1
        assert float(found[row]) == pytest.approx(total, rel=1e-4, abs=1e-6)


def test_what_is_not_valid_or_has_no_object_counts_nowhere_and_nothing_is_ever_nan():
    given = batch(6)
    given["valid"][3:5] = False
    before = evaluated(given)
    assert before["count"] == 4  # the last has no object
    given["image"][3:] = np.nan
    after = evaluated(given)
    assert before == after and all(np.isfinite(value) for value in after.values())
    task, empty = Localization(points=2), batch(3)
    empty["classes"][:] = -1
    loss, _, sums = task.loss(Oracle(), {}, empty, train=False, rngs={})
    assert float(loss) == 0 and int(sums["objects"]) == 0 and int(sums["count"]) == 3
    assert np.isnan(evaluated(empty)["top1_localization"]) and np.isnan(evaluated(empty)["loss"])


def small(points=0):
    head = RegressionHead(2 * points) if points else None
    return Localizer(VGG("A", stages=2, width=0.1), GAP(CLASSES), RegressionHead(4, widths=(8,)), head)


def test_microbatches_with_other_numbers_of_objects_give_the_loss_and_gradient_of_the_whole():
    given = {name: value for name, value in batch(8).items() if name != "valid"}
    given["image"] = np.random.default_rng(0).integers(0, 256, given["image"].shape).astype(np.uint8)
    given["classes"][5:] = -1  # the second half has one object, the first four
    given["points"][4] = np.nan
    found = []
    for accumulate in (1, 2):
        experiment = Experiment(
            small(2),
            Data(SHAPE, Synthetic(SHAPE, classes=CLASSES, parts=("boxes",))),
            task=Localization(points=2, max_boxes=4),
            accumulate=accumulate,
        )
        constant = lambda step: jnp.float32(0.1)  # noqa: E731
        optimizer = build_optimizer(experiment.optimizer, constant, None)
        step = jax.jit(train_step(experiment, optimizer, constant, log_every=1))
        _, metrics = step(initial_state(experiment, optimizer), {}, given)
        found.append([float(metrics["step_loss"]), float(metrics["grad_norm"])])
    assert np.isfinite(found).all() and found[0][1] > 0
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


def rectangles(images, seed):
    """Grey images with one rectangle each, whose level is its class."""
    rng = np.random.default_rng(seed)
    made = {name: field.empty(images) for name, field in Localization(max_boxes=1).fields((16, 24, 3)).items()}
    first = rng.integers(0, (14, 8), (images, 2))
    made["boxes"][:, 0] = np.concatenate([first, first + rng.integers(4, 9, first.shape)], -1)
    made["classes"][:, 0] = rng.integers(0, CLASSES, images)
    made["original_size"][:], made["placement"][:] = (16, 24), (1, 1, 0, 0)
    picture = np.zeros((images, 16, 24, 3), np.uint8)
    for row, (x1, y1, x2, y2) in enumerate(made["boxes"][:, 0].astype(int)):
        picture[row, y1:y2, x1:x2] = 100 + 70 * made["classes"][row, 0]
    return made | {"image": picture}


def test_it_learns_where_an_object_is_and_what_always_the_same_box_scores_is_far_below():
    source = Synthetic((16, 24, 3), classes=CLASSES, parts=("boxes",))
    experiment = Experiment(
        small(), Data((16, 24, 3), source), task=Localization(box_weight=20, max_boxes=1), optimizer=Adam(1e-2)
    )
    constant = lambda step: jnp.float32(1e-2)  # noqa: E731
    optimizer = build_optimizer(experiment.optimizer, constant, None)
    step = jax.jit(train_step(experiment, optimizer, constant, log_every=1))
    state = initial_state(experiment, optimizer)
    for number in range(120):
        state, _ = step(state, {}, rectangles(32, number))
    held_out = rectangles(64, 1000)
    given = held_out | {"image": experiment.data.normalize(held_out["image"]), "valid": np.ones(64, bool)}
    sums, records = experiment.task.outputs(experiment.model, {"params": state.params}, given)
    found = experiment.task.metrics(*jax.tree.map(np.asarray, (sums, records)))
    always = max(found["whole_image_localization"], found["center_box_localization"])
    assert found["gt_known_localization"] > always + 0.3 and found["mean_box_iou"] > 0.5


def test_a_classifiers_weights_start_it():
    data = Data(SHAPE, Synthetic(SHAPE, classes=CLASSES))
    constant = lambda step: jnp.float32(0.1)  # noqa: E731
    states = []
    for model in (Classifier(small().backbone, small().head), small()):
        experiment = Experiment(model, data)
        optimizer = build_optimizer(experiment.optimizer, constant, None)
        states.append(jax.eval_shape(lambda e=experiment, o=optimizer: initial_state(e, o)))
    taken = chosen(states[1], states[0], InitFrom("run", exclude=("params/box_head/*",)))
    assert "params/head/fc/kernel" in taken and "params/backbone/conv1_1/kernel" in taken


def test_heads_are_counted():
    net = create_model("vgg11_bn", classes=20)
    model = Localizer(net.backbone, GAP(20), RegressionHead(80, widths=(16,), grid=(2, 2)), RegressionHead(10))
    own = (4 * 512 * 16 + 16 + 16 * 80 + 80) + (49 * 512 * 10 + 10)
    alone = summarize(Classifier(net.backbone, GAP(20)), (224, 224, 3))
    found = summarize(model, (224, 224, 3))
    assert found.parameters == alone.parameters + own
    assert found.multiply_adds == alone.multiply_adds + own - 16 - 80 - 10  # all but the biases
    with pytest.raises(UserError, match=r"box_head\.values is 5; it must be 4, one box for all classes, or 80"):
        Localizer(net.backbone, GAP(20), RegressionHead(5))
    with pytest.raises(UserError, match=r"points_head\.values is 3; it must be even"):
        Localizer(net.backbone, GAP(20), points_head=RegressionHead(3))


def test_a_model_or_a_source_that_does_not_fit_is_one_message():
    examples = Synthetic(SHAPE, classes=CLASSES, parts=("boxes",)).open("train")
    Localization().check(small(), examples)
    with pytest.raises(
        UserError, match=r"needs jc.Localizer\(net.backbone, net.head\), of any net, and not Classifier"
    ):
        Localization().check(create_model("linear", classes=CLASSES), examples)
    with pytest.raises(UserError, match="has 3 classes, but synthetic/train has 4"):
        Localization().check(small(), Synthetic(SHAPE, classes=4, parts=("boxes",)).open("train"))
    with pytest.raises(UserError, match=r"task\.points is 5, but the model gives 2 landmarks"):
        Localization(points=5).check(small(2), examples)
    with pytest.raises(UserError, match="synthetic/train has no boxes; localisation needs a source"):
        Localization().check(small(), Synthetic(SHAPE, classes=CLASSES).open("train"))
    named = dataclasses.make_dataclass("Named", [])()
    with pytest.raises(UserError, match="it must be a BoxRegression"):
        Localization(box=named)
    with pytest.raises(UserError, match="distance is 'l2'; it must be euclidean or smooth_l1"):
        BoxRegression("l2")


def test_an_answer_names_the_class_and_draws_its_box_and_landmarks():
    said = Located(np.float32([0.1, 0.7, 0.2]), np.float32([3, 4, 30, 20]), np.float32([[5, 6], [20, 9]]))
    image = np.full((40, 60, 1), 100, np.uint8)
    answer = Localization(points=2).answer(said, image, ("a", "b", "c"), top=2)
    assert answer.rows == [("b", "0.7000 at (3, 4, 30, 20)"), ("c", "0.2000")]
    assert answer.values["box"] == [3, 4, 30, 20] and answer.values["points"] == [[5, 6], [20, 9]]
    drawn = answer.pictures["box"]
    factor = drawn.shape[1] // 60
    assert tuple(drawn[4 * factor + 1, 20 * factor]) != (100, 100, 100)  # the upper edge
    assert (
        tuple(drawn[6 * factor, 5 * factor]) != (100, 100, 100) and tuple(drawn[35 * factor, 50 * factor]) == (100,) * 3
    )
