"""All models side by side: what the catalogue says and what their shapes count, for terminal and docs/models.md."""

import dataclasses
import pathlib
from collections.abc import Iterable

from rich.console import Console, Group
from rich.progress import track
from rich.table import Table

from jaxcnn import files, models
from jaxcnn.errors import UserError
from jaxcnn.models import MODELS, create_model
from jaxcnn.models.catalogue import CATALOGUE
from jaxcnn.summary.summary import input_shape, summarize
from jaxcnn.summary.table import plain_table, rounded, size

COUNTS = pathlib.Path(models.__file__).with_name("counts.tsv")
"""What count_all has counted."""
BEGIN, END = "<!-- models: begin -->", "<!-- models: end -->"
HEADER = (
    "| name | paper | input | parameters | multiply-adds | top-1 | top-5 | accuracy from |\n"
    "|---|---|---|--:|--:|--:|--:|---|"
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One model."""

    name: str
    paper: str
    """Authors, as they are cited."""
    year: int | None
    input_shape: tuple[int, int, int]
    parameters: int
    multiply_adds: int
    top1: float | None
    """Published accuracy in percent."""
    top5: float | None
    source: str
    """Of the accuracies."""


def overview(names: Iterable[str]) -> list[Row]:
    """A row per model, from the counts that are stored; `count_all` stores them, and a test counts them anew."""
    stored = stored_counts()
    names = list(names)
    counted = {one.name: one for one in count([name for name in names if name not in stored])}
    return [row(name, *stored[name]) if name in stored else counted[name] for name in names]


def stored_counts() -> dict[str, tuple[int, int]]:
    """{name: (parameters, multiply-adds)} of counts.tsv."""
    lines = [line.split("\t") for line in COUNTS.read_text().splitlines()[1:]]
    return {name: (int(parameters), int(multiply_adds)) for name, parameters, multiply_adds in lines}


def count_all() -> None:
    """Counts every model anew and stores the counts: a minute."""
    lines = [f"{one.name}\t{one.parameters}\t{one.multiply_adds}\n" for one in count(MODELS)]
    files.write_text(COUNTS, "name\tparameters\tmultiply_adds\n" + "".join(lines))


def count(names: Iterable[str]) -> list[Row]:
    """A row per model, counted at the paper's input size: up to some seconds for the deepest nets."""
    names = list(names)
    silent = not Console(stderr=True).is_terminal
    rows = []
    for name in track(names, "counting", console=Console(stderr=True), transient=True, disable=silent):
        summary = summarize(create_model(name), input_shape(name))
        rows.append(row(name, summary.parameters, summary.multiply_adds))
    return rows


def row(name: str, parameters: int, multiply_adds: int) -> Row:
    """The row of a model that is counted already."""
    entry = CATALOGUE[name]
    authors = entry.paper.split(", ")[0]
    return Row(
        *(name, authors, entry.year, entry.input_shape, parameters, multiply_adds),
        *(entry.top1, entry.top5, entry.source),
    )


def overview_table(rows: list[Row], width: int = 120) -> Group:
    """For a terminal of this width: below 100, with first authors only and rounded. The sources are listed below."""
    narrow = width < 100
    table = plain_table()
    table.add_column("name", overflow="fold", min_width=12)
    table.add_column("paper", no_wrap=True)
    counts = ("params", "MACs") if narrow else ("parameters", "multiply-adds")
    for name in ("input", *counts, "top-1", "top-5"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("from", no_wrap=True)
    sources = list(dict.fromkeys(row.source for row in rows if row.source))
    for one in rows:
        table.add_row(
            one.name,
            _cited(one, narrow),
            size(one.input_shape),
            rounded(one.parameters) if narrow else f"{one.parameters:,}",
            rounded(one.multiply_adds),
            _percent(one.top1),
            _percent(one.top5),
            f"({sources.index(one.source) + 1})" if one.source else "",
        )
    notes = Table.grid(padding=(0, 1, 0, 0))
    for number, source in enumerate(sources, 1):
        notes.add_row(f"({number})", source)
    return Group(
        table,
        *(["Published accuracy in percent, ImageNet's validation set unless said otherwise:", notes] * bool(sources)),
    )


def markdown(rows: list[Row]) -> str:
    """For docs/models.md, without its markers."""
    return "\n".join([HEADER, *map(markdown_row, rows)])


def markdown_row(one: Row) -> str:
    """A line of the table in docs/models.md."""
    cells = (
        f"`{one.name}`",
        _cited(one),
        size(one.input_shape),
        f"{one.parameters:,}",
        rounded(one.multiply_adds),
        _percent(one.top1),
        _percent(one.top5),
        one.source,
    )
    return f"| {' | '.join(cells)} |"


def block(text: str) -> str:
    """What stands between the markers in a Markdown text.

    Raises:
      UserError: they are not both there.
    """
    if BEGIN not in text or END not in text:
        raise UserError(f"there is no {BEGIN} with {END} after it")
    return text.split(BEGIN)[1].split(END)[0].strip()


def update(file: pathlib.Path, rows: list[Row]) -> None:
    """Rewrites the table between the markers in a Markdown file.

    Raises:
      UserError: the file is not there or has no markers.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    text = file.read_text()
    try:
        block(text)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    files.write_text(file, f"{before}{BEGIN}\n{markdown(rows)}\n{END}{after}")


def _cited(one: Row, briefly: bool = False) -> str:
    """ "Simonyan & Zisserman 2015", briefly "Simonyan 2015"."""
    if one.year is None:
        return one.paper
    return f"{one.paper.split()[0] if briefly else one.paper} {one.year}"


def _percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{accuracy:.1f}"
