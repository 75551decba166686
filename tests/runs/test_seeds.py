"""Several seeds go through the loop of one: the same files and decisions, equal to single runs up to rounding."""

import contextlib
import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from jaxcnn import config
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.experiment import Checkpoints, Data, Experiment
from jaxcnn.runs.display import Display
from jaxcnn.runs.loop import run_seeds
from jaxcnn.runs.run_directory import open_run
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.start import start_run
from jaxcnn.train.averages import EMA
from jaxcnn.train.duration import steps
from jaxcnn.train.optimizers import SGD
from jaxcnn.train.schedules import Plateau
from tests.nets import TinyNet
from tests.tiny_runs import metrics, truncate_checkpoint

SHAPE = (9, 9, 3)


def make(seed, **fields):
    data = Data(SHAPE, Synthetic(SHAPE, classes=4, train=80, test=20), batch_size=16, evaluation_batch_size=16)
    made = Experiment(
        TinyNet(),
        data,
        optimizer=SGD(0.1, momentum=0.9),
        schedule=Plateau(patience=1),
        ema=EMA(decay=0.9),
        duration=steps(24),
        evaluate_every=steps(6),
        log_every=steps(4),
        checkpoints=Checkpoints(every=steps(5)),
        seed=seed,
    )
    return dataclasses.replace(made, **fields)


def train(paths, experiments, stop=lambda: False):
    with contextlib.ExitStack() as held:
        plans = [make_plan(each) for each in experiments]
        directories = [
            held.enter_context(start_run(path, config.encode(each), None, plan.dataset()))
            for path, each, plan in zip(paths, experiments, plans, strict=True)
        ]
        console = Console(file=io.StringIO())
        return run_seeds(plans, directories, held.enter_context(Display(console)), stop), console.file.getvalue()


def close(path, other):
    ours, theirs = metrics(path), metrics(other)
    assert [(line["step"], line["split"]) for line in ours] == [(line["step"], line["split"]) for line in theirs]
    for line, expected in zip(ours, theirs, strict=True):
        assert line.keys() == expected.keys()
        for name, value in line.items():
            if isinstance(value, float):
                np.testing.assert_allclose(value, expected[name], rtol=2e-3, atol=2e-3, err_msg=name)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    outcomes, _ = train([folder / "0", folder / "1"], [make(0), make(1)])
    assert [outcome.state for outcome in outcomes] == ["done", "done"]
    return folder


def test_each_seed_is_the_run_that_it_is_alone(seeds, tmp_path):
    for seed in (0, 1):
        train([tmp_path / str(seed)], [make(seed)])
        close(seeds / str(seed), tmp_path / str(seed))
        alone, together = open_run(tmp_path / str(seed)), open_run(seeds / str(seed))
        assert together.result().keys() == alone.result().keys() >= {"test", "test_ema"}
        assert together.selection() == alone.selection() and together.status() == alone.status()
        losses = [line["loss"] for line in together.metrics() if line["split"] == "train"]
        assert losses[-1] < losses[0]
    assert metrics(seeds / "0") != metrics(seeds / "1")


def test_a_stop_and_a_damaged_checkpoint_of_one_seed_cost_nothing(seeds, tmp_path):
    asked = iter([False] * 20 + [True] + [False] * 1000)
    paths = [tmp_path / "0", tmp_path / "1"]
    outcomes, _ = train(paths, [make(0), make(1)], lambda: next(asked))
    assert [outcome.state for outcome in outcomes] == ["preempted"] * 2
    newest = max(int(entry.name) for entry in (paths[0] / "checkpoints").iterdir())
    truncate_checkpoint(paths[1], newest)
    outcomes, said = train(paths, [make(0), make(1)])
    assert f"checkpoint {newest} cannot be read" in said and [outcome.state for outcome in outcomes] == ["done"] * 2
    for seed in (0, 1):
        assert metrics(paths[seed]) == metrics(seeds / str(seed))
        assert open_run(paths[seed]).result() == open_run(seeds / str(seed)).result()


def test_a_seed_that_diverges_leaves_the_others(tmp_path, monkeypatch):
    """The second seed's loss is made to be not finite in a step."""
    experiments = [make(seed, schedule=make(0).schedule) for seed in (0, 1)]
    from jaxcnn.runs import loop

    class Log(loop.TrainingLog):
        def took(self, step, metrics):
            broken = metrics | {"bad_step": metrics["bad_step"].at[1].set(max(0, step - 8) and 9)}
            super().took(step, broken)

    monkeypatch.setattr(loop, "TrainingLog", Log)
    outcomes, _ = train([tmp_path / "0", tmp_path / "1"], experiments)
    assert [(outcome.state, outcome.step) for outcome in outcomes] == [("done", 24), ("diverged", 9)]
    assert open_run(tmp_path / "0").result()["test"]["count"] == 20
    status = open_run(tmp_path / "1").status()
    assert status["state"] == "diverged" and status["step"] == 9 and len(status["examples"]) == 16
    assert max(line["step"] for line in metrics(tmp_path / "1")) <= 8
