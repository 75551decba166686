"""Failure: what status.json says of a run that stopped because another process was lost."""

import pathlib
from collections.abc import Callable

from jaxcnn.runs.run_directory import RunDirectory


def failure_recorder(path: pathlib.Path, says_so: Callable[[str], bool]) -> Callable[[str], None]:
    """A function that writes why the run in this directory stopped, unless it is known there already.

    The first to say so is right: a process that was stopped for long, and goes on, finds all others gone, and the run
    done or started again since this call.

    Args:
      path: the run directory.
      says_so: whether a message in status.json already has such a reason.
    """
    starts = _starts(path)

    def record_failure(message: str) -> None:
        directory, status = RunDirectory(path), RunDirectory(path).status()
        known = status.get("state") == "done" or says_so(status.get("message", ""))
        if not known and _starts(path) == starts:
            # What the others said may be gone: a process can be stopped while it replaces status.json.
            directory.write_status("failed", status.get("step", 0), message=message)

    return record_failure


def _starts(path: pathlib.Path) -> int:
    """How often the run in this directory was started."""
    return len(RunDirectory(path).environment().get("resumed", []))
