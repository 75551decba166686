"""Parts of a split: nothing twice, nothing lost, every class in its share, whatever the source."""

import dataclasses
import functools
import itertools
import operator
import pickle

import numpy as np
import pytest

from jaxcnn.data.digits import Digits
from jaxcnn.data.examples import BrokenExample, Examples
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.memory import Memory, load
from jaxcnn.data.splits import classes_without_images, open_split, shared
from jaxcnn.data.survey import check
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.errors import UserError

SIZES = (1, 2, 3, 5, 9, 10, 11, 37)


class Sorted:
    """Examples sorted by class; the image's value is the example's number."""

    name, version, classes = "own", "1", tuple("abcdefgh")

    def __init__(self, split, sizes=SIZES, labels=True):
        self.split, self.truth = split, np.repeat(np.arange(len(sizes)), sizes)
        if labels:
            self.labels = self.truth.tolist()

    def __len__(self):
        return len(self.truth)

    def __getitem__(self, i):
        if i == 77:
            raise BrokenExample(i, self.where(i), "torn")
        return {"image": np.full((2, 2, 1), i, np.uint8), "label": int(self.truth[i])}

    def where(self, i):
        return f"{self.split}/{i}.png"


@dataclasses.dataclass(frozen=True)
class Own:
    """A user's source, which knows whole splits only."""

    labels: bool = True
    sizes: tuple[int, ...] = SIZES

    def open(self, split, data_dir=None):
        if split not in ("train", "more"):
            raise UserError(f"own: no split {split!r}")
        return Sorted(split, self.sizes, self.labels)


def numbers(source, split):
    examples = open_split(source, split)
    return [int(examples.where(i).split("/")[1].split(".")[0]) for i in range(len(examples))]


CUTS = [
    ("10%",),
    ("50%",),
    ("80%",),
    ("90%",),
    ("20%", "50%"),
    ("33.3%", "66.6%"),
    ("1",),
    ("40",),
    ("-30",),
    ("-10%",),
]
CUTS += [("5", "6", "70"), ("70%", "85%")]


@pytest.mark.parametrize("labels", [True, False], ids=["labels", "no labels"])
@pytest.mark.parametrize("cuts", CUTS, ids="|".join)
def test_slices_that_meet_never_overlap_and_together_are_the_whole(cuts, labels):
    ends = ["", *cuts, ""]
    parts = [numbers(Own(labels), f"train[{a}:{b}]") for a, b in itertools.pairwise(ends)]
    assert sorted(functools.reduce(operator.iadd, parts, [])) == list(range(sum(SIZES)))
    assert all(part == sorted(part) for part in parts)  # in the split's own order


@pytest.mark.parametrize("percent", [50, 70, 75, 80, 90, 95])
def test_of_each_class_the_first_share_to_the_closest_image(percent):
    part = open_split(Own(), f"train[:{percent}%]")
    counts = np.bincount(part.labels, minlength=len(SIZES))
    for size, count in zip(SIZES, counts, strict=True):
        exact = size * percent / 100
        closest = size if size <= 2 else max(1, int(np.ceil(exact - 0.5 - 1e-9)))  # halves down
        assert count == closest, (size, count)
        assert size <= 2 or abs(count - exact) <= 0.5 + 1e-9 or count == 1
    first = np.cumsum((0, *SIZES))
    expected = [first[label] + k for label, count in enumerate(counts) for k in range(count)]
    assert numbers(Own(), f"train[:{percent}%]") == expected


def test_classes_of_one_or_two_images_stay_in_training_and_the_others_are_named():
    for percent in (10, 50, 80, 90):
        train, held_out = (open_split(Own(), f"train[{part}]") for part in (f":{percent}%", f"{percent}%:"))
        assert np.bincount(train.labels)[:2].tolist() == [1, 2] and classes_without_images(train) == []
        assert {"a", "b"} <= set(classes_without_images(held_out))
    assert classes_without_images(open_split(Own(), "train[90%:]")) == ["a", "b", "c"]  # 3 and 5: all, and 4 of 5


def test_numbers_cut_the_same_order_as_percents():
    order = [numbers(Own(), f"train[:{count}]") for count in range(1, 79)]
    for smaller, larger in itertools.pairwise(order):
        assert len(larger) == len(smaller) + 1 and set(smaller) < set(larger)
    share = numbers(Own(), "train[:80%]")
    assert numbers(Own(), f"train[:{len(share)}]") == share
    assert sorted(numbers(Own(), "train[-20:]") + numbers(Own(), "train[:-20]")) == list(range(78))


def test_without_labels_the_cut_is_a_fixed_shuffle_and_never_one_class():
    sizes = (50, 50)
    held_out = numbers(Own(labels=False, sizes=sizes), "train[80%:]")
    assert held_out[:6] == [4, 11, 13, 24, 30, 31] and len(held_out) == 20  # frozen: a stored run depends on it
    assert 5 <= sum(number < 50 for number in held_out) <= 15
    assert classes_without_images(open_split(Own(labels=False), "train[90%:]")) == []  # unknown


def test_a_slice_keeps_what_names_its_examples_and_pickles():
    part = open_split(Own(), "train[70%:]")
    assert isinstance(part, Examples)
    assert (part.name, part.version, part.split, part.classes) == ("own", "1", "train[70%:]", Sorted.classes)
    copy = pickle.loads(pickle.dumps(part))
    for i in range(len(part) - 1):
        assert f"train/{copy[i]['image'].flat[0]}.png" == part.where(i) and copy[i]["label"] == part.labels[i]
    for i in (-1, len(part)):
        with pytest.raises(IndexError):
            part[i]
    (broken,) = check(part, threads=2)
    assert (broken.index, broken.where, broken.cause) == (len(part) - 1, "train/77.png", "torn")


def test_joined_splits():
    both = open_split(Own(), "train[:10%] + more[:50%]")
    assert len(both) == len(open_split(Own(), "train[:10%]")) + len(open_split(Own(), "more[:50%]"))
    assert both.where(0) == "train/0.png" and both.where(len(both) - 1).startswith("more/")
    assert shared(both, open_split(Own(), "train")) == len(open_split(Own(), "train[:10%]"))
    assert shared(open_split(Own(), "train[:50%]"), open_split(Own(), "train[50%:]")) == 0


def test_a_slice_is_resident_and_only_it():
    part = Synthetic((4, 4, 1), classes=3, train=20).open("train[75%:]")
    memory, rest = load(part, (), with_image(part[0]["image"].shape, LABEL), 2**20)
    assert isinstance(memory, Memory) and rest == () and memory.split == "train[75%:]" and len(memory) == len(part) < 7
    for i in range(len(part)):
        np.testing.assert_array_equal(memory[i]["image"], part[i]["image"])
        assert memory.where(i) == part.where(i) and memory[i]["label"] == part.labels[i]


@pytest.mark.parametrize(
    "split",
    ["train[", "train[3]", "train[:x]", "train[:90%", "train[:1.5]", "train[1:2:3]", "[:3]", "train[:3]x", "a++b"],
)
@pytest.mark.parametrize("source", [Own(), Digits(), Synthetic()], ids=["own", "digits", "synthetic"])
def test_wrong_slices_show_the_syntax(source, split):
    with pytest.raises(UserError, match=r"cannot be read; splits are written .*'train\[90%:\]'"):
        open_split(source, split)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train[:79]", "there are only 78 images"),
        ("train[:120%]", "120% is beyond the split"),
        ("train[50%:20%]", "has no image; widen it"),
        ("train[99%:]", "has no image; widen it"),
        ("train[10%:50]", "both ends in percent, or both as a number"),
        ("tarin[:10%]", "no split 'tarin'"),
        ("more+more", r"'more\+more' has \d+ images twice, which would count twice"),
        ("train[:50%] + more + train[-50:]", r"has \d+ images twice"),
    ],
)
def test_slices_that_cannot_be_meant(split, message):
    with pytest.raises(UserError, match=message):
        open_split(Own(sizes=(39, 39)), split) if "99" in split else open_split(Own(), split)


def test_labels_of_another_length_are_refused():
    class Short(Own):
        def open(self, split, data_dir=None):
            examples = Sorted(split)
            examples.labels = examples.labels[:-1]
            return examples

    with pytest.raises(UserError, match=r"`labels` has the shape \(77,\)"):
        open_split(Short(), "train[:50%]")
