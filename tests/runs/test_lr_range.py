"""The range test: its rates, what it points at, and that it tells what it cannot do."""

import dataclasses
import json
import pathlib

import numpy as np
import optax
import pytest
from PIL import Image

import jaxcnn as jc
from jaxcnn.errors import UserError
from jaxcnn.runs import restore
from jaxcnn.runs.debug import debug
from jaxcnn.runs.lr_range import judge, lr_range
from jaxcnn.train.schedules import Rising
from tests.experiments.tiny import experiment
from tests.nets import TinyNet
from tests.tiny_runs import TINY, call, finish


def test_the_rate_rises_by_the_same_factor_at_each_step():
    schedule = Rising(1e-4).build(41, lambda duration: duration.amount)
    rates = np.array([schedule(step) for step in range(41)])
    np.testing.assert_allclose(rates[[0, -1]], [1e-4, 1.0], rtol=1e-6)
    np.testing.assert_allclose(rates[1:] / rates[:-1], 10 ** (4 / 40), rtol=1e-4)
    with pytest.raises(UserError, match=r"schedule\.start is 1\.0; it must be above 0 and below 1"):
        Rising(1.0).build(10, lambda duration: duration.amount)


def test_it_points_at_where_the_loss_falls_the_fastest():
    """A loss that falls like a logistic curve around 1e-2, the fastest there, and explodes above 1."""
    rates = np.geomspace(1e-5, 10, 121)
    losses = 0.2 + 2 / (1 + (rates / 1e-2) ** 1.5) + 50 * np.maximum(rates - 1, 0)
    found = judge(rates.tolist(), losses.tolist())
    assert 8e-3 < found.steepest < 4e-2 and 0.1 < found.lowest < 2
    for seed in range(20):
        noisy = losses * np.random.default_rng(seed).uniform(0.8, 1.2, len(rates))
        assert 2e-3 < judge(rates.tolist(), noisy.tolist()).steepest < 0.1


def test_a_run_of_rising_rate_is_read_to_where_it_is_not_finite(tmp_path):
    found = lr_range(experiment(), tmp_path / "run", low=1e-4, high=1e30, length=40)
    assert 5 <= len(found.rates) < 40 and np.isfinite(found.losses).all()
    np.testing.assert_allclose(found.rates[:2], [1e-4, 1e-4 * 10 ** (34 / 39)], rtol=1e-3)
    assert found.rates[0] <= found.steepest <= found.lowest < 1e4 and min(found.losses) < found.losses[0]


def test_what_debug_makes_of_a_preparation_that_was_taken_over_stays(tmp_path, monkeypatch):
    """As on the command line: the images are prepared as for another run's net, and --debug shrinks them."""
    theirs = jc.Data((448, 448, 3), preprocess=(jc.Resize(448),), normalize=jc.Normalize((1.0,), (2.0,)))
    made = jc.Experiment(TinyNet(), jc.Data((32, 32, 3), jc.Synthetic((32, 32, 3), classes=4)))
    made = dataclasses.replace(made, init_from=jc.InitFrom("there", preparation=True))
    monkeypatch.setattr(restore, "open_run", lambda path: path)
    monkeypatch.setattr(restore, "load_experiment", lambda path: jc.Experiment(TinyNet(), theirs))
    small = debug(restore.prepared_as_source(made))
    trained = []

    def train(tried, folder, quiet):
        trained.append(restore.prepared_as_source(tried))
        raise UserError("enough")

    monkeypatch.setattr("jaxcnn.runs.lr_range.train", train)
    with pytest.raises(UserError, match="enough"):
        lr_range(small, tmp_path / "run")
    (tried,) = trained
    assert tried.data.image_shape == small.data.image_shape == (128, 128, 3)
    assert tried.data.normalize == theirs.normalize


def test_a_loss_that_does_not_fall_or_falls_throughout_is_told():
    rates = np.geomspace(1e-5, 10, 50).tolist()
    for losses in (np.linspace(1, 5, 50), np.full(50, 2.0)):
        with pytest.raises(UserError, match="the loss does not fall at any rate from 1e-05 on"):
            judge(rates, losses.tolist())
    assert judge(rates, np.linspace(5, 1, 50).tolist()).falling
    assert not judge(rates, np.abs(np.linspace(-1, 0.5, 50)).tolist()).falling


def test_another_mistake_than_a_loss_that_is_not_finite_is_raised(tmp_path):
    """A broken image in the middle of the test ends it."""
    folder = tmp_path / "photos"
    for number in range(12):
        file = folder / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * number, np.uint8)).save(file)
    file.write_bytes(b"no image")
    data = jc.Data((8, 8, 1), jc.Folder(str(folder), channels=1), train_split="train", batch_size=1)
    made = jc.Experiment(jc.create_model("linear", classes=2), data, optimizer=jc.SGD(0.1))
    with pytest.raises(UserError, match=r"11\.png"):
        lr_range(made, tmp_path / "run", low=1e-6, high=1e-5, length=30)


def test_the_command_draws_and_says_it(tmp_path):
    picture = tmp_path / "range.png"
    words = (TINY, "--low", "1e-4", "--high", "3", "--steps", "30", "--out", picture, "--optimizer.momentum", "0.5")
    done = call("lr-range", *words, "--json", module="jaxcnn")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["rates"]) == len(found["losses"]) == len(found["smoothed"]) == 30
    assert found["rates"][0] == pytest.approx(1e-4) and found["rates"][-1] == pytest.approx(3)
    assert f"picture {picture}" in done.stderr.replace("\n", " ")
    assert Image.open(picture).size[0] > 500
    out = finish("lr-range", *words, module="jaxcnn").stdout
    assert "falls the fastest at" in out and f"{found['steepest']:.2g}" in out
    assert not pathlib.Path("runs/tiny").exists()


@pytest.mark.parametrize(
    "fields, given, told",
    [
        ({"optimizer": optax.adam(1e-3)}, {}, "has its rate within"),
        ({}, {"low": 1.0, "high": 0.1}, "the rates rise from 1 to 0.1; they must be above 0"),
        ({}, {"length": 3}, "3 steps are too few"),
        ({}, {"low": 1e29, "high": 1e30, "length": 12}, "begin lower"),
    ],
)
def test_what_it_cannot_do_is_told(fields, given, told, tmp_path):
    made = dataclasses.replace(experiment(), **fields)
    with pytest.raises(UserError, match=told):
        lr_range(made, tmp_path / "run", **given)


def test_the_picture_has_a_folder(tmp_path):
    done = call("lr-range", TINY, "--out", tmp_path / "none" / "range.png", module="jaxcnn")
    assert done.returncode == 1 and "--out" in done.stderr and "there is no folder" in done.stderr
    assert jc.Rising(0.1).start == 0.1
