"""Training log: what happened since the last logged step, read one interval late so that the device never waits."""

import concurrent.futures
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

Metrics = dict[str, jax.Array]
HIDDEN = ("bad_step", "step_loss")
"""Metrics that steer the run and are not figures of its intervals."""
clock = time.perf_counter
"""Seconds by a clock that never goes back."""


class Diverged(Exception):
    """Training cannot go on: `cause` was not finite at `step` (counted from 1).

    `figures` are that step's loss and its gradient's norm; None if they are not known. `skippable` says whether it is
    one that skip_bad_steps can pass over.
    """

    def __init__(
        self,
        step: int,
        figures: tuple[float, float] | None,
        cause: str = "the loss or the gradient",
        skippable: bool = True,
    ):
        super().__init__(step)
        self.step, self.figures, self.cause, self.skippable = step, figures, cause, skippable


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
    """Gathers times, and holds back the metrics of the last interval until the next one ends.

    Args:
      write: called with each finished line of figures, in order.
      examples_per_step: the global batch size.
      skipped: called with each step that was not finite and did not end the run, its loss and its gradient's norm.
      clock: the monotonic time in seconds.
      completed: value -> a function that waits for it and returns the time at which it was there.
    """

    def __init__(
        self,
        write: Callable[[dict[str, Any]], None],
        examples_per_step: int,
        skipped: Callable[[int, float, float], None] = lambda step, loss, grad_norm: None,
        clock: Callable[[], float] = clock,
        completed: Callable[[jax.Array], Callable[[], float]] | None = None,
    ):
        self.write, self.examples_per_step, self.skipped = write, examples_per_step, skipped
        self.clock, self.completed = clock, completed or Completions()
        self._start: Callable[[], float] | None = None  # of the stretch under way; None in a pause
        self._steps = 0
        self._waits: list[tuple[float, float]] = []  # those that may lie in an interval that was not written yet
        self._stretches: list[Stretch] = []  # of this interval, before its last pause
        self._pending: tuple[dict[str, Any], Metrics, int, list[Stretch]] | None = None
        self._newest: Metrics | None = None
        self._each: list[tuple[int, tuple[jax.Array, jax.Array]]] = []  # of the steps that were not looked at yet

    def wait_for(self, batches: Any) -> Any:
        """The next batch, the time it took counted as waiting for data. Ends a pause."""
        before = self.clock()
        if self._start is None:
            self._start = lambda: before
        batch = next(batches)
        self._waits.append((before, self.clock()))
        return batch

    def took(self, step: int, metrics: Metrics) -> None:
        """One step, counted from 1, was dispatched."""
        self._newest = metrics
        self._each.append((step, (metrics["step_loss"], metrics["grad_norm"])))
        self._steps += 1

    def end(self, line: dict[str, Any]) -> None:
        """The interval ends at the newest step; its figures are written with the next `end` or `settle`."""
        completion = self._end_stretch()
        stretches, self._stretches = self._stretches, []
        self._write_pending()
        self._pending = (line, self._newest, len(self._each), stretches)
        self._start = completion

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

    def newest_figures(self) -> tuple[float, float] | None:
        """Loss and gradient's norm of the newest step; None before the first."""
        return self._newest and (float(self._newest["step_loss"]), float(self._newest["grad_norm"]))

    def _end_stretch(self) -> Callable[[], float]:
        """Ends the stretch at the newest step; returns what gives the time of its completion."""
        completion = self.completed(self._newest["bad_step"])
        self._stretches.append(Stretch(self._steps, self._start, completion))
        self._steps = 0
        return completion

    def _write_pending(self) -> None:
        if self._pending is None:
            return
        (line, metrics, steps, stretches), self._pending = self._pending, None
        self._check(metrics, steps)
        values = {name: value.item() for name, value in jax.device_get(metrics).items() if name not in HIDDEN}
        count = values.pop("count")
        sums = {name: values.pop(name) for name in ("loss", "accuracy", "top5") if name in values}
        means = {name: value / count if count else None for name, value in sums.items()}  # all steps may be skipped
        values = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.write(line | means | values | {"count": count} | times(stretches, self._waits, self.examples_per_step))
        end = stretches[-1].end()
        self._waits = [wait for wait in self._waits if wait[1] > end]

    def _check(self, metrics: Metrics, steps: int) -> None:
        """Looks at the figures of the next `steps` steps. Raises Diverged if `metrics` name a bad one."""
        looked_at, self._each = self._each[:steps], self._each[steps:]
        bad_step = int(metrics["bad_step"])
        for step, scalars in looked_at:
            figures = (float(scalars[0]), float(scalars[1]))
            if step == bad_step:
                raise Diverged(bad_step, figures)
            if not all(map(math.isfinite, figures)):
                self.skipped(step, *figures)
        if bad_step:
            raise Diverged(bad_step, None)
