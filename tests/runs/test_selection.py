"""Held-out data in training: what chooses is not what tests, and the best is the best of all evaluations."""

import contextlib
import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from jaxcnn import config
from jaxcnn.data.folder import Folder
from jaxcnn.data.splits import sliced
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.errors import UserError
from jaxcnn.experiment import Checkpoints, Data, Experiment
from jaxcnn.report.run import write_report
from jaxcnn.runs.compare import compare_runs, curves
from jaxcnn.runs.debug import debug
from jaxcnn.runs.display import Display, result_table
from jaxcnn.runs.evaluation import evaluate_run
from jaxcnn.runs.loop import run
from jaxcnn.runs.restore import load_run
from jaxcnn.runs.run_directory import is_training, labeled
from jaxcnn.runs.selection import Best, best_of
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.start import start_run
from jaxcnn.runs.warnings import warnings_of
from jaxcnn.studies.cell import epochs_to
from jaxcnn.studies.plots import _evaluation, _training
from jaxcnn.train.duration import steps
from jaxcnn.train.optimizers import SGD
from tests.nets import TinyNet

SHAPE = (9, 9, 3)
READ: list[tuple[str, int]] = []


@dataclasses.dataclass(frozen=True)
class Watched(Synthetic):
    """Synthetic images that note who was read."""

    def open(self, split, data_dir=None):
        return sliced(lambda name: Noting(super(Watched, self).open(name)), split)


class Noting:
    def __init__(self, examples):
        self.examples, self.labels = examples, examples.labels
        self.name, self.version, self.split = examples.name, examples.version, examples.split
        self.classes = examples.classes

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, i):
        READ.append((self.split, i))
        return self.examples[i]

    def where(self, i):
        return self.examples.where(i)


def make(**data):
    """100 steps, evaluated every 7 and saved every 10; the rate is so high that the accuracy goes up and down."""
    source = data.pop("source", Watched(SHAPE, classes=4, train=80, test=20))
    return Experiment(
        TinyNet(),
        Data(SHAPE, **{"source": source, "batch_size": 16, "evaluation_batch_size": 16} | data),
        optimizer=SGD(0.2, momentum=0.9),
        duration=steps(70),
        evaluate_every=steps(7),
        log_every=steps(10),
        checkpoints=Checkpoints(every=steps(10)),
    )


def trained(experiment, path, stop=lambda: False):
    plan = make_plan(experiment)
    with contextlib.ExitStack() as held:
        directory = held.enter_context(start_run(path, config.encode(experiment), None, plan.dataset()))
        display = held.enter_context(Display(Console(quiet=True), lines=False))
        return run(plan, directory, display, stop), directory


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    READ.clear()
    _, directory = trained(make(), path)
    return path, directory, list(READ)


def test_by_default_no_test_image_is_evaluated_before_the_end(finished):
    _, directory, read = finished
    lines = directory.metrics()
    evaluated = [(line["step"], line["split"], line["count"]) for line in lines if not is_training(line)]
    assert evaluated == [(step, "train[90%:]", 8) for step in range(7, 71, 7)] + [(70, "test", 20)]
    held_out = {(split, i) for split, i in read if split == "train"}
    assert len(held_out) == 80
    # The first test image goes through the transforms when the plan is made; the others are read after the last step.
    places = [k for k, (split, _) in enumerate(read) if split == "test"]
    assert [read[k][1] for k in places if k < len(read) - 21] == [0]
    assert {read[k][1] for k in places} == set(range(20))
    assert not {(i, j) for i, j in read if i == "validation"}


def test_training_and_held_out_images_are_apart():
    plan = make_plan(make())
    train, held_out = (
        {examples.where(i) for i in range(len(examples))} for examples in (plan.train, plan.evaluations["train[90%:]"])
    )
    assert len(train) == 72 and len(held_out) == 8 and not train & held_out and warnings_of(plan) == []
    for data in ({"evaluation_splits": ("train[80%:]",)}, {"evaluation_splits": ("train",)}):
        (line,) = warnings_of(make_plan(make(**data)))
        assert "are trained on too" in line and (line.startswith("8 of the 16") or line.startswith("72 of the 80"))
    (line,) = warnings_of(make_plan(make(evaluation_splits=("test[:50%]",))))
    assert line == "8 of the 20 images of test are also in test[:50%], evaluated in training"
    # Twenty images of four classes: 5 each, half of them, halves down, are 2.
    (line,) = warnings_of(make_plan(make(batch_size=73)))
    assert line.startswith("data.batch_size 73 is more than the 72 images of train[:90%]")
    with pytest.raises(UserError, match=r"^data.test_splits: .*no split 'tset'; did you mean 'test'"):
        make_plan(make(test_splits=("tset",)))


def test_result_says_which_split_chose_what(finished):
    path, directory, _ = finished
    stored = json.loads((path / "result.json").read_text())
    assert list(stored) == ["test", "train[90%:]", "selection"] and list(directory.result()) == ["test", "train[90%:]"]
    best = max(
        (line for line in directory.metrics() if line["split"] == "train[90%:]"), key=lambda line: line["accuracy"]
    )
    assert (
        stored["selection"]
        == directory.selection()
        == {
            "split": "train[90%:]",
            "metric": "accuracy",
            "best_step": best["step"],
            "chose": ["best checkpoint"],
        }
    )
    assert evaluate_run(path) == directory.result()
    row = compare_runs([path])[str(path)]
    assert row["test accuracy"] == stored["test"]["accuracy"]
    assert row["train[90%:] (validation) accuracy"] == stored["train[90%:]"]["accuracy"]
    assert not any(name.startswith("selection") for name in row)
    console = Console(width=100)
    with console.capture() as shown:
        console.print(result_table(directory.result(), directory.roles()))
    assert "train[90%:] (validation)" in shown.get() and "test (" not in shown.get()


def test_a_split_is_labeled_where_its_name_does_not_say_what_it_is():
    roles = {"validation": "test", "train[90%:]": "validation", "test": "validation", "valid": "validation"}
    names = ("validation", "validation_ema", "train[90%:]_ema", "test", "valid", "train")
    assert [labeled(name, roles) for name in names] == [
        *("validation (test)", "validation_ema (test)", "train[90%:]_ema (validation)", "test (validation)"),
        *("valid (validation)", "train"),
    ]
    assert labeled("validation", {"validation": "validation"}) == "validation"


def test_the_best_checkpoint_is_the_best_of_all_evaluations(finished):
    path, directory, _ = finished
    scores = {line["step"]: line["accuracy"] for line in directory.metrics() if line["split"] == "train[90%:]"}
    best = max(scores, key=scores.get)
    assert best % 10, "the best evaluation is none at which a checkpoint was due: or this proves nothing"
    saved = load_run(path, "best")
    assert saved.step == best
    assert evaluate_run(path, "train[90%:]", "best")["train[90%:]"]["accuracy"] == scores[best]
    kept = sorted(int(entry.name) for entry in (path / "checkpoints").iterdir() if entry.name.isdigit())
    assert kept[-1] == 70 and best in kept and len(kept) <= 3


def test_stopped_at_any_step_the_same_checkpoints_and_result_remain(finished, tmp_path):
    path, directory, _ = finished
    asked = iter([False] * 33 + [True] + [False] * 17 + [True] + [False] * 1000)
    states = []
    while not states or states[-1] != "done":
        outcome, again = trained(make(), tmp_path / "run", lambda: next(asked))
        states.append(outcome.state)
    assert states == ["preempted", "preempted", "done"]
    assert again.result() == directory.result() and again.selection() == directory.selection()
    assert [line["step"] for line in again.metrics()] == [line["step"] for line in directory.metrics()]
    assert load_run(tmp_path / "run", "best").step == load_run(path, "best").step


def test_a_stop_while_the_test_split_is_read_goes_on_there(finished, tmp_path):
    _, directory, _ = finished
    asked = lambda: bool(READ) and READ[-1][0] == "test" and len(READ) > 100  # noqa: E731
    READ.clear()
    outcome, again = trained(make(), tmp_path / "run", asked)
    assert outcome.state == "preempted" and outcome.step == 70 and again.result() == {}
    outcome, again = trained(make(), tmp_path / "run")
    assert outcome.state == "done" and again.result() == directory.result()
    assert [line for line in again.metrics() if line["split"] == "test"] == [
        line for line in directory.metrics() if line["split"] == "test"
    ]


def test_without_an_evaluation_split_nothing_is_selected_and_it_is_said(tmp_path):
    experiment = dataclasses.replace(make(evaluation_splits=()), duration=steps(10))
    outcome, directory = trained(experiment, tmp_path)
    assert list(outcome.result) == ["test"] and directory.selection()["split"] is None
    assert directory.selection()["chose"] == [] and "nothing was selected" in directory.selection()["why"]
    with pytest.raises(
        UserError, match=r"no checkpoint is the best, since data.evaluation_splits is empty; .* latest, 10"
    ):
        load_run(tmp_path, "best")


def test_an_evaluation_split_may_be_called_train(tmp_path):
    """At the first evaluation after a training line, and at a restart, this was a KeyError."""
    experiment = dataclasses.replace(
        make(train_split="train", evaluation_splits=("train", "test")), duration=steps(30), tensorboard=True
    )
    asked = iter([False] * 25 + [True] + [False] * 1000)
    assert trained(experiment, tmp_path, lambda: next(asked))[0].state == "preempted"
    outcome, directory = trained(experiment, tmp_path)
    assert outcome.state == "done" and outcome.result["train"]["count"] == 80
    assert directory.selection()["split"] == "train" and list(directory.result()) == ["train", "test"]  # "test" once
    lines = directory.metrics()
    assert [line["step"] for line in lines if is_training(line)] == [10, 20, 30]
    assert [line["step"] for line in lines if line["split"] == "train" and not is_training(line)] == [7, 14, 21, 28, 30]
    (left, right) = curves({"run": lines}).axes
    labels = [line.get_label() for line in right.lines]
    assert labels == ["run train (evaluated)", "run test", "run train"]
    assert {len(line.get_xdata()) for line in left.lines} == {3, 5}
    assert len(_training(lines)) == 3 and _evaluation(lines, "accuracy")[:, 1].tolist() == [
        line["accuracy"] for line in lines if line["split"] == "train" and not is_training(line)
    ]
    of_training = next(line for line in lines if is_training(line))
    assert epochs_to(lines, "train", "loss", of_training["loss"]) == of_training["epoch"]


def test_names_that_result_json_cannot_hold_are_refused():
    with pytest.raises(UserError, match="cannot be called 'selection'"):
        make(test_splits=("selection",))
    with pytest.raises(UserError, match=r"it is a tuple: \('test',\)"):
        make(test_splits="test")
    with pytest.raises(UserError, match="names a split twice"):
        make(test_splits=("test", "test"))


def test_debug_keeps_what_is_evaluated_and_tested():
    for data, splits in (({}, (("validation",), ("test",))), ({"evaluation_splits": (), "test_splits": ()}, ((), ()))):
        made = debug(make(**data)).data
        assert (made.evaluation_splits, made.test_splits) == splits and made.train_split == "train"


def test_the_best_evaluations_are_a_function_of_all_of_them():
    scores = [0.2, 0.5, 0.5, float("nan"), 0.4, 0.6, 0.1, 0.55, 0.6]
    for kept in (1, 2, 3):
        best, entered = Best(dataclasses.replace(make(), checkpoints=Checkpoints(best=kept))), []
        for step, score in enumerate(scores, 1):
            before, best = best, best.with_evaluation(step, {"accuracy": score})
            entered += [step] * (best is not before)
            assert best_of(best.experiment, json.loads(json.dumps(best.note()))) == best
        finite = [score for score in scores if score == score]
        assert [score for score, _ in best.entries] == sorted(finite)[-kept:]
        assert set(step for _, step in best.entries) <= set(entered)
    assert Best(make()).with_evaluation(1, {"accuracy": 0.6}).with_evaluation(2, {"accuracy": 0.6}).step == 1
    assert (
        Best(dataclasses.replace(make(), checkpoints=Checkpoints(best=0))).with_evaluation(1, {"accuracy": 1.0}).step
        is None
    )
    by_loss = (
        Best(dataclasses.replace(make(), checkpoints=Checkpoints(metric="loss")))
        .with_evaluation(1, {"loss": 0.5})
        .with_evaluation(2, {"loss": 0.4})
    )
    assert by_loss.step == 2


def photos(path, levels=(0, 60, 120, 240), count=10):
    for level in levels:
        folder = path / f"grey{level}"
        folder.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full(SHAPE, level + i, np.uint8)).save(folder / f"{i}.png")


def of_folder(path, **more):
    parts = {"train_split": "train[:60%]", "evaluation_splits": ("train[60%:80%]",), "test_splits": ("train[80%:]",)}
    return dataclasses.replace(make(source=Folder(str(path)), **parts | more), duration=steps(12))


def test_a_folder_that_moved_goes_on_and_one_that_changed_is_refused(tmp_path, caplog):
    photos(tmp_path / "job1" / "photos")
    asked = iter([False] * 8 + [True] + [False] * 1000)
    assert trained(of_folder(tmp_path / "job1/photos"), tmp_path / "run", lambda: next(asked))[0].state == "preempted"
    (tmp_path / "job2").mkdir()
    shutil.move(tmp_path / "job1/photos", tmp_path / "job2/pictures")
    moved = of_folder(tmp_path / "job2/pictures")
    file = tmp_path / "job2/pictures/grey0/3.png"
    content = file.read_bytes()
    file.write_bytes(content + b"more")
    with pytest.raises(UserError, match="was started with other data: version was"):
        trained(moved, tmp_path / "run")
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"holds a run with another config:\n  data\.evaluation_splits"):
        trained(of_folder(tmp_path / "job2/pictures", evaluation_splits=("train[80%:]",)), tmp_path / "run")
    outcome, directory = trained(moved, tmp_path / "run")
    assert outcome.state == "done" and directory.result()["train[80%:]"]["count"] == 8
    assert evaluate_run(tmp_path / "run") == directory.result()  # where the newest start found it
    assert "other images" not in caplog.text
    file.write_bytes(content + b"more")
    evaluate_run(tmp_path / "run")
    assert "train[80%:] of pictures holds other images than when the run was trained" in caplog.text
    assert "holds other images" in write_report(tmp_path / "run").read_text()
    file.write_bytes(content)
    shutil.move(tmp_path / "job2/pictures", tmp_path / "kept")
    with pytest.raises(UserError, match=r"its images were in .*job2/pictures.*jaxcnn evaluate .* --folder NEW"):
        evaluate_run(tmp_path / "run")
    assert evaluate_run(tmp_path / "run", paths={"path": str(tmp_path / "kept")}) == directory.result()
