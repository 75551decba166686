"""Interval: what happened since the last logged step, read one interval late so that the device never waits."""

import time
from collections.abc import Callable
from typing import Any

import jax

Metrics = dict[str, jax.Array]


class Diverged(Exception):
    """The loss or the gradient of `step` (counted from 1) was not finite."""

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step


class Interval:
    """Gathers times, and holds back the metrics of the last interval until the next one ends.

    Args:
      write: called with each finished line of figures, in order.
      examples_per_step: the global batch size.
    """

    def __init__(self, write: Callable[[dict[str, Any]], None], examples_per_step: int):
        self.write, self.examples_per_step = write, examples_per_step
        self._started: float | None = None
        self._steps, self._waited = 0, 0.0
        self._pending: tuple[dict[str, Any], Metrics] | None = None
        self._newest: Metrics | None = None

    def wait_for(self, batches: Any) -> Any:
        """The next batch, the time it took counted as waiting for data."""
        before = time.perf_counter()
        if self._started is None:
            self._started, self._steps, self._waited = before, 0, 0.0
        batch = next(batches)
        self._waited += time.perf_counter() - before
        return batch

    def took(self, metrics: Metrics) -> None:
        """One step was dispatched."""
        self._newest = metrics
        self._steps += 1

    def end(self, line: dict[str, Any]) -> None:
        """The interval ends at the newest step; its figures are written with the next `end` or `settle`."""
        self._write_pending()
        seconds = time.perf_counter() - self._started
        rate = self._steps * self.examples_per_step / seconds
        line["times"] = {"examples_per_second": rate, "data_wait": self._waited / seconds}
        self._pending = (line, self._newest)
        self._started = None

    def settle(self) -> None:
        """Writes what is held back and waits for the newest step. Raises Diverged where either was not finite."""
        self._write_pending()
        if self._newest is not None:
            _check(self._newest)
        self._started = None

    def _write_pending(self) -> None:
        if self._pending is None:
            return
        (line, metrics), self._pending = self._pending, None
        _check(metrics)
        values = {name: value.item() for name, value in jax.device_get(metrics).items() if name != "bad_step"}
        count = values.pop("count")
        means = {name: values.pop(name) / count for name in ("loss", "accuracy", "top5") if name in values}
        times = line.pop("times")
        self.write(line | means | values | {"count": count} | times)


def _check(metrics: Metrics) -> None:
    bad_step = int(metrics["bad_step"])
    if bad_step:
        raise Diverged(bad_step)
