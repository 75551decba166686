"""The studentised bootstrap, against its definition in a loop."""

import math

import numpy as np
import pytest

from jaxcnn.studies.bootstrap import studentized, weights
from jaxcnn.studies.statistics import interval


def test_it_is_its_definition():
    values = np.random.default_rng(3).exponential(1, 7)
    mean, error, drawn = values.mean(), values.std(ddof=1) / math.sqrt(7), []
    for shares in weights(7):
        sample = np.repeat(values, np.rint(shares * 7).astype(int))
        assert len(sample) == 7
        own = max(sample.std(ddof=1), 1e-3 * values.std(ddof=1)) / math.sqrt(7)
        drawn.append((sample.mean() - mean) / own)
    low, high = mean - np.quantile(drawn, 0.975) * error, mean - np.quantile(drawn, 0.025) * error
    assert [float(end) for end in studentized(values)] == pytest.approx([low, high])


def test_it_follows_skewed_differences():
    """A long tail upwards leaves more room above the mean than below; t's interval has as much on both sides."""
    values = np.array([0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 2.0])
    low, high = studentized(values)
    assert high - values.mean() > 2 * (values.mean() - low)


def test_many_samples_are_as_one_and_few_have_none():
    many = np.random.default_rng(4).normal(size=(3, 1100, 5))
    low, high = studentized(many, 0.1)
    assert low.shape == (3, 1100)
    assert (float(low[2, 7]), float(high[2, 7])) == pytest.approx(tuple(map(float, studentized(many[2, 7], 0.1))))
    assert np.isnan(studentized(np.array([0.5]))).all() and np.isnan(studentized(np.full(5, 0.25))).all()


def test_what_rounding_hides_is_in_it():
    """Drawing equal differences again shows nothing: the interval is t's, whose deviation is that of the rounding."""
    for values in ([0.25] * 5, [0.25, 0.25, 0.25, 0.25, 0.2501]):
        found = interval(values, 0.01)
        assert [float(end) for end in studentized(np.array(values), 0.01)] == pytest.approx([found.low, found.high])
