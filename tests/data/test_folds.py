"""Folds: every image is in exactly one, and with labels they are scikit-learn's."""

import itertools

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from jaxcnn.data.splits import open_split, shared
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.errors import UserError
from tests.data.test_splits import SIZES, Own, numbers


@pytest.mark.parametrize("folds", [2, 3, 7])
@pytest.mark.parametrize("labels", [True, False], ids=["labels", "no labels"])
def test_each_image_is_in_one_fold_and_in_the_rest_of_every_other(folds, labels):
    source, everything = Own(labels), list(range(sum(SIZES)))
    found = [numbers(source, f"train[fold {k}/{folds}]") for k in range(1, folds + 1)]
    assert sorted(itertools.chain(*found)) == everything
    assert max(map(len, found)) - min(map(len, found)) <= 1
    for k, fold in enumerate(found, 1):
        assert sorted(fold + numbers(source, f"train[ not fold {k} / {folds} ]")) == everything


def test_with_labels_they_are_scikit_learns():
    sizes, rng = (9, 4, 30, 5, 4), np.random.default_rng(0)
    labels = np.repeat(np.arange(5), sizes)[rng.permutation(sum(sizes))]

    class Mixed(Own):
        def open(self, split, data_dir=None):
            examples = Own(sizes=sizes).open(split)
            examples.labels = labels
            return examples

    expected = StratifiedKFold(4).split(labels, labels)
    for k, (rest, fold) in enumerate(expected, 1):
        assert numbers(Mixed(), f"train[fold {k}/4]") == fold.tolist()
        assert numbers(Mixed(), f"train[not fold {k}/4]") == rest.tolist()


def test_sources_that_cut_for_themselves_have_folds_and_folds_join():
    source = Synthetic((4, 4, 3), classes=3, train=10)
    one, others = (open_split(source, f"train[{part} 2/3]") for part in ("fold", "not fold"))
    assert (len(one), len(others), shared(one, others)) == (3, 7, 0)
    assert len(open_split(source, "train[fold 1/3]+train[fold 2/3]+test[:2]")) == 4 + 3 + 2
    with pytest.raises(UserError, match="has 3 images twice"):
        open_split(source, "train[fold 2/3]+train[not fold 1/3]")


@pytest.mark.parametrize("split", ["train[fold 0/5]", "train[fold 6/5]", "train[fold 1/1]", "train[fold 1/79]"])
def test_folds_that_there_are_not_are_refused(split):
    with pytest.raises(UserError, match="folds are 1/K to K/K, of at least 2 and at most the split's 78 images"):
        open_split(Own(), split)


def test_what_is_written_otherwise_is_told_how():
    with pytest.raises(UserError, match=r"cannot be read; .*'train\[fold 2/5\]'"):
        open_split(Own(), "train[fold 2 of 5]")
