"""Text: names as they come, of classes, files, paths and arms, made safe for a terminal, a page and a figure.

A name may hold anything: rich's markup (`[bird]`, `:dog:`), matplotlib's (`$x$`, a leading `_`), bytes that are no
UTF-8 (Python holds them as surrogates), control characters. Each is shown as it is where that is possible, and as
U+FFFD elsewhere; a terminal that lacks a character shows `?`.
"""

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# Control characters, separators of lines, marks that turn the direction of writing, and surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(name: object) -> str:
    """The name on one line, with U+FFFD for each character that moves a terminal's cursor or cannot be encoded.

    It may hold brackets and colons: print it by `print_plain`, or in a `table` of this file, without markup.
    """
    return _UNSAFE.sub(UNKNOWN, str(name))


def plain_lines(text: str) -> str:
    """`plain` for each line of a text."""
    return "\n".join(plain(line) for line in text.split("\n"))


def cell(value: object) -> Text:
    """A value as it is in a cell or a heading of a rich table."""
    return Text(plain(value))


def table(columns: Sequence[object], rows: Iterable[Sequence[object]] = (), **options: Any) -> Table:
    """A rich table of plain text; `options` are rich's, such as title."""
    made = Table(**options)
    for column in columns:
        made.add_column(cell(column), overflow="fold")
    for row in rows:
        made.add_row(*map(cell, row))
    return made


def print_plain(console: Console, text: str) -> None:
    """Prints the text as it is, without markup and without a break of its own: it may hold paths, to be copied."""
    console.print(Text(plain_lines(text)), soft_wrap=True)


def counted(number: int, things: str) -> str:
    """ "1 device", "1,024 devices": the number with the plural of what it counts, which ends in "s"."""
    return f"{number:,} {things.removesuffix('s') if number == 1 else things}"


def in_figure(name: object) -> str:
    """A label for matplotlib that shows the name: no mathematics, and in the legend whatever it begins with."""
    text = plain(name).replace("$", r"\$")
    # Labels with an underscore in front are left out of legends; a word joiner has no width.
    return f"\N{WORD JOINER}{text}" if text.startswith("_") else text


def replace_unknown(*streams: Any) -> None:
    """Lets these streams, such as sys.stdout, write `?` for what their encoding lacks, and not raise."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
