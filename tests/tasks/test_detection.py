"""Detection as a task: what is learned, what is counted, and in whose pixels."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.synthetic import Synthetic
from jaxcnn.errors import UserError
from jaxcnn.models import create_model
from jaxcnn.models.detector import Detections
from jaxcnn.tasks.detection import Detection
from jaxcnn.tasks.drawn_boxes import draw_boxes

SHAPE = (40, 60, 3)


@dataclasses.dataclass(frozen=True)
class Counted:
    """A loss that says how many objects are to be learned."""

    parts: tuple[str, ...] = ("objects",)

    def losses(self, model, variables, batch, *, train, rngs):
        return {"objects": (batch["classes"] >= 0).sum(1).astype(jnp.float32)}, {}


class Oracle(nn.Module):
    """Answers with what is written into the first row of the image, an object a channel: its box and class + 1."""

    classes: int = 3

    def __call__(self, images, *, train):
        rows = images[:, 0, :5, :]  # three objects, one a channel
        boxes, labels = jnp.moveaxis(rows[:, :4], 1, 2), rows[:, 4].astype(jnp.int32) - 1
        scores = jnp.where(labels >= 0, 0.9, 0.0)
        return Detections(boxes, scores, labels, (labels >= 0).sum(1))


def batch(images=4, seed=0):
    """Images of which each tells its truth to the oracle; the last has no object. Original: 80 x 180, so that x is
    resized to a third and y to a half."""
    rng = np.random.default_rng(seed)
    made = {name: field.empty(images) for name, field in Detection(max_boxes=3).fields(SHAPE).items()}
    first = rng.integers(0, 20, (images, 3, 2))
    made["boxes"][:] = np.concatenate([first, first + rng.integers(4, 18, first.shape)], -1)
    made["classes"][:] = rng.integers(0, 3, (images, 3))
    made["classes"][-1] = -1
    made["original_size"][:] = (80, 180)
    made["placement"][:] = (1 / 3, 1 / 2, 0, 0)
    picture = np.zeros((images, *SHAPE), np.float32)
    picture[:, 0, :4] = np.moveaxis(made["boxes"], 1, 2)
    picture[:, 0, 4] = made["classes"] + 1
    return made | {"image": picture, "valid": np.ones(images, bool)}


def evaluated(task, given, model=None):
    sums, records = task.outputs(model or Oracle(), {}, jax.tree.map(jnp.asarray, given))
    return task.metrics(*jax.tree.map(np.asarray, (sums, records)))


@pytest.mark.parametrize("protocol, score", [("voc07", "voc07_map"), ("voc10", "voc10_map"), ("coco", "coco_ap")])
def test_a_net_that_says_the_truth_scores_1_and_one_that_is_wrong_does_not(protocol, score):
    task = Detection(Counted(), protocol=protocol, classes=("a", "b", "c"))
    found = evaluated(task, batch(12))
    assert found[score] == pytest.approx(1) and found["count"] == 12 and next(iter(task.directions)) == score
    assert found[f"{protocol}_ap_b"] == pytest.approx(1) and found.keys() <= task.directions.keys() | {"count"}
    wrong = batch(12)
    wrong["image"][:, 0, 4] = (wrong["image"][:, 0, 4] % 3) + 1  # another class
    assert evaluated(task, wrong)[score] < 0.2


def test_boxes_are_compared_in_the_original_image():
    """Small there is what has less than 32 x 32 pixels of the source's image, not of the batch's."""
    given = batch()
    area = (given["boxes"][..., 2:] - given["boxes"][..., :2]).prod(-1)
    given["area"][:] = 6 * area
    sizes = area[given["classes"] >= 0]
    found = evaluated(Detection(Counted(), protocol="coco"), given)
    assert (sizes < 32**2).all() and (6 * sizes > 32**2).any()
    assert found["coco_ap_medium"] == pytest.approx(1) and found["coco_ap_small"] in (pytest.approx(1), -1)
    there = Detection().to_original(
        Detections(given["boxes"][0], np.ones(3), given["classes"][0], 3), given["placement"][0], (80, 180)
    )
    np.testing.assert_allclose(there.boxes, given["boxes"][0] * (3, 2, 3, 2), rtol=1e-6)


def test_difficult_boxes_are_not_learned_unless_asked_for_and_crowds_never():
    given = batch(2)
    given["classes"][:] = 1
    given["difficult"][0, 0] = given["crowd"][1, :2] = True
    for learn_difficult, objects in ((False, [2, 1]), (True, [3, 1])):
        task = Detection(Counted(), learn_difficult=learn_difficult)
        loss, _, sums = task.loss(Oracle(), {}, given, train=True, rngs={})
        assert float(loss) == np.mean(objects) and float(sums["objects"]) == sum(objects) and sums["count"] == 2


def test_examples_that_are_not_valid_count_nowhere_whatever_they_hold():
    given = batch(4)
    given["valid"][2:] = False
    sums, _ = Detection(Counted()).outputs(Oracle(), {}, jax.tree.map(jnp.asarray, given))
    assert sums["count"] == 2 and float(sums["objects"]) == (given["classes"][:2] >= 0).sum()


def test_a_model_or_a_source_that_does_not_fit_is_one_message():
    examples = Synthetic(SHAPE, classes=3, parts=("boxes",)).open("train")
    Detection().check(create_model("yolo_v1_small", classes=3), examples)
    with pytest.raises(UserError, match="has 4 classes, but synthetic/train has 3; create the model with classes=3"):
        Detection().check(create_model("yolo_v1_small", classes=4), examples)
    with pytest.raises(UserError, match="synthetic/train has no boxes; detection needs a source"):
        Detection().check(create_model("yolo_v1_small", classes=3), Synthetic(SHAPE, classes=3).open("train"))
    with pytest.raises(UserError, match=r"task.classes are class1, .*, but those of synthetic/train class0"):
        Detection(classes=("class1", "class0", "class2")).check(create_model("yolo_v1_small", classes=3), examples)
    with pytest.raises(UserError, match=r"task.protocol is 'voc12'"):
        Detection(protocol="voc12")
    with pytest.raises(UserError, match=r"task\.max_boxes is 0"):
        Detection(max_boxes=0)
    with pytest.raises(UserError, match=r"task\.criterion .* lacks .*losses"):
        Detection(criterion=Synthetic())


class Twice:
    """Examples in which a box is there twice, so that the truth does not find itself."""

    name, version, split, classes = "twice", "1", "train", ("a",)

    def __len__(self):
        return 3

    def __getitem__(self, i):
        boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 9]], np.float32)
        return {"image": np.zeros(SHAPE, np.uint8), "boxes": boxes, "classes": np.zeros(2, np.int32)}

    def where(self, i):
        return f"twice/train[{i}]"


def test_truth_that_does_not_score_1_is_refused_before_anything_is_compiled():
    with pytest.raises(UserError, match="twice/train"):
        Detection(protocol="voc07").check(create_model("yolo_v1_small", classes=1), Twice())


def test_an_answer_lists_the_certain_ones_and_keeps_all():
    found = Detections(
        boxes=np.array([[3, 4, 30, 20], [10, 5, 20, 30], [0, 0, 4, 4], [0, 0, 0, 0]], np.float32),
        scores=np.array([0.9, 0.5, 0.1, 0], np.float32),
        classes=np.array([1, 0, 2, -1]),
        count=np.array(3),
    )
    image = np.full((40, 60, 1), 100, np.uint8)
    answer = Detection().answer(found, image, ("a", "b", "c"), top=1)
    assert answer.rows == [("b", "0.900 at (3, 4, 30, 20)"), ("...", "1 more with a score of at least 0.2")]
    assert [each["class"] for each in answer.values["detections"]] == ["b", "a", "c"]
    assert answer.values["detections"][0]["box"] == [3, 4, 30, 20]
    picture = answer.pictures["boxes"]
    assert picture.shape[2] == 3 and picture.shape[1] >= 300 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 2


def test_an_answer_says_that_nothing_is_certain():
    image = np.full((40, 60, 3), 100, np.uint8)
    for scores, told in (
        ([0.19, 0.1], "no score of at least 0.2; the highest is 0.190"),
        ([], "no score of at least 0.2"),
    ):
        kinds = np.zeros(len(scores), int)
        found = Detections(np.zeros((len(scores), 4)), np.array(scores), kinds, np.array(len(scores)))
        answer = Detection().answer(found, image, ("a", "b"))
        assert answer.rows == [("none", told)]
        assert [each["score"] for each in answer.values["detections"]] == scores


def test_boxes_are_drawn_where_they_are_and_dashes_leave_gaps():
    image = np.zeros((100, 400, 3), np.uint8)
    box = np.array([[50, 20, 150, 80]])
    whole, dashed = (draw_boxes(image, box, [0], [""], dashed=dashed).any(-1) for dashed in (False, True))
    rows, columns = np.nonzero(whole)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 79, 50, 149)
    assert 0 < dashed.sum() < whole.sum() and not whole[30:70, 60:140].any()
