"""Axes: fields of an experiment by their dotted names, the values that are tried for each, and the points of the grid.

"optimizer.learning_rate", "data.batch_size", "model.backbone.width", "schedule": a number, a string, or a whole part.
"""

import dataclasses
import hashlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn

from jaxcnn import config, files
from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.experiment import Experiment
from jaxcnn.train.duration import Duration

Axes = Mapping[str, Sequence[Any]]
Point = dict[str, Any]
"""A value for each axis."""


def check_values(axes: Axes, what: str) -> None:
    """Raises UserError if there is no axis, or one without values, with one value twice, or named as the seed."""
    if not axes:
        raise UserError(f'{what} names no field, such as {{"optimizer.learning_rate": (0.01, 0.03, 0.1)}}')
    for field, values in axes.items():
        if field == "seed":
            raise UserError(f"{what}: the seed is no axis; its values are `seeds`")
        if isinstance(values, str) or not isinstance(values, Sequence) or not len(values):
            raise UserError(f"{what}: {field!r} needs a tuple of values and has {values!r}")
        names = [value_text(value) for value in values]
        if len(set(names)) < len(names):
            raise UserError(f"{what}: {field!r} has a value twice: {', '.join(names)}")


def check_fields(axes: Axes, experiment: Experiment, what: str) -> None:
    """Raises UserError, with the nearest name, if the experiment lacks a field, or a value does not fit there."""
    for field, values in axes.items():
        for value in values:
            with_values(experiment, {field: value}, what)


def points(axes: Axes) -> list[Point]:
    """Every combination of the values; the last axis varies fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def with_values(experiment: Experiment, point: Mapping[str, Any], what: str = "axes") -> Experiment:
    """The experiment with these fields.

    Raises:
      UserError: it lacks a field, or a value is of another kind than the field's; the message begins with `what`.
    """
    for field, value in point.items():
        try:
            old = value_of(experiment, field)
        except AttributeError:
            known = field_names(experiment)
            inside = [name for name in known if name.rpartition(".")[2] == field]
            hint = f"; did you mean {' or '.join(map(repr, inside))}?" if inside else did_you_mean(field, known)
            raise UserError(f"{what}: an experiment has no field {field!r}{hint}") from None
        if not _same_kind(old, value):
            raise UserError(f"{what}: {field!r} is {value_text(old)} here, and cannot be {value!r}")
        try:
            experiment = _replaced(experiment, field.split("."), value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{what}: {field!r} cannot be {value!r}: {error}") from error
    return experiment


def field_names(experiment: Experiment) -> list[str]:
    """All fields of an experiment that an axis can name: single values, and the parts that hold them."""
    found: dict[str, None] = {}
    for path in config.flatten(config.encode(experiment)):
        words = path.split(".")
        words = words[:-1] if words[-1] == "class" else words
        words = list(itertools.takewhile(lambda word: not word.isdigit(), words))
        for end in range(1, len(words) + 1):
            found[".".join(words[:end])] = None
    return [name for name in found if name != "seed"]


def value_of(experiment: Experiment, field: str) -> Any:
    """Raises AttributeError if the experiment lacks it."""
    value: Any = experiment
    for name in field.split("."):
        if not dataclasses.is_dataclass(value) or name not in {each.name for each in dataclasses.fields(value)}:
            raise AttributeError(field)
        value = getattr(value, name)
    return value


def value_text(value: Any) -> str:
    """A value for a person: 0.1, "20 epochs"; of a part its class, with what is not as by default."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, Duration) or not dataclasses.is_dataclass(value) or isinstance(value, type):
        return str(value)
    skip = {"parent", "name"} if isinstance(value, nn.Module) else set()
    own = [
        f"{field.name}={value_text(given)}"
        for field in dataclasses.fields(value)
        if field.init and field.name not in skip and (given := getattr(value, field.name)) != field.default
    ]
    return f"{type(value).__name__}({', '.join(own)})"


def point_text(point: Mapping[str, Any]) -> str:
    """ "learning_rate 0.1, width 0.5": the last words of the fields, or whole names if two have the same last word."""
    last = [field.rpartition(".")[2] for field in point]
    names = last if len(set(last)) == len(last) else list(point)
    return ", ".join(f"{name} {value_text(value)}" for name, value in zip(names, point.values(), strict=True))


def point_folder(point: Mapping[str, Any]) -> str:
    """The name of a point's folder: "learning-rate-0.1"; with a digest if it would be long."""
    text = point_text(point)
    name = re.sub(r"[^a-z0-9.]+", "-", text.lower().replace("e+", "e")).strip("-.")
    exact = all(isinstance(value, int | float) and value >= 0 for value in point.values())
    if exact and len(name) <= 60:
        return name
    return f"{name[:40].strip('-.')}-{hashlib.sha256(files.to_json(encoded(point)).encode()).hexdigest()[:8]}"


def encoded(point: Mapping[str, Any]) -> dict[str, Any]:
    """A point as JSON."""
    return {field: config.encode(value) for field, value in point.items()}


def encoded_axes(axes: Axes) -> dict[str, list[Any]]:
    """Axes as JSON."""
    return {field: [config.encode(value) for value in values] for field, values in axes.items()}


def at_edge(axes: Axes, point: Mapping[str, Any]) -> list[str]:
    """The axes of three numbers or more of which this point has the smallest or the largest: a better value may lie
    beyond."""
    found = []
    for field, value in point.items():
        values = axes[field]
        numbers = len(values) > 2 and all(isinstance(each, int | float) for each in values)
        if numbers and value in (min(values), max(values)):
            found.append(field)
    return found


def _replaced(value: Any, path: Sequence[str], new: Any) -> Any:
    name, *rest = path
    inner = _replaced(getattr(value, name), rest, new) if rest else new
    # A module's own copy leaves out what Flax keeps in it.
    return value.clone(**{name: inner}) if isinstance(value, nn.Module) else dataclasses.replace(value, **{name: inner})


def _same_kind(old: Any, new: Any) -> bool:
    """Whether a value can stand in the place of another one; what was None can become anything, and anything None."""
    if old is None or new is None:
        return True
    if isinstance(old, bool) or isinstance(new, bool):
        return isinstance(old, bool) and isinstance(new, bool)
    if isinstance(new, float) and not math.isfinite(new):
        return False
    for kind in (int | float, str, Duration, tuple | list):
        if isinstance(old, kind) or isinstance(new, kind):
            return isinstance(old, kind) and isinstance(new, kind)
    return True
