"""Ranking: what the runs of a sweep show. Which point is best, as flags to paste, and the figure over each axis.

A pure function of the runs, written as sweep.json, table.md and sweep.html.
"""

import math
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from jaxcnn import config, files
from jaxcnn.report.page import svg, write_page
from jaxcnn.runs.run_directory import RunDirectory
from jaxcnn.studies.axes import at_edge, encoded, value_text
from jaxcnn.studies.cell import Cell, Measured, cell_metrics, points
from jaxcnn.studies.search import Range, SuccessiveHalving
from jaxcnn.studies.sweep import Sweep, rung_steps
from jaxcnn.studies.trials import Results, Trial, best
from jaxcnn.text import in_figure
from jaxcnn.train.duration import Duration


def score_at(cell: Cell, metric: str, until: int | None) -> float | None:
    """The figure of a run at its end, or by its last line up to `until` steps; None if it has none, or diverged."""
    state = cell.state()
    if state == "diverged":
        return None
    if until is None:
        return cell_metrics(cell, Measured(metric)).get(metric) if state == "done" else None
    lines = [line for line in RunDirectory(cell.path).metrics() if line["step"] <= until]
    split, name = metric.rsplit(" ", 1)
    found = [value for _, value in points(lines, split, name)]
    return found[-1] if found and math.isfinite(found[-1]) else None


def mean_score(trial: Trial, metric: str, until: int | None) -> float | None:
    """The mean over the seeds; None if one has none."""
    values = [score_at(cell, metric, until) for cell in trial.cells]
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def going_on(found: Sequence[Trial], sweep: Sweep, rung: int, until: int | None) -> list[Trial]:
    """The trials of a rung that go on to the next, best first; of equal ones the first in the grid's order."""
    left, chosen = [*found], []
    scores = {id(trial): mean_score(trial, sweep.figure, until) for trial in found}
    assert isinstance(sweep.search, SuccessiveHalving)
    for _ in range(sweep.search.survivors(len(found))):
        number = best([scores[id(trial)] for trial in left], sweep.direction)
        if scores[id(left[number])] is None:
            break
        chosen.append(left.pop(number))
    return chosen


def ranked(
    sweep: Sweep, found: Sequence[Trial], rungs: Sequence[int | None], command: str, path: pathlib.Path
) -> Results:
    """What sweep.json holds.

    {"command", "note", "metric", "direction", "seeds", "search", "fields", "trials": [best first: {"point", "text",
    "score", "rung": the last one that it was on, from 1, "cells": [{"seed", "path", "state", "message", "score"}]}],
    "rungs": [steps of each, None for the whole duration], "best": {"text", "flags", "edge"} or None while nothing has
    reached the last rung}
    """
    metric, on = sweep.figure, [*found]
    last: dict[int, int] = {}
    for rung, until in enumerate(rungs):
        last |= {id(trial): rung for trial in on}
        if until is not None:
            on = going_on(on, sweep, rung, until)
    sign = -1 if sweep.direction == "higher" else 1

    def place(trial: Trial) -> tuple[int, bool, float]:
        rung = last[id(trial)]
        score = mean_score(trial, metric, rungs[rung])
        return -rung, score is None, 0.0 if score is None else sign * score

    order = sorted(found, key=place)  # stable: equal ones in the grid's order
    first = order[0]
    score = mean_score(first, metric, None) if last[id(first)] == len(rungs) - 1 else None
    return {
        "command": command,
        "note": sweep.note,
        "metric": metric,
        "direction": sweep.direction,
        "seeds": list(sweep.seeds),
        "search": value_text(sweep.search),
        "fields": [*sweep.axes],
        "rungs": list(rungs),
        "trials": [_told(trial, metric, last[id(trial)], rungs, path) for trial in order],
        "best": None
        if score is None
        else {"text": value_list(first), "flags": flags_of(first), "edge": edges(sweep, first)},
    }


def _told(trial: Trial, metric: str, rung: int, rungs: Sequence[int | None], path: pathlib.Path) -> Results:
    cells = [
        {
            "seed": cell.seed,
            "path": str(cell.path.relative_to(path)),
            "state": cell.state(),
            "message": cell.message(),
            "score": score_at(cell, metric, rungs[rung]),
        }
        for cell in trial.cells
    ]
    score = mean_score(trial, metric, rungs[rung])
    point = encoded(trial.point)
    return {"point": point, "text": value_list(trial), "score": score, "rung": rung + 1, "cells": cells}


def value_list(trial: Trial) -> dict[str, str]:
    """{field: value, for a person}."""
    return {field: value_text(value) for field, value in trial.point.items()}


def flags_of(trial: Trial) -> str:
    """A point as flags of its experiment's file; what no flag can say, a whole part, as Python behind a #."""
    words, parts = [], []
    for field, value in trial.point.items():
        name = f"--{field.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(name if value else f"{'.'.join([*name.split('.')[:-1], 'no-' + name.split('.')[-1]])}")
        elif isinstance(value, int | float | str | Duration):
            words += [
                name,
                shlex.quote(value_text(value).replace(" ", "") if isinstance(value, Duration) else str(value)),
            ]
        elif isinstance(value, tuple | list) and all(isinstance(each, int | float | str) for each in value):
            words += [name, *(shlex.quote(str(each)) for each in value)]
        else:
            parts.append(f"{field} = {value_text(value)}")
    return " ".join(words) + "".join(f"  # {part}" for part in parts)


def edges(sweep: Sweep, trial: Trial) -> list[str]:
    """The fields of which the best point has the smallest or largest of three values or more."""
    listed = {field: values for field, values in sweep.axes.items() if not isinstance(values, Range)}
    return at_edge(listed, {field: trial.point[field] for field in listed})


def write_ranking(
    sweep: Sweep, found: Sequence[Trial], command: str, path: pathlib.Path, rungs: Sequence[int | None] | None = None
) -> Results:
    """Writes the report of a sweep into its directory and returns what sweep.json holds."""
    results = ranked(sweep, found, rung_steps(sweep) if rungs is None else rungs, command, path)
    files.write_json(path / "sweep.json", results)
    files.write_text(path / "table.md", markdown(results))
    pictures = [svg(figure, f"{results['metric']} over {field}") for field, figure in axis_plots(results).items()]
    write_page(
        path / "sweep.html",
        "sweep.html",
        title=f"Which {' and '.join(name.rpartition('.')[2].replace('_', ' ') for name in sweep.axes)}?",
        results=results,
        rows=rows(results),
        pictures=pictures,
        base=files.to_json(config.encode(sweep.base), indent=2),
    )
    return results


def rows(results: Results) -> list[dict[str, str]]:
    """A row of the ranking for each trial."""
    several = len(results["rungs"]) > 1
    return [
        {"": str(number)}
        | trial["text"]
        | {results["metric"]: "-" if trial["score"] is None else f"{trial['score']:.4g}"}
        | ({"rung": f"{trial['rung']} of {len(results['rungs'])}"} if several else {})
        | {"runs": _states(trial)}
        for number, trial in enumerate(results["trials"], 1)
    ]


def _states(trial: Results) -> str:
    states = [cell["state"] for cell in trial["cells"]]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def markdown(results: Results) -> str:
    """table.md: the best point, then the ranking."""
    lines = [
        f"# {results['metric']}, by {', '.join(results['fields'])}",
        "",
        *([results["note"], ""] if results["note"] else []),
    ]
    if results["best"]:
        lines += ["The best, as flags of its experiment's file:", "", "```", results["best"]["flags"], "```", ""]
    lines += [
        f"It is at the edge of {field}: a better value may lie beyond."
        for field in (results["best"] or {"edge": []})["edge"]
    ]
    table = rows(results)
    escaped = [[str(value).replace("|", "\\|") for value in row.values()] for row in table]
    lines += ["", "| " + " | ".join(table[0]) + " |", "|" + "---|" * len(table[0])]
    lines += ["| " + " | ".join(row) + " |" for row in escaped]
    return "\n".join([*lines, "", f"`{results['command']}`"]) + "\n"


def axis_plots(results: Results) -> dict[str, Figure]:
    """{field: the score of every trial over its value of this field}, with the best of each value joined by a line.

    Of successive halving a trial has the score of its own last rung, and those that ended early are hollow.
    """
    plots: dict[str, Figure] = {}
    for field in results["fields"]:
        figure = Figure(figsize=(4.6, 3.2), layout="constrained")
        axes = figure.subplots()
        shown = [trial for trial in results["trials"] if trial["score"] is not None]
        values: list[Any] = [trial["point"][field] for trial in shown]
        numbers = bool(values) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        places: list[Any] = values if numbers else [trial["text"][field] for trial in shown]
        if numbers and min(values) > 0 and max(values) >= 10 * min(values):
            axes.set_xscale("log")
        if not numbers:
            order = list(dict.fromkeys(trial["text"][field] for trial in reversed(results["trials"])))
            places = [order.index(place) for place in places]
            axes.set_xticks(range(len(order)), [in_figure(name[:24]) for name in order], rotation=20, ha="right")
        for place, trial in zip(places, shown, strict=True):
            whole = trial["rung"] == len(results["rungs"])
            axes.plot(place, trial["score"], "o", color="C0", markerfacecolor="C0" if whole else "white", alpha=0.7)
        choose = max if results["direction"] == "higher" else min
        top = {
            place: choose(trial["score"] for at, trial in zip(places, shown, strict=True) if at == place)
            for place in places
        }
        axes.plot(sorted(top), [top[place] for place in sorted(top)], color="C0", linewidth=1)
        axes.set_xlabel(in_figure(field))
        axes.set_ylabel(in_figure(results["metric"]))
        axes.grid(alpha=0.3)
        plots[field] = figure
    return plots
