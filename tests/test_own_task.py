"""A task of a user's own: one file, as docs/tasks.md has it, and every part of the project takes it."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import jaxcnn as jc
from jaxcnn import __main__ as command
from jaxcnn import experiment_file
from jaxcnn.flags import parse
from jaxcnn.runs.compare import compare_runs, curves
from jaxcnn.runs.replay import replay
from jaxcnn.runs.run_directory import open_run
from tests.docs import Snippet, blocks
from tests.tiny_runs import ROOT, finish


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    (snippet,) = (block for block in blocks(ROOT / "docs" / "tasks.md") if isinstance(block, Snippet))
    assert len(snippet.code.splitlines()) < 80
    file = tmp_path_factory.mktemp("own") / "bright.py"
    file.write_text(snippet.code)
    return file


@pytest.fixture(scope="module")
def run(file):
    path = file.parent / "run"
    finish(file, "--workdir", path, optimized=False)  # as this process evaluates it, to the bit
    return path


def test_a_toy_task_trains_and_its_error_falls(run):
    lines = [line for line in open_run(run).metrics() if line["split"] == "train"]
    assert [*lines[0]][3:5] == ["error", "loss"] and "accuracy" not in lines[0]
    assert lines[-1]["error"] < 0.5 * lines[0]["error"]
    result = open_run(run).result()["test"]
    images = [example["image"] for example in jc.Digits().open("test")]
    truth = np.array([(jc.Resize(32)(image, None) >= 127.5).mean() for image in images])
    assert result["count"] == len(truth) and result["error"] < 0.5 * abs(truth - truth.mean()).mean()
    selection = open_run(run).selection()
    assert selection["metric"] == "error" and selection["best_step"] is not None


def test_its_best_checkpoint_is_that_of_the_lowest_error(run):
    evaluated = [line for line in open_run(run).metrics() if line["split"] == "train[90%:]"]
    best = min(evaluated, key=lambda line: line["error"])
    assert open_run(run).selection()["best_step"] == best["step"]
    assert jc.load_run(run, "best").step == best["step"]


def test_every_command_takes_it(run, tmp_path, capsys):
    assert command.main(["evaluate", str(run), "--trust", "--json"]) == 0
    evaluated, trained = json.loads(capsys.readouterr().out)["test"], open_run(run).result()["test"]
    assert evaluated == trained and [*evaluated] == [*trained] == ["error", "loss", "count"]
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / "white.png")
    assert command.main(["predict", str(run), str(tmp_path / "white.png"), "--trust"]) == 0
    assert "share of bright" in capsys.readouterr().out
    assert command.main(["predict", str(run), str(tmp_path / "white.png"), "--trust", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer.keys() == {"image", "bright"}
    assert command.main(["report", str(run), "--trust"]) == 0
    page = (run / "report.html").read_text()
    assert "error by step" in page and "accuracy" not in page
    assert "test error" in compare_runs([run])[str(run)]
    assert [axes.get_ylabel() for axes in curves({"": open_run(run).metrics()}).axes] == ["loss", "error"]
    assert replay(run, 3)["finite"]


def test_its_fields_are_flags_and_what_does_not_fit_is_told(file):
    assert parse(file, ["--task.level", "0.3"]).experiment.task.level == 0.3
    made = experiment_file.load_function(file)()
    with pytest.raises(jc.UserError, match="CountBright has no metric 'eror'; did you mean 'error'"):
        dataclasses.replace(made, checkpoints=jc.Checkpoints(metric="eror"))
    with pytest.raises(jc.UserError, match="one number is predicted; create the model with classes=1, not 3"):
        jc.train(dataclasses.replace(made, model=jc.create_model("lenet5", classes=3)), file.parent / "other")
