"""Groups: several arms taken as one, by the mean of their figures seed by seed: the main effects of a factorial study.

A factorial study has an arm for every combination of its factors' levels. The main effect of a factor is the difference
between the mean of all arms with one level and the mean of all arms with the other; an interaction is a difference of
such differences (Claim.beyond).
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Results = dict[str, Any]


def factorial(*factors: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """{group: names of its arms} of factors whose levels have these names; an arm's name is its levels, with commas.

    A group has some levels fixed, in the factors' order, and all levels of the other factors. The arms themselves, of
    which all levels are fixed, are not among them.

    Example:
      factorial(("plain", "residual"), ("shallow", "deep"))["deep"]  # ("plain, deep", "residual, deep")
    """
    arms = list(itertools.product(*factors))
    found = {}
    for fixed in range(1, len(factors)):
        for chosen in itertools.combinations(factors, fixed):
            for levels in itertools.product(*chosen):
                found[", ".join(levels)] = tuple(", ".join(arm) for arm in arms if {*levels} <= {*arm})
    return found


def grouped(groups: Mapping[str, Sequence[str]], arms: Results) -> Results:
    """{group: what study.json has of it, in the form of an arm, with "of": its arms}.

    A seed has a figure if all arms of the group have it. The figure's step, by which intervals are widened for rounding
    (statistics.interval), is that of a single arm, which is more than a mean of several needs.
    """
    whole = {name: of for name, of in groups.items() if {*of} <= arms.keys()}  # an arm may have been dropped since
    return {name: {"of": list(of)} | _mean([arms[arm] for arm in of]) for name, of in whole.items()}


def _mean(arms: Sequence[Results]) -> Results:
    cells = [_mean_cell(found) for found in zip(*(arm["cells"] for arm in arms), strict=True)]
    counts = {
        name: statistics.fmean(arm["counts"][name] for arm in arms) for name in _shared([a["counts"] for a in arms])
    }
    figures = {}
    for name in dict.fromkeys(name for cell in cells for name in cell["figures"]):
        values = [cell["figures"][name] for cell in cells if name in cell["figures"]]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        figures[name] = {"mean": statistics.fmean(values), "deviation": deviation, "n": len(values)}
    return {"counts": counts, "figures": figures, "cells": cells}


def _mean_cell(cells: Sequence[Results]) -> Results:
    """Of one seed; its state is the first that is not "done", or "done"."""
    state = next((cell["state"] for cell in cells if cell["state"] != "done"), "done")
    figures = {
        name: statistics.fmean(cell["figures"][name] for cell in cells)
        for name in _shared([c["figures"] for c in cells])
    }
    steps = {name: max(cell["steps"].get(name, 0.0) for cell in cells) for cell in cells for name in cell["steps"]}
    unreached = list(dict.fromkeys(name for cell in cells for name in cell["unreached"]))
    kept = [cell.get("right", {}) for cell in cells]
    right = {name: [bits for each in kept for bits in each[name]] for name in _shared(kept)}
    of_cell = {"seed": cells[0]["seed"], "state": state, "figures": figures}
    return of_cell | {"unreached": unreached, "steps": steps, "right": right}


def _shared(each: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names that all have, in order."""
    return [name for name in each[0] if all(name in other for other in each)]


def all_arms(results: Results) -> Results:
    """The arms of study.json and its groups, by name."""
    return results["arms"] | results.get("groups", {})
