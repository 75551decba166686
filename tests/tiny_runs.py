"""Starting runs through the front door, and what must be equal between two of them."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np

from tests.compilation import UNOPTIMIZED
from tests.forked import Forked, import_variables, server

ROOT = pathlib.Path(__file__).parent.parent
TINY = ROOT / "tests" / "experiments" / "tiny.py"
LIGHT = """
import sys, types
sys.modules["jaxcnn"] = types.ModuleType("jaxcnn")
sys.modules["jaxcnn"].__path__ = ["jaxcnn"]
"""
"""The begin of code that imports parts of the package that need no JAX, without the seconds that JAX takes."""
Process = subprocess.Popen | Forked
TIMES = ("examples_per_second", "data_wait")


def start(*arguments, module="jaxcnn.launch", devices=1, report=False, optimized=True, **options) -> Process:
    """A command of the project in a process of its own, on `devices` fake devices: forked, or with `options` of
    subprocess.Popen in a new interpreter.

    A run writes its page only with `report`: that takes as long as a short run. Runs of everyone have `optimized`
    machine code (tests/compilation.py); one whose figures a test computes again, to the bit, has the test's.
    """
    if module == "jaxcnn.launch" and not report and is_experiment(arguments):
        arguments = (*arguments, "--no-report")
    environment = os.environ | {
        "XLA_FLAGS": " ".join(
            [f"--xla_force_host_platform_device_count={devices}", *([] if optimized else [UNOPTIMIZED])]
        )
    }
    if not options and import_variables(environment) == server()[1]:
        return Forked(module, list(map(str, arguments)), environment)
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def is_experiment(arguments) -> bool:
    """Whether the first of them is an experiment's file, and no study's."""
    file = ROOT / str(arguments[0]) if arguments else ROOT
    return file.is_file() and "def study(" not in file.read_text()


def call(*arguments, **options) -> subprocess.CompletedProcess:
    """The same, waited for."""
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def finish(*arguments, **options) -> subprocess.CompletedProcess:
    """The same, which must end with exit code 0."""
    done = call(*arguments, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def wait_until(ready, process: Process) -> None:
    """Returns as soon as `ready()` is true. Fails where the process ends before."""
    deadline = time.monotonic() + 300
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_when(process: Process, ready, number: int = signal.SIGKILL) -> int:
    """Sends a signal as soon as `ready()` is true; returns the exit code."""
    wait_until(ready, process)
    process.send_signal(number)
    process.communicate(timeout=120)
    return process.returncode


def metrics(run: pathlib.Path) -> list[dict]:
    """metrics.jsonl without the times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def read(run: pathlib.Path, name: str):
    return json.loads((run / name).read_text())


def truncate_checkpoint(run: pathlib.Path, step: int) -> None:
    """Cuts every array file of a checkpoint off after 100 bytes (which of them are still read is orbax's affair)."""
    files = [path for path in (run / "checkpoints" / str(step)).rglob("d/*") if path.stat().st_size > 100]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:100])


def final_state(run: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint, by path."""
    import jax

    from jaxcnn.runs.restore import load_run

    flat, _ = jax.tree_util.tree_flatten_with_path(load_run(run).state)
    arrays = {jax.tree_util.keystr(path): leaf for path, leaf in flat}
    is_key = lambda leaf: jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return {path: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for path, leaf in arrays.items()}


def assert_same_run(run: pathlib.Path, reference: pathlib.Path) -> None:
    """Result, metrics and final checkpoint are equal to the bit."""
    assert read(run, "status.json")["state"] == read(reference, "status.json")["state"] == "done"
    assert read(run, "result.json") == read(reference, "result.json")
    assert metrics(run) == metrics(reference)
    state, expected = final_state(run), final_state(reference)
    assert state.keys() == expected.keys()
    for path in state:
        np.testing.assert_array_equal(state[path], expected[path], err_msg=path)
