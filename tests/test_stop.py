"""Signals and the standard streams: whatever is closed, full or without a reader, a stop is noted and a run goes on."""

import os
import signal
import subprocess
import sys

import pytest

from tests.test_resume import saved
from tests.tiny_runs import LIGHT, ROOT, TINY, read, start, wait_until


def python(code, *arguments, shell='exec "$@"'):
    """Runs code in a process whose streams the shell has set up."""
    command = ["bash", "-o", "pipefail", "-c", shell, "bash", sys.executable, "-c", LIGHT + code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_closed_stream_is_opened_so_that_no_file_gets_its_number(closed, tmp_path):
    code = """
import os, sys
from jaxcnn.terminal import open_closed_streams
open_closed_streams()
with open(sys.argv[1], "w") as file:
    assert file.fileno() > 2
    print("out"), print("err", file=sys.stderr)
    sys.stdin.read()
    os.write(1, b"out"), os.write(2, b"err")
"""
    done = python(code, tmp_path / "file", shell=f'exec </dev/null "$@" {closed}')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == ""


BROKEN = {
    "closed": "os.close(2)",
    "no reader": "r, w = os.pipe(); os.dup2(w, 2); os.close(r)",
    "a reader that does not read": """
r, w = os.pipe(); os.dup2(w, 2); os.set_blocking(2, False)
try:
    while os.write(2, bytes(4096)): pass
except OSError: pass
os.set_blocking(2, True)""",
    "a full disk": "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)",
}


@pytest.mark.parametrize("stderr", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_noted_whatever_stderr_is(stderr, number):
    code = f"""
import os
from jaxcnn.stop import Stop
stop = Stop()
{stderr}
assert not stop()
os.kill(os.getpid(), {int(number)})
print(stop())
"""
    done = python(code)
    assert (done.returncode, done.stdout) == (0, "True\n"), done


def test_a_hangup_that_nohup_ignores_stays_ignored():
    code = "import os\nfrom jaxcnn.stop import Stop\nstop = Stop()\nos.kill(os.getpid(), 1)\nprint(stop())"
    assert python(code, shell='trap "" HUP; exec "$@"').stdout == "False\n"


@pytest.mark.parametrize("where, told", [("2>&1 | true", 1), ("2>/dev/null | true", 1), (">/dev/full 2>/dev/full", 0)])
def test_output_without_a_reader_is_told_once_and_a_full_disk_never(where, told, tmp_path):
    code = """
import os, pathlib, sys, time
from rich.console import Console
from jaxcnn.terminal import keep_going
told = []
keep_going(lambda: told.append(1))
time.sleep(0.2)
for _ in range(3):
    print("x" * 10_000)
    Console().print("y")
    print("z", file=sys.stderr, flush=True)
    sys.stdout.flush()
pathlib.Path(sys.argv[1]).write_text(str(len(told)))
"""
    done = python(code, tmp_path / "told", shell=f'"$@" {where}')
    assert done.returncode == 0 and done.stderr == "", done
    assert (tmp_path / "told").read_text() == str(told)


def test_a_run_whose_reader_is_gone_stops_with_everything_saved(tmp_path):
    """As after `2>&1 | head -1`."""
    run = tmp_path / "run"
    reading, writing = os.pipe()
    process = start(TINY, "--workdir", run, "--duration", "100000steps", stdout=writing, stderr=writing)
    os.close(writing)
    with os.fdopen(reading) as file:
        assert file.readline()
    assert process.wait(120) == 75
    status = read(run, "status.json")
    assert status["state"] == "preempted" and (status["step"] == 0 or status["step"] == max(saved(run)))


def test_a_signal_to_a_run_without_stderr_saves_it_and_its_lock_stays_empty(tmp_path):
    run = tmp_path / "run"
    command = ["bash", "-c", 'exec "$@" 2>&-', "bash", sys.executable, "-m", "jaxcnn.launch", TINY, "--workdir", run]
    process = subprocess.Popen([*command, "--duration", "100000steps"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: len(saved(run)) >= 1, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 75 and (run / "lock").read_text() == ""
    assert read(run, "status.json")["step"] == max(saved(run))
