"""Write: study.json, table.md, table.csv and study.html of a study, from what its cells hold now."""

import pathlib
from collections.abc import Sequence

import markupsafe

from jaxcnn import config, files
from jaxcnn.report.page import svg, write_page
from jaxcnn.studies.budget import matched_text
from jaxcnn.studies.cell import Cell
from jaxcnn.studies.claims_page import described
from jaxcnn.studies.details import pairs, power, preregistration, tuning_rows
from jaxcnn.studies.foreseen import foreseen
from jaxcnn.studies.interval_plot import interval_svg
from jaxcnn.studies.judge import Results
from jaxcnn.studies.plots import DESCRIPTIONS, cost_plots, curve_plots, pair_plot, values_plots
from jaxcnn.studies.study import Study
from jaxcnn.studies.table import (
    CORRECTED,
    FIXED,
    bootstrapped,
    comma_separated,
    markdown,
    measured,
    over_images,
    probabilities,
    rows,
    subject,
    tabulate,
)
from jaxcnn.studies.trials import Trial, tuning_results


def write_study(
    study: Study,
    cells: Sequence[Cell],
    path: pathlib.Path,
    command: str,
    pinned: Results,
    found: Sequence[Trial] = (),
) -> Results:
    """Writes the report of a study into its directory and returns what study.json holds.

    That is what `table.tabulate` gives, and {"command", "matched": what is equal between the arms that train, as a
    sentence or "", "tuning": as `trials.tuning_results` gives it, None without one, "foreseen": as
    `foreseen.foreseen` gives it}.

    Args:
      study: with the arms as its cells have them, tuned.
      cells: all of its cells.
      path: its directory.
      command: that makes it, for the page.
      pinned: its pinned claims.
      found: its trials.
    """
    results: Results = {"command": command} | tabulate(study, cells, pinned)
    results |= {"matched": matched_text(study.matched, study.arms), "tuning": tuning_results(study, found, path)}
    results["foreseen"] = foreseen(study, found)
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
        claims=[_shown(claim, results) for claim in results["claims"]],
        settled=preregistration(results),
        tuned=tuning_rows(results),
        fixed=FIXED,
        corrected=CORRECTED,
        links={cell.name: _link(cell, path) for cell in cells},
        base=files.to_json(config.encode(next(iter(study.arms.values()))), indent=2),
    )
    return results


def _shown(claim: Results, results: Results) -> Results:
    figures = {
        claim["metric"]: subject(claim),
        "measured": measured(claim),
        "by bootstrap": bootstrapped(claim),
        "over seeds and images": over_images(claim),
        "p-value": probabilities(claim),
        "missing": "; ".join(claim["missing"]) or "-",
    }
    published = {"published": claim["published"] or "-", "different here": claim["different"] or "-"}
    shown = claim | {"figures": " ".join(filter(None, (_sentences(figures), _sentence(power(claim)))))}
    shown |= {"told": _sentences(published) if claim["published"] else ""}
    shown |= {"size": described(claim), "pairs": pairs(results, claim)}
    picture, drawn = interval_svg(claim, (), described(claim)), pair_plot(results, claim)
    shown["picture"] = picture and markupsafe.Markup(picture)
    shown["drawn"] = drawn and svg(drawn, DESCRIPTIONS["pair"])
    now = claim["now"]
    return shown | {"now": now and f"{now['text']} ({now['metric']}: {subject(now)})"}


def _sentences(found: dict[str, str]) -> str:
    """ "Measured: +0.01. P: 0.02." of what is known."""
    return " ".join(_sentence(f"{name}: {text}") for name, text in found.items() if text != "-")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _link(cell: Cell, path: pathlib.Path) -> str:
    """The cell's own report where it has one, else its directory."""
    relative = cell.path.relative_to(path)
    return str(relative / "report.html") if (cell.path / "report.html").exists() else f"{relative}/"
