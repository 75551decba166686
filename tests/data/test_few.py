"""Few: which images are taken, that slices stay stratified, and what is refused."""

import numpy as np
import pytest

from jaxcnn.data.examples import BrokenExample
from jaxcnn.data.few import Few
from jaxcnn.data.splits import open_split
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.errors import UserError

SOURCE = Synthetic((8, 8, 3), classes=4, train=60, test=20)


def labels(examples):
    return np.array([examples[i]["label"] for i in range(len(examples))])


def test_the_first_images_of_each_class_are_taken_in_the_splits_order():
    whole = SOURCE.open("train")
    few = Few(SOURCE, each=5, classes=3, first=2).open("train")
    rows = [row for label in range(3) for row in np.flatnonzero(labels(whole) == label)[2:7]]
    assert [few.where(i) for i in range(len(few))] == [whole.where(row) for row in sorted(rows)]
    np.testing.assert_array_equal(few[4]["image"], whole[sorted(rows)[4]]["image"])
    assert np.bincount(labels(few)).tolist() == [5, 5, 5] and few.classes == whole.classes[:3]
    assert list(few.labels) == labels(few).tolist() and (few.name, few.version) == (whole.name, whole.version)
    with pytest.raises(IndexError):
        few[15]


def test_other_splits_keep_all_images_of_the_classes_and_slices_are_stratified():
    source = Few(SOURCE, each=6, classes=2)
    assert len(source.open("test")) == (labels(SOURCE.open("test")) < 2).sum()
    parts = [open_split(source, split) for split in ("train[:50%]", "train[50%:]")]
    assert [np.bincount(labels(part)).tolist() for part in parts] == [[3, 3], [3, 3]]
    assert not {part.where(i) for part in parts[:1] for i in range(6)} & {parts[1].where(i) for i in range(6)}


class OneBroken:
    """A source whose first image is damaged."""

    def open(self, split, data_dir=None):
        whole = SOURCE.open(split)

        class Examples:
            name, version, classes = whole.name, whole.version, whole.classes

            def __getitem__(self, i):
                if i == 0:
                    raise BrokenExample(i, self.where(i), "it is damaged")
                return whole[i]

        Examples.__len__ = lambda self: len(whole)
        Examples.where = lambda self, i: whole.where(i)
        return Examples()


def test_a_broken_image_counts_for_no_class():
    few = Few(OneBroken(), each=3).open("train")
    assert few.where(0) != SOURCE.open("train").where(0) and np.bincount(labels(few)).tolist() == [3] * 4


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"each": 0}, "each is 0; it must be a whole number, at least 1"),
        ({"each": 2.5}, "each is 2.5; it must be a whole number"),
        ({"each": 2, "classes": 5}, r"has 4 classes, not 5"),
        ({"each": 50}, r"has \d+ images of '.+' from number 0 on, and 50 are asked for; 4 of 4 classes have too few"),
    ],
)
def test_what_cannot_be_taken_is_told(fields, told):
    with pytest.raises(UserError, match=told):
        Few(SOURCE, **fields).open("train")
