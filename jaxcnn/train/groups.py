"""Groups: parameters by path that stay as they are, or that learn with a rate or a weight decay of their own."""

import dataclasses
import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.train.duration import Duration, check_length

Params = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Group:
    """The parameters whose paths match a pattern, and how they are trained.

    A path is such as "params/backbone/conv1_1/kernel"; "*" matches any characters, and "[12]" one of those. A parameter
    belongs to the first group that it matches; what matches none is trained as the optimizer says.

    A frozen parameter keeps its bits: it has no gradient, no momentum and no weight decay, it is no part of the
    gradient's norm, and its average is the parameter. It is in checkpoints like any other. Batch norm takes its
    statistics from the batch all the same; `norm="frozen_batch"` of a model does not.

    With `freeze_until` all that holds until then, but that the gradient is computed and thrown away: one program
    serves the whole run. From there on the parameter is trained, with an optimizer whose state is new. Several groups
    with rising durations unfreeze a net from its head on, gradually (Howard & Ruder 2018, section 3.3).

    Example, VGG-16 as Caffe trained detectors, conv1 and conv2 fixed and biases at twice the rate:
        Experiment(..., groups=(Group("params/backbone/conv[12]_*", freeze=True), Group("*/bias", rate=2.0)))
    Example, the head alone for an epoch, the last stage with it for another, then all of a ResNet:
        groups=(
            Group("params/backbone/layer4*", freeze_until=epochs(1)),
            Group("params/backbone/*", freeze_until=epochs(2)),
        )
    """

    match: str
    """Of paths, case-sensitive."""
    rate: float = 1.0
    """Multiplies the learning rate, and with it what Adam's decoupled weight decay takes."""
    weight_decay: float | None = None
    """In place of the optimizer's, for what its `decay` names; None: the same."""
    freeze: bool = False
    freeze_until: Duration | None = None
    """How much of the run passes before the parameters are trained; None: none."""

    def __post_init__(self):
        for field, least in (("rate", "positive"), ("weight_decay", "at least 0")):
            value = getattr(self, field)
            fits = value is None or (math.isfinite(value) and (value > 0 or (value == 0 and field != "rate")))
            if not fits:
                hint = "; freeze=True keeps parameters as they are" if value == 0 else ""
                raise UserError(f"groups: {field} of {self.match!r} is {value}; it must be {least}, and finite{hint}")
        if self.freeze and (self.rate != 1 or self.weight_decay is not None):
            raise UserError(f"groups: {self.match!r} is frozen, so that it has neither a rate nor a weight decay")
        if self.freeze_until is not None:
            check_length(f"groups: freeze_until of {self.match!r}", self.freeze_until)
            if self.freeze:
                raise UserError(
                    f"groups: {self.match!r} has freeze_until and freeze=True, which has no end; give one of both"
                )

    @property
    def release(self) -> int:
        """The first step that trains it, once durations are in steps (`Plan`)."""
        assert self.freeze_until is None or self.freeze_until.unit == "steps"
        return 0 if self.freeze_until is None else int(self.freeze_until.amount)


def members(params: Params, groups: Sequence[Group]) -> dict[str, int | None]:
    """{path: the number of the group that a parameter belongs to}, None for none."""
    return {
        path: next((i for i, group in enumerate(groups) if fnmatch.fnmatchcase(path, group.match)), None)
        for path in _flat(params)
    }


def split(params: Params, groups: Sequence[Group]) -> tuple[Params, Params]:
    """(the parameters that are trained, those that are frozen)."""
    if not any(group.freeze for group in groups):
        return params, {}
    numbers, flat = members(params, groups), _flat(params)
    frozen = {path for path, number in numbers.items() if number is not None and groups[number].freeze}
    return _nested(flat, flat.keys() - frozen), _nested(flat, frozen)


def joined(*parts: Params) -> Params:
    """What `split` took apart."""
    given = [part for part in parts if part]
    if len(given) == 1:
        return given[0]
    flat: dict[str, Any] = {}
    for part in given:
        flat |= _flat(part)
    return _nested(flat, flat)


def while_frozen(kept: Params, trained: Params, groups: Sequence[Group], step: jax.Array) -> Params:
    """`kept` of what a group freezes until after this step, counted from 0, and `trained` of all else."""
    if all(group.freeze_until is None for group in groups):
        return trained
    numbers, old, new = members(trained, groups), _flat(kept), _flat(trained)
    releases = {path: 0 if number is None else groups[number].release for path, number in numbers.items()}
    chosen = {
        path: jnp.where(step < first, old[path], new[path]) if first else new[path] for path, first in releases.items()
    }
    return _nested(chosen, chosen)


def check_groups(params: Params, groups: Sequence[Group]) -> None:
    """Raises UserError if a group is empty, or nothing is trained."""
    numbers = members(params, groups)
    for number, group in enumerate(groups):
        if number in numbers.values():
            continue
        others = {i for path, i in numbers.items() if fnmatch.fnmatchcase(path, group.match) and i is not None}
        if others:
            earlier = " and ".join(repr(groups[i].match) for i in sorted(others))
            raise UserError(f"groups: all that {group.match!r} matches belongs to {earlier} before it; put it first")
        hint = did_you_mean(group.match, _patterns(numbers)) or f"; there is, for instance, {min(numbers)!r}"
        raise UserError(f"groups: {group.match!r} matches no parameter{hint}")
    if numbers and not _flat(split(params, groups)[0]):
        raise UserError("groups: every parameter is frozen, so that nothing would be trained")
    held = {i for i, group in enumerate(groups) if group.freeze or group.freeze_until is not None}
    if numbers and set(numbers.values()) <= held:
        raise UserError(
            "groups: every parameter is frozen at first, so that nothing would be trained; leave out one group"
        )


def group_lines(params: Params, groups: Sequence[Group]) -> list[str]:
    """What each group holds and how it is trained, and what is left; nothing without groups."""
    if not groups:
        return []
    numbers, flat = members(params, groups), _flat(params)
    lines = []
    for number, group in (*enumerate(groups), (None, None)):
        arrays = [flat[path] for path, of in numbers.items() if of == number]
        how = []
        if group is not None:
            how += ["frozen"] if group.freeze else []
            how += [f"frozen until step {group.release:,}"] if group.freeze_until is not None else []
            how += [f"learning rate times {group.rate:g}"] if group.rate != 1 else []
            how += [f"weight decay {group.weight_decay:g}"] if group.weight_decay is not None else []
        name = "the other parameters" if group is None else f"group {group.match}"
        how = how or ["as the optimizer says"]
        lines.append(f"{name}: {len(arrays)} arrays, {sum(x.size for x in arrays):,} values, {', '.join(how)}")
    return lines


def _patterns(paths: Mapping[str, Any]) -> set[str]:
    """The paths, and each folder of theirs as a pattern."""
    folders = {path[: i + 1] + "*" for path in paths for i, letter in enumerate(path) if letter == "/"}
    return folders | paths.keys()


def _flat(params: Params) -> dict[str, Any]:
    return {f"params/{path}": value for path, value in flatten_dict(dict(params), sep="/").items()}


def _nested(flat: Mapping[str, Any], paths: Any) -> Params:
    return unflatten_dict({path.removeprefix("params/"): flat[path] for path in flat if path in paths}, sep="/")
