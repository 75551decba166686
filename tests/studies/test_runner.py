"""What the cells of an arm share: one trace, one compilation, and nothing that a result could show."""

import dataclasses
import io

from rich.console import Console

import jaxcnn as jc
from jaxcnn.runs import stepper
from jaxcnn.runs.initial_state import same_but_for_seed
from jaxcnn.runs.setup import make_plan
from jaxcnn.studies.command import Flags, run_study
from jaxcnn.studies.study import with_seed
from tests.experiments import study as of_four_arms
from tests.experiments.tiny import experiment as tiny
from tests.tiny_runs import ROOT, assert_same_run, metrics

FILE = ROOT / "tests" / "experiments" / "study.py"


def run(path, seeds):
    whole = of_four_arms.study()
    arms = {name: whole.arms[name] for name in ("none", "half")}
    made = dataclasses.replace(whole, arms=arms, claims=(), seeds=seeds)
    ended = run_study(Flags(workdir=str(path)), made, FILE, Console(file=io.StringIO()), lambda: False)
    assert ended.finished and not ended.failed
    return path / "cells"


def test_an_arm_is_compiled_once_and_each_of_its_seeds_is_the_run_that_it_would_be_alone(tmp_path, monkeypatch):
    compiled = []
    for name in ("lower_train_step", "lower_evaluation_step"):
        real = getattr(stepper, name)
        monkeypatch.setattr(stepper, name, lambda *given, name=name, real=real: compiled.append(name) or real(*given))
    together = run(tmp_path / "together", (0, 1, 2))
    assert sorted(compiled) == ["lower_evaluation_step"] * 2 + ["lower_train_step"] * 2
    alone = run(tmp_path / "alone", (2,))
    assert len(compiled) == 8
    for arm in ("none", "half"):
        assert_same_run(together / arm / "seed2", alone / arm / "seed2")
        losses = [[line["loss"] for line in metrics(together / arm / f"seed{seed}")] for seed in (1, 2)]
        assert losses[0] != losses[1] and all(seed[-1] < seed[0] for seed in losses)


def test_a_plan_with_another_seed_shares_programs_and_one_that_is_another_does_not():
    plan = make_plan(tiny())
    assert plan.with_seed(7).once is plan.once and plan.with_seed(7).experiment.seed == 7
    assert dataclasses.replace(plan, total=3).once is not plan.once


def test_experiments_are_the_same_but_for_their_seed_if_nothing_else_was_changed():
    made = tiny()
    assert same_but_for_seed(made, with_seed(made, 7)) and same_but_for_seed(with_seed(made, 7), with_seed(made, 8))
    other = dataclasses.replace(made, optimizer=dataclasses.replace(made.optimizer, learning_rate=0.1))
    assert not same_but_for_seed(made, other)
    assert not same_but_for_seed(made, dataclasses.replace(made, data=dataclasses.replace(made.data, batch_size=8)))
    assert not same_but_for_seed(made, dataclasses.replace(made, task=jc.Classification(auxiliary_weight=0.2)))
