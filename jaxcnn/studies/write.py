"""Write: study.json, table.md, table.csv and study.html of a study, from what its cells hold now."""

import pathlib
from collections.abc import Sequence
from typing import Any

from jaxcnn import config, files
from jaxcnn.report.page import svg, write_page
from jaxcnn.studies.cell import Cell
from jaxcnn.studies.judge import Results
from jaxcnn.studies.plots import DESCRIPTIONS, cost_plots, curve_plots, values_plots
from jaxcnn.studies.study import Study
from jaxcnn.studies.table import (
    CORRECTED,
    FIXED,
    bootstrapped,
    comma_separated,
    markdown,
    measured,
    over_images,
    pinned_lines,
    probabilities,
    rows,
    smallest,
    subject,
    tabulate,
)


def write_study(study: Study, cells: Sequence[Cell], path: pathlib.Path, command: str, pinned: Results) -> Results:
    """Writes the report of a study into its directory and returns what study.json holds."""
    results = {"command": command} | tabulate(study, cells, pinned)
    files.write_json(path / "study.json", results)
    files.write_text(path / "table.md", markdown(results))
    files.write_text(path / "table.csv", comma_separated(results))
    figures = values_plots(results) | curve_plots(cells) | cost_plots(results)
    write_page(
        path / "study.html",
        "study.html",
        title=study.question,
        results=results,
        rows=rows(results),
        plots={name: svg(figure, DESCRIPTIONS[name]) for name, figure in figures.items()},
        claims=[_shown(claim) for claim in results["claims"]],
        fixed=FIXED,
        corrected=CORRECTED,
        pinned=pinned_lines(results),
        links={cell.name: _link(cell, path) for cell in cells},
        base=files.to_json(config.encode(next(iter(study.arms.values()))), indent=2),
    )
    return results


def _shown(claim: Any) -> Results:
    shown = claim | {"subject": subject(claim), "measured": measured(claim), "wider": over_images(claim)}
    shown |= {"probabilities": probabilities(claim), "seen": smallest(claim), "by_bootstrap": bootstrapped(claim)}
    now = claim["now"]
    return shown | {"now": now and f"{now['text']} ({now['metric']}: {subject(now)})"}


def _link(cell: Cell, path: pathlib.Path) -> str:
    """The cell's own report where it has one, else its directory."""
    relative = cell.path.relative_to(path)
    return str(relative / "report.html") if (cell.path / "report.html").exists() else f"{relative}/"
