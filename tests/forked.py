"""Commands in processes that are forked from one which has imported everything: importing takes longer than a tiny run.

What runs is what `python -m MODULE` runs, in a process of its own with its own environment, arguments and output. With
options of subprocess.Popen (tiny_runs.start), or other variables that an import reads, it is a new interpreter's; and
tests of what an import does start one themselves (tests/test_launch.py).
"""

import atexit
import functools
import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence

ROOT = pathlib.Path(__file__).parent.parent
READ_AT_IMPORT = ("JAX_", "OMP_", "PYTHON")
"""How the variables begin that an import reads: a fork has those of its server."""


def import_variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_IMPORT)}


@functools.cache
def server() -> tuple[multiprocessing.context.ForkServerContext, dict[str, str]]:
    """What forks, with the variables that its imports read."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.forked", "jaxcnn.launch", "jaxcnn.__main__"])
    return context, import_variables(os.environ)


def run(module: str, words: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
    """In the fork: `python -m MODULE WORDS` from the repository's root, with its output in two files of `folder`."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    for descriptor, stream in ((1, "stdout"), (2, "stderr")):
        file = os.open(f"{folder}/{stream}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
        setattr(sys, stream, os.fdopen(descriptor, "w", buffering=1 if stream == "stderr" else -1, closefd=False))
    sys.argv = [module, *words]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        # As an interpreter ends; multiprocessing ends its processes without.
        threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
        atexit._run_exitfuncs()


class Forked:
    """What tests use of subprocess.Popen, for a command that runs in a fork."""

    def __init__(self, module: str, words: Sequence[str], environment: Mapping[str, str]) -> None:
        context, variables = server()
        assert import_variables(environment) == variables
        self._folder = tempfile.TemporaryDirectory()
        self._process = context.Process(target=run, args=(module, words, dict(environment), self._folder.name))
        self._process.start()
        assert self._process.pid
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        files = [pathlib.Path(self._folder.name, stream) for stream in ("stdout", "stderr")]
        out, err = (file.read_text() if file.exists() else "" for file in files)
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()
