"""Features of a frozen net are computed once, and a linear classifier of them is the one that its loss defines."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest

import jaxcnn as jc
from jaxcnn.__main__ import main
from jaxcnn.data.examples import Source
from jaxcnn.errors import UserError
from jaxcnn.runs import features as frozen
from jaxcnn.runs.features import Features, FrozenNet
from jaxcnn.studies.linear_probe import PENALTIES, LinearProbe, fit, probe
from jaxcnn.studies.recipes import changed, digits
from jaxcnn.studies.statistics import share_interval
from tests.nets import TinyNet
from tests.studies.test_probes import read


@pytest.fixture(scope="module")
def experiment() -> jc.Experiment:
    """A narrow LeNet with random weights on the digits."""
    made = changed(digits(jc.create_model("resnet20_cifar", depth=(1,), width=0.5)), train_split="train[:200]")
    data = dataclasses.replace(made.data, evaluation_splits=("train[200:300]",), test_splits=("train[300:400]",))
    return dataclasses.replace(made, data=data)


def test_features_are_the_nets_maps_averaged_over_their_positions(experiment):
    found = FrozenNet(experiment).features("train[300:400]")
    images, labels = read("train[300:400]")
    key, _ = jax.random.split(jax.random.key(experiment.seed))
    model = experiment.model
    variables = model.init(key, np.zeros((1, 8, 8, 1), np.float32), train=False, method="outputs")
    maps = model.apply(variables, experiment.data.normalize(images), train=False, method="features")["final"]
    np.testing.assert_allclose(found.values, np.asarray(maps).mean((1, 2)), atol=1e-5)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.values.std() > 0.01
    with pytest.raises(UserError, match="the net has no map 'fina'; did you mean 'final'"):
        FrozenNet(experiment, "fina")


def test_features_are_computed_once_for_the_same_weights_and_images(experiment, tmp_path, monkeypatch):
    first = FrozenNet(experiment, folder=tmp_path).features("train[300:400]")
    reads = []
    compute = FrozenNet._read
    monkeypatch.setattr(
        FrozenNet, "_read", lambda self, examples: reads.append(examples.split) or compute(self, examples)
    )

    def again(changed_experiment=experiment, split="train[300:400]", endpoint="final"):
        before = len(reads)
        found = FrozenNet(changed_experiment, endpoint, tmp_path).features(split)
        return len(reads) - before, found

    count, kept = again()
    assert count == 0
    np.testing.assert_array_equal(kept.values, first.values)
    np.testing.assert_array_equal(kept.labels, first.labels)
    data = experiment.data
    brighter = dataclasses.replace(data, normalize=jc.Normalize(mean=(10.0,), std=(20.0,)))
    for other in (
        {"changed_experiment": dataclasses.replace(experiment, seed=1)},
        {"changed_experiment": dataclasses.replace(experiment, data=brighter)},
        {"split": "train[300:399]"},
        {"endpoint": "stage1"},
    ):
        assert again(**other)[0] == 1, other
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:50])
    count, kept = again()
    assert count == 1
    np.testing.assert_array_equal(kept.values, first.values)


def made(seed: int, count: int, noise: int) -> Features:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.int32)
    values = rng.normal(size=(count, 6)) * [1, 5, 0.1, 1, 1, 0] + [0, 100, 0, 0, 0, 7]
    values[:, :2] += 0.8 * labels[:, None]
    return Features(np.concatenate([values, rng.normal(size=(count, noise))], 1).astype(np.float32), labels)


@pytest.mark.parametrize("count, noise", [(120, 0), (40, 60)])
def test_the_classifier_minimizes_the_stated_loss_and_the_validation_images_choose(count, noise):
    train, validation, test = made(0, count, noise), made(1, 80, noise), made(2, 90, noise)
    mean, deviation = train.values.astype(np.float64).mean(0), train.values.astype(np.float64).std(0)
    deviation[deviation == 0] = 1
    x = [(split.values - mean) / deviation for split in (train, validation, test)]
    size = 6 + noise

    def loss(flat, l2, values, labels):
        weights, bias = flat[: 3 * size].reshape(size, 3), flat[3 * size :]
        logits = values @ weights + bias
        odds = np.exp(logits - logits.max(1, keepdims=True))
        wrong = odds / odds.sum(1, keepdims=True)
        cross = -np.log(wrong[np.arange(len(labels)), labels]).mean()
        wrong[np.arange(len(labels)), labels] -= 1
        slope = np.concatenate([(values.T @ wrong / len(labels) + l2 * weights).ravel(), wrong.mean(0)])
        return cross + l2 / 2 * (weights**2).sum(), slope

    ranks = {}
    for l2 in PENALTIES:
        start = np.zeros(3 * size + 3)
        solved = minimize(loss, start, (l2, x[0], train.labels), jac=True, method="L-BFGS-B", tol=1e-10).x
        right = [
            ((values @ solved[: 3 * size].reshape(size, 3) + solved[3 * size :]).argmax(1) == split.labels).mean()
            for values, split in zip(x, (train, validation, test), strict=True)
        ]
        ranks[l2] = (right[1], -loss(solved, 0.0, x[1], validation.labels)[0], right)
    best = max(ranks, key=lambda l2: ranks[l2][:2])
    found = fit(train, validation, test)
    assert found.l2 == best and PENALTIES[-1] < best < PENALTIES[0]
    assert len({round(each[0], 6) for each in ranks.values()}) > 1  # else nothing was chosen
    np.testing.assert_allclose((found.train, found.validation, found.test), ranks[best][2], atol=1e-9)
    assert found.counts == (count, 80, 90) and found.size == size
    with pytest.raises(UserError, match="training images of two classes"):
        fit(Features(train.values[:3], np.zeros(3, np.int32)), validation, test)
    with pytest.raises(UserError, match="needs validation images"):
        fit(train, Features(validation.values[:0], validation.labels[:0]), test)


@pytest.mark.parametrize("right, count", [(0, 5), (26, 32), (199, 200), (7, 7)])
def test_the_interval_of_a_share_is_wilsons(right, count):
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(share_interval(right, count), (expected.low, expected.high), atol=1e-9)


def test_an_arm_takes_other_images_for_each_seed(experiment, monkeypatch):
    opened = []
    few = jc.Few(jc.Digits(), each=20, classes=3)
    data = dataclasses.replace(
        experiment.data,
        source=few,
        train_split="train[:80%]",
        evaluation_splits=("train[80%:]",),
        test_splits=("test",),
    )
    like = dataclasses.replace(experiment, model=experiment.model.clone(), data=data)
    like = dataclasses.replace(like, model=jc.create_model("resnet20_cifar", classes=3, depth=(1,), width=0.5))
    arm = LinearProbe(like)
    original = frozen.open_split

    def open_split(source: Source, split, data_dir):
        opened.append(source.first)
        return original(source, split, data_dir)

    monkeypatch.setattr(frozen, "open_split", open_split)
    figures = arm.measure(seed=2)
    assert set(figures) == set(arm.metrics) and set(opened) == {40}
    assert figures["test accuracy"] > 0.8 and figures["L2"] in PENALTIES


def test_what_cannot_be_probed_is_told(experiment):
    data = experiment.data
    with pytest.raises(UserError, match=r"needs data\.evaluation_splits"):
        probe(dataclasses.replace(experiment, data=dataclasses.replace(data, evaluation_splits=())))
    with pytest.raises(UserError, match="this task is Segmentation"):
        other = {"checkpoints": jc.Checkpoints(), "schedule": jc.Constant()}
        probe(dataclasses.replace(experiment, task=jc.Segmentation(), **other))
    with pytest.raises(UserError, match="the layers before a net's head make of an image, and this net has none"):
        probe(dataclasses.replace(experiment, model=jc.create_model("linear", classes=10)))
    with pytest.raises(UserError, match="TinyNet has no maps of features"):
        probe(dataclasses.replace(experiment, model=TinyNet()))


def test_the_command_says_what_it_measured(tmp_path, capsys):
    words = ["experiments/lenet_digits.py", "--keep", str(tmp_path / "kept"), "--data.train-split", "train[:100]"]
    assert main(["probe", *words]) == 0
    out = capsys.readouterr().out
    assert "95% interval" in out and "chosen by train[90%:]" in out and "16 features (final)" in out
    assert len([*(tmp_path / "kept").iterdir()]) == 3
    assert main(["probe", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"][0] == 100 and found["interval"][0] < found["test"] < found["interval"][1]
