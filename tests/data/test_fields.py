"""Batches hold the arrays that their fields name: masks, boxes and parts of a user's own as well as labels."""

import re

import numpy as np
import pytest

from jaxcnn.data.colors import Noise
from jaxcnn.data.examples import BrokenExample
from jaxcnn.data.fields import Field, with_image
from jaxcnn.data.memory import Memory, load
from jaxcnn.data.pipeline import EvaluationBatches, TrainBatches
from jaxcnn.data.survey import check
from jaxcnn.data.transforms import HorizontalFlip, PadTo, RandomCrop
from jaxcnn.errors import UserError

SIZE = (6, 9)
SHAPE = (*SIZE, 3)
BOXES = {"boxes": Field((3, 4), "float32"), "classes": Field((3,), "int32", -1), "difficult": Field((3,), "bool", True)}
FIELDS = with_image(
    SHAPE,
    {"mask": Field(SIZE, "uint8", 255), **BOXES, "depth": Field((2,), "float32", -7), "weight": Field((), "float32")},
)
IMAGE = np.zeros(SHAPE, np.uint8)
BOX = np.array([[1, 2, 5, 6]], np.float32)


class Scenes:
    """Example i has i % 4 boxes, a mask of i % 2 and a part of its own; the parts of example 1 are changed."""

    name, version, split, classes = "scenes", "1", "train", ("ground", "thing")

    def __init__(self, changed=None, count=10):
        self.changed, self.count = changed or {}, count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        image = np.full(SHAPE, i, np.uint8)
        boxes = np.array([[0, 0, 1 + k, 2 + k] for k in range(i % 4)], np.float32).reshape(-1, 4)
        depth = np.array([i, 2 * i], np.float32)[: 1 + i % 2]
        mask = np.full(SIZE, i % 2, np.uint8)
        mask[0, :2] = 255
        example = {"image": image, "mask": mask, "boxes": boxes, "classes": np.arange(len(boxes), dtype=np.int32) % 2}
        example |= {"depth": depth, "weight": i / 2, "never asked for": object()} | (self.changed if i == 1 else {})
        return {name: part for name, part in example.items() if part is not None}

    def where(self, i):
        return f"scenes[{i}]"


def right(batch, row, i):
    """Whether the row is example i, with -1 and 255 and so on where it has nothing."""
    example = Scenes()[i]
    count = i % 4
    np.testing.assert_array_equal(batch["image"][row], example["image"])
    np.testing.assert_array_equal(batch["mask"][row], example["mask"])
    np.testing.assert_array_equal(batch["boxes"][row], np.concatenate([example["boxes"], np.zeros((3 - count, 4))]))
    assert batch["classes"][row].tolist() == [*(k % 2 for k in range(count)), *[-1] * (3 - count)]
    assert batch["difficult"][row].tolist() == [False] * count + [True] * (3 - count)
    assert batch["weight"][row] == i / 2
    assert batch["depth"][row].tolist() == ([i, 2 * i] if i % 2 else [i, -7])


@pytest.mark.parametrize("loaded", [False, True])
def test_every_field_is_filled_and_padded(loaded):
    examples = Scenes()
    if loaded:
        examples, _ = load(examples, (), FIELDS, 2**20)
        assert isinstance(examples, Memory)
    train, evaluation = TrainBatches(examples, (), FIELDS, 10, 0), EvaluationBatches(examples, (), FIELDS, 16)
    assert train.resident == evaluation.resident == loaded
    for batch, size in ((train[0], 10), (evaluation[0], 16)):
        assert batch.keys() == {*FIELDS, "valid", "index", "broken"}
        for name, field in FIELDS.items():
            assert batch[name].shape == (size, *field.shape) and batch[name].dtype == field.dtype
        for row, index in enumerate(batch["index"].tolist()):
            if index >= 0:
                right(batch, row, index)
        assert batch["valid"].sum() == 10
    assert (batch["mask"][10:] == 255).all() and (batch["classes"][10:] == -1).all()
    assert check(examples, (), FIELDS) == []


def test_memory_gives_back_what_it_was_given_without_the_padding():
    memory, _ = load(Scenes(), (), FIELDS, 2**20)
    for i in range(10):
        assert memory[i].keys() == FIELDS.keys()
        for name in ("image", "mask", "boxes", "classes", "depth"):
            np.testing.assert_array_equal(memory[i][name], Scenes()[i][name])
            assert memory[i][name].dtype == Scenes()[i][name].dtype
        assert memory[i]["weight"] == i / 2
        assert memory[i]["difficult"].tolist() == [False] * (i % 4)


def test_memory_changes_no_batch_whatever_is_drawn():
    transforms = (PadTo((8, 12)), HorizontalFlip(), RandomCrop(SIZE), Noise(3.0))
    memory, rest = load(Scenes(), transforms, FIELDS, 2**20)
    assert isinstance(memory, Memory) and rest == transforms[1:] and memory.arrays["mask"].shape == (10, 8, 12)
    left = 0
    for step in range(5):
        one, other = (TrainBatches(*made, FIELDS, 10, 3)[step] for made in ((memory, rest), (Scenes(), transforms)))
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        left += (one["classes"] >= 0).sum()
        assert (one["mask"] == 255).any()
    assert 0 < left < 5 * sum(i % 4 for i in range(10))  # some boxes were cropped away


def test_an_image_with_more_boxes_than_a_batch_takes_may_still_be_cropped():
    many = Scenes({"boxes": np.array([[0, 0, 1, 1]] * 4 + [[7, 3, 9, 6]], np.float32), "classes": np.ones(5, np.int32)})
    cut = (RandomCrop((3, 4)),)
    fields = FIELDS | {"image": Field((3, 4, 3), "uint8"), "mask": Field((3, 4), "uint8", 255)}
    assert not isinstance(load(many, cut, fields, 2**20)[0], Memory)
    with pytest.raises(BrokenExample, match="5 boxes, and a batch takes 3"):
        load(many, (), FIELDS, 2**20)


def test_memory_counts_every_array():
    size = 10 * (6 * 9 * 3 + 6 * 9 + 3 * 16 + 3 * 4 + 3 + 8 + 4)
    assert load(Scenes(), (), FIELDS, size)[0].nbytes == size
    assert not isinstance(load(Scenes(), (), FIELDS, size - 1)[0], Memory)


MISTAKES = {
    "missing": ({"mask": None}, 'a dict of .*"mask", uint8 [H, W]'),
    "floats": ({"mask": np.zeros(SIZE)}, "float64 [6, 9].*astype(np.uint8)"),
    "one channel": ({"mask": np.zeros((*SIZE, 1), np.uint8)}, "return mask[..., 0]"),
    "colors": ({"mask": IMAGE}, "turn its colors into classes"),
    "list": ({"boxes": [[0, 0, 1, 1]]}, "a list of 1.*np.asarray(boxes, np.float32).reshape(-1, 4)"),
    "three edges": ({"boxes": np.zeros((2, 3), np.float32)}, "float32 [2, 3].*float32 [N, 4]"),
    "wide classes": ({"classes": np.zeros(1, np.int64)}, "int64 [1].*np.asarray(classes, np.int32).reshape(-1)"),
    "other flags": ({"difficult": np.zeros(1, np.int32)}, "int32 [1].*np.bool_"),
    "own": ({"depth": np.zeros((2, 2), np.float32)}, "depth is .*float32 [2, 2].*takes [2]"),
}
DAMAGES = {
    "size": ({"mask": np.zeros((9, 6), np.uint8)}, "the mask has 9 x 6 (height x width) pixels, the image 6 x 9"),
    "value": ({"mask": np.eye(6, 9, 2, np.uint8) * 7}, "the mask has the value 7 (first in row 0, column 2), .*0 to 1"),
    "flat": ({"boxes": np.array([[1, 2, 1, 5]], np.float32)}, "box 0 (1, 2, 1, 5) has no area"),
    "turned": (
        {"boxes": np.array([[3, 2, 1, 1]], np.float32)},
        "box 0 (3, 2, 1, 1) has no area.*(x, y, width, height)",
    ),
    "outside": ({"boxes": BOX + 4}, "box 0 (5, 6, 9, 10) reaches over the image of 6 x 9"),
    "nan": ({"boxes": BOX * np.nan}, "box 0 (nan, nan, nan, nan) reaches over"),
    "shares": ({"boxes": BOX / 9}, "they look like shares of the image"),
    "many": ({"boxes": np.repeat(BOX, 4, 0), "classes": np.zeros(4, np.int32)}, "4 boxes, and a batch takes 3"),
    "fewer": ({"classes": np.zeros(2, np.int32)}, "there are 1 boxes, but classes has 2 entries"),
    "class": ({"classes": np.full(1, 2, np.int32)}, "box 0 is of class 2, outside [0, 2)"),
}


def entering(examples, tolerated=0):
    """Every way into a batch."""
    yield lambda: TrainBatches(examples, (), FIELDS, 10, 0, tolerated)[0]
    yield lambda: EvaluationBatches(examples, (), FIELDS, 10, tolerated)[0]
    yield lambda: load(examples, (), FIELDS, 2**20, tolerated)


def pattern(text):
    return r"scenes\[1\]: .*" + ".*".join(re.escape(part) for part in text.split(".*"))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_part_of_another_kind_is_named_with_its_remedy_and_never_tolerated(name):
    changed, text = MISTAKES[name]
    examples = Scenes(changed)
    for enter in (*entering(examples, 5), lambda: check(examples, (), FIELDS)):
        with pytest.raises(UserError, match=pattern(text)) as raised:
            enter()
        assert not isinstance(raised.value, BrokenExample)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_part_makes_a_broken_example(name):
    changed, text = DAMAGES[name]
    for enter in entering(Scenes(changed)):
        with pytest.raises(BrokenExample, match=pattern(text)):
            enter()
    for enter in entering(Scenes(changed), 1):
        enter()
    assert [error.index for error in check(Scenes(changed), (), FIELDS)] == [1]


def test_nothing_is_asked_of_parts_that_no_field_names():
    damaged = {"mask": "a mask", "boxes": "boxes", "label": "b"}
    batch = TrainBatches(Scenes(damaged), (), with_image(SHAPE, {}), 10, 0)[0]
    assert batch.keys() == {"image", "valid", "index", "broken"}
