"""The commands and snippets of README.md, docs/ and the experiments, read from the files themselves."""

import ast
import dataclasses
import inspect
import itertools
import pathlib
import re
import shlex
from collections.abc import Iterator
from typing import Literal, get_args, get_origin

from tests.tiny_runs import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))
STUDIES = sorted((ROOT / "experiments" / "ablations").glob("*.py"))

SHALLOW: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("resnet_imagenet", "resnet_strikes_back_imagenet", "resnet_fast_imagenet", "senet_imagenet"),
        ("--model.backbone.depth", "1", "1", "1", "1"),
    ),
    "densenet_imagenet": ("--model.backbone.depth", "1", "1", "1", "1"),
    "densenet_cifar10": ("--model.backbone.depth", "1", "1", "1"),
    "resnet_cifar10": ("--model.backbone.depth", "1", "1", "1"),
    "efficientnet_imagenet": ("--model.backbone.depth", "0.1"),
    "inception_imagenet": ("--model.backbone.modules", "Mixed_5b", "Mixed_6a", "Mixed_6e", "Mixed_7a"),
    "alexnet_imagenet": (),
    "zfnet_imagenet": (),
    "googlenet_imagenet": ("--model.backbone.modules", "3a", "4a", "4d", "5a"),
    "wide_resnet_cifar10": ("--model.backbone.depth", "10"),
    "airbench_cifar10": (),
}
"""Recipes of many nets, and what makes them shallow: tracing a deep one takes seconds (tests/test_recipes.py)."""


@dataclasses.dataclass(frozen=True)
class Command:
    """One command, `words` as the shell would split it, with the place that tells people to use it."""

    where: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join(self.words)}"


@dataclasses.dataclass(frozen=True)
class Snippet:
    """A block of Python."""

    where: str
    code: str


def blocks(page: pathlib.Path) -> list[Command | Snippet]:
    """The commands and snippets of a page, in its order. Fails for a block that is not sh, python or text."""
    found: list[Command | Snippet] = []
    text = page.read_text()
    for match in re.finditer(r"^( *)```([^\n]*)\n(.*?)^\1```$", text, re.M | re.S):
        first = text[: match.start()].count("\n") + 2
        indent, language, body = match.groups()
        body = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        where = f"{page.relative_to(ROOT)}:{first}"
        assert language in ("sh", "python", "text"), (
            f"{where}: a block of {language or 'no language'}: sh, python or text"
        )
        if language == "python":
            found.append(Snippet(where, body))
        elif language == "sh":
            body = body.replace("\\\n", "")
            for number, line in enumerate(body.splitlines()):
                found += split_line(line, f"{page.relative_to(ROOT)}:{first + number}")
    return found


def split_line(line: str, where: str) -> list[Command]:
    """The commands of a line of shell, which && or ; may join."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|")
    lexer.whitespace_split = True
    words = list(lexer)
    parts = [
        list(part) for joined, part in itertools.groupby(words, lambda word: word in ("&&", ";", "|")) if not joined
    ]
    return [Command(where, tuple(part)) for part in parts]


def docstring_commands() -> list[Command]:
    """The "Command:" of every experiment and study."""
    found = []
    for file in (*EXPERIMENTS, *STUDIES):
        doc = ast.get_docstring(ast.parse(file.read_text())) or ""
        for line in re.findall(r"^Command: (.*)$", doc, re.M):
            found += split_line(line, str(file.relative_to(ROOT)))
    return found


def spoken_commands() -> list[Command]:
    """The commands in `code` within sentences and tables: jaxcnn ..., python -m jaxcnn..."""
    found = []
    for page in PAGES:
        for text in re.findall(r"`((?:jaxcnn |python -m jaxcnn)[^`]+)`", page.read_text().replace("\n", " ")):
            if "..." not in text:
                found += split_line(text, str(page.relative_to(ROOT)))
    return found


def choices(function: object) -> Iterator[tuple[str, ...]]:
    """The flags of every combination of the values that experiment(...) lists: its Literal and bool arguments."""
    listed = []
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        flag = f"--{name.replace('_', '-')}"
        if get_origin(parameter.annotation) is Literal:
            listed.append([(flag, value) for value in get_args(parameter.annotation)])
        elif parameter.annotation is bool:
            listed.append([(), (flag,)])
    return (tuple(itertools.chain(*chosen)) for chosen in itertools.product(*listed))
