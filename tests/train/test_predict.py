"""Classes by what a person calls them."""

import numpy as np
import pytest

from jaxcnn.data import imagenet
from jaxcnn.errors import UserError
from jaxcnn.train.predict import Net

IMAGENET = Net(None, tuple(imagenet.names()), {}, 0)


def test_a_class_is_found_by_its_name_its_index_and_wordnets_words():
    for name in ("n02123045", "281", "tabby", "Tabby Cat"):
        assert IMAGENET.index(name) == 281
    digits = Net(None, ("5", "7", "3"), {}, 0)
    assert digits.index("7") == 1 and digits.index("2") == 2  # the name comes before the index


def test_a_word_for_two_classes_is_refused_with_both():
    with pytest.raises(UserError, match=r"'crane' is n02012849 crane and n03126707 crane; give its id"):
        IMAGENET.index("crane")


def test_an_unknown_class_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"no class 'tabbi'; did you mean 'tabby'"):
        IMAGENET.index("tabbi")
    with pytest.raises(UserError, match=r"no class '1000'; it has 1000 classes, from 0"):
        IMAGENET.index("1000")


def test_the_most_probable_come_first_and_of_equal_ones_the_lower_index():
    net = Net(None, ("a", "b", "c"), {}, 0)
    assert net.most_probable(np.array([0.25, 0.5, 0.25]), 2) == [("b", 0.5), ("a", 0.25)]
