"""A run directory after a crash of the machine, on a strange file system, or in the hands of another process."""

import errno
import fcntl
import json
import os
import sys

import pytest

from jaxcnn import files
from jaxcnn.__main__ import main as jaxcnn
from jaxcnn.errors import UserError
from jaxcnn.runs import start as starts
from jaxcnn.runs.compare import compare_runs
from jaxcnn.runs.restore import load_experiment
from jaxcnn.runs.run_directory import RunDirectory, open_run
from jaxcnn.runs.seal import Damaged
from jaxcnn.runs.start import start_run
from jaxcnn.studies.cell import Cell

CONFIG = {"class": "jaxcnn:Digits"}
DATASET = {"name": "x", "version": "1", "splits": {}, "label_hash": "h", "classes": []}


@pytest.fixture
def run(tmp_path):
    with start_run(tmp_path / "run", CONFIG, None, DATASET) as directory:
        directory.log({"step": 1, "split": "train", "epoch": 0.1, "loss": 1.0})
        directory.write_status("running", 1)
    return tmp_path / "run"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "done"}', "\0\0\0", '{"state": 1, "step": 1}', "\xff"])
def test_a_status_that_is_damaged_is_none(run, text):
    (run / "status.json").write_text(text, encoding="latin-1")
    assert RunDirectory(run).status() == {} and RunDirectory(run).state() is None
    assert compare_runs([run])[str(run)]["state"] is None


def test_a_process_that_goes_on_leaves_what_the_others_said_of_the_end(run):
    mine = RunDirectory(run)
    mine.write_status("running", 8)
    RunDirectory(run).write_status("failed", 8, message="process 0 is lost")
    mine.write_status("running", 16)
    assert RunDirectory(run).status() == {"state": "failed", "step": 8, "message": "process 0 is lost"}
    RunDirectory(run).write_status("running", 8)  # a new start
    assert RunDirectory(run).status() == {"state": "running", "step": 8}


def test_done_without_a_result_is_not_done(run):
    RunDirectory(run).write_status("done", 1)
    cell = Cell("arm", None, 0, run)
    for text in (None, "", "{", "{}"):
        if text is not None:
            (run / "result.json").write_text(text)
        assert RunDirectory(run).state() == "running" == cell.state()
    RunDirectory(run).write_result({"test": {"accuracy": 1.0}})
    assert RunDirectory(run).state() == "done" == cell.state()


DAMAGED = pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\0", f'{{"a": {"[" * 300 + "]" * 300}}}'])


@DAMAGED
def test_a_damaged_config_is_named_with_what_to_do(run, text):
    (run / "config.json").write_text(text)
    told = r"config.json cannot be read: .*: put it back, or choose another --workdir"
    with pytest.raises(UserError, match=told), start_run(run, CONFIG, None, DATASET):
        pass


@DAMAGED
def test_a_damaged_environment_does_not_hold_up_a_run_and_is_written_anew(run, text, caplog):
    before = RunDirectory(run).environment()
    (run / "environment.json").write_text(text)
    with pytest.raises(UserError, match=r"environment.json cannot be read: .*launching the run's command again"):
        RunDirectory(run).newest_start()
    with start_run(run, CONFIG, None, DATASET) as directory:
        now = directory.environment()
    assert "environment.json cannot be read" in caplog.text and "the data and the code of now are taken" in caplog.text
    assert now == before | {"rebuilt": True, "resumed": []}
    with start_run(run, CONFIG, None, DATASET) as directory:
        assert len(directory.environment()["resumed"]) == 1
    (run / "environment.json").unlink()
    with start_run(run, CONFIG, None, DATASET) as directory:
        assert directory.environment()["dataset"] == DATASET


def test_a_name_of_a_class_that_import_would_never_end_with_is_one_sentence(run):
    for name in ("jaxcnn" + ".a" * 50_000 + ":A", "jaxcnn:" + "a" * 100_000, "x" * 100_000 + ":A"):
        (run / "config.json").write_text(json.dumps({"format": 1, "class": name}))
        with pytest.raises(
            UserError, match=r"config.json: .{40}\.\.\., of 100,0\d\d characters, is not the name of a class"
        ):
            load_experiment(RunDirectory(run))


def test_a_checkpoint_knows_the_classes_that_it_was_saved_with(tmp_path):
    with start_run(tmp_path / "run", CONFIG, None, DATASET | {"classes": ["cat", "dog"]}) as directory:
        note = directory.position()
    RunDirectory(tmp_path / "run").recognize(note)
    file = tmp_path / "run/environment.json"
    file.write_text(file.read_text().replace("cat", "cow"))
    with pytest.raises(Damaged, match=r"saved with other classes, or in another order, than environment.json lists"):
        RunDirectory(tmp_path / "run").recognize(note)
    RunDirectory(tmp_path / "run").recognize({name: each for name, each in note.items() if name != "classes"})  # older


@pytest.mark.parametrize("line", [b"{", b"[]", b"\0\0", b"\xff\xfe"])
def test_a_damaged_line_of_metrics_is_named_and_one_that_is_met_again_left_out(run, line):
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(UserError, match=r"metrics.jsonl: line 2 cannot be read"):
        RunDirectory(run).metrics()
    assert jaxcnn(["compare", str(run), "--plot", str(run.parent / "x.png")]) == 1
    for name, good in (("skipped.jsonl", {"step": 3}), ("quarantine.jsonl", {"split": "train", "index": 4})):
        (run / name).write_bytes(json.dumps(good).encode() + b"\n" + line + b"\n" + b'{"step": ')  # cut by a kill
    with start_run(run, CONFIG, None, DATASET) as directory:
        assert set(directory.skipped) == {3} and directory.quarantined == {("train", 4)}
        directory.skip(5, {})
    assert set(RunDirectory(run).skipped) == {3, 5}, "the next line begins a line of its own"


def test_a_metrics_file_that_cannot_be_opened_is_named(run):
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics.jsonl cannot be read: Is a directory"):
        RunDirectory(run).metrics()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, caplog, number):
    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(starts.fcntl, "flock", flock)
    with start_run(tmp_path / "run", CONFIG, None, DATASET):
        assert "not locked" in caplog.text and os.strerror(number) in caplog.text


def test_a_run_that_is_held_is_refused(run):
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by another process"), start_run(run, CONFIG, None, DATASET):
            pass


def test_a_tilde_is_the_home(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.parent))
    assert open_run(files.pathlib.Path("~/run")).path == run
    with pytest.raises(UserError, match="no_such_user_here"):
        files.expanded(files.pathlib.Path("~no_such_user_here/x"))


def test_a_path_near_the_limit_of_the_system_is_refused_at_the_start(tmp_path):
    path = tmp_path.joinpath(*["d" * 200] * 19)
    with pytest.raises(UserError, match="too long a path"), start_run(path, CONFIG, None, DATASET):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["environment.json", "metrics.jsonl", "status.json", "lock", "skipped.jsonl"])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(run, name):
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    with pytest.raises(UserError, match=rf"{name}: it is a named pipe"):
        open_run(run)
    with pytest.raises(UserError, match=rf"{name}: it is a named pipe"), start_run(run, CONFIG, None, DATASET):
        pass


def test_checkpoints_without_the_config_that_they_are_of_are_refused(run):
    (run / "checkpoints" / "1").mkdir(parents=True)
    (run / "config.json").unlink()
    refused = pytest.raises(UserError, match=r"holds checkpoints but no config\.json")
    with refused, start_run(run, CONFIG, None, DATASET):
        pass


def test_links_that_lead_in_a_circle_are_no_run(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / "loop" / "run"):
        with pytest.raises(UserError, match=r"does not exist|Too many levels"):
            open_run(path)
        with pytest.raises(UserError, match=r"Too many levels|File exists"), start_run(path, CONFIG, None, DATASET):
            pass


def test_output_that_cannot_be_written_is_one_sentence(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert jaxcnn(["models", "--names"]) == 1
    monkeypatch.undo()
    assert capsys.readouterr().err == "error: the output: No space left on device\n"
    reader, writer = os.pipe()
    os.close(reader)  # as `| head` that has seen enough
    with os.fdopen(writer, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        assert jaxcnn(["models", "--names"]) == 0
    monkeypatch.undo()
    assert capsys.readouterr().err == ""
