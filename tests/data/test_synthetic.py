"""Synthetic images: pure functions of (seed, split, i), and learnable."""

import hashlib
import pickle

import numpy as np
import pytest

from jaxcnn.data.examples import Examples, Source
from jaxcnn.data.synthetic import Synthetic
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
    [{"classes": 0}, {"train": 0}, {"test": -1}, {"seed": -1}, {"image_shape": (32, 32)}, {"image_shape": (0, 1, 1)}],
)
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Synthetic(**wrong)


def test_wrong_split():
    with pytest.raises(UserError, match="did you mean 'validation'"):
        Synthetic().open("valid")
