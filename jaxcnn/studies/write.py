"""Write: study.json, table.md, table.csv and study.html of a study, from what its cells hold now."""

import pathlib
from collections.abc import Sequence

from jaxcnn import config, files
from jaxcnn.report.page import svg, write_page
from jaxcnn.studies.cell import Cell
from jaxcnn.studies.plots import DESCRIPTIONS, cost_plots, curve_plots, values_plots
from jaxcnn.studies.study import Study
from jaxcnn.studies.table import Results, comma_separated, markdown, measured, rows, subject, tabulate


def write_study(study: Study, cells: Sequence[Cell], path: pathlib.Path, command: str) -> Results:
    """Writes the report of a study into its directory and returns what study.json holds."""
    results = {"command": command} | tabulate(study, cells)
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
        claims=[claim | {"subject": subject(claim), "measured": measured(claim)} for claim in results["claims"]],
        links={cell.name: _link(cell, path) for cell in cells},
        base=files.to_json(config.encode(next(iter(study.arms.values()))), indent=2),
    )
    return results


def _link(cell: Cell, path: pathlib.Path) -> str:
    """The cell's own report where it has one, else its directory."""
    relative = cell.path.relative_to(path)
    return str(relative / "report.html") if (cell.path / "report.html").exists() else f"{relative}/"
