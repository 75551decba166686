"""Figures: what the cells of an arm have of one metric, as study.json keeps them, and what values it can take."""

import math
from collections.abc import Sequence
from typing import Any

from jaxcnn.tasks.classification import Classification

Results = dict[str, Any]
SHARES = (*Classification().shares, "gap")
"""Words in the names of figures that are shares of images, or differences of such."""
SCORES = (*Classification().shares, "gap", "_iou", "_map", "_localization", "BoxAcc")
"""Parts of the names of figures that lie between 0 and 1."""
POSITIVE = ("loss", "epochs", "milliseconds", "time", "count", "images")
"""Words in the names of figures that are not negative."""


def by_seed(arm: Results, metric: str, seeds: Sequence[int]) -> dict[int, float]:
    """{seed: figure} of an arm; a counted figure is that of every seed."""
    if metric in arm["counts"]:
        return {seed: arm["counts"][metric] for seed in seeds}
    found = {cell["seed"]: cell["figures"].get(metric) for cell in arm["cells"]}
    return {seed: value for seed, value in found.items() if value is not None and math.isfinite(value)}


def state_of(arm: Results, seed: int) -> str:
    """Why a cell lacks a figure."""
    state = next((cell["state"] for cell in arm["cells"] if cell["seed"] == seed), "missing")
    return "done, without the figure" if state == "done" else "not run" if state == "missing" else state


def step_of(arm: Results, metric: str) -> float:
    """The distance between two values that a figure of an arm can take, 0 if it is not rounded.

    A share of n images moves in steps of 1/n. Cells note others, such as the distance of two logged lines, as "steps".
    """
    steps = [0.0]
    for cell in arm["cells"]:
        noted = cell.get("steps", {}).get(metric)
        if noted is not None:
            steps.append(noted)
        elif is_share(metric):
            counts = [value for name, value in cell["figures"].items() if name.endswith(" count") and value]
            own = cell["figures"].get(f"{metric.rpartition(' ')[0]} count")
            steps += [1 / (own or counts[0])] if own or counts else []
    return max(steps)


def is_share(metric: str) -> bool:
    words = metric.split()
    return any(word in SHARES for word in words) and "loss" not in words and not metric.startswith("epochs to ")


def range_of(metric: str) -> tuple[float, float]:
    """The values that a figure can take, as far as its name tells: an accuracy those from 0 to 1."""
    words = metric.split()
    scored, compared = any(part in metric for part in SCORES), any(word in ("gap", "lost") for word in words)
    if "loss" not in words and scored and not metric.startswith("epochs to "):
        return (-1.0, 1.0) if compared else (0.0, 1.0)
    if any(word in POSITIVE for word in words) and not compared:
        return 0.0, math.inf
    return -math.inf, math.inf


def bound_of(arms: Sequence[Results], metric: str) -> str:
    """What capped figures make of the difference: "at least" or "at most" what is shown, or "capped on both sides:"."""
    raised = [arms[0], *arms[3:]]  # the difference grows with these; see statistics.SIGNS
    capped = {
        more
        for more, group in ((True, raised), (False, arms[1:3]))
        for arm in group
        if any(metric in cell.get("unreached", ()) for cell in arm["cells"])
    }
    return {0: "", 1: "at least" if True in capped else "at most", 2: "capped on both sides:"}[len(capped)]
