"""Several real processes on loopback: the run of one, stopped together, not left waiting for one that is lost."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.cluster.kills import kill_at
from tests.cluster.several import ended, free_port, start_all
from tests.slow import slow
from tests.test_resume import saved, step_of
from tests.tiny_runs import ROOT, TINY, assert_same_run, finish, metrics, read, start, truncate_checkpoint, wait_until

SLOW = ROOT / "tests" / "experiments" / "slow.py"
DAMAGED = ROOT / "tests" / "experiments" / "damaged.py"
SHORT = ("--duration", "40steps", "--log-every", "4steps")
DEADLINE = 8


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    run = tmp_path_factory.mktemp("one") / "run"
    finish(TINY, "--workdir", run, *SHORT)
    return run


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two processes, by launch/local.sh."""
    run = tmp_path_factory.mktemp("two") / "run"
    local(2, run)
    return run


def local(count, run, *flags, file=TINY):
    done = subprocess.run(
        [ROOT / "launch" / "local.sh", str(count), file, "--workdir", run, *SHORT, *flags],
        cwd=ROOT,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def goes_on(run):
    """The same command once more, to its end: what process 0 printed. Forked: launch/local.sh imports all for each."""
    results = ended(start_all(2, "--workdir", run, *SHORT), 300)
    assert [code for code, _, _ in results] == [0, 0], results
    return results[0][1]


def assert_close(run, reference):
    ours, theirs = metrics(run), metrics(reference)
    assert [(line["step"], line["split"], line["count"]) for line in ours] == [
        (line["step"], line["split"], line["count"]) for line in theirs
    ]
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose([line[name] for line in ours], [line[name] for line in theirs], atol=1e-5)
    losses = [line["loss"] for line in ours if line["split"] == "train"]
    assert losses[-1] < 0.8 * losses[0]


def test_two_processes_give_the_run_of_one(one, two):
    """Four do in tests/test_prove.py."""
    assert read(two, "environment.json")["processes"] == 2
    assert_close(two, one)


@pytest.mark.parametrize("file", [TINY, ROOT / "experiments" / "linear_digits.py"], ids=["cropped", "as they are"])
def test_images_on_the_devices_of_two_processes_are_those_that_are_sent(file, tmp_path):
    local(2, tmp_path / "held", file=file)
    local(2, tmp_path / "sent", "--data.device-limit", "0", file=file)
    assert metrics(tmp_path / "held") == metrics(tmp_path / "sent")
    losses = [line["loss"] for line in metrics(tmp_path / "held") if line["split"] == "train"]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("number, victim", [(signal.SIGTERM, 1), pytest.param(signal.SIGUSR1, 0, marks=slow)])
def test_a_signal_to_one_stops_all_at_one_step_and_the_run_goes_on(number, victim, two, one, tmp_path):
    run = tmp_path / "run"
    processes = start_all(2, "--workdir", run, *SHORT)
    wait_until(lambda: step_of(run) >= 12, processes[0])
    processes[victim].send_signal(number)
    assert [code for code, _, _ in ended(processes)] == [75, 75]
    status = read(run, "status.json")
    assert status["state"] == "preempted" and status["step"] == max(saved(run))
    if victim == 1:  # on the same processes: to the bit
        assert f"resumed at step {status['step']} of 40" in goes_on(run)
        assert_same_run(run, two)
    else:  # on one: to rounding
        assert f"resumed at step {status['step']} of 40" in finish(TINY, "--workdir", run, *SHORT).stdout
        assert_close(run, one)


@pytest.mark.parametrize("moment, victim", [("inside", 1), pytest.param("behind", 0, marks=slow)])
def test_a_process_that_is_killed_at_a_save_is_named_and_no_disk_is_blamed(moment, victim, two, tmp_path):
    """The other meets a failed save, a failed collective or an abort; tests/cluster/kills.py has more of them."""
    run = tmp_path / "run"
    kill = kill_at(moment, 15, victim, 2, ["--workdir", run, *SHORT, "--lost-after", DEADLINE], run)
    assert not kill.wrong(), kill
    assert read(run, "status.json")["state"] == "failed"
    goes_on(run)
    assert_same_run(run, two)


@pytest.mark.parametrize("victim", [pytest.param(1, marks=slow), 0])
def test_a_process_that_is_stopped_is_named_and_ends_too_once_it_goes_on(victim, two, tmp_path):
    run = tmp_path / "run"
    processes = start_all(2, "--workdir", run, *SHORT, "--lost-after", DEADLINE)
    wait_until(lambda: len(saved(run)) >= 1 and step_of(run) >= 16, processes[0])
    begin = time.monotonic()
    processes[victim].send_signal(signal.SIGSTOP)
    try:
        ((code, _, errors),) = ended([processes[1 - victim]], 60)
        assert time.monotonic() - begin < DEADLINE + 5
        assert code == 69 and re.search(rf"error: process {victim} \(\S+\) is lost", errors.splitlines()[-1])
        processes[victim].send_signal(signal.SIGCONT)
        ((code, _, errors),) = ended([processes[victim]], 60)
        assert code == 69 and f"error: process {1 - victim} (" in errors.splitlines()[-1]
    finally:
        processes[victim].kill()
        processes[victim].communicate()
    status = read(run, "status.json")
    assert status["state"] == "failed" and f"process {victim} (" in status["message"]
    assert "resumed at step" in goes_on(run)
    assert_same_run(run, two)


def test_a_process_that_lives_but_is_held_back_is_named(tmp_path):
    run, hang = tmp_path / "run", tmp_path / "hang"
    flags = ["--seconds", "0", "--hang", hang, "--hang-process", "1", "--workdir", run, "--lost-after", DEADLINE]
    processes = start_all(2, *flags, "--duration", "100000steps", file=SLOW)
    wait_until(lambda: step_of(run) >= 16, processes[0])
    begin = time.monotonic()
    hang.touch()
    ((code, _, errors),) = ended([processes[0]], 60)
    assert time.monotonic() - begin < DEADLINE + 5
    ended([processes[1]], 60)
    assert code == 69 and "process 1 (" in errors and "has stood at step" in errors and f"for {DEADLINE} s" in errors


@pytest.mark.parametrize(
    "present, message", [(0, "process 1 of 2 did not come within 3 s; there: 0 ("), (1, "process 0")]
)
def test_a_process_that_does_not_come_is_named(present, message, tmp_path):
    begin = time.monotonic()
    ((code, out, errors),) = ended(start_all(2, "--workdir", tmp_path / "run", "--start-timeout", 3, only=[present]))
    assert code == 69 and message in errors and "Traceback" not in errors and "compiled" not in out
    assert time.monotonic() - begin < 3 + 5 + 10  # and the imports
    assert not (tmp_path / "run").exists()


def test_processes_that_differ_are_told_apart_before_anything_is_compiled(tmp_path):
    run = tmp_path / "run"
    place = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", 2, "--process"]
    seeds = [(0, "0"), (1, "7")]
    results = ended([start(TINY, "--workdir", run, "--seed", seed, *place, process) for process, seed in seeds])
    assert [code for code, _, _ in results] == [2, 2]
    text = "\n".join(errors for _, _, errors in results)
    assert "process 1 (" in text and "the config is not the same in seed: 7 there, 0 on process 0" in text
    assert not (run / "status.json").exists()


def test_a_mistake_of_one_process_ends_the_others_with_its_message(tmp_path):
    """Process 0 cannot write the run directory, which the other one has no way to know."""
    (tmp_path / "file").write_text("")
    results = ended(start_all(2, "--workdir", tmp_path / "file" / "run"))
    assert [code for code, _, _ in results] == [2, 2]
    assert "cannot be written" in results[0][2] and "process 0 (" in results[1][2] and "cannot be" in results[1][2]


def test_broken_images_are_counted_over_all_processes(tmp_path):
    """Each of the two meets three of six within one epoch."""
    run = tmp_path / "run"
    flags = ("--workdir", run, "--duration", "12steps", "--evaluate-every", "12steps", "--checkpoints.every", "12steps")
    results = ended(start_all(2, *flags, "--data.tolerate-broken", 5, file=DAMAGED))
    assert [code for code, _, _ in results] == [1, 1]
    assert all("6 images cannot be used and data.tolerate_broken is 5" in errors for _, _, errors in results)
    assert results[0][1].count("warning: passed over synthetic/train[") == 6  # process 0 speaks for all
    assert len((run / "quarantine.jsonl").read_text().splitlines()) == 6
    assert read(run, "status.json")["state"] == "failed"


def test_a_truncated_checkpoint_is_passed_over_by_all_processes(two, tmp_path):
    run = tmp_path / "run"
    processes = start_all(2, "--workdir", run, *SHORT)
    wait_until(lambda: len(saved(run)) >= 2, processes[0])  # so that one is left
    for process in processes:
        process.kill()
    ended(processes)
    newest = max(saved(run))
    truncate_checkpoint(run, newest)
    out = goes_on(run)
    assert f"warning: checkpoint {newest} cannot be read" in out and "resumed at step" in out
    assert_same_run(run, two)
