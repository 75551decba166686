"""Intervals: their times in a world with a clock of its own, and what is written of steps that are not finite."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.runs.member import training_line
from jaxcnn.runs.training_log import Completions, Diverged, TrainingLog, clock
from jaxcnn.tasks.classification import Classification

SIZE = 4


def metrics(loss, bad_step=0):
    arrays = {"sums": {"loss": jnp.float32(loss), "accuracy": jnp.int32(3), "count": jnp.int32(4)}}
    loss_and_norm = {"learning_rate": jnp.float32(0.5), "grad_norm": jnp.float32(1), "step_loss": jnp.float32(loss)}
    return arrays | loss_and_norm | {"bad_step": jnp.int32(bad_step)}


def written(lines):
    """What the loop makes of an interval, into `lines`."""
    return lambda line, metrics, times: lines.append(training_line(Classification(), line, metrics, times))


def taken(interval, step, **loss_and_norm):
    assert interval.wait_for(iter(["batch"])) == "batch"
    interval.took(step, metrics(**loss_and_norm))


def test_an_interval_is_written_when_the_next_one_ends():
    lines = []
    interval = TrainingLog(written(lines), examples_per_step=SIZE)
    for step in (1, 2):
        taken(interval, step, loss=8 * step)
        interval.end({"step": step, "split": "train"})
        assert len(lines) == step - 1
    interval.settle()
    assert [(line["step"], line["loss"], line["accuracy"], line["count"]) for line in lines] == [
        (1, 2.0, 0.75, 4),
        (2, 4.0, 0.75, 4),
    ]
    assert 0 <= lines[0]["data_wait"] <= 1 and lines[0]["examples_per_second"] > 0 and "bad_step" not in lines[0]


class Computed:
    """A number of the device, there or not yet."""

    def __init__(self, value, there):
        self.value, self.there = value, there

    def is_ready(self):
        return self.there

    def __array__(self, *_, **__):
        assert self.there, "the host waits for the device"
        return np.int32(self.value)


def test_the_only_process_writes_an_interval_as_soon_as_it_is_there():
    lines = []
    interval = TrainingLog(written(lines), SIZE, completed=lambda value: clock, alone=True)
    bad_steps = [Computed(0, there) for there in (True, False, False, False)]
    told = []
    for step, bad_step in enumerate(bad_steps, 1):
        interval.wait_for(iter(["batch"]))
        interval.took(step, metrics(loss=step) | {"bad_step": bad_step})
        if step <= 2:
            interval.end({"step": step})
        told.append([line["step"] for line in lines])
        if step == 3:
            bad_steps[1].there = True
    assert told == [[1], [1], [1], [1, 2]]


def test_one_of_several_processes_writes_an_interval_when_all_do():
    lines = []
    interval = TrainingLog(written(lines), SIZE, alone=False)
    for step in (1, 2, 3):
        taken(interval, step, loss=1)
        if step == 1:
            interval.end({"step": step})
    assert lines == []
    interval.settle()
    assert [line["step"] for line in lines] == [1]


def test_an_interval_that_is_not_finite_is_never_written():
    lines = []
    interval = TrainingLog(written(lines), examples_per_step=SIZE)
    taken(interval, 7, loss=float("nan"), bad_step=7)
    interval.end({"step": 8, "split": "train"})
    with pytest.raises(Diverged) as error:
        interval.settle()
    assert error.value.step == 7 and math.isnan(error.value.loss_and_norm[0]) and lines == []


class World:
    """A host that fetches batches, and a device that computes one step after another; time passes in them only."""

    def __init__(self, fetch, compute):
        self.fetch, self.compute = fetch, compute
        self.now, self.done = 100.0, []
        self.lines, self.stopwatch, self.resumed = [], {}, None
        self.interval = TrainingLog(written(self.lines), SIZE, clock=lambda: self.now, completed=self.completed)

    def completed(self, value):
        step = len(self.done)
        return lambda: self.until(self.done[step - 1])

    def until(self, time):
        self.now = max(self.now, time)
        return time

    def batches(self):
        while True:
            self.now += self.fetch
            yield "batch"

    def run(self, total, log_every, pause_every, pause):
        """The loop's order of events, with a stopwatch around the steps of each interval, pauses left out."""
        batches, since, measured = self.batches(), self.now, 0.0
        for step in range(1, total + 1):
            self.interval.wait_for(batches)
            self.done.append(max([self.now, *self.done[-1:]]) + self.compute)
            self.interval.took(step, metrics(loss=1.0))
            if step > 2:
                self.until(self.done[-3])  # two steps wait for the device
            if step % log_every == 0 or step == total:
                self.interval.end({"step": step})
                self.stopwatch[step] = measured + self.done[-1] - since
                since, measured = self.done[-1], 0.0
            if step % pause_every == 0 or step == total:
                self.interval.settle()
                measured += self.done[-1] - since
                self.now += pause
                since = self.now


@pytest.mark.parametrize("log_every", [1, 2, 7, 50])
@pytest.mark.parametrize(
    "fetch, compute, waiting",
    [(0.001, 1.0, (0, 0.01)), (1.0, 0.001, (0.99, 1)), (0.5, 0.4, (0.19, 1)), (0.0, 0.001, (0, 0))],
)
def test_times_are_those_of_the_steps_without_the_pauses(fetch, compute, waiting, log_every):
    """23 steps with a pause a hundred times as long as a step after every 5: within, at and between interval's ends."""
    world = World(fetch, compute)
    world.run(total=23, log_every=log_every, pause_every=5, pause=100.0)
    assert [line["step"] for line in world.lines] == [*range(log_every, 23, log_every), 23]
    before = 0
    for line in world.lines:
        seconds = (line["step"] - before) * SIZE / line["examples_per_second"]
        assert seconds == pytest.approx(world.stopwatch[line["step"]], rel=1e-6)
        # A step takes what is slower of the two; the first one after a pause takes both.
        steps = line["step"] - before
        assert steps * max(fetch, compute) * 0.99 < seconds <= steps * (fetch + compute) * 1.01
        assert waiting[0] <= line["data_wait"] <= waiting[1]
        before = line["step"]


def test_a_clock_that_does_not_move_gives_no_rate():
    world = World(0.0, 0.0)
    world.run(total=2, log_every=1, pause_every=2, pause=0.0)
    assert [(line["examples_per_second"], line["data_wait"]) for line in world.lines] == [(None, None)] * 2


def test_a_completion_is_noted_when_it_happens_and_not_when_it_is_asked_for():
    before = clock()
    asked = Completions()(jnp.zeros(3) + 1)
    first = asked()
    assert before <= first <= clock() and asked() == first


def test_a_pause_before_the_first_step_and_two_in_a_row_change_nothing():
    lines = []
    interval = TrainingLog(written(lines), examples_per_step=SIZE)
    interval.settle()
    assert interval.newest_loss_and_norm() is None
    taken(interval, 1, loss=2.0)
    interval.end({"step": 1})
    interval.settle()
    interval.settle()
    assert len(lines) == 1 and np.allclose(interval.newest_loss_and_norm(), (2.0, 1.0))
