"""Output: what a command prints, for a person or, with --json, for a program."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, RenderableType

from jaxcnn.files import to_json
from jaxcnn.text import print_plain


def show(value: Any, table: RenderableType, as_json: bool) -> None:
    """Prints the table, or the value as JSON."""
    if as_json:
        print(to_json(value, indent=2))
    else:
        Console().print(table)


def show_lines(*lines: str, beside_json: bool = False) -> None:
    """Prints the lines as they are, whatever the terminal's width: they hold paths and names, to be copied. With
    `beside_json` to stderr, so that stdout is JSON alone."""
    for line in lines:
        print_plain(Console(stderr=beside_json), line)


def show_failures(failures: Iterable[str]) -> int:
    """Prints each as an error, to stderr; returns the exit code: 1 if there is any."""
    failures = list(failures)
    for failure in failures:
        print_plain(Console(stderr=True), f"error: {failure}")
    return 1 if failures else 0
