"""Verdicts: docs/studies.md, a row for every claim, from the stored results of the studies.

Command: python -m jaxcnn.studies.verdicts [--keep runs/NAME_quick ...]

`--keep` first copies the study.json and table.md of a study's directory to docs/results/studies/NAME/.
"""

import argparse
import ast
import json
import pathlib
import re
import sys
from typing import Any

from jaxcnn import files
from jaxcnn.studies.table import measured, subject

ROOT = pathlib.Path(__file__).parents[2]
KEPT = ("study.json", "table.md")
START = """# Studies: what the lectures claim, and what came out

Each row is a claim of the lectures as a study of [experiments/ablations](../experiments/ablations) put it before it was
run. `python -m jaxcnn.launch experiments/ablations/NAME.py --quick` runs one on two CPU cores; without `--quick` it is
the form for a cluster, which nobody has run yet. All figures are from the quick forms, as stored in
[results/studies](results/studies); `python -m jaxcnn.studies.verdicts` writes this page and
`tests/test_studies_page.py` compares it with them.

A verdict is decided by the 95% interval of the differences, paired by seed, and the margin in the third column:
**supported** where all of it lies above, **contradicted** where all of it lies below, else **inconclusive**. Counted
figures need no interval. The quick nets and data sets are small, so that a contradiction says that the effect does not
show there, not that the paper is wrong; the last column says what is different.

What was settled after a look at results: the reasons in the last column; and the recipes or seeds that the notes under
"The runs" name, where a verdict is weaker evidence than its interval says. The images/s of the stored tables were
measured beside other work and are no benchmark.
"""


def page(root: pathlib.Path = ROOT) -> str:
    """docs/studies.md as the files under `root` have it; a study without stored results is "not run"."""
    files = sorted((root / "experiments" / "ablations").glob("*.py"), key=_number)
    lines = [START, "| claim | study | difference that is claimed | measured | verdict | published | different here |"]
    lines.append("|" + "---|" * 7)
    ran = []
    for file in files:
        claim = _docstring(file).split(":")[0]
        stored = root / "docs" / "results" / "studies" / file.stem / "study.json"
        link = f"[{file.stem}](../experiments/ablations/{file.name})"
        if not stored.exists():
            lines.append(f"| {claim} | {link} | {_title(file)} | not run | not run | | |")
            continue
        results = json.loads(stored.read_text())
        ran.append((file.stem, results))
        lines += [row(claim, link, each) for each in results["claims"]]
    lines += ["", "## The runs", "", "| study | command | seeds | arms | commit | machine | JAX | data |"]
    lines.append("|" + "---|" * 8)
    lines += [run(name, results) for name, results in ran]
    lines += ["", *(f"- {name}: {results['note']}" for name, results in ran if results["note"])]
    return "\n".join(lines) + "\n"


def row(claim: str, link: str, result: dict[str, Any]) -> str:
    """One claim of a study."""
    claimed = f"{result['text']} ({result['metric']}: {subject(result)})"
    cells = [claim, link, claimed, measured(result), f"**{result['verdict']}**", result["published"]]
    return "| " + " | ".join([*cells, result["different"]]) + " |"


def run(name: str, results: dict[str, Any]) -> str:
    """Where the figures of one study come from."""
    environment = results["environment"]
    commits = ", ".join(f"`{commit[:10]}`" for commit in environment["commit"])
    seeds = ", ".join(map(str, results["seeds"]))
    cells = [f"[{name}](results/studies/{name}/table.md)", f"`{results['command']}`", seeds, str(len(results["arms"]))]
    cells += [commits, *("; ".join(environment[key]) for key in ("machine", "jax", "data"))]
    return "| " + " | ".join(cells) + " |"


def keep(directory: pathlib.Path, root: pathlib.Path = ROOT) -> None:
    """Copies what is stored of a study's directory, such as runs/depth_quick."""
    command = json.loads((directory / "study.json").read_text())["command"]
    name = re.search(r"(\w+)\.py", command)[1]
    target = root / "docs" / "results" / "studies" / name
    target.mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        files.write_bytes(target / file, (directory / file).read_bytes())


def _docstring(file: pathlib.Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def _title(file: pathlib.Path) -> str:
    return _docstring(file).splitlines()[0].partition(": ")[2].rstrip(".")


def _number(file: pathlib.Path) -> tuple[int, str]:
    return int(re.match(r"C(\d+)", _docstring(file))[1]), file.stem


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m jaxcnn.studies.verdicts", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--keep", nargs="*", type=pathlib.Path, default=[], help="directories of studies to store first"
    )
    for directory in parser.parse_args(arguments).keep:
        keep(directory)
    files.write_text(ROOT / "docs" / "studies.md", page())


if __name__ == "__main__":
    main(sys.argv[1:])
