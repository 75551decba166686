"""Nearest neighbours as an arm, against scikit-learn's."""

import types

import jax
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from jaxcnn import create_model
from jaxcnn.studies import neighbours, probes
from jaxcnn.studies.neighbours import Neighbours
from jaxcnn.studies.probes import Cost
from jaxcnn.studies.recipes import changed, digits
from tests.studies.test_probes import read


@pytest.mark.parametrize("distance, metric", [("l2", "euclidean"), ("l1", "manhattan"), ("cosine", "cosine")])
def test_accuracy_is_scikit_learns(distance, metric):
    experiment = changed(digits(create_model("linear")), train_split="train[:300]")
    measured = Neighbours(experiment, k=1, distance=distance).measure(seed=0)
    images, labels = read("train[:300]")
    queries, truth = read("test")
    flat = lambda x: x.reshape(len(x), -1).astype(np.float64)  # noqa: E731
    reference = KNeighborsClassifier(1, metric=metric, algorithm="brute").fit(flat(images), labels)
    assert measured["test accuracy"] == pytest.approx(reference.score(flat(queries), truth), abs=1e-9)
    assert measured["megabytes kept"] == 300 * 64 / 1e6 and measured["test count"] == len(truth)
    assert set(Neighbours(experiment).metrics) == set(measured)
    assert measured["milliseconds per test image"] > 0


def test_the_images_are_those_that_the_net_reads():
    experiment = changed(digits(create_model("linear"), size=16), train_split="train[:50]")
    assert Neighbours(experiment).measure(seed=0)["megabytes kept"] == 50 * 256 / 1e6


def test_the_time_is_measured_as_the_nets(monkeypatch):
    """Memory and parameters lie on the device, queries come from the host: else one side pays for its transfer."""
    seen = {}

    def fastest(function, variables, images, repeats):
        seen[len(seen)] = (jax.tree.leaves(variables), images)
        return 1.0

    monkeypatch.setattr(neighbours, "fastest", fastest)
    monkeypatch.setattr(probes, "fastest", fastest)
    experiment = changed(digits(create_model("linear")), train_split="train[:50]")
    Neighbours(experiment).measure(seed=0)
    variables = experiment.model.init(jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32), train=False)
    state = types.SimpleNamespace(params=variables["params"], stats={})
    Cost(batch=2).measure(types.SimpleNamespace(experiment=experiment, state=state))
    assert len(seen) == 2
    for leaves, images in seen.values():
        assert leaves and all(isinstance(leaf, jax.Array) for leaf in leaves) and isinstance(images, np.ndarray)
