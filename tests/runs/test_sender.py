"""A training split on the devices changes nothing but the way of a batch: all is equal to the bit."""

import dataclasses

import numpy as np
import pytest

from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.memory import load
from jaxcnn.data.transforms import CenterCrop, HorizontalFlip, PadAndCrop, RandomCrop, Rotate
from jaxcnn.errors import UserError
from jaxcnn.runs.member import train_batches
from jaxcnn.runs.run_directory import open_run
from jaxcnn.runs.sender import Sender
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.stepper import Single
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
CROPS = (HorizontalFlip(), PadAndCrop(2, value=7))
PADDED = (72, 72 * (13 * 13 * 3 + 4))


@pytest.mark.parametrize("augment, split", [((), SPLIT), (CROPS, PADDED)], ids=["as they are", "cropped"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"steps_per_call": 2}, {"ema": SWA(start=steps(12), recompute=steps(2))}],
    ids=["step by step", "several in a call", "averaged"],
)
def test_a_run_has_the_bits_of_one_whose_batches_are_sent(tmp_path, held, fields, augment, split):
    train([tmp_path / "sent"], [made(0, SWITCHED_OFF, augment, **fields)])
    assert held == []
    train([tmp_path / "held"], [made(0, split[1], augment, **fields)])
    assert held == [split]
    losses = [line["loss"] for line in metrics(tmp_path / "held") if line["split"] == "train"]
    assert losses[-1] < losses[0]
    assert metrics(tmp_path / "held") == metrics(tmp_path / "sent")
    assert open_run(tmp_path / "held").result() == open_run(tmp_path / "sent").result()


@pytest.mark.parametrize("augment, split", [((), SPLIT), (CROPS, PADDED)], ids=["as they are", "cropped"])
def test_seeds_together_take_their_own_batches_from_one_split(tmp_path, held, augment, split):
    for limit in (SWITCHED_OFF, split[1]):
        train([tmp_path / f"{limit}" / f"{seed}" for seed in (0, 1)], [made(seed, limit, augment) for seed in (0, 1)])
    assert held == [split]
    for seed in (0, 1):
        assert metrics(tmp_path / f"{split[1]}" / f"{seed}") == metrics(tmp_path / f"{SWITCHED_OFF}" / f"{seed}")


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
    train([tmp_path / "padded"], [made(0, PADDED[1] - 1, CROPS, duration=steps(2))])
    train([tmp_path / "turned"], [made(0, 2**20, (Rotate(5.0), HorizontalFlip()), duration=steps(2))])
    read = made(0, 2**20, duration=steps(2))
    train([tmp_path / "read"], [dataclasses.replace(read, data=dataclasses.replace(read.data, memory_limit=0))])
    assert held == []
    with pytest.raises(UserError, match=r"data\.device_limit is -1; it must not be negative"):
        made(0, -1)


@pytest.mark.parametrize(
    "augment, shape",
    [((), (9, 9, 3)), (CROPS, (9, 9, 3)), ((RandomCrop((5, 7)), HorizontalFlip()), (5, 7, 3))],
    ids=["as they are", "padded", "smaller"],
)
def test_rows_are_those_of_the_host_and_little_is_sent(augment, shape):
    experiment = make(0)
    data = dataclasses.replace(experiment.data, augment=augment, preprocess=(CenterCrop(shape[:2]),), image_shape=shape)
    plan = make_plan(dataclasses.replace(experiment, data=data))
    examples, _ = load(plan.train, (), with_image((9, 9, 3), LABEL), 2**20)
    stepper, batches = Single(plan), train_batches(plan, examples, augment)
    sent = stepper.put([batches[3]])
    (few,) = stepper.sender.hold_if_small([batches], 2**20)
    assert stepper.sender.held and "image" not in few[3]
    taken = stepper.put([few[3]])
    assert taken.keys() == sent.keys()
    for name in sent:
        assert taken[name].sharding == sent[name].sharding and taken[name].dtype == sent[name].dtype
        np.testing.assert_array_equal(taken[name], sent[name])
