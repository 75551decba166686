"""Plots of a study, one panel each, so that they lie beside or below each other as the screen allows."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from jaxcnn.experiment import Experiment
from jaxcnn.runs.run_directory import RunDirectory, is_training, line_name
from jaxcnn.studies.cell import Cell, points
from jaxcnn.studies.groups import all_arms
from jaxcnn.studies.judge import Results, by_seed
from jaxcnn.studies.study import EXACT
from jaxcnn.studies.units import is_percentage, scale
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.task import score_of
from jaxcnn.text import in_figure

Plots = dict[str, Figure]
DESCRIPTIONS = {
    "values": "the metric of every cell as a dot, by arm, with the arm's mean",
    "pair": "a line for each seed, from the lower arm's figure to the higher arm's",
    "differences": "each arm's paired difference to the baseline with its 95% interval",
    "loss": "training loss by epoch, mean and one standard deviation over the seeds",
    "score": "score of the first evaluation split by epoch, mean and one standard deviation over the seeds",
    "parameters": "the metric against the number of parameters",
    "multiply-adds": "the metric against the multiply-adds of one image",
}


def values_plots(results: dict[str, Any]) -> Plots:
    """ "values" and "differences"."""
    metric, arms = results["metric"], results["arms"]
    height = 0.9 + 0.4 * len(arms)
    values, left = _panel(metric, "", height)
    differences, right = _panel(f"difference to {next(iter(arms))}", "", height)
    right.axvline(0, color="0.6", linewidth=1)
    for row, arm in enumerate(arms.values()):
        color = f"C{row % 10}"
        dots = [cell["figures"][metric] for cell in arm["cells"] if metric in cell["figures"]]
        left.plot(dots, [row] * len(dots), "o", color=color, alpha=0.6)
        if dots:
            left.plot([np.mean(dots)] * 2, [row - 0.3, row + 0.3], color=color, linewidth=2)
        versus = arm["versus_baseline"]
        if versus is not None:
            right.plot(versus["mean"], row, "o", color=color)
            if versus["low"] is not None:
                right.plot([versus["low"], versus["high"]], [row, row], color=color, linewidth=2)
    for axes in (left, right):
        axes.set_yticks(range(len(arms)), [*map(in_figure, arms)])
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.locator_params(axis="x", nbins=6)
    return {"values": values, "differences": differences}


def pair_plot(results: Results, claim: Results) -> Figure | None:
    """Each seed's pair of a measured claim as a line from the lower arm's figure (hollow) to the higher arm's (filled);
    None of a counted claim, of one of four arms, and without a whole pair."""
    arms = [all_arms(results).get(claim[side], {"cells": []}) for side in ("lower", "higher")]
    values = [by_seed({"counts": {}} | arm, claim["metric"], results["seeds"]) for arm in arms]
    seeds = [seed for seed in results["seeds"] if seed in values[0] and seed in values[1]]
    if claim["metric"] in EXACT or claim["beyond"] or not seeds:
        return None
    times, mark = scale(claim["metric"]), ", %" * is_percentage(claim["metric"])
    figure, axes = _panel(f"{claim['metric']}{mark}", "seed", 1.3 + 0.22 * len(seeds))
    for row, seed in enumerate(seeds):
        low, high = (times * side[seed] for side in values)
        axes.plot([low, high], [row, row], color="C2" if high > low else "C3", linewidth=1.5)
        axes.plot(
            low, row, "o", color="C0", markerfacecolor="white", label=in_figure(claim["lower"]) if not row else None
        )
        axes.plot(high, row, "o", color="C0", label=in_figure(claim["higher"]) if not row else None)
    axes.set_yticks(range(len(seeds)), [str(seed) for seed in seeds])
    axes.set_ylim(len(seeds) - 0.5, -0.5)
    axes.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return figure


def curve_plots(cells: Sequence[Cell]) -> Plots:
    """ "loss" and "score", the latter if anything was evaluated in training; {} if no cell has trained."""
    arms = list(dict.fromkeys(cell.arm_name for cell in cells))
    loss, left = _panel("epoch", "training loss", 3.4)
    name = next(
        (score_of(cell.arm.task) for cell in cells if isinstance(cell.arm, Experiment)), score_of(Classification())
    )
    score, right = _panel("epoch", f"validation {name}".replace("_", " "), 3.4)
    for number, arm in enumerate(arms):
        runs = [RunDirectory(cell.path).metrics() for cell in cells if cell.arm_name == arm]
        for axes, curve in ((left, _training), (right, functools.partial(_evaluation, name=name))):
            found = [drawn for drawn in map(curve, runs) if len(drawn)]
            if not found:
                continue
            length = min(map(len, found))  # the shortest: a run that diverged ends the band
            epochs = found[0][:length, 0]
            values = np.stack([curve[:length, 1] for curve in found])
            mean, deviation = values.mean(0), values.std(0, ddof=1 if len(found) > 1 else 0)
            marker = "o" if length == 1 else None
            axes.plot(epochs, mean, color=f"C{number % 10}", label=in_figure(arm), marker=marker)
            # Not below the lowest run: on the loss's logarithmic axis a band that reaches 0 would fill the picture.
            low = np.maximum(mean - deviation, values.min(0))
            axes.fill_between(epochs, low, mean + deviation, color=f"C{number % 10}", alpha=0.2)
    if not left.lines:
        return {}
    if any((np.asarray(line.get_ydata()) > 0).any() for line in left.lines):
        left.set_yscale("log")
    for axes in (left, right):
        if axes.lines:
            axes.legend(fontsize="small")
    return {"loss": loss} | ({"score": score} if right.lines else {})


def cost_plots(results: dict[str, Any]) -> Plots:
    """ "parameters" and "multiply-adds"; {} where the arms do not differ in either."""
    metric, arms = results["metric"], results["arms"]
    plots = {}
    differ = False
    for count in ("parameters", "multiply-adds"):
        plots[count], axes = _panel(count, metric, 3.2)
        seen = set()
        for number, (name, arm) in enumerate(arms.items()):
            found = arm["figures"].get(metric)
            if found is None or count not in arm["counts"]:
                continue
            seen.add(arm["counts"][count])
            error = found["deviation"] or 0
            color = f"C{number % 10}"
            axes.errorbar(
                arm["counts"][count], found["mean"], error, fmt="o", color=color, label=in_figure(name), capsize=3
            )
        differ |= len(seen) > 1
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter(NullFormatter())
        if seen:
            axes.legend(fontsize="small")
    return plots if differ else {}


def _panel(x: str, y: str, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5, height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=in_figure(x), ylabel=in_figure(y))
    axes.grid(alpha=0.3)
    return figure, axes


def _training(lines: list[dict[str, Any]]) -> np.ndarray:
    """[points, 2] of epoch and loss; NaN for an interval whose every step was skipped."""
    return np.array([(line["epoch"], line["loss"]) for line in lines if is_training(line)], float).reshape(-1, 2)


def _evaluation(lines: list[dict[str, Any]], name: str) -> np.ndarray:
    """[points, 2] of epoch and that metric of the first evaluation split."""
    split = next((line_name(line) for line in lines if not is_training(line)), None)
    found = points(lines, split, name) if split else []
    # A run that evaluates nothing in training has one line, of the test split at its end, and no curve.
    return np.array(found if len(found) > 1 else [], float).reshape(-1, 2)
