"""Several steps in one call are the steps one by one: the same figures at the same steps, also when resumed."""

import dataclasses
import math

import jax.numpy as jnp
import pytest

from jaxcnn.data.transforms import RandomResizedCrop
from jaxcnn.errors import UserError
from jaxcnn.runs.run_directory import open_run
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.several_steps import steps_of_call
from jaxcnn.runs.training_log import Diverged, TrainingLog
from jaxcnn.runs.warnings import warnings_of
from jaxcnn.train.duration import steps
from tests.runs.test_seeds import close, make, train
from tests.tiny_runs import metrics


def several(seed=0, **fields):
    return make(seed, steps_per_call=2, **fields)


def calls(plan, step=0):
    """The steps at which calls begin."""
    begins = []
    while step < plan.total:
        begins.append(step)
        step += steps_of_call(plan, step)
    return begins


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run step by step, and the same with two in a call."""
    folder = tmp_path_factory.mktemp("alone")
    train([folder / "one"], [make(0)])
    train([folder / "two"], [several()])
    return folder


def test_a_call_ends_where_something_is_due():
    plan = make_plan(several())  # logs every 4, evaluates every 6 and saves every 5 of 24 steps
    assert calls(plan) == [0, 2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20, 22]
    assert calls(plan, 14) == [14, 15, 16, 18, 20, 22]  # where a call begins is a function of the step
    data = dataclasses.replace(plan.experiment.data, augment=(RandomResizedCrop(9),))
    data = dataclasses.replace(data, sizes=((steps(0), 11), (steps(3), 9)))
    grown = dataclasses.replace(plan, experiment=dataclasses.replace(plan.experiment, data=data))
    assert calls(grown)[:4] == [0, 2, 3, 4]
    assert calls(make_plan(make(0))) == list(range(24))
    with pytest.raises(UserError, match="steps_per_call is 0; it must be at least 1"):
        make(0, steps_per_call=0)


def test_more_steps_than_fit_between_what_is_due_are_told():
    def told(count):
        plan = make_plan(make(0, steps_per_call=count))
        found = [warning for warning in warnings_of(plan) if "per_call" in warning]
        assert bool(found) == (calls(plan) == list(range(24)))
        return found

    assert told(4) == []
    (line,) = told(5)  # logs every 4
    assert line.startswith("steps_per_call 5 never fits") and line.endswith("due every 4 steps; try --steps-per-call 4")
    (line,) = [w for w in warnings_of(make_plan(several(log_every=steps(1)))) if "per_call" in w]
    assert line == "steps_per_call 2 never fits, since something is due after each step"


def test_the_run_is_the_one_step_by_step(alone):
    one, two = open_run(alone / "one"), open_run(alone / "two")
    close(alone / "two", alone / "one")  # up to rounding, which grows
    assert metrics(alone / "two")[0]["loss"] == pytest.approx(metrics(alone / "one")[0]["loss"], rel=1e-6)
    assert two.result()["test"] == pytest.approx(one.result()["test"], rel=1e-4)
    assert two.selection() == one.selection() and two.status() == one.status()


def test_a_stop_between_calls_costs_nothing(alone, tmp_path):
    asked = iter([False] * 8 + [True] + [False] * 1000)
    outcomes, _ = train([tmp_path / "run"], [several()], lambda: next(asked))
    assert [outcome.state for outcome in outcomes] == ["preempted"] and 0 < outcomes[0].step < 24
    train([tmp_path / "run"], [several()])
    assert metrics(tmp_path / "run") == metrics(alone / "two")


def test_seeds_take_several_steps_together(alone, tmp_path):
    train([tmp_path / "0", tmp_path / "1"], [several(0), several(1)])
    close(tmp_path / "0", alone / "one")
    assert metrics(tmp_path / "1")[0] != metrics(tmp_path / "0")[0]


def test_each_step_of_a_call_is_looked_at():
    skipped, ended = [], []
    log = TrainingLog(
        lambda *interval: None,
        4,
        lambda number, step, loss, norm: skipped.append((number, step)),
        lambda number, error: ended.append((number, error.step, error.loss_and_norm)),
        completed=lambda value: lambda: 0.0,
    )
    log.wait_for(iter([None]))
    last = {name: jnp.zeros(2) for name in ("step_loss", "grad_norm", "learning_rate")}
    each = {"step_loss": jnp.asarray([[1.0, 2.0], [math.nan, 3.0], [4.0, 5.0]]), "grad_norm": jnp.ones((3, 2))}
    each["grad_norm"] = each["grad_norm"].at[1, 1].set(math.inf)
    log.took(9, last | {"bad_step": jnp.asarray([0, 8]), "sums": {}, "each": each})
    log.settle()
    assert skipped == [(0, 8)] and ended == [(1, 8, (3.0, math.inf))] and Diverged(8, None).skippable
