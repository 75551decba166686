"""A summary as a table for the terminal: a tree of modules with one line per layer, then the totals."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jaxcnn import text
from jaxcnn.summary.jaxpr import Layer
from jaxcnn.summary.summary import Summary


def summary_table(summary: Summary, title: str, *, depth: int | None = None, width: int = 120) -> Group:
    """The table of a summary.

    Args:
      title: above the table.
      depth: one line per module of this depth, 2 for "backbone/layer1_0"; default one per layer.
      width: of the terminal; below 100 the counts of layers are rounded.
    """
    number = rounded if width < 100 else "{:,}".format
    table = plain_table()
    table.add_column("layer", overflow="fold", min_width=12)
    table.add_column("kind", no_wrap=True)
    counts = ("params", "MACs") if width < 100 else ("parameters", "multiply-adds")
    for name in ("output", "kernel", "stride", *counts, "field", "jump"):
        table.add_column(name, justify="right", no_wrap=True)
    for level, name, layer in _tree(fold(summary.layers, depth)):
        cell = Padding(Text(name, overflow="fold"), (0, 0, 0, 2 * level))
        if layer is None:
            table.add_row(cell, style="bold")
            continue
        table.add_row(cell, *cells(layer, number)[1:], _pair(layer.jump), style="dim" if layer.kind == "norm" else "")
    ends = plain_table()
    ends.add_column("endpoint")
    for name in ("output", "field", "jump"):
        ends.add_column(name, justify="right")
    for name, end in summary.endpoints.items():
        ends.add_row(text.cell(name), size(end.shape), _pair(end.receptive_field), _pair(end.stride))
    note = "field: receptive field, jump: distance between neighbouring positions, both in pixels of the image"
    return Group(Text(title, style="bold"), table, ends, Text(f"{note}\n", style="dim"), _totals(summary))


def cells(layer: Layer, number: Callable[[int], str] = "{:,}".format) -> list[str]:
    """Name, kind, output, kernel, stride, parameters, multiply-adds and receptive field of a layer as texts."""
    return [
        layer.name,
        _kind(layer),
        size(layer.output),
        size(layer.kernel),
        _pair(layer.stride),
        number(layer.parameters) if layer.parameters else "",
        number(layer.multiply_adds) if layer.multiply_adds else "",
        _pair(layer.field),
    ]


def _tree(layers: list[Layer], level: int = 0) -> Iterator[tuple[int, str, Layer | None]]:
    """(level, name, layer) of each line; a module with several layers has a line of its own above them, without one."""
    start = lambda layer: layer.name.split("/")[level]  # noqa: E731
    for module, group in itertools.groupby(layers, start):
        same = list(group)
        if len(same) > 1 and all(layer.name.count("/") > level for layer in same):
            yield level, module, None
            yield from _tree(same, level + 1)
        else:
            for layer in same:
                yield level, "/".join(layer.name.split("/")[level:]), layer


def plain_table() -> Table:
    """A table without lines but the one below its head, as narrow as it can be."""
    return Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)


def fold(layers: tuple[Layer, ...], depth: int | None) -> list[Layer]:
    """Layers that lie deeper than `depth` joined into one per module, with the last map and the sums of the counts."""
    if depth is None:
        return list(layers)
    groups: list[tuple[str, list[Layer]]] = []
    for layer in layers:
        name = "/".join(layer.name.split("/")[:depth])
        if groups and groups[-1][0] == name:
            groups[-1][1].append(layer)
        else:
            groups.append((name, [layer]))
    return [_join(name, group) if len(group) > 1 else group[0] for name, group in groups]


def _join(name: str, layers: list[Layer]) -> Layer:
    last = next((layer for layer in reversed(layers) if layer.jump is not None), layers[-1])
    return dataclasses.replace(
        last,
        name=name,
        kind=f"{len(layers)} layers",
        kernel=None,
        stride=None,
        groups=1,
        **{field: sum(getattr(layer, field) for layer in layers) for field in ("bytes", "multiply_adds", "parameters")},
    )


def summary_json(summary: Summary) -> dict[str, Any]:
    """Everything in a summary, for scripts; a receptive field without end is null."""
    finite = lambda value: None if value == math.inf else value  # noqa: E731
    value = dataclasses.asdict(summary)
    for layer in value["layers"]:
        layer["field"] = layer["field"] and [*map(finite, layer["field"])]
    for end in value["endpoints"].values():
        end["receptive_field"] = [*map(finite, end["receptive_field"])]
    return value


def size(shape: tuple[int, ...] | None) -> str:
    """ "112x112x64"."""
    return "" if shape is None else "x".join(map(str, shape))


def rounded(count: int) -> str:
    """ "15.47 G"."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.2f} {letter}"
    return str(count)


def _totals(summary: Summary) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    apart = [f"{count:,} {what}" for count, what in _apart(summary) if count]
    table.add_row("parameters", f"{summary.parameters:,}", "; ".join(apart) and f"apart: {'; '.join(apart)}")
    table.add_row("multiply-adds", f"{summary.multiply_adds:,}", "of convolutions and FC layers, biases not counted")
    table.add_row("FLOPs", f"{summary.flops:,}", "2 per multiply-add, 1 per other operation")
    table.add_row(
        "activations", f"{summary.activation_bytes / 2**20:,.1f} MiB", "outputs of all these layers, one image"
    )
    return table


def _apart(summary: Summary) -> list[tuple[int, str]]:
    return [
        (summary.auxiliary_parameters, "in auxiliary heads"),
        (summary.statistics, "running statistics"),
    ]


def _kind(layer: Layer) -> str:
    if layer.groups == 1:
        return layer.kind
    return "depthwise" if layer.groups == layer.output[-1] else f"{layer.kind} /{layer.groups}"


def _pair(pair: tuple[float, float] | None) -> str:
    """ "3" or "3x1"; "all" for a field that is the whole image."""
    if pair is None:
        return ""
    parts = dict.fromkeys("all" if side == math.inf else f"{side:.4g}" for side in pair)
    return "x".join(parts)
