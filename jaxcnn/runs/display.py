"""Progress: what a run shows. A live bar on a terminal, plain lines elsewhere; lines above the bar in both."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxcnn import text
from jaxcnn.runs.run_directory import labeled, metrics_of

MANY = 8
"""Metrics that a row has room for."""

IN_A_LINE = 5
"""Metrics that a line shows; a task may have one for each class, which the final table has."""


class Display:
    """Shows the run's lines and its position. A context manager, so that the bar is always taken down.

    Without `lines` only the bar is shown: a run among many.
    """

    def __init__(self, console: Console, lines: bool = True):
        self.console, self.lines = console, lines
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.fields[metrics]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "Display":
        self._bars.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bars.stop()

    def line(self, line: str) -> None:
        if self.lines:
            text.print_plain(self.console, line)

    @contextlib.contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        """A bar for `total` units; yields a function (units done so far, metrics as text)."""
        task = self._bars.add_task(text.plain(name), total=total, completed=done, metrics="")
        try:
            yield lambda completed, metrics="": self._bars.update(task, completed=completed, metrics=metrics)
        finally:
            self._bars.remove_task(task)


def train_line(line: dict[str, Any], total: int) -> str:
    """One logged interval for a person: 'step 400/1,120  epoch 1.79  accuracy 0.8712  loss 0.4123 ...'."""
    return (
        f"step {line['step']:,}/{total:,}  epoch {line['epoch']:.2f}  {metrics_text(line)}  "
        f"lr {line['learning_rate']:.3g}  {speed(line)}"
    )


def speed(line: dict[str, Any]) -> str:
    """'3,635 images/s  data wait 12%'; '-' if the clock did not move."""
    rate, wait = line["examples_per_second"], line["data_wait"]
    return f"{'-' if rate is None else f'{rate:,.0f}'} images/s  data wait {'-' if wait is None else f'{wait:.0%}'}"


def four_digits(value: float | None) -> str:
    """Four digits; '-' for the mean over an interval of which every step was skipped, and a metric of nothing."""
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def metrics_text(line: dict[str, Any]) -> str:
    """The first of the task's metrics in a line: 'accuracy 0.9861  top5 1.0000  loss 0.0512'."""
    return "  ".join(f"{name} {four_digits(value)}" for name, value in list(metrics_of(line).items())[:IN_A_LINE])


def evaluation_line(split: str, line: dict[str, Any]) -> str:
    """'test: accuracy 0.9861  top5 1.0000  loss 0.0512  (360 images)'."""
    return f"{split}: {metrics_text(line)}  ({line['count']:,} images)"


def result_names(result: dict[str, dict[str, float]]) -> list[str]:
    """The metrics of a result in the order in which they are shown, which is that of the file, and the count."""
    names = dict.fromkeys(name for metrics in result.values() for name in metrics_of(metrics))
    return [*names, "count"] if result else []


def result_table(result: dict[str, dict[str, float]], roles: Mapping[str, str] | None = None) -> Table:
    """The final metrics, a row per split, with its role (RunDirectory.roles) if the name does not say it.

    Of a task with many, such as the IoU of each class, a row per metric: a terminal has 80 columns.
    """
    names = result_names(result)
    spelled = [name.replace("_", " ") for name in names]
    splits = [labeled(split, roles or {}) for split in result]
    cells = [
        [f"{found[name]:,}" if name == "count" else four_digits(found.get(name)) for name in names]
        for found in result.values()
    ]
    if len(names) > MANY:
        return text.table(["metric", *splits], [list(row) for row in zip(spelled, *cells, strict=True)])
    return text.table(["split", *spelled], [[split, *row] for split, row in zip(splits, cells, strict=True)])
