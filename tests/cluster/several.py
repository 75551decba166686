"""Several processes of one run on this machine, each of which a test can signal, stop or leave out."""

import os
import pathlib
import signal
import socket
import subprocess
import time

from tests.tiny_runs import TINY, start


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_all(count: int, *arguments, only=None, file: pathlib.Path = TINY, **options) -> list[subprocess.Popen]:
    """`count` processes of one run, or those in `only` of them, one CPU device each."""
    place = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", count]
    chosen = range(count) if only is None else only
    return [start(file, *arguments, *place, "--process", index, **options) for index in chosen]


def ended(processes: list[subprocess.Popen], seconds: float = 120) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each; all must end within the seconds, and are killed in any case."""
    deadline = time.monotonic() + seconds
    try:
        results = []
        for process in processes:
            out, err = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
            results.append((process.returncode, out, err))
        return results
    finally:
        for process in processes:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)
                process.kill()
                process.communicate()
