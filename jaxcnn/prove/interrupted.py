"""python -m jaxcnn.prove.interrupted {JSON of an Interruption} EXPERIMENT.py [flags]: a launch that signals itself.

It is jaxcnn.launch with a real signal at a chosen moment of a chosen phase, and a journal of what it does: when each
phase begins and ends, and which examples each step reads. Phases of milliseconds cannot be hit from outside.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np

from jaxcnn import launch
from jaxcnn.files import to_json
from jaxcnn.runs.events import Events


@dataclasses.dataclass(frozen=True)
class Interruption:
    """A signal `delay` seconds after the `call`-th beginning of `phase`, counted from 0 within this process."""

    journal: str
    """The file to which each process of the run appends, with its number as suffix."""
    start: int = 0
    """A number that all processes of one start share, and no two starts."""
    phase: str | None = None
    """compile, step, evaluation, save or end; None: no signal."""
    call: int = 0
    delay: float = 0.0
    signal: int = 9


class Journal:
    """Writes a line per event; each line is on disk in the kernel's cache at once, so that a kill loses none."""

    def __init__(self, interruption: Interruption):
        self.interruption = interruption
        self.calls: dict[str, int] = {}
        self.file: Any = None

    def write(self, **event: Any) -> None:
        if self.file is None:
            self.file = pathlib.Path(f"{self.interruption.journal}.{jax.process_index()}").open("ab", buffering=0)  # noqa: SIM115
        self.file.write(to_json(event).encode() + b"\n")

    def interrupt(self) -> None:
        """Notes the signal, so that the proof sees what came after it, and sends it to this process."""
        self.write(signal=self.interruption.signal)
        os.kill(os.getpid(), self.interruption.signal)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Marks a phase, and arms the signal where it is the one to be interrupted."""
        call = self.calls[name] = self.calls.get(name, -1) + 1
        wanted = self.interruption
        if (wanted.phase, wanted.call) == (name, call):
            timer = threading.Timer(wanted.delay, self.interrupt)
            timer.daemon = True
            timer.start()
        begin = time.perf_counter()
        yield
        self.write(phase=name, seconds=time.perf_counter() - begin)


class Interrupted(Events):
    """Notes each phase and each batch, and sends the signal in the phase that is to be interrupted."""

    def __init__(self, interruption: Interruption):
        self.interruption, self.journal = interruption, Journal(interruption)

    def phase(self, name: str) -> AbstractContextManager[Any]:
        return self.journal.phase(name)

    def read(self, run: pathlib.Path, step: int, examples: Sequence[np.ndarray]) -> None:
        context = {"run": str(run.absolute()), "start": self.interruption.start, "processes": jax.process_count()}
        self.journal.write(step=step, examples=np.concatenate(examples).tolist(), **context)

    def saved(self, wait: Callable[[], None]) -> None:
        if self.interruption.phase is None:
            wait()  # so that a save's seconds are those until it is committed


def main() -> int:
    return launch.main(sys.argv[2:], events=Interrupted(Interruption(**json.loads(sys.argv[1]))))


if __name__ == "__main__":
    sys.exit(main())
