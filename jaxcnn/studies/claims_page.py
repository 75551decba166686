"""Claims page: docs/studies.md, for people: every claim with its verdict, its size, its uncertainty and what it means.

All figures are from the stored study.json files; the words about what a study means, and the published figures that are
drawn beside its own, are from experiments/ablations/meanings.toml.
"""

import ast
import collections
import dataclasses
import json
import pathlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxcnn.studies.groups import all_arms
from jaxcnn.studies.interval_plot import interval_svg
from jaxcnn.studies.judge import over_page
from jaxcnn.studies.study import EXACT
from jaxcnn.studies.table import subject
from jaxcnn.studies.units import figure, is_percentage, scale, signed, unit
from jaxcnn.text import plain

Results = dict[str, Any]
MARKS = {"supported": "✓", "contradicted": "✗", "inconclusive": "?"}
START = """# Studies: what came out of each claim

A course on convolutional networks makes 26 claims, such as "a deeper VGG is better". Each is tested here: two nets
that differ in one thing are trained several times, each time from other random numbers (a *seed*), and compared seed by
seed.

**✓ supported**: the difference is as claimed, beyond chance.\\
**✗ contradicted**: it is not, beyond chance.\\
**? inconclusive**: these runs cannot tell.

PICTURE

The large dot is the measured difference; the thick bar is its 95% interval over seeds: of a hundred such studies, about
95 have the true difference in their bar. The thin line allows for other test images too. Small dots are the seeds. The
shaded side is what is claimed. A diamond is what the paper measured, usually on ImageNet. *Points* are percentage
points: from 91.0% to 92.5% is +1.5 points.

**These are small nets on small data**, made to run in minutes on two CPU cores: a published effect that does not show
here is not refuted. How a verdict is decided, with every figure: [studies_table.md](studies_table.md). For a question
of your own: [own_study.md](own_study.md).
"""
FORMS = {"medium": "The medium form, for one GPU", "full": "The full form"}
GLANCE = """## At a glance

One mark for each part of a claim; below, the first difference that is measured, with its 95% interval.

| claim | what came out |
|---|---|
"""
EXAMPLE: Results = {
    "metric": "gap",
    "margin": 0.0,
    "verdict": "supported",
    "over_images": [-0.004, 0.034],
    "difference": {"mean": 0.015, "low": 0.004, "high": 0.026, "values": [0.006, 0.011, 0.013, 0.019, 0.026]},
}
"""What the page explains its pictures with: made up."""


@dataclasses.dataclass(frozen=True)
class Told:
    """A study file and what is stored of it."""

    name: str
    number: int | None
    """Of its claim, None of a study of the project's own."""
    title: str
    """The claim, from the file's first line."""
    results: Results | None
    """study.json of the quick form, None if nothing is stored."""
    larger: Mapping[str, Results]
    """{"medium" or "full": study.json of that form}, as far as it is stored."""
    meaning: str
    published: Mapping[str, Sequence[float]]
    """By claim's text: the differences that were published, in the page's unit."""


def studies(root: pathlib.Path) -> list[Told]:
    """All study files under `root`, in the order of the claims; those of the project's own come last."""
    folder = root / "experiments" / "ablations"
    texts = tomllib.loads((folder / "meanings.toml").read_text()) if (folder / "meanings.toml").exists() else {}
    found, stored = [], stored_results(root)
    for file in sorted(folder.glob("*.py")):
        first = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0]
        label, _, title = first.partition(": ")
        number = re.fullmatch(r"C(\d+)", label)
        text = texts.get(file.stem, {})
        pairs = {
            claim: pair if isinstance(pair[0], list) else [pair] for claim, pair in text.get("published", {}).items()
        }
        found.append(
            Told(
                name=file.stem,
                number=int(number[1]) if number else None,
                title=title.rstrip("."),
                results=stored.get(file.stem),
                larger={form: json.loads(kept.read_text()) for form, kept in _larger(root, file.stem) if kept.exists()},
                meaning=" ".join(text.get("meaning", "").split()),
                published={claim: [round(one - other, 10) for one, other in each] for claim, each in pairs.items()},
            )
        )
    return sorted(found, key=lambda told: (told.number is None, told.number or 0, told.name))


def stored_results(root: pathlib.Path) -> dict[str, Results]:
    """{study: its study.json} of the study files under `root` that have stored results, with the verdicts of their
    claims corrected over all of them: both pages show these."""
    folder = root / "docs" / "results" / "studies"
    names = sorted(file.stem for file in (root / "experiments" / "ablations").glob("*.py"))
    files = {name: folder / name / "study.json" for name in names}
    return over_page({name: json.loads(file.read_text()) for name, file in files.items() if file.exists()})


def _larger(root: pathlib.Path, name: str) -> list[tuple[str, pathlib.Path]]:
    return [(form, root / "docs" / "results" / "studies" / name / form / "study.json") for form in FORMS]


def pictures(told: Sequence[Told]) -> dict[str, str]:
    """{name of a file in docs/images/studies: its SVG}, one for each part of a claim that has an interval."""
    found = {"how_to_read.svg": interval_svg(EXAMPLE, [2.2], "an example of such a picture")}
    for study in told:
        for number, claim in enumerate(study.results["claims"] if study.results else (), 1):
            found[_picture(study.name, number)] = interval_svg(
                claim, study.published.get(claim["text"], ()), described(claim)
            )
    return {name: svg for name, svg in found.items() if svg is not None}


def claims_page(told: Sequence[Told]) -> str:
    """docs/studies.md."""
    lines = [START.replace("PICTURE", _image("how_to_read.svg", "an example of such a picture")), GLANCE.rstrip("\n")]
    for study in told:
        label = f"C{study.number}" if study.number else "More"
        lines.append(f"| [{label}](#{study.name}): {study.title} | {glance(study.results)} |")
    for study in told:
        lines += ["", *section(study)]
    return "\n".join(lines) + "\n"


def glance(results: Results | None) -> str:
    """A mark for each part, and the first measured difference: "? ✓<br>+0.4 points<br>+0.1 to +0.7"."""
    if results is None:
        return "not run"
    claims = results["claims"]
    marks = "\N{NO-BREAK SPACE}".join(MARKS[claim["verdict"]] for claim in claims)
    for claim in claims:
        difference = claim["difference"]
        if claim["metric"] not in EXACT and difference is not None and difference["low"] is not None:
            size = signed(claim["metric"], difference["mean"]) + (
                "" if unit(claim["metric"]) else f" ({claim['metric']})"
            )
            return f"{marks}<br>{claim['bound']} {size}<br>{_interval(claim)}".replace("> ", ">")
    return marks


def section(study: Told) -> list[str]:
    """One study's part of the page, as lines."""
    heading = f"C{study.number}: {study.title}" if study.number else study.title[:1].upper() + study.title[1:]
    file = f"[the study](../experiments/ablations/{study.name}.py)"
    lines = [f'<a id="{study.name}"></a>', "", f"## {heading}", ""]
    if study.results is None:
        return [*lines, "**Not run.**", "", study.meaning, "", f"More: {file}."]
    claims = study.results["claims"]
    lines += [verdict_line(claims), ""]
    for number, claim in enumerate(claims, 1):
        lines += [*part(study, claim), ""]
        name = _picture(study.name, number)
        if interval_svg(claim, (), ""):
            lines += [_image(name, described(claim)), ""]
    lines += [f"**What it means.** {study.meaning}", ""]
    different = dict.fromkeys(claim["different"] for claim in claims if claim["different"])
    every = f"[every figure](results/studies/{study.name}/table.md)"
    lines.append(f"*Here:* {plain('. '.join(different)) or 'as published'}. More: {every}, {file}.")
    lines.append(f"Reproduce: `{study.results['command']}`")
    for form, results in study.larger.items():
        every = f"[every figure](results/studies/{study.name}/{form}/table.md)"
        told = glance(results).replace("<br>", ", ")
        lines.append(f"*{FORMS[form]}, among the claims of this study alone:* {told}. {every}.")
    return lines


def verdict_line(claims: Sequence[Results]) -> str:
    """The one-line verdict of all parts: "**2 of 4 parts supported**, **2 inconclusive** (too few seeds)"."""
    found = collections.Counter(claim["verdict"] for claim in claims)
    counted = sum(claim["verdict"] == "supported" and claim["metric"] in EXACT for claim in claims)
    if len(claims) == 1:
        return f"**{claims[0]['verdict'].capitalize()}**{_why(claims)}."
    parts = []
    for verdict in ("supported", "contradicted", "inconclusive"):
        if found[verdict]:
            of = f" of {len(claims)} parts" if not parts else ""
            said = f"**{found[verdict]}{of} {verdict}**"
            if verdict == "supported" and counted:
                said += f" ({counted} by counting)"
            if verdict == "inconclusive":
                said += _why([claim for claim in claims if claim["verdict"] == verdict])
            parts.append(said)
    return f"{', '.join(parts)}."


def _why(claims: Sequence[Results]) -> str:
    """The reasons of inconclusive parts, each once: " (too few seeds)"."""
    open_claims = [claim for claim in claims if claim["verdict"] == "inconclusive"]
    reasons = dict.fromkeys(re.sub(r" \(p = .*?\)", "", claim["reason"]).split(":")[0] for claim in open_claims)
    return f" ({'; '.join(reasons)})" if reasons else ""


def part(study: Told, claim: Results) -> Iterator[str]:
    """One part of a claim: its text, its verdict, its size beside the published one, and the reason."""
    changed = f" (**{claim['change']}**)" if claim["change"] else ""
    yield f"**{MARKS[claim['verdict']]} {plain(claim['text'])}**: {claim['verdict']}{changed}\\"
    published = study.published.get(claim["text"], ())
    beside = ""
    if published:
        beside = f" Published: {' and '.join(signed_in_unit(claim['metric'], value) for value in published)}"
        beside += f" ({plain(claim['published'])})."
    elif claim["published"] not in ("", "-"):
        beside = f" Published: {plain(claim['published'])}."
    yield f"{described(claim)}{_arms(study, claim)}.{beside}{_could_be_seen(claim)}"
    if claim["now"]:
        now = claim["now"]
        yield f"The study file has now: {plain(now['text'])} ({plain(now['metric'])}: {plain(subject(now))})."


def _could_be_seen(claim: Results) -> str:
    """Of an inconclusive part with enough seeds: what size it would have taken."""
    smallest = claim.get("smallest")
    if claim["verdict"] != "inconclusive" or smallest is None:
        return ""
    size = signed(claim["metric"], smallest).lstrip("+")
    return f" Four of five such studies would see a difference that is {size} beyond the line."


def described(claim: Results) -> str:
    """Size and uncertainty: "+0.4 points, 95% interval +0.1 to +0.7, 5 seeds"."""
    difference, metric = claim["difference"], claim["metric"]
    if difference is None:
        return f"No figure: {claim['reason']}"
    bound = f"{claim['bound']} " if claim["bound"] else ""
    if metric in EXACT:
        return f"{signed(metric, difference['mean'])}, counted"
    said = f"{bound}{signed(metric, difference['mean'])}"
    said = f"{said[:1].upper()}{said[1:]}"
    line = f"; claimed: more than {signed(metric, claim['margin'])}" if claim["margin"] else ""
    if claim.get("within") is not None:
        line = f"; claimed: nearer than {signed(metric, claim['within']).lstrip('+')}, to either side"
    if difference["low"] is None:
        return f"{said}, one seed: no interval{line}"
    seeds = claim["pairs"].removesuffix(" seeds").split(" of ")
    count = f"{seeds[0]} seeds" if seeds[0] == seeds[1] else claim["pairs"]
    return f"{said}, 95% interval {_interval(claim)}, {count}{line}"


def _interval(claim: Results) -> str:
    low, high = (signed(claim["metric"], claim["difference"][end], with_unit=False) for end in ("low", "high"))
    return f"{low} to {high}"


def _arms(study: Told, claim: Results) -> str:
    """The two arms' own figures: " (VGG-B 91.6%, VGG-A 91.9%)"; "" of a difference of differences."""
    if claim["beyond"] or study.results is None:
        return ""
    found = []
    for name in (claim["higher"], claim["lower"]):
        arm = all_arms(study.results).get(name)
        if arm is None:
            return ""
        mean = arm["counts"].get(claim["metric"], (arm["figures"].get(claim["metric"]) or {}).get("mean"))
        if mean is None:
            return ""
        found.append(f"{plain(name)} {figure(claim['metric'], mean)}")
    return f" ({', '.join(found)}{_of(claim['metric'])})"


def _of(metric: str) -> str:
    """What the arms' figures are of, where their unit does not say it."""
    return f"; {metric}" if is_percentage(metric) or not unit(metric) else ""


def signed_in_unit(metric: str, value: float) -> str:
    """A difference that is in its unit already."""
    return signed(metric, value / scale(metric))


def _picture(name: str, number: int) -> str:
    return f"{name}_{number}.svg"


def _image(name: str, description: str) -> str:
    return f'<img src="images/studies/{name}" width="360" alt="{description}">'
