"""The probe of times: both nets in turn about the same images, the first round left out, medians of pairs."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from jaxcnn import create_model
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.studies import inference_time as module
from jaxcnn.studies.inference_time import InferenceTime, figures, in_turn

SHAPE = (16, 24, 3)


def test_each_image_is_asked_of_both_and_neither_is_always_first():
    now, asked = [0.0], []

    def net(which, seconds):
        def answer(image):
            asked.append((which, int(image)))
            now[0] += seconds[len(asked) > 6]  # the first round of three images compiles

        return answer

    answers = [net("own", (9.0, 3.0)), net("other", (9.0, 2.0))]
    own, other = in_turn(answers, [np.array(i) for i in range(3)], 2, clock=lambda: now[0])
    assert own.tolist() == [3.0] * 6 and other.tolist() == [2.0] * 6
    assert [image for _, image in asked] == [0, 0, 1, 1, 2, 2] * 3
    assert {asked[i][0] for i in range(0, 18, 2)} == {"own", "other"}
    assert all({asked[i][0], asked[i + 1][0]} == {"own", "other"} for i in range(0, 18, 2))


def test_figures_are_medians_and_the_quotients_those_of_pairs():
    """A machine that slows down in the middle changes the times and not the quotients."""
    own, other = np.array([2.0, 2, 2, 20, 20]), np.array([1.0, 1, 1, 10, 10])
    assert figures(own, other) == {"milliseconds per image": 2000, "relative time per image": 2}
    assert figures(np.array([4.0, 6, 8]), np.array([1.0, 6, 4]))["relative time per image"] == 2  # of 4, 1 and 2


def test_it_asks_the_runs_net_and_the_other_about_test_images(monkeypatch):
    source = Synthetic(SHAPE, classes=3, test=5)
    experiment = Experiment(create_model("linear", classes=3), Data(SHAPE, source, test_splits=("test",)))
    beside = dataclasses.replace(experiment, model=create_model("linear", classes=7))
    variables = experiment.model.init(jax.random.key(4), np.zeros((1, *SHAPE), np.float32), train=False)
    state = types.SimpleNamespace(params=variables["params"], stats={})
    asked = {}

    def capture(answers, images, rounds):
        asked.update(own=[answers[0](image) for image in images], other=answers[1](images[0]), images=images)
        return np.array([2.0]), np.array([1.0])

    monkeypatch.setattr(module, "in_turn", capture)
    measured = InferenceTime(beside, images=4).measure(types.SimpleNamespace(experiment=experiment, state=state))
    assert tuple(measured) == InferenceTime.metrics and measured["relative time per image"] == 2
    examples = source.open("test")
    assert len(asked["images"]) == 4 and asked["other"].shape == (1, 7)
    for i, said in enumerate(asked["own"]):
        image = experiment.data.normalize(examples[i]["image"][None])
        logits = experiment.model.apply(variables, image, train=False)
        np.testing.assert_allclose(said, jax.nn.softmax(logits), rtol=1e-5)
    with pytest.raises(UserError, match="rounds is 0; it must be at least 1"):
        InferenceTime(beside, rounds=0)
