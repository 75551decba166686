"""Kill it anywhere, start the same command again: the result is what it would have been, bit for bit."""

import json
import os
import random
import shutil
import signal
import time

import pytest

from jaxcnn.runs.restore import load_run
from tests.tiny_runs import (
    TINY,
    assert_same_run,
    call,
    finish,
    kill_when,
    metrics,
    read,
    start,
    truncate_checkpoint,
    wait_until,
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The uninterrupted run; its loss falls, so equality with it means something."""
    run = tmp_path_factory.mktemp("reference") / "run"
    finish(TINY, "--workdir", run)
    losses = [line["loss"] for line in metrics(run) if line["split"] == "train"]
    assert losses[-1] < 0.5 * losses[0]
    assert read(run, "result.json")["test"]["count"] == 50
    return run


def step_of(run):
    """The last step in metrics.jsonl, or -1."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        return max((json.loads(line)["step"] for line in lines), default=-1)
    except (FileNotFoundError, ValueError):
        return -1


def saved(run):
    folder = run / "checkpoints"
    return [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []


def saving(run):
    folder = run / "checkpoints"
    return folder.is_dir() and any("tmp" in entry.name for entry in folder.iterdir())


def test_two_runs_are_equal(reference, tmp_path):
    finish(TINY, "--workdir", tmp_path / "run")
    assert_same_run(tmp_path / "run", reference)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_and_exits_75_and_the_same_command_continues(number, reference, tmp_path):
    run = tmp_path / "run"
    assert kill_when(start(TINY, "--workdir", run), lambda: step_of(run) >= 20, number) == 75
    status = read(run, "status.json")
    assert status["state"] == "preempted" and status["step"] == max(saved(run)) >= 20
    assert "continue" in status["message"]
    out = finish(TINY, "--workdir", run).stdout
    assert f"resumed at step {status['step']:,} of 120" in out
    assert_same_run(run, reference)


def test_a_signal_before_the_first_step(reference, tmp_path):
    run = tmp_path / "run"
    assert kill_when(start(TINY, "--workdir", run), (run / "status.json").exists, signal.SIGTERM) == 75
    finish(TINY, "--workdir", run)
    assert_same_run(run, reference)


@pytest.mark.parametrize(
    "moment",
    ["at the start", "after a log line", "inside a save", "after a save", "near the end"],
)
def test_kill_minus_nine(moment, reference, tmp_path):
    run = tmp_path / "run"
    ready = {
        "at the start": (run / "config.json").exists,
        "after a log line": lambda: step_of(run) >= 7,
        "inside a save": lambda: saving(run) and len(saved(run)) >= 1,
        "after a save": lambda: len(saved(run)) >= 2,
        "near the end": lambda: step_of(run) >= 112,
    }[moment]
    assert kill_when(start(TINY, "--workdir", run), ready) == -signal.SIGKILL
    finish(TINY, "--workdir", run)
    assert_same_run(run, reference)


def test_many_kills_in_one_run(reference, tmp_path):
    """Random moments, seeded; the run goes on for as long as it is let live between them."""
    run, draw = tmp_path / "run", random.Random(0)
    for _ in range(3):
        process = start(TINY, "--workdir", run)
        before = step_of(run)
        target, pause = before + draw.randrange(4, 12), draw.random() * 0.2
        while process.poll() is None and step_of(run) < target:
            time.sleep(0.005)
        time.sleep(pause)
        process.send_signal(draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        process.communicate(timeout=120)
        if process.returncode == 0:
            break
    finish(TINY, "--workdir", run)
    assert_same_run(run, reference)


def test_a_truncated_newest_checkpoint_is_reported_and_the_one_before_is_used(reference, tmp_path):
    run = tmp_path / "run"
    kill_when(start(TINY, "--workdir", run), lambda: len(saved(run)) >= 2)
    newest, before = max(saved(run)), sorted(saved(run))[-2]
    truncate_checkpoint(run, newest)
    done = finish(TINY, "--workdir", run)
    assert f"warning: checkpoint {newest} cannot be read" in done.stdout and f"resumed at step {before}" in done.stdout
    assert "Traceback" not in done.stderr
    assert (run / "damaged" / str(newest)).is_dir()
    assert_same_run(run, reference)


def test_checkpoints_that_are_all_damaged_stop_the_run_and_stay(tmp_path):
    run = tmp_path / "run"
    kill_when(start(TINY, "--workdir", run), lambda: len(saved(run)) >= 2)
    steps = saved(run)
    for step in steps:
        shutil.rmtree(run / "checkpoints" / str(step) / "state")
    done = call(TINY, "--workdir", run)
    assert done.returncode == 1 and "no checkpoint can be read" in done.stderr and "Traceback" not in done.stderr
    assert set(saved(run)) == set(steps)


def test_best_and_latest_are_kept(reference):
    kept = sorted(saved(reference))
    assert kept[-2:] == [105, 120] and len(kept) <= 3
    scores = {line["step"]: line["accuracy"] for line in metrics(reference) if line["split"] == "validation"}
    best = max(scores, key=scores.get)  # of equal ones the first, although it need not be a step at which one saves
    assert best in kept and read(reference, "result.json")["selection"]["best_step"] == best
    assert load_run(reference, "best").step == best


def test_a_finished_run_says_so_and_changes_nothing(reference):
    before = {path: path.stat().st_mtime_ns for path in reference.rglob("*") if path.name != "lock"}
    out = finish(TINY, "--workdir", reference).stdout
    assert "already done at step 120" in out
    after = {path: path.stat().st_mtime_ns for path in reference.rglob("*") if path.name != "lock"}
    changed = {path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed <= {"environment.json", reference.name}


def test_a_changed_config_is_refused_with_the_difference(reference):
    done = call(TINY, "--workdir", reference, "--optimizer.lr", "0.2", "--dropout", "0.3")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "optimizer.learning_rate: 0.05 there, 0.2 now" in done.stderr
    assert "model.dropout: 0.1 there, 0.3 now" in done.stderr


def test_how_data_is_read_may_change_between_starts(reference, tmp_path):
    run = tmp_path / "run"
    kill_when(start(TINY, "--workdir", run), lambda: len(saved(run)) >= 1)
    finish(TINY, "--workdir", run, "--data.workers", "2", "--data.memory-limit", "0")
    assert_same_run(run, reference)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_process_group_with_worker_processes(number, reference, tmp_path):
    """As a terminal's Ctrl-C and a scheduler send it: the workers get it too."""
    run = tmp_path / "run"
    process = start(TINY, "--workdir", run, "--data.workers", "2", start_new_session=True)
    wait_until(lambda: step_of(run) >= 20, process)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75 and "Traceback" not in errors
    finish(TINY, "--workdir", run)
    assert_same_run(run, reference)


def test_worker_processes_do_not_outlive_a_killed_run(tmp_path):
    process = start(
        TINY, "--workdir", tmp_path, "--data.workers", "2", "--duration", "100000steps", start_new_session=True
    )
    wait_until(lambda: step_of(tmp_path) >= 20, process)
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while True:
        try:
            os.killpg(process.pid, 0)  # raises when nobody of the group is left
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_processes_cannot_share_a_run(tmp_path):
    run = tmp_path / "run"
    first = start(TINY, "--workdir", run, "--duration", "100000steps")
    try:
        while not (run / "status.json").exists():
            assert first.poll() is None, first.communicate()
            time.sleep(0.01)
        second = call(TINY, "--workdir", run, "--duration", "100000steps")
        assert second.returncode == 2 and "in use by another process" in second.stderr
    finally:
        first.kill()
        first.communicate()
