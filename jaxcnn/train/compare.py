"""Compare: runs side by side, their final figures and the config fields in which they differ."""

import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from jaxcnn import config, text
from jaxcnn.train.record import labeled, line_name, open_run

CURVES = ("loss", "accuracy")


def compare_runs(paths: list[pathlib.Path]) -> dict[str, dict[str, Any]]:
    """{run: {"state", "step", field: value for each field that differs, "test accuracy": ..., ...}}."""
    records = [open_run(path) for path in paths]
    flats = [config.flatten(record.config()) for record in records]
    names = list(dict.fromkeys(name for flat in flats for name in flat))
    differing = [name for name in names if any(flat.get(name) != flats[0].get(name) for flat in flats)]
    rows = {}
    for path, record, flat in zip(paths, records, flats, strict=True):
        status = record.status()
        row = {"state": record.state(), "step": status.get("step")} | {name: flat.get(name) for name in differing}
        watched = record.watched()
        for split, metrics in record.result().items():
            row |= {f"{labeled(split, watched)} {name}": value for name, value in metrics.items()}
        rows[str(path)] = row
    return rows


def comparison_table(rows: dict[str, dict[str, Any]]) -> Table:
    """A column per run and a row per figure or differing field; '-' where a run has none."""
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return text.table(["", *rows], [[name, *(_cell(row.get(name)) for row in rows.values())] for name in names])


def plot_runs(paths: list[pathlib.Path], file: pathlib.Path) -> None:
    """Draws the learning curves of runs into a file."""
    curves({path.name: open_run(path).metrics() for path in paths}).savefig(file, dpi=120)


def curves(runs: dict[str, list[dict[str, Any]]], metrics: tuple[str, ...] = CURVES) -> Figure:
    """The learning curves of runs, {name: lines of metrics.jsonl}: training as lines, evaluation as dotted lines with
    markers, a panel per metric.
    """
    figure = Figure(figsize=(5 * len(metrics), 4), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for number, (name, lines) in enumerate(runs.items()):
        for axis, metric in zip(panels, metrics, strict=True):
            for split in dict.fromkeys(line_name(line) for line in lines if metric in line):
                points = [(line["step"], line[metric]) for line in lines if line_name(line) == split and metric in line]
                style = {"linestyle": "-"} if split == "train" else {"linestyle": ":", "marker": "."}
                alpha = 0.5 if split.endswith("_ema") else 1.0
                label = f"{name} {split}".strip()
                axis.plot(
                    *zip(*points, strict=True), color=f"C{number}", label=text.in_figure(label), alpha=alpha, **style
                )
    for axis, metric in zip(panels, metrics, strict=True):
        axis.set(xlabel="optimizer step", ylabel=metric.replace("_", " "))
        positive = any((np.asarray(line.get_ydata(), float) > 0).any() for line in axis.get_lines())
        axis.set_yscale("log" if metric == "loss" and positive else "linear")  # zeros alone have no logarithm
        axis.grid(alpha=0.3)
    panels[-1].legend(fontsize="small")
    return figure


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
