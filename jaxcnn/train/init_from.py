"""Starting from the weights of another run: which are taken, which are left, and what must fit."""

import dataclasses
import fnmatch
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.models.layers import is_same_layer
from jaxcnn.parts import check_pairs
from jaxcnn.train.state import Average, TrainState


@dataclasses.dataclass(frozen=True)
class InitFrom:
    """Another run's weights and batch statistics as the initial ones; the optimizer and the step begin anew.

    Strict: what `include` and `exclude` leave must be the same arrays on both sides, but that a fully connected layer
    there may be the convolution here that computes the same on its map (fc6 and fc7 of VGG in FCN). Patterns are
    matched against paths such as "params/head/fc/kernel" and "batch_stats/backbone/bn1/mean"; "*" matches any
    characters. Frozen batch norm keeps in "batch_stats" what batch norm has in "params": its scale and bias. They are
    taken from the one as from the other, under the names that they have here.
    """

    run: str | None = None
    """A run directory, or what `jaxcnn import-weights` wrote; None starts from the model's own initialisation."""
    checkpoint: str = "latest"
    """latest, best or a step."""
    averaged: bool = False
    """Take the run's averaged weights instead of the raw ones."""
    include: tuple[str, ...] = ("*",)
    """Only these are taken."""
    exclude: tuple[str, ...] = ()
    """And of these not those, such as "params/head/*" for a new head."""
    rename: tuple[tuple[str, str], ...] = ()
    """(there, here): what is under `there`, such as "params/backbone", is taken as what is under `here`. With several
    of one `there` it fills all of them. Other names stay; `include` and `exclude` see the new ones."""
    preparation: bool = False
    """Take over how that run's images are prepared, in place of this experiment's data.image_shape, evaluation_shape,
    preprocess and normalize. `augment` stays, and must give that shape. The run's config has what was taken over, so
    that the run must be there at every start."""

    def __post_init__(self):
        check_pairs("init_from.rename", self.rename, "(there, here)")

    def takes(self, path: str) -> bool:
        matches = lambda patterns: any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)  # noqa: E731
        return matches(self.include) and not matches(self.exclude)

    def renamed(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The saved arrays, by path, under their names here.

        Raises:
          UserError: nothing is under a name that is to be another, or two arrays would have one name.
        """
        under = lambda path, folder: path == folder or path.startswith(f"{folder}/")  # noqa: E731
        for there, _ in self.rename:
            if not any(under(path, there) for path in arrays):
                folders = {path[:i] for path in arrays for i, letter in enumerate(path) if letter == "/"}
                hint = did_you_mean(there, folders) or f"; there is, for instance, {min(arrays)!r}"
                raise UserError(f"init_from.rename: nothing is under {there!r} in {self.run}{hint}")
        named = {}
        for path, array in arrays.items():
            targets = [here + path[len(there) :] for there, here in self.rename if under(path, there)]
            for target in targets or [path]:
                if target in named:
                    raise UserError(f"init_from.rename: two arrays of {self.run} would be {target!r} here")
                named[target] = array
        return named


def overlay(state: TrainState, saved: TrainState, init_from: InitFrom) -> tuple[TrainState, list[str]]:
    """The new state with the chosen arrays of the saved one, and lines that say what was loaded, skipped and fresh.

    Raises:
      UserError: as `chosen`.
    """
    ours = _flat(state)
    theirs = _offered(ours, saved, init_from)
    loaded: dict[str, Any] = {}
    taken = set()
    for path in chosen(state, saved, init_from):
        array = theirs[path]
        array = jnp.copy(array) if id(array) in taken else array  # a donated buffer must not appear in the state twice
        taken.add(id(theirs[path]))
        loaded[path] = jax.device_put(array.reshape(ours[path].shape), ours[path].sharding)
    trees = unflatten_dict(ours | loaded, sep="/")
    params = trees.pop("params")
    average = state.average
    if average is not None:  # copies: a donated buffer must not appear in the state twice
        average = Average(jax.tree.map(jnp.copy, params), jax.tree.map(jnp.copy, trees), average.count)
    report = [
        _line(f"loaded from {init_from.run}", sorted(loaded), ours),
        _line("skipped there", sorted(theirs.keys() - loaded.keys()), theirs),
        _line("fresh", sorted(ours.keys() - loaded.keys()), ours),
    ]
    return dataclasses.replace(state, params=params, stats=trees, average=average), report


def chosen(state: TrainState, saved: TrainState, init_from: InitFrom) -> list[str]:
    """The paths of the arrays that are to be taken; states of shapes serve as well as states of arrays.

    Raises:
      UserError: an array that is to be taken is missing on one side or has another shape, or a pattern matches
        nothing.
    """
    ours = _flat(state)
    theirs = _offered(ours, saved, init_from)
    for pattern in (*init_from.include, *init_from.exclude):
        if not any(fnmatch.fnmatchcase(path, pattern) for path in ours.keys() | theirs.keys()):
            raise UserError(
                f"init_from: the pattern {pattern!r} matches nothing; there is, for instance, {min(ours)!r}"
            )
    wanted = {path for path in ours if init_from.takes(path)}
    offered = {path for path in theirs if init_from.takes(path)}
    problems = [f"  {path}: not in {init_from.run}" for path in sorted(wanted - offered)]
    problems += [f"  {path}: not in this experiment's model" for path in sorted(offered - wanted)]
    problems += [
        f"  {path}: {theirs[path].shape} there, {ours[path].shape} here"
        for path in sorted(wanted & offered)
        if not is_same_layer(theirs[path].shape, ours[path].shape)
    ]
    if problems:
        more = [f"  and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise UserError(
            f"the weights of {init_from.run} do not fit:\n"
            + "\n".join(problems[:10] + more)
            + "\nleave arrays out with --init-from.exclude, for instance 'params/head/*' for a new head"
        )
    return sorted(wanted)


def _offered(ours: dict[str, Any], saved: TrainState, init_from: InitFrom) -> dict[str, Any]:
    """The arrays of the saved state, by their paths here."""
    named = init_from.renamed(_flat(_source(saved, init_from)))
    return {_name_here(path, ours): array for path, array in named.items()}


def _name_here(path: str, ours: dict[str, Any]) -> str:
    """The path, or that in the other collection if the array of a batch norm, frozen there or here, is in that one."""
    kind, _, rest = path.partition("/")
    other = {"params": "batch_stats", "batch_stats": "params"}.get(kind, kind) + f"/{rest}"
    return other if path not in ours and other in ours else path


def _source(saved: TrainState, init_from: InitFrom) -> TrainState | Average:
    source = saved.average if init_from.averaged else saved
    if source is None:
        raise UserError(f"init_from.averaged: {init_from.run} keeps no average of its weights")
    return source


def _flat(state: TrainState | Average) -> dict[str, Any]:
    return flatten_dict({"params": state.params, **state.stats}, sep="/")


def _line(what: str, paths: list[str], arrays: dict[str, Any]) -> str:
    if not paths:
        return f"{what}: nothing"
    values = sum(arrays[path].size for path in paths)
    names = f" ({', '.join(paths)})" if len(paths) <= 6 else ""
    return f"{what}: {len(paths)} arrays, {values:,} values{names}"
