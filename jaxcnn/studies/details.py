"""Details: what a study's own page has beside its verdicts, from study.json: what was settled before the first run, the
tuning, each seed's pair, what could have been seen, and the command that makes it again.
"""

from typing import Any

from jaxcnn.studies.foreseen import foreseen_text
from jaxcnn.studies.groups import all_arms
from jaxcnn.studies.study import EXACT
from jaxcnn.studies.units import figure, signed
from jaxcnn.text import plain

Results = dict[str, Any]


def preregistration(results: Results) -> list[tuple[str, str]]:
    """What was settled before the first run, and what has changed since: (name, text) of each."""
    pinned, tuning = results["pinned"], results.get("tuning")
    late = ", after cells had begun: nobody can tell what was claimed before" if pinned["late"] else ""
    seeds = ", ".join(map(str, results["seeds"]))
    rows = [
        ("settled", f"{pinned['date']}{late} ({pinned['origin']}; SHA-256 {pinned['digest'][:10]})"),
        ("question", results["question"]),
        ("arms", ", ".join(results["arms"])),
        ("figure", results["metric"]),
        ("seeds", f"{seeds}; {pinned.get('stopping') or 'it stops when all have ended, whatever they show'}"),
    ]
    if results.get("matched"):
        rows.append(("equal between the arms", results["matched"]))
    if tuning:
        fields = ", ".join(tuning["fields"])
        rows.append(("tuning", f"{fields}, by seeds {', '.join(map(str, tuning['seeds']))}, which no verdict uses"))
    rows += [("what can be seen", foreseen_text(row)) for row in results.get("foreseen", ())]
    rows += [("claim", f"{claim['text']}{_at_the_end(claim)}") for claim in results["claims"]]
    return rows + [("changed since", change) for change in pinned["changes"]]


def _at_the_end(claim: Results) -> str:
    """By how much it is claimed, and what has become of it."""
    if claim.get("within") is not None:
        by = f" (within {signed(claim['metric'], claim['within']).lstrip('+')})"
    else:
        by = f" (by more than {signed(claim['metric'], claim['margin'])})" if claim["margin"] else ""
    return f"{by}, {claim['change']}" if claim["change"] else by


def tuning_rows(results: Results) -> list[dict[str, str]]:
    """A row for each tuned arm: every point of its grid with its score, and the one that was chosen; [] without."""
    rows = []
    for name, arm in (results.get("tuning") or {"arms": {}})["arms"].items():
        tried = [f"{trial['text']}: {_score(arm['metric'], trial['score'])}" for trial in arm["trials"]]
        rows.append({"arm": name, "tried, with its " + arm["metric"]: "; ".join(tried), "chosen": _chosen(arm)})
    return rows


def _score(metric: str, value: float | None) -> str:
    return "diverged or failed" if value is None else figure(metric, value)


def _chosen(arm: Results) -> str:
    if arm["chosen"] is None:
        return "not finished"
    text = arm["trials"][arm["chosen"]]["text"]
    if arm["all_failed"]:
        return f"{text}, the first, since none has a figure"
    return f"{text}, at the edge of what was tried" if arm["edge"] else text


def pairs(results: Results, claim: Results) -> list[tuple[str, str, str, str]]:
    """Of a measured claim (seed, the higher arm's figure, the lower arm's, their difference) as text; [] of another."""
    if claim["metric"] in EXACT or claim["beyond"]:
        return []
    found = []
    for seed in results["seeds"]:
        values = [_value(results, arm, claim["metric"], seed) for arm in (claim["higher"], claim["lower"])]
        told = ["missing" if value is None else figure(claim["metric"], value) for value in values]
        high, low = values
        difference = "-" if high is None or low is None else signed(claim["metric"], high - low)
        found.append((str(seed), *told, difference))
    return found


def _value(results: Results, arm: str, metric: str, seed: int) -> float | None:
    cells = all_arms(results).get(arm, {"cells": []})["cells"]
    return next((cell["figures"].get(metric) for cell in cells if cell["seed"] == seed), None)


def power(claim: Results) -> str:
    """What the study could have seen, as a sentence; "" if that is not known."""
    smallest = claim.get("smallest")
    if smallest is None:
        return ""
    size = signed(claim["metric"], smallest).lstrip("+")
    return (
        f"Four of five such studies would find a difference that is {size} beyond the margin, and fewer a smaller one"
    )


def details(results: Results) -> list[str]:
    """All of it in Markdown, as lines, for table.md."""
    lines = ["", "## Settled before the first run", ""]
    lines += [f"- {name}: {plain(text)}" for name, text in preregistration(results)]
    tuned = tuning_rows(results)
    if tuned:
        lines += ["", "## Tuning", ""]
        for row in tuned:
            arm, *rest = row.items()
            lines.append(f"- **{plain(arm[1])}**: " + "; ".join(f"{name}: {plain(text)}" for name, text in rest))
    lines += ["", "## Each seed's pair", ""]
    for claim in results["claims"]:
        found = pairs(results, claim)
        if found:
            names = f"{plain(claim['higher'])} against {plain(claim['lower'])}, {claim['metric']}"
            lines += [f"**{plain(claim['text'])}** ({names})", ""]
            lines += [f"- seed {seed}: {high} against {low}, {difference}" for seed, high, low, difference in found]
            lines += [""]
            lines += [f"{power(claim)}.", ""] if power(claim) else []
    return [*lines, "## Reproduce", "", "```sh", results["command"], "```"]
