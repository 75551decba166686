"""Verdicts: docs/studies.md with its pictures, for people, and docs/studies_table.md, a row for every claim, both from
the stored results of the studies.

Command: python -m jaxcnn.studies.verdicts [--keep runs/NAME_quick ...] [--again] [--pin]

`--keep` first copies the study.json, table.md and claims.json of a study's directory to docs/results/studies/NAME/; of
a medium or a full form to NAME/medium/ or NAME/full/, which the first page tells beside the quick form.
`--again` judges all stored results again, from the figures of the cells in them, by the rule of today; study.json and
table.md are written anew, and the figures stay. It also compares the pinned claims with the study files of today.
`--pin` writes a claims.json for stored results that have none: the claims of their first stored version in git.
"""

import argparse
import ast
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import textwrap

from jaxcnn import files
from jaxcnn.studies.claims_page import claims_page, pictures, stored_results, studies
from jaxcnn.studies.error_rates import error_rates_table, error_rates_text, read_error_rates
from jaxcnn.studies.judge import Results
from jaxcnn.studies.pinned import claims_of, digest, matched, read, same_registration, summary
from jaxcnn.studies.study import Study
from jaxcnn.studies.table import (
    FIXED,
    bootstrapped,
    judged,
    markdown,
    markdown_row,
    measured,
    over_images,
    probabilities,
    smallest,
    subject,
    verdict,
)

ROOT = pathlib.Path(__file__).parents[2]
ANEW = "the study file was registered anew since, with other arms or seeds, and was not run again yet"
KEPT = ("study.json", "table.md", "claims.json")
START = """# Studies: every figure

[studies.md](studies.md) says the same in pictures and plain words.

Each row is a claim of [courses.md](courses.md), as a study of [experiments/ablations](../experiments/ablations) put it
before its first run; a claim that the study file has in another form now is marked **changed after the start**, with
both texts.
`python -m jaxcnn.launch experiments/ablations/NAME.py --quick` runs one on two CPU cores; without `--quick` it is the
form for a cluster, which nobody has run yet. All figures are from the quick forms, as stored in
[results/studies](results/studies); `python -m jaxcnn.studies.verdicts` writes both pages and
`tests/test_studies_page.py` compares them with them and with the study files.

A verdict is decided by the differences, paired by seed, and the margin in the third column. **Supported** needs at
least five pairs and two tests on one side that agree that the mean lies above the margin: Student's t at 2.5%, whose
interval then lies above it as a whole, and the exact sign-flip test at 2.5%, or with five seeds at 1/32, which they can
attain. **Contradicted** needs the same below, else a claim is **inconclusive**, with the reason. Since each claim has
its chance to be wrong, the p-values are corrected by Holm's method: in the table of a study over its claims, on these
pages over all, and here the latter decides. A cell that failed, or diverged without a value that the study set for that
before, leaves its pair missing, and a claim is decided only if it would be with every value that the missing figures
can take. A difference of capped figures is "at least" what is shown. That two arms are alike ("nearer than") takes two
one-sided tests. Counted figures need no test. The smallest effect seen is how far beyond its margin a difference must
be to be decided in 80% of such studies, by the deviation that was found. The quick nets and data sets are small, so
that a contradiction says that the effect does not show there, not that the paper is wrong; the last column says what is
different.

Each study was registered anew in November 2026, after its first results had been seen: on harder data or with thinner
nets where the first form could not have seen the effect, with eight seeds in most, and with every arm that trains tuned
by the same budget on other images (but for batch_norm, which compares rates). Claims and margins stayed as they were;
accuracies are over all test images now, and not over the first of them. Tables and pages of the studies show the grid
and what was chosen; where it is at the edge of its grid, a better value may lie beyond. All were run again since; one
that is registered anew later is marked below the list of runs until it is run.

ERRORS

TABLE

FIXED

What was settled after a look at results: the form of each study, as above; the reasons in the last column; and the
recipes or seeds that the notes under "The runs" name, where a verdict is weaker evidence than its interval says. The
images/s of the stored tables were measured beside other work and are no benchmark.
"""


def table_page(root: pathlib.Path = ROOT) -> str:
    """docs/studies_table.md as the files under `root` have it; a study without stored results is "not run"."""
    files = sorted((root / "experiments" / "ablations").glob("*.py"), key=_number)
    rates = read_error_rates(ROOT)
    start = START.replace("FIXED", textwrap.fill(FIXED, 120)).replace("TABLE", error_rates_table(rates))
    start = start.replace("ERRORS", textwrap.fill(error_rates_text(rates), 120))
    columns = ("claim", "study", "difference that is claimed", "measured, 95% interval over seeds")
    columns += ("by bootstrap", "over seeds and images", "p", "smallest effect seen", "verdict")
    columns += ("published", "different here")
    lines = [start, markdown_row(columns), "|" + "---|" * len(columns)]
    corrected = stored_results(root)
    ran = []
    for file in files:
        label = _docstring(file).split(":")[0]
        link = f"[{file.stem}](../experiments/ablations/{file.name})"
        if file.stem not in corrected:
            lines.append(f"| {label} | {link} | {_title(file)} | not run | - | - | - | - | not run | - | - |")
            continue
        results = corrected[file.stem]
        ran.append((file.stem, results))
        lines += [row(label, link, each) for each in results["claims"]]
    lines += ["", "## The runs", "", "| study | command | seeds | arms | commit | machine | JAX | data |"]
    lines.append("|" + "---|" * 8)
    lines += [run(name, results) for name, results in ran]
    lines += ["", *(f"- {name}: {results['note']}" for name, results in ran if results["note"])]
    lines += [""] * any(results["pinned"]["changes"] for _, results in ran)
    lines += [f"- {name}: {each}." for name, results in ran for each in results["pinned"]["changes"]]
    return "\n".join(lines) + "\n"


def row(label: str, link: str, result: Results) -> str:
    """One claim of a study."""
    changed = f" (**{result['change']}**)" if result["change"] else ""
    said = f"{result['text']} ({result['metric']}: {subject(result)}){changed}"
    if result["now"]:
        said += f"; the file has now: {result['now']['text']} ({result['now']['metric']}: {subject(result['now'])})"
    return markdown_row(
        [
            label,
            link,
            said,
            measured(result),
            bootstrapped(result),
            over_images(result),
            probabilities(result),
            smallest(result),
            verdict(result),
            result["published"],
            result["different"],
        ]
    )


def run(name: str, results: Results) -> str:
    """Where the figures of one study come from."""
    environment = results["environment"]
    commits = ", ".join(f"`{commit[:10]}`" for commit in environment["commit"])
    seeds = ", ".join(map(str, results["seeds"]))
    cells = [f"[{name}](results/studies/{name}/table.md)", f"`{results['command']}`", seeds, str(len(results["arms"]))]
    cells += [commits, *("; ".join(environment[key]) for key in ("machine", "jax", "data"))]
    return "| " + " | ".join(cells) + " |"


def keep(directory: pathlib.Path, root: pathlib.Path = ROOT) -> None:
    """Copies what is stored of a study's directory, such as runs/depth_quick; data beside `runs` keeps no more of its
    path than that, since where it lies on a machine is nobody's business.

    Raises:
      SystemExit: it was run with --debug.
    """
    command = json.loads((directory / "study.json").read_text())["command"]
    if "--debug" in command.split():
        raise SystemExit(f"{directory} was run with --debug, on made-up images: nothing in it is a result")
    name = re.findall(r"(\w+)\.py", command)[0]
    form = "" if "--quick" in command.split() else "medium" if "--medium" in command.split() else "full"
    target = root / "docs" / "results" / "studies" / name / form
    target.mkdir(parents=True, exist_ok=True)
    here = f"{directory.absolute().parent.parent}/"
    for file in KEPT:
        files.write_text(target / file, (directory / file).read_text().replace(here, ""))


def judge_again(name: str, root: pathlib.Path = ROOT) -> None:
    """Judges stored results from the figures of their cells, and compares their pinned claims with the study file."""
    folder = root / "docs" / "results" / "studies" / name
    results = again(json.loads((folder / "study.json").read_text()), read(folder / "claims.json"), study_of(name, root))
    files.write_json(folder / "study.json", results)
    files.write_text(folder / "table.md", markdown(results))


def again(results: Results, pinned: Results, study: Study) -> Results:
    """The stored results with claims, verdicts and differences made anew.

    Of a study that was registered anew since, what the file says of its setting is not that of the stored runs: each
    claim keeps what was said of it with them.
    """
    now = {name: results[name] for name in ("seeds", "diverged")} | {"reach": _reach(results)}
    claims = matched(pinned, claims_of(study))
    about = summary(pinned, now)
    if not same_registration(pinned, study):
        said = {
            claim["text"]: {name: claim[name] for name in ("published", "different")} for claim in results["claims"]
        }
        claims = [claim | said.get(claim["text"], {}) for claim in claims]
        about["changes"].append(ANEW)
    return judged(results, claims) | {"pinned": about}


def study_of(name: str, root: pathlib.Path = ROOT) -> Study:
    """The quick form of a study file as it is now."""
    file = root / "experiments" / "ablations" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"study_{name}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.study("quick")


def pin_stored(name: str, root: pathlib.Path = ROOT) -> None:
    """Writes claims.json beside stored results from their first version in git, unless it is there."""
    stored = f"docs/results/studies/{name}/study.json"
    target = root / "docs" / "results" / "studies" / name / "claims.json"
    if target.exists():
        return
    first = _git(root, "log", "--format=%h %cs", "--", stored).splitlines()[-1]
    commit, date = first.split()
    results = json.loads(_git(root, "show", f"{commit}:{stored}"))
    fields = ("text", "metric", "higher", "lower", "beyond", "margin", "published", "different")
    pinned = {"date": date, "origin": f"as first stored, commit {commit}", "late": False}
    pinned["claims"] = [{field: claim[field] for field in fields} for claim in results["claims"]]
    pinned |= {"seeds": results["seeds"], "reach": _reach(results)}
    pinned["diverged"] = results.get("diverged", json.loads((root / stored).read_text())["diverged"])
    files.write_json(target, pinned | {"digest": digest(pinned)})


def _reach(results: Results) -> dict[str, float]:
    """Study.reach, from the names of the cells' figures."""
    names = {name for arm in results["arms"].values() for cell in arm["cells"] for name in cell["figures"]}
    parts = [name.removeprefix("epochs to ").rpartition(" ") for name in sorted(names) if name.startswith("epochs to ")]
    return {figure: float(threshold) for figure, _, threshold in parts}


def _git(root: pathlib.Path, *words: str) -> str:
    return subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=True).stdout


def _docstring(file: pathlib.Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def _title(file: pathlib.Path) -> str:
    return _docstring(file).splitlines()[0].partition(": ")[2].rstrip(".")


def _number(file: pathlib.Path) -> tuple[int, str]:
    """The order of the pages: by claim, and the project's own questions last."""
    number = re.match(r"C(\d+): ", _docstring(file))
    return int(number[1]) if number else 10**6, file.stem


def write_pages(root: pathlib.Path = ROOT) -> None:
    """Writes both pages and the pictures; a picture that no claim has any more goes."""
    told, docs = studies(root), root / "docs"
    made = pictures(told)
    folder = docs / "images" / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        if old.name not in made:
            old.unlink()
    for name, svg in made.items():
        files.write_text(folder / name, svg)
    files.write_text(docs / "studies.md", claims_page(told))
    files.write_text(docs / "studies_table.md", table_page(root))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxcnn.studies.verdicts", description="the pages of studies from the stored results"
    )
    parser.add_argument(
        "--keep", nargs="*", type=pathlib.Path, default=[], help="directories of studies to store first"
    )
    parser.add_argument("--again", action="store_true", help="judge all stored results again, by the rule of today")
    parser.add_argument("--pin", action="store_true", help="pin the claims of stored results that have no claims.json")
    chosen = parser.parse_args(arguments)
    for directory in chosen.keep:
        keep(directory)
    names = sorted(file.parent.name for file in (ROOT / "docs" / "results" / "studies").glob("*/study.json"))
    for name in names if chosen.pin else ():
        pin_stored(name)
    for name in names if chosen.again else ():
        judge_again(name)
    write_pages()


if __name__ == "__main__":
    main(sys.argv[1:])
