"""Draws of many places are those of their generators, to the bit; those that are not say so."""

import numpy as np
import pytest

from jaxcnn.data import crops, many_draws
from jaxcnn.data.draws import AUGMENTATION, Draws, philox_key
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.many_draws import ManyDraws, numpy_draws_so, philox
from jaxcnn.data.transforms import HorizontalFlip, PadAndCrop

KEYS = [0, 7, AUGMENTATION, 2**64 - 1]


@pytest.mark.parametrize("key", KEYS)
def test_words_are_those_of_philox(key):
    places = np.array([0, 1, 5, 2**32, 2**63 + 1, 2**64 - 1], np.uint64)
    expected = [np.random.Philox(key=philox_key(key, int(place))).random_raw(4) for place in places]
    np.testing.assert_array_equal(philox(key, places).T, expected)


# What is drawn of each place: integers below this, or None, a fraction.
@pytest.mark.parametrize("asked", [(9, 9, None), (None, 5, None, 1, 2**20, None), (2**31, 3, 4, None), (1, 1, None)])
@pytest.mark.parametrize("key", KEYS)
def test_numbers_are_those_of_the_generators(key, asked):
    many, draws = ManyDraws(key, 10_000, 200), Draws(key)
    ours = [many.random() if high is None else many.integers(high) for high in asked]
    theirs = []
    for place in range(10_000, 10_200):
        rng = draws.at(place)
        theirs.append([rng.random() if high is None else rng.integers(high) for high in asked])
    np.testing.assert_array_equal(np.transpose(ours), theirs)
    assert not many.unlike.any()


def test_a_number_that_is_thrown_away_is_marked():
    high = 3 * 2**29  # a quarter of the halves would make some numbers likelier than others
    many, draws = ManyDraws(7, 0, 400), Draws(7)
    ours, theirs = many.integers(high), [draws.at(place).integers(high) for place in range(400)]
    assert 40 < many.unlike.sum() < 200
    np.testing.assert_array_equal(ours != theirs, many.unlike)


def test_more_words_than_are_computed_are_marked():
    many = ManyDraws(7, 0, 5)
    for _ in range(4):
        many.random()
    assert not many.unlike.any()
    many.random()
    assert many.unlike.all()


@pytest.mark.parametrize("draws_so", [True, False])
def test_crops_are_drawn_one_by_one_where_they_have_to_be(draws_so, monkeypatch):
    transforms = (PadAndCrop(2), *[HorizontalFlip()] * 5)
    made = crops.crops_of(transforms, (9, 9, 1), with_image((9, 9, 1), LABEL))
    assert made is not None
    expected = [made.of(Draws(7).at(place)) for place in range(1000, 2100)]
    monkeypatch.setattr(crops, "numpy_draws_so", lambda: draws_so)
    crops._block.cache_clear()
    np.testing.assert_array_equal(made.draw(7, 1000, 1100), expected)


def test_this_numpy_draws_so_and_another_would_be_seen(monkeypatch):
    assert numpy_draws_so()
    monkeypatch.setattr(many_draws.ManyDraws, "random", lambda self: self._word() * 2.0**-64)
    assert not numpy_draws_so.__wrapped__()
