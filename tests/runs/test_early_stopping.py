"""Early stopping: when it ends a run, that resume ends it there too, and that each seed has an end of its own."""

import dataclasses
import itertools
import math

import pytest
from rich.console import Console

from jaxcnn import config
from jaxcnn.errors import UserError
from jaxcnn.runs import checkpoint
from jaxcnn.runs.display import Display
from jaxcnn.runs.loop import run as run_loop
from jaxcnn.runs.run_directory import open_run
from jaxcnn.runs.selection import Patience, patience_of
from jaxcnn.runs.setup import make_plan
from jaxcnn.train.averages import EMA
from jaxcnn.train.duration import steps
from jaxcnn.train.early_stopping import EarlyStopping
from jaxcnn.train.schedules import Constant
from tests.runs.test_seeds import make, metrics, train
from tests.tiny_runs import assert_same_run

FIELDS = {"ema": EMA(), "schedule": Constant(), "duration": steps(16), "evaluate_every": steps(2)}


@pytest.mark.parametrize(
    "metric, least, patience, figures, end",
    [
        ("loss", 0.0, 2, [3, 2, 2, 1, 1.5, 1, 0], 6),  # an equal one is no improvement
        ("loss", 0.5, 2, [3, 2.6, 2.4, 2.1, 1.95, 0], 5),  # of the best, not of the one before
        ("loss", 0.0, 1, [3, 2, 1], None),
        ("loss", 0.0, 3, [math.nan, 3, math.nan, math.inf, math.nan, 0], 5),
        ("accuracy", 0.0, 2, [0.1, 0.3, 0.2, 0.3, 0.4], 4),
        ("accuracy", 0.0, 0, [0.3, 0.2, 0.1, 0.0], None),
    ],
)
def test_training_is_over_after_as_many_evaluations_without_improvement(metric, least, patience, figures, end):
    made = make(0, early_stopping=EarlyStopping(patience, metric, least))
    watched = Patience(made)
    for number, figure in enumerate(figures, 1):
        watched = patience_of(made, watched.with_evaluation({metric: figure}).note())
        assert watched.over == (number == end), number
        if watched.over:
            return
    assert end is None


def ends(run, patience):
    """The step at which accuracy has not risen for so many evaluations, by the lines of a run that went on."""
    best, waited = -1.0, 0
    for line in metrics(run):
        if line["split"] == "train[90%:]" and "epoch" not in line:
            best, waited = (line["accuracy"], 0) if line["accuracy"] > best else (best, waited + 1)
            if waited == patience:
                return line["step"]
    return None


def test_each_seed_has_an_end_of_its_own_and_a_stop_before_changes_nothing(tmp_path):
    seeds = (0, 1)
    whole, stopped = ([tmp_path / f"{name}{seed}" for seed in seeds] for name in ("whole", "stopped"))
    experiments = [make(seed, early_stopping=EarlyStopping(patience=2), **FIELDS) for seed in seeds]
    outcomes, said = train(whole, experiments)
    asked = itertools.chain([False] * 5, [True], itertools.repeat(False))
    assert {each.state for each in train(stopped, experiments, lambda: next(asked))[0]} == {"preempted"}
    train(stopped, experiments)
    expected = [ends(path, 2) or 16 for path in whole]
    assert len(set(expected)) > 1 and min(expected) < 16
    for seed, end in enumerate(expected):
        run, lines = open_run(whole[seed]), metrics(whole[seed])
        assert (run.state(), run.status()["step"], outcomes[seed].step, lines[-1]["step"]) == ("done", *[end] * 3)
        assert [line["step"] for line in lines if line["split"] == "test"] == [end]
        assert run.result()["test"] == {name: v for name, v in lines[-1].items() if name not in ("step", "split")}
        assert checkpoint.steps(run.checkpoints)[-1] == end
        if end < 16:
            reason = "of 16: accuracy on train[90%:] did not improve for 2 evaluations"
            assert run.status()["message"] == f"stopped early, at step {end} {reason}"
            assert run.status()["message"] in said and run.status()["message"] in outcomes[seed].message
        assert "end of training (early stopping)" in run.selection()["chose"]
        assert_same_run(stopped[seed], whole[seed])


def test_a_run_ends_where_it_would_have_ended_wherever_it_is_stopped(tmp_path):
    """Also while the test is read, which it then is at the next start, without a step more."""
    made = make(0, early_stopping=EarlyStopping(1, "loss", min_improvement=9.0), **FIELDS)
    whole = tmp_path / "whole"
    (outcome,), _ = train([whole], [made])
    assert outcome.step == 4 and "did not improve for one evaluation" in outcome.message
    for patience, at in ((6, 3), (8, 4)):
        run = tmp_path / str(patience)
        asked = itertools.chain([False] * patience, [True], itertools.repeat(False))
        (outcome,), _ = train([run], [made], lambda asked=asked: next(asked))
        assert (outcome.state, outcome.step) == ("preempted", at)
        train([run], [made])
        assert_same_run(run, whole)
    plan = make_plan(made)
    with Display(Console(quiet=True)) as display:
        again = run_loop(plan, open_run(whole), display)
    assert again.message.startswith(
        "already done at step 4 (stopped early, at step 4 of 16: loss on train[90%:] did not"
    )


def test_mistakes_are_one_sentence_and_older_runs_go_on():
    for fields, message in (
        ({"patience": -1}, "patience is -1"),
        ({"patience": 1.5}, "patience is 1.5; it must be a whole number"),
        ({"min_improvement": -0.1}, "min_improvement is -0.1"),
        ({"min_improvement": math.nan}, "min_improvement is nan"),
    ):
        with pytest.raises(UserError, match=message):
            EarlyStopping(**fields)
    with pytest.raises(UserError, match=r"early_stopping\.metric: Classification has no metric 'acuracy'; did"):
        make(0, early_stopping=EarlyStopping(2, "acuracy"))
    without = dataclasses.replace(make(0).data, evaluation_splits=())
    with pytest.raises(UserError, match="early_stopping watches an evaluation split"):
        make_plan(make(0, early_stopping=EarlyStopping(2), data=without))
    now = config.encode(make(0))
    assert config.changes({name: part for name, part in now.items() if name != "early_stopping"}, now) == {}
