"""python -m jaxcnn.prove.interrupted {JSON of an Interruption} EXPERIMENT.py [flags]: a launch that signals itself.

It is jaxcnn.launch with a real signal at a chosen moment of a chosen phase, and a journal of what it does: when each
phase begins and ends, and which examples each step reads. Phases of milliseconds cannot be hit from outside.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jaxcnn import launch
from jaxcnn.files import to_json
from jaxcnn.runs import checkpoint, loop
from jaxcnn.runs.run_directory import RunDirectory


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

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Marks a phase, and arms the signal where it is the one to be interrupted."""
        call = self.calls[name] = self.calls.get(name, -1) + 1
        wanted = self.interruption
        if (wanted.phase, wanted.call) == (name, call):
            timer = threading.Timer(wanted.delay, os.kill, (os.getpid(), wanted.signal))
            timer.daemon = True
            timer.start()
        begin = time.perf_counter()
        yield
        self.write(phase=name, seconds=time.perf_counter() - begin)


class Noted:
    """An iterator of batches that notes the examples of each."""

    def __init__(self, batches: Iterator[dict[str, Any]], note: Callable[[dict[str, Any]], None]):
        self.batches, self.note = batches, note

    def __next__(self) -> dict[str, Any]:
        batch = next(self.batches)
        self.note(batch)
        return batch


def main() -> int:
    interruption = Interruption(**json.loads(sys.argv[1]))
    journal = Journal(interruption)

    def marked(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            with journal.phase(phase):
                return function(*arguments, **keywords)

        return wrapper

    class Loop(loop._Loop):
        def _train(self, batches: Iterator[dict[str, Any]]) -> None:
            step = self.step
            place = {"start": interruption.start, "processes": jax.process_count()}
            noted = Noted(batches, lambda batch: journal.write(step=step, examples=batch["index"].tolist(), **place))
            with journal.phase("step"):
                super()._train(noted)

        def _measure(self, splits):
            with journal.phase("evaluation"):
                return super()._measure(splits)

        def _save(self, **how: bool) -> None:
            with journal.phase("save"):
                super()._save(**how)
                if interruption.phase is None:
                    checkpoint.wait(self.manager)  # so that its seconds are those until it is committed

    def write_result(self: RunDirectory, *result: Any) -> None:
        with journal.phase("end"):
            original(self, *result)

    original, RunDirectory.write_result = RunDirectory.write_result, write_result
    loop._Loop = Loop
    loop.compile_train_step = marked("compile", loop.compile_train_step)
    loop.compile_evaluation_step = marked("compile", loop.compile_evaluation_step)
    return launch.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
