"""The embedded digits: frozen pixels, frozen split."""

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxcnn.data.digits import Digits, _table
from jaxcnn.data.examples import Examples, Source, label_hash
from jaxcnn.data.survey import check
from jaxcnn.errors import UserError


def _fails(*_, **__):
    raise AssertionError("called")


def read(split):
    examples = Digits().open(split)
    items = [examples[i] for i in range(len(examples))]
    return np.stack([item["image"] for item in items]), np.array([item["label"] for item in items])


def test_split_is_a_partition_and_stratified():
    images = load_digits().images
    train, test = read("train"), read("test")
    assert len(train[0]) == 1442 and len(test[0]) == 355
    together = np.concatenate([train[0], test[0]])[..., 0].reshape(1797, 64)
    scaled = np.floor(images.reshape(1797, 64) * 255 / 16 + 0.5)
    np.testing.assert_array_equal(*(rows[np.lexsort(rows.T)] for rows in (together, scaled)))
    for label, count in enumerate(np.bincount(load_digits().target)):
        assert np.sum(test[1] == label) == count // 5
        assert np.sum(train[1] == label) == count - count // 5


def test_rows_are_the_ones_that_where_names():
    digits, examples = load_digits(), Digits().open("test")
    for i in (0, 1, 177, 354):
        row = int(examples.where(i).rpartition("row ")[2].rstrip(")"))
        assert examples.where(i).startswith(f"digits/test[{i}]")
        assert examples[i]["label"] == digits.target[row]
        assert np.abs(examples[i]["image"][..., 0] - digits.images[row] * 255 / 16).max() <= 0.5


def test_pixels_labels_and_split_are_frozen():
    digest = hashlib.sha256()
    for split in ("train", "test"):
        images, labels = read(split)
        digest.update(images.tobytes() + labels.astype("<i8").tobytes())
    assert digest.hexdigest() == "3baeb8053ef4be8b3373d48b5836a8071b23b35e392d6068b06c37e50f02811d"
    assert Digits().open("train").version == Digits().open("test").version == "0b7e9c3202d7"


def test_reading_them_does_not_import_scikit_learn():
    read_and_told = "from jaxcnn import Digits; import sys; Digits().open('train'); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", read_and_told]).returncode == 0


def test_if_the_file_is_elsewhere_scikit_learns_function_reads_the_same(monkeypatch):
    table = _table()
    monkeypatch.setattr("numpy.loadtxt", _fails)
    with pytest.raises(AssertionError, match="called"):
        _table()
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    np.testing.assert_array_equal(_table(), table)
    assert _table().dtype == table.dtype == np.uint8


def test_examples_keep_the_contract():
    examples = Digits().open("train")
    assert isinstance(Digits(), Source) and isinstance(examples, Examples)
    assert examples.classes == tuple("0123456789") and examples.name == "digits"
    image = examples[0]["image"]
    assert image.shape == (8, 8, 1) and image.dtype == np.uint8 and type(examples[0]["label"]) is int
    image[:] = 7  # a caller's write does not reach the next reader
    assert (examples[0]["image"] != 7).any()
    copy = pickle.loads(pickle.dumps(examples))
    np.testing.assert_array_equal(copy[1441]["image"], examples[1441]["image"])
    for i in (-1, 1442):
        with pytest.raises(IndexError):
            examples[i]
    assert check(Digits().open("test"), threads=2) == []


def test_a_slice_is_a_part_of_its_split():
    images, labels = read("train")
    for split, part in (("train[:300]", slice(300)), ("train[1400:]", slice(1400, None)), ("train[5:9]", slice(5, 9))):
        np.testing.assert_array_equal(read(split)[0], images[part])
        np.testing.assert_array_equal(read(split)[1], labels[part])
    assert np.bincount(read("train[:300]")[1]).min() >= 25  # all classes, in equal parts
    assert Digits().open("test[2:]").where(0) == Digits().open("test").where(2)
    for split in ("train[:x]", "train[", "train[3]"):
        with pytest.raises(UserError, match="cannot be read; splits are written 'train"):
            Digits().open(split)


def test_wrong_split_names_the_splits():
    with pytest.raises(UserError, match=r"no split 'tset'; did you mean 'test'\? it has train, test"):
        Digits().open("tset")


def test_label_hash_depends_on_names_order_and_borders():
    names = [("a", "b"), ("b", "a"), ("ab",), ("a", "b", ""), ("a,b",), ()]
    assert len({label_hash(n) for n in names}) == len(names)
    assert label_hash(["a", "b"]) == label_hash(("a", "b")) and len(label_hash(())) == 64
