"""A training split on the devices changes nothing but the way of a batch: all is equal to the bit."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcnn.data.transforms import HorizontalFlip
from jaxcnn.errors import UserError
from jaxcnn.runs.member import train_batches
from jaxcnn.runs.run_directory import open_run
from jaxcnn.runs.sender import Sender
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.stepper import Single
from jaxcnn.train import mesh as meshes
from jaxcnn.train.averages import SWA
from jaxcnn.train.duration import steps
from tests.runs.test_seeds import make, train
from tests.tiny_runs import metrics

SWITCHED_OFF = 0


def made(seed, device_limit, augment=(), **fields):
    experiment = make(seed, **fields)
    return dataclasses.replace(
        experiment, data=dataclasses.replace(experiment.data, device_limit=device_limit, augment=augment)
    )


@pytest.fixture
def held(monkeypatch):
    """The splits that were put onto devices, by their examples and bytes."""
    found, hold_if_small = [], Sender.hold_if_small

    def noted(self, batches, limit):
        own = hold_if_small(self, batches, limit)
        if self.held:
            found.append((len(self.held["label"]), sum(array.nbytes for array in self.held.values())))
        return own

    monkeypatch.setattr(Sender, "hold_if_small", noted)
    return found


SPLIT = (72, 72 * (9 * 9 * 3 + 4))  # 90% of the 80 images, and their labels


@pytest.mark.parametrize(
    "fields",
    [{}, {"steps_per_call": 2}, {"ema": SWA(start=steps(12), recompute=steps(2))}],
    ids=["step by step", "several in a call", "averaged"],
)
def test_a_run_has_the_bits_of_one_whose_batches_are_sent(tmp_path, held, fields):
    train([tmp_path / "sent"], [made(0, SWITCHED_OFF, **fields)])
    assert held == []
    train([tmp_path / "held"], [made(0, SPLIT[1], **fields)])
    assert held == [SPLIT]
    losses = [line["loss"] for line in metrics(tmp_path / "held") if line["split"] == "train"]
    assert losses[-1] < losses[0]
    assert metrics(tmp_path / "held") == metrics(tmp_path / "sent")
    assert open_run(tmp_path / "held").result() == open_run(tmp_path / "sent").result()


def test_seeds_together_take_their_own_batches_from_one_split(tmp_path, held):
    for limit in (SWITCHED_OFF, SPLIT[1]):
        train([tmp_path / f"{limit}" / f"{seed}" for seed in (0, 1)], [made(seed, limit) for seed in (0, 1)])
    assert held == [SPLIT]
    for seed in (0, 1):
        assert metrics(tmp_path / f"{SPLIT[1]}" / f"{seed}") == metrics(tmp_path / f"{SWITCHED_OFF}" / f"{seed}")


def test_a_run_goes_on_with_or_without(tmp_path, held):
    train([tmp_path / "whole"], [made(0, SWITCHED_OFF)])
    asked = iter([False] * 8 + [True] + [False] * 1000)
    (outcome,), _ = train([tmp_path / "run"], [made(0, SPLIT[1])], lambda: next(asked))
    assert outcome.state == "preempted" and 0 < outcome.step < 24
    train([tmp_path / "run"], [made(0, SWITCHED_OFF)])
    assert held == [SPLIT]
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_what_is_larger_or_still_transformed_is_sent(tmp_path, held):
    train([tmp_path / "larger"], [made(0, SPLIT[1] - 1, duration=steps(2))])
    train([tmp_path / "flipped"], [made(0, 2**20, (HorizontalFlip(),), duration=steps(2))])
    read = made(0, 2**20, duration=steps(2))
    train([tmp_path / "read"], [dataclasses.replace(read, data=dataclasses.replace(read.data, memory_limit=0))])
    assert held == []
    with pytest.raises(UserError, match=r"data\.device_limit is -1; it must not be negative"):
        made(0, -1)


def test_rows_are_those_of_the_host_and_little_is_sent():
    plan = make_plan(make(0))
    batch = train_batches(plan, plan.train, ())[3]
    arrays = {name: np.stack([plan.train[i][name] for i in range(len(plan.train))]) for name in ("image", "label")}
    stepper = Single(plan)
    sent = stepper.put([batch])
    stepper.sender.held = {name: jax.device_put(array, meshes.replicated(plan.mesh)) for name, array in arrays.items()}
    taken = stepper.put([{"index": batch["index"]}])
    assert taken.keys() == sent.keys()
    for name in sent:
        assert taken[name].sharding == sent[name].sharding and taken[name].dtype == sent[name].dtype
        np.testing.assert_array_equal(taken[name], sent[name])
