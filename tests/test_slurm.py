"""A real Slurm on this one machine (tests/slurm/setup.sh): launch/slurm.sbatch on two nodes, and what can end a job.

These take some minutes and start daemons, so they run where they are asked for:
JAXCNN_SLURM=1 pytest tests/test_slurm.py, and JAXCNN_SLURM=all with the time limit and the killed slurmstepd.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import pytest

from tests.cluster.test_processes import SLOW, assert_close
from tests.tiny_runs import ROOT, assert_same_run, finish, metrics

pytestmark = pytest.mark.skipif(
    os.environ.get("JAXCNN_SLURM") not in ("1", "all"),
    reason="not run: needs JAXCNN_SLURM=1 (or all), root, and Debian's slurm-wlm and munge",
)
LONG = pytest.mark.skipif(
    os.environ.get("JAXCNN_SLURM") != "all", reason="not run: takes some minutes, needs JAXCNN_SLURM=all"
)
FOLDER = pathlib.Path(tempfile.gettempdir()) / "jaxcnn-slurm"
FLAGS = ("--duration", "150steps", "--lost-after", "20")


@pytest.fixture(scope="module")
def slurm():
    setup = ROOT / "tests" / "slurm" / "setup.sh"
    started = subprocess.run([setup, "start", FOLDER], capture_output=True, text=True, timeout=120)
    if started.returncode == 3:
        pytest.skip(f"not run: {started.stderr.strip().splitlines()[-1]}")
    assert started.returncode == 0, started.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(FOLDER / "slurm.conf"))
        patch.setenv("PYTHON", sys.executable)
        yield
        call("scancel", "--user=root")
        subprocess.run([setup, "stop", FOLDER], timeout=60)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two processes of one machine, without Slurm."""
    return local(tmp_path_factory.mktemp("two") / "run", FLAGS)


def local(run, flags):
    """The same run without Slurm; it has no need to be slow."""
    command = [ROOT / "launch" / "local.sh", "2", SLOW, "--workdir", run, *flags, "--seconds", "0"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return run


def call(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def submit(run, *options, flags=FLAGS):
    log = f"--output={run}.log"
    script = ROOT / "launch" / "slurm.sbatch"
    options = ("--parsable", "--nodes=2", f"--chdir={ROOT}", log, *options)
    return call("sbatch", *options, script, SLOW, "--workdir", run, *flags).strip()


def job(number):
    """{"JobState": ..., "Restarts": ..., ...}"""
    return dict(re.findall(r"(\w+)=(\S*)", call("scontrol", "show", "job", number)))


def wait(number, run, seconds=400):
    """Until the job has ended; one that waits in the queue after a requeue, two minutes by default, starts at once."""
    deadline = time.monotonic() + seconds
    while (state := job(number))["JobState"] not in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL"):
        log = pathlib.Path(f"{run}.log")
        assert time.monotonic() < deadline, (state, log.read_text() if log.exists() else "")
        if state["JobState"] == "PENDING" and state["Reason"] == "BeginTime":
            time.sleep(3)  # within a second of the requeue slurmd still holds the job for killed
            subprocess.run(["scontrol", "update", f"JobId={number}", "StartTime=now"], capture_output=True)
        time.sleep(0.5)
    assert state["JobState"] == "COMPLETED", pathlib.Path(f"{run}.log").read_text()
    return state


def wait_for_step(run, step, seconds=200):
    deadline = time.monotonic() + seconds
    while not (run / "metrics.jsonl").exists() or max((line["step"] for line in metrics(run)), default=0) < step:
        assert time.monotonic() < deadline, pathlib.Path(f"{run}.log").read_text()
        time.sleep(0.1)


def step_daemon(number):
    """The process number of the slurmstepd of the job's task 0."""
    for line in call("ps", "-eo", "pid,args").splitlines():
        if f"slurmstepd: [{number}.0]" in line:
            pid = int(line.split()[0])
            for child in call("pgrep", "--parent", str(pid)).split():
                if b"SLURM_PROCID=0\0" in pathlib.Path(f"/proc/{child}/environ").read_bytes():
                    return pid
    raise AssertionError("no slurmstepd has task 0")


def test_two_nodes_give_the_run_of_one_process(slurm, two, tmp_path):
    run = tmp_path / "run"
    wait(submit(run), run)
    assert "2 cpu devices of 2 processes" in pathlib.Path(f"{run}.log").read_text()
    assert_same_run(run, two)
    finish(SLOW, "--workdir", tmp_path / "one", *FLAGS[:2])
    assert_close(run, tmp_path / "one")


@pytest.mark.parametrize(
    "end", ["scancel --signal", "scontrol requeue", pytest.param("a killed slurmstepd", marks=LONG)]
)
def test_a_job_that_is_ended_goes_on_and_is_equal(end, slurm, two, tmp_path):
    run = tmp_path / "run"
    number = submit(run)
    wait_for_step(run, 40)
    if end == "scancel --signal":
        call("scancel", "--signal=USR1", number)
    elif end == "scontrol requeue":
        call("scontrol", "requeue", number)
    else:
        os.kill(step_daemon(number), 9)
    state = wait(number, run)
    log = pathlib.Path(f"{run}.log").read_text()
    assert int(state["Restarts"]) >= 1 and f"job {number}, start 2" in log and "resumed at step" in log
    if end == "scancel --signal":
        assert "stopped with everything saved (exit code 75); back into the queue" in log
    assert_same_run(run, two)


@LONG
def test_a_job_that_reaches_its_time_limit_goes_on_and_is_equal(slurm, tmp_path):
    """The signal comes 30 s before the limit of three minutes, or up to a minute earlier: Slurm's own accuracy."""
    flags = ("--duration", "2500steps", "--lost-after", "20")
    run = tmp_path / "run"
    number = submit(run, "--time=3", "--signal=USR1@30", flags=(*flags, "--seconds", "0.01"))
    state = wait(number, run, 1200)
    log = pathlib.Path(f"{run}.log").read_text()
    assert int(state["Restarts"]) >= 1 and "stopped with everything saved (exit code 75)" in log
    assert "resumed at step" in log
    assert_same_run(run, local(tmp_path / "whole", flags))


@pytest.mark.parametrize("script", ["slurm.sbatch", "slurm_array.sbatch"])
def test_sbatch_accepts_the_scripts(script, slurm):
    done = subprocess.run(
        ["sbatch", "--test-only", "--nodes=2", ROOT / "launch" / script, SLOW], capture_output=True, text=True
    )
    assert done.returncode == 0 and "to start at" in done.stderr


def test_a_batch_script_without_srun_is_refused_with_the_line(slurm, tmp_path):
    log = tmp_path / "log"
    wrap = f"{sys.executable} -m jaxcnn.launch {SLOW} --workdir {tmp_path / 'run'} || true"
    call("sbatch", "--wait", "--nodes=2", f"--chdir={ROOT}", f"--output={log}", f"--wrap={wrap}")
    assert "use: srun python -m jaxcnn.launch FILE.py" in log.read_text()
    assert not (tmp_path / "run").exists()


def test_the_doctor_examines_the_nodes_of_a_job(slurm, tmp_path):
    done = subprocess.run(
        ["srun", "--nodes=2", f"--chdir={ROOT}", sys.executable, "-m", "jaxcnn", "doctor", "--workdir", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 (slurm)" in done.stdout and "over 2 devices" in done.stdout and "on all 2 processes" in done.stdout
