"""Interval: what happened since the last logged step, read one interval late so that the device never waits."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax

Metrics = dict[str, jax.Array]
HIDDEN = ("bad_step", "step_loss")
"""Metrics that steer the run and are no figures of its intervals."""


class Diverged(Exception):
    """The loss or the gradient of `step` (counted from 1) was not finite; `figures` are loss and gradient's norm."""

    def __init__(self, step: int, figures: tuple[float, float]):
        super().__init__(step)
        self.step, self.figures = step, figures


class Interval:
    """Gathers times, and holds back the metrics of the last interval until the next one ends.

    Args:
      write: called with each finished line of figures, in order.
      examples_per_step: the global batch size.
      skipped: called with each step that was not finite and did not end the run, its loss and its gradient's norm.
    """

    def __init__(
        self,
        write: Callable[[dict[str, Any]], None],
        examples_per_step: int,
        skipped: Callable[[int, float, float], None] = lambda step, loss, grad_norm: None,
    ):
        self.write, self.examples_per_step, self.skipped = write, examples_per_step, skipped
        self._started: float | None = None
        self._steps, self._waited = 0, 0.0
        self._pending: tuple[dict[str, Any], Metrics, int] | None = None
        self._newest: Metrics | None = None
        self._each: list[tuple[int, tuple[jax.Array, jax.Array]]] = []  # of the steps that were not looked at yet

    def wait_for(self, batches: Any) -> Any:
        """The next batch, the time it took counted as waiting for data."""
        before = time.perf_counter()
        if self._started is None:
            self._started, self._steps, self._waited = before, 0, 0.0
        batch = next(batches)
        self._waited += time.perf_counter() - before
        return batch

    def took(self, step: int, metrics: Metrics) -> None:
        """One step, counted from 1, was dispatched."""
        self._newest = metrics
        self._each.append((step, (metrics["step_loss"], metrics["grad_norm"])))
        self._steps += 1

    def end(self, line: dict[str, Any]) -> None:
        """The interval ends at the newest step; its figures are written with the next `end` or `settle`."""
        self._write_pending()
        seconds = time.perf_counter() - self._started
        rate = self._steps * self.examples_per_step / seconds
        line["times"] = {"examples_per_second": rate, "data_wait": self._waited / seconds}
        self._pending = (line, self._newest, len(self._each))
        self._started = None

    def settle(self) -> None:
        """Writes what is held back and waits for the newest step. Raises Diverged where either was not finite."""
        self._write_pending()
        if self._newest is not None:
            self._check(self._newest, len(self._each))
        self._started = None

    def _write_pending(self) -> None:
        if self._pending is None:
            return
        (line, metrics, steps), self._pending = self._pending, None
        self._check(metrics, steps)
        values = {name: value.item() for name, value in jax.device_get(metrics).items() if name not in HIDDEN}
        count = values.pop("count")
        sums = {name: values.pop(name) for name in ("loss", "accuracy", "top5") if name in values}
        means = {name: value / count if count else None for name, value in sums.items()}  # all steps may be skipped
        values = {name: value if math.isfinite(value) else None for name, value in values.items()}
        times = line.pop("times")
        self.write(line | means | values | {"count": count} | times)

    def _check(self, metrics: Metrics, steps: int) -> None:
        """Looks at the figures of the next `steps` steps. Raises Diverged where `metrics` name a bad one."""
        looked_at, self._each = self._each[:steps], self._each[steps:]
        bad_step = int(metrics["bad_step"])
        for step, scalars in looked_at:
            figures = (float(scalars[0]), float(scalars[1]))
            if step == bad_step:
                raise Diverged(bad_step, figures)
            if not all(map(math.isfinite, figures)):
                self.skipped(step, *figures)
        if bad_step:
            raise Diverged(bad_step, (math.nan, math.nan))
