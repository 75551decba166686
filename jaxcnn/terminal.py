"""Terminal: the standard streams, which a run must survive: each may be closed, full, hung up or without a reader."""

import contextlib
import errno
import logging
import os
import select
import sys
from collections.abc import Callable
from typing import Any, TextIO

_PIECE = 4096
"""Bytes that a pipe takes at once where it says that it takes any (PIPE_BUF)."""


def open_closed_streams() -> None:
    """Opens /dev/null for each of stdin, stdout and stderr that is closed, as after `2>&-`.

    Otherwise the next file that is opened, such as the lock of a run, gets the number 2, and all that is meant for
    stderr is written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            stream = open(number, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def show_warnings() -> None:
    """Writes what the package's own log warns of to stderr as every other warning of a command."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    logger = logging.getLogger("jaxcnn")
    logger.handlers, logger.propagate = [handler], False


def keep_going(gone: Callable[[], None]) -> None:
    """From here on what cannot be written to stdout or stderr is dropped, and nothing is raised.

    Args:
      gone: called once, when nobody reads stdout any more: `| head` has ended, `| tee` was killed.
    """
    sys.stdout = Output(sys.stdout, gone)  # type: ignore[assignment]
    sys.stderr = Output(sys.stderr, lambda: None)  # type: ignore[assignment]


class Output:
    """A text stream whose writing never fails. What the system refuses is dropped: a full disk, a hung up terminal."""

    def __init__(self, stream: TextIO, gone: Callable[[], None]):
        self._stream, self._gone = stream, gone

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if error.errno != errno.EPIPE:
            return  # it may be written again later
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        self._gone()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def say(text: str) -> None:
    """Writes to stderr at once, from a signal's handler or any thread. Never raises, and waits for no reader."""
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, text.encode(errors="replace")[:_PIECE])
