"""Table: the finished cells of a study as figures per arm, paired differences and verdicts; study.json is made here."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcnn import config
from jaxcnn.experiment import Experiment
from jaxcnn.studies.cell import Cell, counts, figures, reaches
from jaxcnn.studies.statistics import Difference, claimed, judge, paired, spread
from jaxcnn.studies.study import EXACT, Claim, Study, folder
from jaxcnn.train.record import Record

Results = dict[str, Any]


def tabulate(study: Study, cells: Sequence[Cell]) -> Results:
    """What the cells show so far, as JSON; every cell is in it, whatever its state.

    {"question", "note", "metric", "seeds", "arms": {name: {"folder", "counts", "figures": {figure: {"mean",
    "deviation", "n"}}, "versus_baseline", "changed", "cells": [{"seed", "path", "state", "message", "figures"}]}},
    "claims": [{..., "difference", "verdict", "ours"}], "environment"}; NaN is null.
    """
    measured = {cell: figures(cell, study) for cell in cells}
    arms: Results = {}
    baseline = next(iter(study.arms))
    for name, arm in study.arms.items():
        own = [cell for cell in cells if cell.arm_name == name]
        counted = counts(arm)
        names = dict.fromkeys(figure for cell in own for figure in measured[cell])
        values = {figure: _by_seed(own, measured, figure) for figure in names}
        versus = None if name == baseline else _difference(_against(study, name, baseline, cells, measured))
        arms[name] = {
            "folder": folder(name),
            "counts": counted,
            "figures": {figure: _clean(vars(spread([*by_seed.values()]))) for figure, by_seed in values.items()},
            "versus_baseline": versus,
            "changed": _changed(study.arms[baseline], arm),
            "cells": [
                {
                    "seed": cell.seed,
                    "path": f"cells/{folder(name)}/seed{cell.seed}",
                    "state": cell.state(),
                    "message": cell.message(),
                    "figures": measured[cell],
                    "unreached": _unreached(cell, study),
                }
                for cell in own
            ],
        }
    return {
        "question": study.question,
        "note": study.note,
        "metric": study.metric,
        "seeds": list(study.seeds),
        "diverged": dict(study.diverged),
        "arms": arms,
        "claims": [_claim(claim, study, cells, measured, arms) for claim in study.claims],
        "environment": _environment(cells),
    }


def _by_seed(cells: Sequence[Cell], measured: Mapping[Cell, dict[str, float]], figure: str) -> dict[int, float]:
    return {cell.seed: measured[cell][figure] for cell in cells if figure in measured[cell]}


def _against(
    study: Study, arm: str, other: str, cells: Sequence[Cell], measured: Mapping[Cell, dict[str, float]]
) -> Difference | None:
    sides = [
        _by_seed([cell for cell in cells if cell.arm_name == name], measured, study.metric) for name in (arm, other)
    ]
    return paired(*sides)


def _claim(claim: Claim, study: Study, cells: Sequence[Cell], measured: Mapping, arms: Results) -> Results:
    metric = claim.metric or study.metric
    by_arm = {}
    for name in study.arms:
        own = [cell for cell in cells if cell.arm_name == name]
        counted = arms[name]["counts"]
        by_arm[name] = (
            {seed: counted[metric] for seed in study.seeds} if metric in counted else _by_seed(own, measured, metric)
        )
    difference = claimed(claim, by_arm)
    pairs = 0 if difference is None else len(difference.values)
    return {
        "text": claim.text,
        "metric": metric,
        "higher": claim.higher,
        "lower": claim.lower,
        "beyond": list(claim.beyond) if claim.beyond else None,
        "margin": claim.margin,
        "difference": _difference(difference),
        "pairs": f"{pairs} of {len(study.seeds)} seeds",
        "verdict": judge(claim, metric, difference),
        "published": claim.published,
        "different": claim.different,
    }


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
    lines = Record(cell.path).metrics()
    return [
        f"epochs to {figure} {threshold:g}"
        for figure, threshold in study.reach.items()
        if not reaches(lines, *figure.rsplit(" ", 1), threshold)
    ]


def _environment(cells: Sequence[Cell]) -> Results:
    """Commits, machine and data of the cells that have begun; several values where they differ."""
    found: dict[str, list[Any]] = {"commit": [], "dirty": [], "machine": [], "jax": [], "data": []}
    for cell in cells:
        if not (cell.path / "environment.json").exists():
            continue
        environment = Record(cell.path).environment()
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


def _difference(difference: Difference | None) -> Results | None:
    return None if difference is None else _clean(vars(difference))


def _clean(values: Mapping[str, Any]) -> Results:
    """NaN becomes None, which JSON has."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


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
            "difference to the baseline": _interval(arm["versus_baseline"]),
            "parameters": _count(arm["counts"].get("parameters")),
            "multiply-adds": _count(arm["counts"].get("multiply-adds")),
            "images per second": _round(arm["figures"].get("images per second")),
        }
        for figure in extra:
            if figure not in row:
                bound = ">= " if any(figure in cell["unreached"] for cell in arm["cells"]) else ""
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
    lines += ["| " + " | ".join(table[0]) + " |", "|" + "---|" * len(table[0])]
    lines += ["| " + " | ".join(row.values()) + " |" for row in table]
    lines += [
        "",
        f"Mean ± standard deviation over seeds {', '.join(map(str, results['seeds']))}; differences are paired,",
    ]
    lines += ["with 95% intervals.", ""]
    lines += ["| claim | figure | difference, 95% interval | verdict | published | different here |", "|" + "---|" * 6]
    for claim in results["claims"]:
        cells = [
            claim["text"],
            f"{claim['metric']}: {subject(claim)}",
            measured(claim),
            f"**{claim['verdict']}**",
            claim["published"] or "-",
            claim["different"] or "-",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def subject(claim: Results) -> str:
    """What is compared with what: "gap - fc > -0.01"."""
    text = f"{claim['higher']} - {claim['lower']}"
    if claim["beyond"]:
        text = f"({text}) - ({claim['beyond'][0]} - {claim['beyond'][1]})"
    return f"{text} > {claim['margin']:g}"


def measured(claim: Results) -> str:
    """The claim's difference: "+0.012 [+0.003, +0.021] over 3 of 3 seeds", or "+333,504 (counted)"."""
    if claim["metric"] in EXACT and claim["difference"]:
        return f"{claim['difference']['mean']:+,.0f} (counted)"
    return f"{_interval(claim['difference'])} over {claim['pairs']}"


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


def _interval(difference: Results | None) -> str:
    if difference is None:
        return "-"
    if difference["low"] is None:
        return f"{difference['mean']:+.4g} (one seed: no interval)"
    return f"{difference['mean']:+.4g} [{difference['low']:+.4g}, {difference['high']:+.4g}]"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _round(figure: Results | None) -> str:
    return "-" if figure is None else f"{figure['mean']:,.0f}"
