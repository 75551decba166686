"""Compare: runs side by side: final figures, where they ran, and the config fields in which they differ."""

import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from jaxcnn import config, files, text
from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.runs.run_directory import RunDirectory, is_training, labeled, line_name, metrics_of, open_run

MARKERS = (".", "x", "^", "s")
"""Of the evaluated splits of a run, in their order."""


def compare_runs(paths: list[pathlib.Path]) -> dict[str, dict[str, Any]]:
    """{run: {"state", "step", "devices", "commit", field: value for each field that differs, "test accuracy": ...}}.

    "devices" and "commit" are those of all starts, if they differ.
    """
    directories = [open_run(path) for path in paths]
    flats = [config.flatten(directory.config()) for directory in directories]
    names = list(dict.fromkeys(name for flat in flats for name in flat))
    differing = [name for name in names if any(flat.get(name) != flats[0].get(name) for flat in flats)]
    rows = {}
    for path, directory, flat in zip(paths, directories, flats, strict=True):
        status = directory.status()
        row = {"state": directory.state(), "step": status.get("step")} | _starts(directory)
        row |= {name: flat.get(name) for name in differing}
        roles = directory.roles()
        for split, metrics in directory.result().items():
            row |= {f"{labeled(split, roles)} {name}": value for name, value in metrics.items()}
        rows[str(path)] = row
    return rows


def comparison_table(rows: dict[str, dict[str, Any]]) -> Table:
    """A column per run and a row per figure or differing field; '-' where a run has none."""
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return text.table(["", *rows], [[name, *(_cell(row.get(name)) for row in rows.values())] for name in names])


def devices_of(environment: dict[str, Any]) -> str:
    """ "1 cpu (cpu)", "8 NVIDIA H100 (gpu), 2 processes"."""
    devices, processes = environment["devices"], environment["processes"]
    text = f"{devices['count']} {devices['kind']} ({devices['platform']})"
    return text if processes == 1 else f"{text}, {processes} processes"


def commit_of(environment: dict[str, Any], length: int = 40) -> str:
    """The commit that the code was of."""
    git = environment["git"]
    return "not in a git checkout" if git is None else git["commit"][:length] + (" and changes" if git["dirty"] else "")


def _starts(directory: RunDirectory) -> dict[str, str | None]:
    if not (directory.path / "environment.json").exists():
        return {"devices": None, "commit": None}
    first = directory.environment()
    starts = [first, *first.get("resumed", [])]
    return {
        "devices": ", then ".join(dict.fromkeys(devices_of(start) for start in starts)),
        "commit": ", then ".join(dict.fromkeys(commit_of(start, 10) for start in starts)),
    }


def check_plot(file: pathlib.Path, flag: str = "--plot") -> None:
    """Raises UserError if a plot cannot be written to this file, before any run is read."""
    kinds, kind = Figure().canvas.get_supported_filetypes(), file.suffix.removeprefix(".").lower()
    if kind not in kinds:
        hint = did_you_mean(kind, kinds) or f"; it can be {', '.join(f'.{one}' for one in sorted(kinds))}"
        raise UserError(f"{flag} {file}: {file.suffix or 'no suffix'} is not a kind of picture{hint}")
    if not file.parent.is_dir():
        raise UserError(f"{flag} {file}: there is no folder {file.parent}; make it first")
    if file.is_dir():
        raise UserError(f"{flag} {file} is a folder; name a file in it")


def plot_runs(paths: Sequence[pathlib.Path], file: pathlib.Path) -> None:
    """Draws the learning curves of runs into a file. Raises UserError if it cannot be written."""
    check_plot(file)
    write_figure(curves(dict(zip(labels(paths), (open_run(path).metrics() for path in paths), strict=True))), file)


def write_figure(figure: Figure, file: pathlib.Path, flag: str = "--plot") -> None:
    """Writes a picture of the kind that the file's name says. Raises UserError if it cannot be written."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format=file.suffix.removeprefix(".").lower())
    try:
        files.write_bytes(file, picture.getvalue())
    except OSError as error:
        raise UserError(f"{flag} {file} cannot be written: {error}") from error


def labels(paths: Sequence[pathlib.Path]) -> list[str]:
    """The shortest end of each path that no other has: "a/seed0" and "b/seed0", but "best" for runs/best."""
    every = [pathlib.Path(os.path.abspath(path)).parts for path in paths]
    found = []
    for i, parts in enumerate(every):
        others = every[:i] + every[i + 1 :]
        length = next(
            (n for n in range(1, len(parts)) if all(parts[-n:] != other[-n:] for other in others)), len(parts)
        )
        found.append(str(pathlib.PurePath(*parts[-length:])))
    return found


def panels_of(lines: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The metrics that are drawn: the loss, the score of the evaluations (a detector has none in training), and the
    others of training in the task's order; at most three."""
    names = dict.fromkeys(name for line in lines if is_training(line) for name in metrics_of(line))
    score = next((name for line in lines if not is_training(line) for name in metrics_of(line)), None)
    if names and score is not None:
        names = dict.fromkeys((score, *names))
    return tuple(sorted(names, key=lambda name: name != "loss"))[:3]


def curves(runs: dict[str, list[dict[str, Any]]], metrics: tuple[str, ...] | None = None) -> Figure:
    """The learning curves of runs, {name: lines of metrics.jsonl}: training as lines, evaluation as dotted lines with
    markers, a panel per metric, default those of `panels_of`. A curve of one point is a dot.
    """
    metrics = metrics or panels_of([line for lines in runs.values() for line in lines]) or ("loss",)
    figure = Figure(figsize=(5 * len(metrics), 4), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for number, (name, lines) in enumerate(runs.items()):
        for axis, metric in zip(panels, metrics, strict=True):
            known = [line for line in lines if line.get(metric) is not None]
            evaluated = list(dict.fromkeys(line_name(line).removesuffix("_ema") for line in lines))
            evaluated = [split for split in evaluated if split != "train"]
            for split in dict.fromkeys(map(line_name, known)):
                points = [(line["step"], line[metric]) for line in known if line_name(line) == split]
                style = {"linestyle": "-", "marker": "o" if len(points) == 1 else None}
                if split != "train":
                    marker = MARKERS[evaluated.index(split.removesuffix("_ema")) % len(MARKERS)]
                    style = {"linestyle": ":", "marker": marker}
                alpha = 0.5 if split.endswith("_ema") else 1.0
                label = f"{name} {split}".strip()
                axis.plot(
                    *np.array(points, float).T, color=f"C{number}", label=text.in_figure(label), alpha=alpha, **style
                )
    for axis, metric in zip(panels, metrics, strict=True):
        axis.set(xlabel="optimizer step", ylabel=metric.replace("_", " "))
        positive = any((line.get_ydata() > 0).any() for line in axis.lines)
        axis.set_yscale("log" if metric == "loss" and positive else "linear")
        axis.grid(alpha=0.3)
    for axis in [axis for axis in panels if axis.lines][-1:]:
        axis.legend(fontsize="small")
    return figure


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
