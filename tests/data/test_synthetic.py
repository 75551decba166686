"""Synthetic images: pure functions of (seed, split, i), and learnable."""

import dataclasses
import hashlib
import pickle

import numpy as np
import pytest

from jaxcnn.data.examples import Examples, Source
from jaxcnn.data.fields import LABEL, Field, with_image
from jaxcnn.data.survey import check
from jaxcnn.data.synthetic import Synthetic, parts_of
from jaxcnn.errors import UserError


def read(source, split):
    examples = source.open(split)
    items = [examples[i] for i in range(len(examples))]
    return np.stack([item["image"] for item in items]), np.array([item["label"] for item in items])


def test_contract_and_sizes():
    source = Synthetic((9, 14, 1), classes=12, train=30, test=7)
    for split, size in {"train": 30, "test": 7, "validation": 7}.items():
        examples = source.open(split)
        assert isinstance(examples, Examples) and isinstance(source, Source) and len(examples) == size
        assert examples[0]["image"].shape == (9, 14, 1) and examples[0]["image"].dtype == np.uint8
        assert len(set(examples.classes)) == 12 and list(examples.classes) == sorted(examples.classes)
        with pytest.raises(IndexError):
            examples[size]
    np.testing.assert_array_equal(read(source, "train")[1], np.arange(30) % 12)


def test_pixels_are_frozen():
    images, _ = read(Synthetic(), "train")
    assert (
        hashlib.sha256(images.tobytes()).hexdigest()
        == "1a9bc00a242d9644b5fd26cf2657d64dbcd0354291e4f6b0615778f3d4d11a22"
    )


def test_pure_function_of_seed_split_and_index():
    source = Synthetic(train=64, test=64)
    examples, copy = source.open("train"), pickle.loads(pickle.dumps(source.open("train")))
    later = examples[5]["image"]
    examples[6]
    np.testing.assert_array_equal(examples[5]["image"], later)
    np.testing.assert_array_equal(copy[5]["image"], later)
    others = [Synthetic(seed=1).open("train")[5], source.open("test")[5], source.open("validation")[5], examples[15]]
    assert all((other["image"] != later).any() for other in others)
    assert others[3]["label"] == examples[5]["label"]
    np.testing.assert_array_equal(Synthetic(train=5000).open("train")[5]["image"], later)  # growth changes no example


def test_class_means_of_train_classify_test():
    source = Synthetic(classes=10, train=100, test=100)
    (train, labels), (test, truth) = read(source, "train"), read(source, "test")
    means = np.stack([train[labels == c].mean(0) for c in range(10)])
    distance = ((test[:, None] - means) ** 2).sum((2, 3, 4))
    assert (distance.argmin(1) == truth).mean() > 0.99
    assert 10 < train[labels == 0].std(0).mean() < 30  # the examples of a class are not copies: noise in 0..63


@pytest.mark.parametrize(
    "wrong",
    [
        *({"classes": 0}, {"train": 0}, {"test": -1}, {"seed": -1}, {"image_shape": (32, 32)}),
        *({"image_shape": (0, 1, 1)}, {"parts": ("box",)}, {"image_shape": (7, 32, 3), "parts": ("boxes",)}),
        {"classes": 1, "parts": ("mask",)},
    ],
)
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Synthetic(**wrong)


SCENES = Synthetic((24, 40, 3), classes=5, train=200, test=50, parts=("mask", "boxes"))


def test_scenes_have_masks_and_boxes_that_agree():
    examples, counts = SCENES.open("train"), np.zeros(5, int)
    fields = with_image(
        (24, 40, 3), {**LABEL, "mask": Field((24, 40), "uint8", 255), "boxes": Field((4, 4), "float32")}
    )
    assert check(examples, (), fields | {"classes": Field((4,), "int32", -1)}) == []
    for i in range(200):
        example = examples[i]
        painted = np.zeros((24, 40), np.uint8)
        for (left, top, right, bottom), number in zip(example["boxes"].astype(int), example["classes"], strict=True):
            assert right - left >= 10 and bottom - top >= 6 and not painted[top:bottom, left:right].any()
            painted[top:bottom, left:right] = number
            counts[number] += 1
        np.testing.assert_array_equal(painted, example["mask"])
        assert example["label"] == example["classes"][0] == examples.labels[i] == 1 + i % 4
        assert example["classes"].min() >= 1
    assert len({len(examples[i]["boxes"]) for i in range(50)}) == 4 and counts[1:].min() > 50


def test_scenes_hold_what_was_asked_for():
    assert SCENES.open("test")[3].keys() == {"image", "label", "mask", "boxes", "classes"}
    masks, boxes = (dataclasses.replace(SCENES, parts=(part,)).open("test") for part in ("mask", "boxes"))
    assert masks[3].keys() == {"image", "label", "mask"} and boxes[3].keys() == {"image", "label", "boxes", "classes"}
    assert {int(number) for i in range(50) for number in boxes[i]["classes"]} == set(range(5))  # without a background
    assert parts_of({"mask": Field((), "uint8"), "label": Field((), "int32")}) == ("mask",)
    assert parts_of({"boxes": Field((4, 4), "float32"), "mask": Field((), "uint8")}) == ("mask", "boxes")
    assert parts_of(LABEL) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_the_class_of_a_pixel_is_the_nearest_color(channels):
    """So that a net can learn it: the mean color of each class, of the training split, tells the test split's."""
    source = Synthetic((32, 32, channels), classes=6, train=60, test=20, parts=("mask",))
    pixels = {split: [source.open(split)[i] for i in range(20)] for split in ("train", "test")}
    image, mask = (
        {split: np.concatenate([e[part].reshape(32 * 32, -1) for e in found]) for split, found in pixels.items()}
        for part in ("image", "mask")
    )
    means = np.stack([image["train"][mask["train"][:, 0] == c].mean(0) for c in range(6)])
    distance = np.abs(image["test"][:, None].astype(float) - means).sum(-1)
    assert (distance.argmin(1) == mask["test"][:, 0]).mean() > 0.95


def test_scenes_are_a_pure_function_of_seed_split_and_index():
    one = SCENES.open("train")[7]
    for other in (
        pickle.loads(pickle.dumps(SCENES.open("train")))[7],
        dataclasses.replace(SCENES, train=9).open("train")[7],
    ):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    for other in (
        SCENES.open("test")[7],
        dataclasses.replace(SCENES, seed=1).open("train")[7],
        SCENES.open("train")[11],
    ):
        assert not np.array_equal(other["mask"], one["mask"])


def test_wrong_split():
    with pytest.raises(UserError, match="did you mean 'validation'"):
        Synthetic().open("valid")
