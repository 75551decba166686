"""Sweeps: which points are tried, how far each is trained, and that the best is the best, whoever ran what."""

import collections
import dataclasses
import io
import json
import pathlib
import shlex

import numpy as np
import pytest
from rich.console import Console

import jaxcnn as jc
from jaxcnn import config, flags, launch
from jaxcnn.errors import UserError
from jaxcnn.studies.ranking import flags_of
from jaxcnn.studies.search import GridSearch, LogUniform, RandomSearch, SuccessiveHalving, Uniform
from jaxcnn.studies.sweep import Sweep, check_sweep, trials_of
from jaxcnn.studies.sweep_command import parse_sweep, run_sweep
from tests.experiments import swept
from tests.tiny_runs import ROOT, metrics, read

FILE = ROOT / "tests" / "experiments" / "swept.py"


def run(path, *given, stop=lambda: False, sweep=swept.sweep):
    """The sweep in this process; how it ended, and what it printed."""
    console = Console(file=io.StringIO(), width=200)
    chosen, made = parse_sweep(sweep, FILE, ["--workdir", str(path), *given], "")
    return run_sweep(chosen, made, FILE, console, stop), console.file.getvalue()


def test_a_grid_is_ranked_by_the_runs_own_lines_and_read_again(tmp_path):
    """Through the front door's branch for sweeps; two shares, then the report of both."""
    grid = (FILE, "--workdir", tmp_path / "sweep", "--seeds", "1")
    assert launch.main([*map(str, grid), "--index", "1", "--of", "2"], stop=lambda: False) == 0
    results = read(tmp_path / "sweep", "sweep.json")
    losses = {}
    for file in (tmp_path / "sweep").glob("trials/*/seed0/config.json"):
        stored = json.loads(file.read_text())
        assert stored["data"]["test_splits"] == []
        lines = [line for line in metrics(file.parent) if line["split"] == "validation"]
        if read(file.parent, "status.json")["state"] == "done":
            losses[stored["optimizer"]["learning_rate"], stored["optimizer"]["momentum"]] = lines[-1]["loss"]
    assert len(losses) == 4
    order = [tuple(trial["point"].values()) for trial in results["trials"]]
    assert order[:4] == sorted(losses, key=losses.__getitem__) and {rate for rate, _ in order[4:]} == {1e38}
    rate, momentum = order[0]
    best = results["best"]["flags"]
    assert best == f"--optimizer.learning-rate {rate:g} --optimizer.momentum {momentum:g}"
    page = (tmp_path / "sweep" / "sweep.html").read_text()
    assert best in page and page.count("<svg") == 2 and best in (tmp_path / "sweep" / "table.md").read_text()
    before = (tmp_path / "sweep" / "sweep.json").read_text().replace(" --index 1", "")
    ended, out = run(tmp_path / "sweep", "--report-only")
    assert not ended.failed and f"best: {best}" in out
    assert json.loads(before)["trials"] == read(tmp_path / "sweep", "sweep.json")["trials"]


def halving() -> Sweep:
    base = dataclasses.replace(
        swept.sweep().base, duration=jc.steps(16), checkpoints=jc.Checkpoints(every=jc.steps(16))
    )
    rates = (0.001, 0.2, 0.1, 0.0001)
    search = SuccessiveHalving(eta=2, rungs=3)
    return Sweep(base, {"optimizer.learning_rate": rates}, metric="validation loss", search=search)


def trained(path):
    """{rate: (state, step)} of the runs."""
    found = {}
    for file in path.glob("trials/*/seed0/status.json"):
        status = json.loads(file.read_text())
        rate = json.loads((file.parent / "config.json").read_text())["optimizer"]["learning_rate"]
        found[rate] = (status["state"], status["step"])
    return found


def test_halving_trains_the_best_on_and_they_end_as_if_never_stopped(tmp_path):
    """Four points for 4 steps, two of them for 8, one for 16; told to stop in between, too."""
    path, starts = tmp_path / "sweep", 0
    for looks in (25, 40, 1000):
        left = iter([False] * looks)
        ended, _ = run(path, stop=lambda left=left: next(left, True), sweep=halving)
        starts += 1
        if ended.finished:
            break
    assert starts > 1
    results, steps = read(path, "sweep.json"), trained(path)
    assert results["rungs"] == [4, 8, None]
    at = {}  # the loss of each rate after 4 and 8 steps, by the runs' own lines
    for file in path.glob("trials/*/seed0"):
        rate = read(file, "config.json")["optimizer"]["learning_rate"]
        at[rate] = {line["step"]: line["loss"] for line in metrics(file) if line["split"] == "validation"}
    second = sorted(at, key=lambda rate: at[rate][4])[:2]
    (best,) = sorted(second, key=lambda rate: at[rate][8])[:1]
    assert {rate: state for rate, (state, _) in steps.items()} == {
        rate: "done" if rate == best else "preempted" for rate in at
    }
    for rate, (_, step) in steps.items():
        low, high = (16, 16) if rate == best else (8, 12) if rate in second else (4, 8)
        assert low <= step <= high
    assert results["trials"][0]["point"] == {"optimizer.learning_rate": best}
    assert [trial["rung"] for trial in results["trials"]] == [3, 2, 1, 1]
    whole = jc.train(halving().made({"optimizer.learning_rate": best}), tmp_path / "whole", quiet=True)
    assert results["trials"][0]["score"] == whole.result["validation"]["loss"]


def test_debug_tries_two_points_out(tmp_path):
    _, made = parse_sweep(halving, FILE, ["--debug"], "")
    assert made.figure == "validation loss" and len(made.points) == 2
    assert [str(cell.arm.duration) for trial in trials_of(made, tmp_path) for cell in trial.cells] == ["6 steps"] * 2


def test_random_points_are_the_same_for_one_seed_and_fill_their_range():
    space = {"optimizer.learning_rate": LogUniform(1e-3, 1.0), "optimizer.momentum": Uniform(0.0, 0.9)}
    many = RandomSearch(1000, seed=3).points(space)
    assert RandomSearch(20, seed=3).points(space) == many[:20] != RandomSearch(20, seed=4).points(space)
    rates = np.log10([point["optimizer.learning_rate"] for point in many])
    shares = np.histogram(rates, bins=3, range=(-3, 0))[0] / 1000
    assert shares == pytest.approx([1 / 3] * 3, abs=0.05)
    momenta = np.array([point["optimizer.momentum"] for point in many])
    assert momenta.mean() == pytest.approx(0.45, abs=0.03) and momenta.min() >= 0 and momenta.max() <= 0.9
    assert abs(np.corrcoef(rates, momenta)[0, 1]) < 0.1
    few = RandomSearch(50).points({"data.batch_size": (8, 16, 32), "optimizer.momentum": (0.0, 0.9)})
    assert len(few) == 6 and len({tuple(point.values()) for point in few}) == 6
    drawn = collections.Counter(point["data.batch_size"] for point in RandomSearch(300).points(
        {"data.batch_size": (8, 16, 32), "optimizer.learning_rate": LogUniform(1e-4, 1.0)}
    ))  # fmt: skip
    assert min(drawn.values()) > 70


def test_the_flags_of_a_point_give_its_experiment_back(tmp_path):
    file = tmp_path / "one.py"
    file.write_text("from tests.experiments.tiny import experiment\n")
    base = flags.parse(file, []).experiment
    point = {
        "optimizer.learning_rate": 0.25,
        "optimizer.nesterov": True,
        "duration": jc.epochs(2),
        "data.batch_size": 4,
        "ema.decay": 0.5,
    }
    sweep = Sweep(base, {field: (value,) for field, value in point.items()})
    (trial,) = trials_of(sweep, pathlib.Path())
    made = flags.parse(file, shlex.split(flags_of(trial))).experiment
    expected = sweep.made(point)
    assert config.differences(config.encode(made), config.encode(expected)).keys() == {"data.test_splits"}
    part = trials_of(Sweep(base, {"schedule": (jc.Cosine(),)}), pathlib.Path())[0]
    assert flags_of(part) == "  # schedule = Cosine()"


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"axes": {"optimizer.lerning_rate": (0.1,)}}, "did you mean 'optimizer.learning_rate'"),
        ({"axes": {"model.hed.bias": (0.1,)}}, "an experiment has no field 'model.hed.bias'"),
        ({"axes": {}}, "sweep.axes name no field"),
        ({"axes": {"optimizer.learning_rate": LogUniform(0.1, 1.0)}}, "is a range, for search=jc.RandomSearch()"),
        ({"metric": "test loss"}, "of the test images: nothing may be chosen by these"),
        ({"metric": "validation los"}, "did you mean 'validation loss'"),
        ({"seeds": (0, 0)}, "there must be one at least, and none twice"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_is_run(fields, message):
    with pytest.raises(UserError) as error:
        check_sweep(dataclasses.replace(swept.sweep(), **fields))
    assert message in str(error.value)


def test_wrong_searches_are_refused():
    for wrong, message in (
        (lambda: LogUniform(0.0, 1.0), "above 0"),
        (lambda: Uniform(1.0, 1.0), "must be below"),
        (lambda: RandomSearch(0), "at least 1"),
        (lambda: SuccessiveHalving(eta=1), "must be at least 2"),
        (lambda: GridSearch().points({"optimizer.learning_rate": (0.1, 0.1)}), "has a value twice"),
    ):
        with pytest.raises(UserError, match=message):
            wrong()
