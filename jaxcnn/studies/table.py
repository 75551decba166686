"""Table: the finished cells of a study as figures per arm, paired differences and verdicts; study.json is made here."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxcnn import config
from jaxcnn.experiment import Experiment
from jaxcnn.runs.run_directory import RunDirectory
from jaxcnn.studies.cell import Cell, cell_metrics, counts, reach_name, reaches, steps
from jaxcnn.studies.details import details
from jaxcnn.studies.groups import grouped
from jaxcnn.studies.judge import Results, against_baseline, clean, judge_claims
from jaxcnn.studies.pinned import CHANGED, claims_of, matched, summary
from jaxcnn.studies.right import right_of
from jaxcnn.studies.statistics import spread
from jaxcnn.studies.study import EXACT, Study, folder
from jaxcnn.text import plain

FIXED = (
    "The intervals speak of other seeds: the test images are the same ones for all, and treated as fixed. Beside them "
    "stands the interval over seeds and images, for other test images from the same source too: from the images that "
    "each net has right; of runs that do not keep these, a conservative bound from the accuracies and the number of "
    "images. For other figures there is none."
)
CORRECTED = (
    "p is of both sides, alone and with Holm's correction over the measured claims of this study, and a verdict needs "
    "the corrected one to be at most 0.05; the smallest effect beyond the margin that is decided in 80% of such "
    "studies is that of a claim alone."
)


def tabulate(study: Study, cells: Sequence[Cell], pinned: Results) -> Results:
    """What the cells show so far, as JSON; every cell is in it, whatever its state.

    {"question", "note", "metric", "seeds", "arms": {name: {"folder", "counts", "figures": {figure: {"mean",
    "deviation", "n"}}, "versus_baseline", "changed", "cells": [{"seed", "path", "state", "message", "figures",
    "unreached", "steps", "right": {figure: which images are right, as right.right_of gives it}}]}}, "groups": as
    groups.grouped gives them, only of a study that has some, "claims": as pinned.matched and judge.judge_claims give
    them, "pinned", "environment"};
    NaN is null.
    """
    # What was settled before the first run; what the file has added since is measured beside it.
    both = dataclasses.replace(
        study, reach={**study.reach, **pinned["reach"]}, diverged={**study.diverged, **pinned["diverged"]}
    )
    measured = {cell: cell_metrics(cell, both) for cell in cells}
    arms: Results = {}
    baseline = next(iter(study.arms))
    for name, arm in study.arms.items():
        own = [cell for cell in cells if cell.arm_name == name]
        counted = counts(arm)
        names = dict.fromkeys(figure for cell in own for figure in measured[cell])
        values = {figure: _by_seed(own, measured, figure) for figure in names}
        arms[name] = {
            "folder": folder(name),
            "counts": counted,
            "figures": {figure: clean(vars(spread([*by_seed.values()]))) for figure, by_seed in values.items()},
            "versus_baseline": None,
            "changed": _changed(study.arms[baseline], arm),
            "cells": [
                {
                    "seed": cell.seed,
                    "path": f"cells/{folder(name)}/seed{cell.seed}",
                    "state": cell.state(),
                    "message": cell.message(),
                    "figures": measured[cell],
                    "unreached": _unreached(cell, both),
                    "steps": steps(cell, both),
                    "right": right_of(cell),
                }
                for cell in own
            ],
        }
    results = {
        "question": study.question,
        "note": study.note,
        "metric": study.metric,
        "seeds": list(study.seeds),
        "diverged": dict(both.diverged),
        "arms": arms,
    }
    groups = pinned.get("groups") or study.groups
    results |= {"groups": grouped(groups, arms)} if groups else {}
    claims = matched(pinned, claims_of(study))
    return judged(results, claims) | {
        "pinned": summary(pinned, study, cells),
        "environment": _environment(cells),
    }


def judged(results: Results, claims: Sequence[Results]) -> Results:
    """The results with every arm's difference to the baseline and the judged claims, both from the cells in them."""
    arms, seeds = results["arms"], results["seeds"]
    baseline = next(iter(arms.values()))
    arms = {
        name: arm
        | {"versus_baseline": None if arm is baseline else against_baseline(arm, baseline, results["metric"], seeds)}
        for name, arm in arms.items()
    }
    return results | {"arms": arms, "claims": judge_claims(claims, arms | results.get("groups", {}), seeds)}


def _by_seed(cells: Sequence[Cell], measured: Mapping[Cell, dict[str, float]], figure: str) -> dict[int, float]:
    return {cell.seed: measured[cell][figure] for cell in cells if figure in measured[cell]}


def _changed(baseline: Any, arm: Any) -> dict[str, list[Any]]:
    """{field: [the baseline's, the arm's]} of two arms' configs; of an arm of another kind its own plain fields."""
    old, new = config.encode(baseline), config.encode(arm)
    if old["class"] != new["class"]:
        plain = {field: [None, value] for field, value in new.items() if not isinstance(value, dict | list)}
        return plain | {"class": [old["class"], new["class"]]}
    return {field: list(values) for field, values in config.differences(old, new).items() if field != "seed"}


def _unreached(cell: Cell, study: Study) -> list[str]:
    """The thresholds of study.reach that a finished run never reached: its epochs are a lower bound."""
    if not isinstance(cell.arm, Experiment) or cell.state() != "done":
        return []
    lines = RunDirectory(cell.path).metrics()
    return [
        reach_name(figure, threshold)
        for figure, threshold in study.reach.items()
        for split, name in [figure.rsplit(" ", 1)]
        if not reaches(lines, split, name, threshold, cell.arm.task.directions)
    ]


def _environment(cells: Sequence[Cell]) -> Results:
    """Commits, machine and data of the cells that have begun; several values where they differ."""
    found: dict[str, list[Any]] = {"commit": [], "dirty": [], "machine": [], "jax": [], "data": []}
    for cell in cells:
        if not (cell.path / "environment.json").exists():
            continue
        environment = RunDirectory(cell.path).environment()
        git, devices, data = environment["git"] or {}, environment["devices"], environment["dataset"]
        machine = f"{devices['count']} x {devices['kind']}, {environment['cpus']} CPU cores"
        values = {
            "commit": git.get("commit"),
            "dirty": git.get("dirty"),
            "machine": machine,
            "jax": environment["versions"]["jax"],
            "data": f"{data['name']} {data['version']}" if data else None,
        }
        for name, value in values.items():
            if value is not None and value not in found[name]:
                found[name].append(value)
    return found


def rows(results: Results) -> list[dict[str, str]]:
    """The table as text: a row per arm."""
    metric = results["metric"]
    extra = list(
        dict.fromkeys(
            figure
            for arm in results["arms"].values()
            for figure in arm["figures"]
            if figure.startswith("epochs to") or figure in [claim["metric"] for claim in results["claims"]]
        )
    )
    table = []
    for name, arm in results["arms"].items():
        done = [cell for cell in arm["cells"] if cell["state"] == "done"]
        others = [f"{cell['state']} (seed {cell['seed']})" for cell in arm["cells"] if cell["state"] != "done"]
        row = {
            "arm": name,
            metric: _spread(arm["figures"].get(metric)),
            "n": f"{len(done)} of {len(arm['cells'])}",
            "difference to the baseline": _versus(arm["versus_baseline"]),
            "parameters": _count(arm["counts"].get("parameters")),
            "multiply-adds": _count(arm["counts"].get("multiply-adds")),
            "images per second": _round(arm["figures"].get("images per second")),
        }
        for figure in extra:
            if figure not in row:
                bound = "at least " if any(figure in cell["unreached"] for cell in arm["cells"]) else ""
                row[figure] = bound + _spread(arm["figures"].get(figure))
        row["cells that are not done"] = ", ".join(others) or "none"
        table.append(row)
    return table


def markdown(results: Results) -> str:
    """table.md: the arms, then the claims."""
    lines = [f"# {results['question']}", ""]
    if results["note"]:
        lines += [results["note"], ""]
    table = rows(results)
    lines += [markdown_row(table[0]), "|" + "---|" * len(table[0])]
    lines += [markdown_row(row.values()) for row in table]
    seeds = ", ".join(map(str, results["seeds"]))
    lines += ["", f"Mean ± standard deviation over seeds {seeds}; differences are paired, with 95% intervals.", FIXED]
    lines += [CORRECTED, *pinned_lines(results), ""]
    columns = (
        "claim",
        "figure",
        "difference, 95% interval over seeds",
        "by bootstrap",
        "over seeds and images",
        "p",
        "smallest effect seen",
        "verdict",
        "published",
    )
    lines += [markdown_row([*columns, "different here"]), "|" + "---|" * 10]
    for claim in results["claims"]:
        cells = [
            claimed(claim),
            f"{claim['metric']}: {subject(claim)}",
            measured(claim),
            bootstrapped(claim),
            over_images(claim),
            probabilities(claim),
            smallest(claim),
            verdict(claim),
            claim["published"] or "-",
            claim["different"] or "-",
        ]
        lines.append(markdown_row(cells))
    return "\n".join([*lines, *details(results)]) + "\n"


def markdown_row(cells: Iterable[str]) -> str:
    """A line of a table in Markdown; a bar in a name is no border."""
    return "| " + " | ".join(plain(cell).replace("|", "\\|") for cell in cells) + " |"


def claimed(claim: Results) -> str:
    """The claim's text as pinned, and what the study file made of it."""
    if not claim["change"]:
        return claim["text"]
    now = claim["now"]
    changed = (
        f"; the file has now: {now['text']} ({now['metric']}: {subject(now)})" if claim["change"] == CHANGED else ""
    )
    return f"{claim['text']} (**{claim['change']}**{changed})"


def verdict(claim: Results) -> str:
    return f"**{claim['verdict']}** ({claim['reason']})"


def pinned_lines(results: Results) -> list[str]:
    """When the claims were settled, and what has changed since."""
    pinned = results["pinned"]
    late = "; cells had begun before, so that nobody can tell what was claimed then" if pinned["late"] else ""
    lines = [f"The claims are those of {pinned['date']} ({pinned['origin']}; digest {pinned['digest'][:10]}){late}."]
    return lines + [f"Changed since: {change}." for change in pinned["changes"]]


def subject(claim: Results) -> str:
    """What is compared with what: "gap - fc > -0.01", or "|gap - fc| < 0.01"."""
    text = f"{claim['higher']} - {claim['lower']}"
    if claim["beyond"]:
        text = f"({text}) - ({claim['beyond'][0]} - {claim['beyond'][1]})"
    within = claim.get("within")
    return f"{text} > {claim['margin']:g}" if within is None else f"|{text}| < {within:g}"


def measured(claim: Results) -> str:
    """The claim's difference: "+0.012 [+0.003, +0.021] over 5 of 5 seeds", or "+333,504 (counted)"."""
    difference = claim["difference"]
    if claim["metric"] in EXACT and difference:
        return (
            f"{difference['mean']:+,.0f} (counted)"
            if abs(difference["mean"]) >= 100
            else f"{difference['mean']:+.4g} (counted)"
        )
    bound = f"{claim['bound']} " if claim["bound"] else ""
    return f"{bound}{_interval(difference)} over {claim['pairs']}"


def over_images(claim: Results) -> str:
    """The wider interval, "-" if there is none."""
    return _bounds(*claim["over_images"]) if claim["over_images"] else "-"


def probabilities(claim: Results) -> str:
    """The p-values of a claim: alone, among those of its study, and on a page of all studies among all: "0.004, with
    Holm's correction 0.016"; "-" if it has none."""
    if claim["p"] is None:
        return "-"
    among = [claim["of_study"]["p_holm"]] if "of_study" in claim else []
    return f"{claim['p']:.2g} alone, {' and '.join(f'{p:.2g}' for p in [*among, claim['p_holm']])} corrected"


def smallest(claim: Results) -> str:
    """The smallest effect beyond the margin that the study could see."""
    return "-" if claim["smallest"] is None else f"{claim['smallest']:.2g}"


def bootstrapped(claim: Results) -> str:
    """The interval by bootstrap, "-" if there is none."""
    return _bounds(*claim["bootstrap"]) if claim["bootstrap"] else "-"


def comma_separated(results: Results) -> str:
    """table.csv: a line per cell, with every figure."""
    names = list(
        dict.fromkeys(figure for arm in results["arms"].values() for cell in arm["cells"] for figure in cell["figures"])
    )
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["arm", "seed", "state", "parameters", "multiply-adds", *names, "path"])
    for name, arm in results["arms"].items():
        for cell in arm["cells"]:
            counted = [arm["counts"].get(count, "") for count in ("parameters", "multiply-adds")]
            found = [cell["figures"].get(figure, "") for figure in names]
            writer.writerow([name, cell["seed"], cell["state"], *counted, *found, cell["path"]])
    return buffer.getvalue()


def _spread(figure: Results | None) -> str:
    if figure is None:
        return "-"
    mean = f"{figure['mean']:.4g}"
    return mean if figure["deviation"] is None else f"{mean} ± {figure['deviation']:.2g}"


def _versus(difference: Results | None) -> str:
    """Says so if pairs are missing: those that are left are no fair sample of seeds."""
    if difference is None:
        return _interval(None)
    some = difference["pairs"].split()[0] != difference["pairs"].split()[2]
    return _interval(difference) + (f" over {difference['pairs']} only" if some else "")


def _interval(difference: Results | None) -> str:
    if difference is None:
        return "-"
    if difference["low"] is None:
        return f"{difference['mean']:+.4g} (one seed: no interval)"
    return f"{difference['mean']:+.4g} {_bounds(difference['low'], difference['high'])}"


def _bounds(low: float, high: float) -> str:
    return f"[{low:+.4g}, {high:+.4g}]"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _round(figure: Results | None) -> str:
    return "-" if figure is None else f"{figure['mean']:,.0f}"
