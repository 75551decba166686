"""Runs that end in figures that are not finite, after their last good step: diverged, and never "done"."""

import dataclasses
import io
import json

import flax.linen as nn
import jax.numpy as jnp
import pytest
from rich.console import Console

from jaxcnn import config
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.experiment import Checkpoints, Data, Experiment
from jaxcnn.runs import checkpoint
from jaxcnn.runs.display import Display
from jaxcnn.runs.loop import run
from jaxcnn.runs.replay import replay
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.start import start_run
from jaxcnn.train.duration import steps
from jaxcnn.train.optimizers import SGD
from tests.nets import TinyNet

SHAPE = (9, 9, 3)
# Loss and gradient of the first step are finite; the update is 3e38 times a thousand weights.
OVERFLOWS = SGD(learning_rate=3e38, momentum=0.0, weight_decay=1e3)


class GoodInTraining(TinyNet):
    """As its batch statistics might: in evaluation, and there alone, nothing is finite."""

    @nn.compact
    def __call__(self, images, *, train):
        return super().__call__(images, train=True) * (1 if train else jnp.nan)


def experiment(**fields):
    data = Data(SHAPE, Synthetic(image_shape=SHAPE, classes=4, train=32, test=9), batch_size=8)
    given = {"model": TinyNet(norm=False), "data": data, "optimizer": SGD(0.01), "duration": steps(4), **fields}
    splits = given.pop("evaluation_splits", ("test",))
    given["data"] = dataclasses.replace(data, evaluation_splits=splits)
    rare = {"evaluate_every": steps(100), "checkpoints": Checkpoints(every=steps(100))}
    return Experiment(**(rare | given), log_every=steps(1))


def trained(path, **fields):
    made = experiment(**fields)
    plan = make_plan(made)
    with (
        start_run(path, config.encode(made), None, plan.dataset()) as directory,
        Display(Console(file=io.StringIO())) as display,
    ):
        outcome = run(plan, directory, display)
    status = json.loads((path / "status.json").read_text())
    assert status["state"] == outcome.state and status["step"] == outcome.step
    return outcome, status


@pytest.mark.parametrize("splits, skip", [(("test",), 0), ((), 2)])
def test_an_overflow_in_the_last_update_is_no_result(splits, skip, tmp_path):
    fields = {"optimizer": OVERFLOWS, "duration": steps(1), "evaluation_splits": splits, "skip_bad_steps": skip}
    outcome, status = trained(tmp_path, **fields)
    assert outcome.state == "diverged" and outcome.step == 1
    assert ("test" in outcome.message) == bool(splits) and "skipped" not in outcome.message
    assert not (tmp_path / "result.json").exists() and checkpoint.steps(tmp_path / "checkpoints") == []
    # The step's own figures are recorded, and were finite.
    assert float(status["loss"]) < 10 and float(status["grad_norm"]) < 100 and len(status["examples"]) == 8
    if splits:
        found = replay(tmp_path, 1)
        assert repr(found["loss"]) == found["recorded"] == status["loss"] and not found["finite"]


@pytest.mark.parametrize("skip", [0, 2])
def test_to_skip_steps_is_advised_only_if_none_were(skip, tmp_path):
    too_far = SGD(learning_rate=1e30, momentum=0.0)
    _, status = trained(tmp_path, optimizer=too_far, duration=steps(8), evaluation_splits=(), skip_bad_steps=skip)
    assert status["state"] == "diverged" and ("--skip-bad-steps" in status["message"]) == (not skip)
    assert ("nor in the 2 before" in status["message"]) == bool(skip)


def test_what_is_not_finite_is_never_saved(tmp_path):
    """Four steps with a save after each: the update of the first one overflows."""
    outcome, _ = trained(tmp_path, optimizer=OVERFLOWS, checkpoints=Checkpoints(every=steps(1)))
    assert outcome.state == "diverged" and outcome.step == 1 and "parameter" in outcome.message
    assert checkpoint.steps(tmp_path / "checkpoints") == []


def test_an_evaluation_that_is_not_finite_ends_the_run(tmp_path):
    model = GoodInTraining(norm=False)
    outcome, status = trained(tmp_path, model=model, evaluate_every=steps(2))
    assert outcome.state == "diverged" and outcome.step == 2 and "loss on test" in status["message"]
    assert not (tmp_path / "result.json").exists() and checkpoint.steps(tmp_path / "checkpoints") == []
    text = (tmp_path / "metrics.jsonl").read_text()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert [(line["step"], line["split"], line["loss"]) for line in lines[2:3]] == [(2, "test", None)]
