"""Training log: what happened since the last logged step, read once it is there so that the device never waits."""

import concurrent.futures
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

Metrics = dict[str, Any]
"""What a train step returns (train/step.py); of several nets, each array with the nets in front."""
Scalar = jax.Array | tuple[jax.Array, int]
"""Of a step; or those of several steps, and its row."""
clock = time.perf_counter
"""Seconds by a clock that never goes back."""


class Diverged(Exception):
    """Training cannot go on: `cause` was not finite at `step` (counted from 1).

    `loss_and_norm` are that step's loss and its gradient's norm; None if they are not known. `skippable` says whether
    it is one that skip_bad_steps can pass over.
    """

    def __init__(
        self,
        step: int,
        loss_and_norm: tuple[float, float] | None,
        cause: str = "the loss or the gradient",
        skippable: bool = True,
    ):
        super().__init__(step)
        self.step, self.loss_and_norm, self.cause, self.skippable = step, loss_and_norm, cause, skippable


class Completions:
    """When steps were completed, by a thread that waits for them: the loop itself may look too late.

    The loop learns that a step is done two steps later, or, if data is short, two batches later.
    """

    def __init__(self):
        self._threads = concurrent.futures.ThreadPoolExecutor(1, "completions")

    def __call__(self, value: jax.Array) -> Callable[[], float]:
        """A function that waits for `value` and returns the time, by `clock`, at which it was there."""
        return self._threads.submit(self._wait, value).result

    @staticmethod
    def _wait(value: jax.Array) -> float:
        jax.block_until_ready(value)
        return clock()


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Steps taken without a pause between them.

    Attributes:
      steps: how many.
      start: gives the time at which the step before was completed, or at which the loop went on after a pause.
      end: gives the time at which the last of them was completed.
    """

    steps: int
    start: Callable[[], float]
    end: Callable[[], float]


def times(
    stretches: Sequence[Stretch], waits: Sequence[tuple[float, float]], examples_per_step: int
) -> dict[str, float | None]:
    """The one place where an interval is timed: from completion to completion, without the pauses.

    Args:
      stretches: those of the interval.
      waits: from when to when the loop waited for a batch, whichever interval it was for.
      examples_per_step: the global batch size.

    Returns:
      "examples_per_second", and "data_wait": the part of the same time in which the loop waited for a batch, as it also
      does while the device computes. None if the clock did not move.
    """
    seconds, waited = 0.0, 0.0
    for stretch in stretches:
        start, end = stretch.start(), stretch.end()
        seconds += max(0.0, end - start)
        waited += sum(max(0.0, min(until, end) - max(since, start)) for since, until in waits)
    if seconds <= 0:
        return {"examples_per_second": None, "data_wait": None}
    steps = sum(stretch.steps for stretch in stretches)
    return {"examples_per_second": steps * examples_per_step / seconds, "data_wait": waited / seconds}


class TrainingLog:
    """Gathers times, and holds back the metrics of the last interval until they are there, or the next one ends.

    Args:
      write: called with each finished interval, in order: its line, the metrics of its last step, and its times.
      examples_per_step: the global batch size.
      skipped: called with a net's number and each of its steps that was not finite and did not end its run, the loss
        and the gradient's norm.
      diverged: called with a net's number and the step with which its run ends.
      clock: the monotonic time in seconds.
      completed: value -> a function that waits for it and returns the time at which it was there.
      alone: whether no other process has to learn of the same figures at the same step, and so to write as late.
    """

    def __init__(
        self,
        write: Callable[[dict[str, Any], Metrics, dict[str, float | None]], None],
        examples_per_step: int,
        skipped: Callable[[int, int, float, float], None] = lambda number, step, loss, grad_norm: None,
        diverged: Callable[[int, Diverged], None] = lambda number, error: _raise(error),
        clock: Callable[[], float] = clock,
        completed: Callable[[jax.Array], Callable[[], float]] | None = None,
        alone: bool = False,
    ):
        self.write, self.examples_per_step = write, examples_per_step
        self.skipped, self.diverged = skipped, diverged
        self.clock, self.completed, self.alone = clock, completed or Completions(), alone
        self._start: Callable[[], float] | None = None  # of the stretch under way; None in a pause
        self._steps = 0
        self._waits: list[tuple[float, float]] = []  # those that may lie in an interval that was not written yet
        self._stretches: list[Stretch] = []  # of this interval, before its last pause
        self._pending: tuple[dict[str, Any], Metrics, int, list[Stretch]] | None = None
        self._newest: Metrics | None = None
        self._each: list[tuple[int, tuple[Scalar, Scalar]]] = []  # of the steps that were not looked at yet

    def wait_for(self, batches: Any) -> Any:
        """The next batch, the time it took counted as waiting for data. Ends a pause."""
        before = self.clock()
        if self._start is None:
            self._start = lambda: before
        batch = next(batches)
        self._waits.append((before, self.clock()))
        return batch

    def took(self, step: int, metrics: Metrics) -> None:
        """A step, counted from 1, was dispatched; or several in one call, it the last of them (several_steps.py)."""
        self._write_what_is_there()
        self._newest = {name: value for name, value in metrics.items() if name != "each"}
        each = metrics.get("each")
        if each is None:
            self._each.append((step, (metrics["step_loss"], metrics["grad_norm"])))
            self._steps += 1
            return
        count = len(each["step_loss"])
        for row in range(count):
            self._each.append((step - count + 1 + row, ((each["step_loss"], row), (each["grad_norm"], row))))
        self._steps += count

    def end(self, line: dict[str, Any]) -> None:
        """The interval ends at the newest step; its figures are written with the next `end` or `settle`, or before."""
        assert self._newest is not None
        completion = self._end_stretch()
        stretches, self._stretches = self._stretches, []
        self._write_pending()
        self._pending = (line, self._newest, len(self._each), stretches)
        self._start = completion
        self._write_what_is_there()

    def settle(self) -> None:
        """Writes what is held back and waits for the newest step; a pause follows, until the next `wait_for`.

        Raises:
          Diverged: one of the steps was not finite.
        """
        if self._steps:
            self._end_stretch()()
        self._start = None
        self._write_pending()
        if self._newest is not None:
            self._check(self._newest, len(self._each))

    def newest_loss_and_norm(self, number: int = 0) -> tuple[float, float] | None:
        """Loss and gradient's norm of a net's newest step; None before the first."""
        if self._newest is None:
            return None
        loss, norm = (float(_each(self._newest[name])[number]) for name in ("step_loss", "grad_norm"))
        return loss, norm

    def _end_stretch(self) -> Callable[[], float]:
        """Ends the stretch at the newest step; returns what gives the time of its completion."""
        assert self._newest is not None and self._start is not None  # a step was taken
        completion = self.completed(self._newest["bad_step"])
        self._stretches.append(Stretch(self._steps, self._start, completion))
        self._steps = 0
        return completion

    def _write_what_is_there(self) -> None:
        """On a CPU that is what has just ended, on a GPU what ended a step or two before."""
        if self.alone and self._pending is not None and self._pending[1]["bad_step"].is_ready():
            self._write_pending()

    def _write_pending(self) -> None:
        if self._pending is None:
            return
        (line, metrics, steps, stretches), self._pending = self._pending, None
        self._check(metrics, steps)
        self.write(line, jax.device_get(metrics), times(stretches, self._waits, self.examples_per_step))
        end = stretches[-1].end()
        self._waits = [wait for wait in self._waits if wait[1] > end]

    def _check(self, metrics: Metrics, steps: int) -> None:
        """Looks at the scalars of the next `steps` steps of each net."""
        looked_at, self._each = self._each[:steps], self._each[steps:]
        each = [(step, *map(_each, scalars)) for step, scalars in looked_at]
        for number, bad_step in enumerate(_each(metrics["bad_step"]).tolist()):
            found = None
            for step, losses, norms in each:
                scalars = (float(losses[number]), float(norms[number]))
                if step == bad_step:
                    found = scalars
                    break
                if not all(map(math.isfinite, scalars)):
                    self.skipped(number, step, *scalars)
            if bad_step:
                self.diverged(number, Diverged(bad_step, found))


def _each(scalar: Scalar) -> np.ndarray:
    """A scalar of one net, or of each: [nets]."""
    if isinstance(scalar, tuple):
        several, row = scalar
        return np.atleast_1d(jax.device_get(several)[row])  # JAX keeps what it has fetched
    return np.atleast_1d(jax.device_get(scalar))


def _raise(error: Diverged) -> None:
    raise error
