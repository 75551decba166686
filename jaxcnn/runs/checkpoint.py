"""Checkpoints: orbax behind one file. Each holds the train state and a small JSON note, and is committed atomically."""

import contextlib
import dataclasses
import json
import logging
import math
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxcnn import files
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs import seal
from jaxcnn.train.mesh import tree_bytes

log = logging.getLogger("jaxcnn")


@dataclasses.dataclass(frozen=True)
class Restored:
    """What `restore_latest` read: the step, the state, the note, and a line for each newer one that was damaged."""

    step: int
    state: Any
    note: dict[str, Any]
    damaged: tuple[str, ...]
    sealed: bool
    """Whether it carries the digests of its files; one that was saved before there were any does not."""


class Manager:
    """The checkpoints of one run: orbax's manager, which saves asynchronously, with the scores of what is kept.

    The scores stand in the checkpoints' notes and not in files of orbax, which would read them all at its start and end
    in a traceback if one is damaged.

    Raises:
      UserError: the directory cannot be created or written.
    """

    def __init__(self, directory: pathlib.Path, experiment: Experiment, *, read_only: bool = False):
        _quiet()
        self.directory, self.kept, self._score = directory, experiment.checkpoints, experiment.score
        self.scores: dict[int, float] = {}
        self._descriptor: int | None = None
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else _Keep(self),
            temporary_path_class=seal.Sealed,
            cleanup_tmp_directories=not read_only,
            lightweight_initialize=True,
            read_only=read_only,
        )
        try:
            if not read_only:
                directory.mkdir(parents=True, exist_ok=True)
            self.path, self._descriptor = files.reach(directory)
            self.orbax = ocp.CheckpointManager(self.path, options=options)
        except OSError as error:
            raise UserError(f"{directory}: checkpoints cannot be written there: {error}") from error
        for step in self.all_steps():
            self.score(step, _noted_metrics(self.path / str(step)))

    def score(self, step: int, metrics: Any) -> None:
        """Notes how good a checkpoint is, if its metrics tell."""
        with contextlib.suppress(KeyError, TypeError):
            value = self._score(metrics)
            self.scores[step] = -math.inf if math.isnan(value) else value

    def all_steps(self) -> list[int]:
        return sorted(self.orbax.all_steps())

    def latest_step(self) -> int | None:
        return max(self.all_steps(), default=None)

    def best_step(self) -> int | None:
        """The one with the best score, of equal ones the newest; None if none has a score."""
        return max((step for step in self.all_steps() if step in self.scores), key=self._rank, default=None)

    def best(self, steps: list[int], number: int) -> list[int]:
        """The `number` best of these steps."""
        return sorted((step for step in steps if step in self.scores), key=self._rank, reverse=True)[:number]

    def delete(self, step: int) -> None:
        self.orbax.delete(step)
        self.scores.pop(step, None)

    def reload(self) -> None:
        """Looks anew which checkpoints there are."""
        self.orbax.reload()

    def close(self) -> None:
        """Waits for the save in progress and ends orbax's threads."""
        self.orbax.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _rank(self, step: int) -> tuple[float, int]:
        return self.scores[step], step


class _Keep:
    """Orbax's policy: the newest checkpoints and the best."""

    def __init__(self, manager: Manager):
        self.manager = manager

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        kept = self.manager.kept
        chosen = {*steps[-kept.latest :], *self.manager.best(steps, kept.best)}
        return [checkpoint.step in chosen for checkpoint in checkpoints]


def open_manager(directory: pathlib.Path, experiment: Experiment) -> Manager:
    """A manager that saves, after removing what a killed save left behind. Raises UserError as Manager."""
    return Manager(directory, experiment)


def open_reader(directory: pathlib.Path, experiment: Experiment) -> Manager:
    """A manager that only reads, and so can look into a run that is under way."""
    return Manager(directory, experiment, read_only=True)


def save(
    manager: Manager, step: int, state: Any, note: dict[str, Any], metrics: dict[str, float] | None = None
) -> None:
    """Starts saving; returns once the state may be overwritten. First waits for the save before.

    Args:
      manager: of the run.
      step: which has no checkpoint yet.
      state: the arrays.
      note: JSON; `RunDirectory.position` is part of it.
      metrics: of this step, by which the best are kept; None if it was not evaluated.

    Raises:
      UserError: this save, or the one before it, could not be written; what was committed before stays.
    """
    note = note | {"step": step, "metrics": metrics}
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), note=ocp.args.JsonSave(note))
    wait(manager)
    needed, free = tree_bytes(state), shutil.disk_usage(manager.path).free
    if needed > free:
        raise _not_written(manager, f"it takes {size(needed)} and {size(free)} are free", "make room")
    manager.score(step, metrics)
    try:
        manager.orbax.save(step, args=args, force=True)
    except Exception as error:
        raise _not_written(manager, cause_of(error)) from error


def wait(manager: Manager) -> None:
    """Blocks until the save in progress is committed. Raises UserError as `save` does."""
    try:
        manager.orbax.wait_until_finished()
    except Exception as error:
        raise _not_written(manager, cause_of(error)) from error


def cause_of(error: Exception) -> str:
    """The type and the end of the message's first line, which is where the system's error stands.

    tensorstore writes the whole specification of the array behind it, in brackets.
    """
    if isinstance(error, seal.Damaged):
        return str(error)
    text = str(error).strip().partition(" [tensorstore_spec")[0].partition("\n")[0]
    return f"{type(error).__name__}: {text if len(text) < 200 else '...' + text[-200:]}"


def steps(directory: pathlib.Path) -> list[int]:
    """The committed checkpoints, oldest first; [] where there are none."""
    try:
        return sorted(int(entry.name) for entry in directory.iterdir() if entry.name.isdigit() and entry.is_dir())
    except OSError:
        return []


def check(manager: Manager, step: int, recognize: Callable[[dict[str, Any]], None]) -> bool:
    """Whether a checkpoint is sealed; then it is whole, and its note is one that the run recognizes.

    Raises:
      seal.Damaged: it is damaged, or of another run.
    """
    folder = manager.path / str(step)
    sealed = seal.check(folder)
    try:
        note = json.loads((folder / "note" / "metadata").read_bytes())
    except (OSError, ValueError) as error:
        raise seal.Damaged(f"its note cannot be read: {type(error).__name__}") from error
    if "step" in note:
        if not sealed:
            raise seal.Damaged(f"{seal.SEAL} is missing")
        if note["step"] != step:
            raise seal.Damaged(f"it was saved as checkpoint {note['step']}")
        recognize(note)
    return sealed


def restore(
    manager: Manager, step: int, abstract: Any, recognize: Callable[[dict[str, Any]], None] | None = None
) -> tuple[Any, dict[str, Any]]:
    """The state and the note of one checkpoint; `abstract` has a ShapeDtypeStruct with its sharding per array.

    Args:
      manager: of the run.
      step: of the checkpoint.
      abstract: what is expected there.
      recognize: raises seal.Damaged if the note is not one of this run, as RunDirectory.recognize; with it the seal is
        checked too.

    Raises:
      Exception: of many types, if it is damaged; `cause_of` says how.
    """
    if recognize is not None and not check(manager, step, recognize):
        log.warning(f"{manager.directory}: {unsealed(step)}")
    args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), note=ocp.args.JsonRestore())
    restored = manager.orbax.restore(step, args=args)
    return restored["state"], restored["note"]


def unsealed(step: int) -> str:
    """What is said of a checkpoint without digests."""
    return f"checkpoint {step} was saved without digests, by an older version: damage in it cannot be seen"


def restore_latest(
    manager: Manager,
    abstract: Any,
    recognize: Callable[[dict[str, Any]], None],
    agree: Callable[[bool], bool] = lambda good: good,
) -> Restored | None:
    """The newest checkpoint that is whole, of this run and readable for every process; None if there is none at all.

    Newer ones that are not are moved to `damaged/` beside it, so that their steps can be saved anew. `recognize` is as
    in `restore`; `agree` tells whether something is true on all processes. Process 0 alone checks the digests.

    Raises:
      UserError: there are checkpoints and not one can be used; none is moved.
    """
    directory = manager.directory
    failures: dict[int, str] = {}
    for step in reversed(manager.all_steps()):
        cause, good, sealed = "another process failed", True, True
        state, note = None, {}
        if jax.process_index() == 0:
            try:
                sealed = check(manager, step, recognize)
            except seal.Damaged as error:
                good, cause = False, str(error)
        if agree(good):
            try:
                state, note = restore(manager, step, abstract)
            except Exception as error:  # orbax and tensorstore raise many types on damaged files
                good, cause = False, cause_of(error)
            good = agree(good)
        else:
            good = False
        if not good:
            failures[step] = f"checkpoint {step} cannot be read ({cause})"
            continue
        for bad in failures:
            target = directory.parent / "damaged" / str(bad)
            if jax.process_index() == 0:
                shutil.rmtree(target, ignore_errors=True)
                target.parent.mkdir(exist_ok=True)
                (directory / str(bad)).rename(target)
            manager.scores.pop(bad, None)
            failures[bad] += f"; moved to {target}"
        if failures:
            agree(True)  # all wait until they are moved
            manager.reload()
        return Restored(step, state, note, tuple(failures.values()), sealed)
    if failures:
        raise UserError(
            f"{directory}: no checkpoint can be read; start anew in another --workdir, or delete this one:\n  "
            + "\n  ".join(failures.values())
        )
    return None


def size(count: float) -> str:
    """Bytes for a person: "812 bytes", "1.5 MiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"


def _noted_metrics(folder: pathlib.Path) -> Any:
    """The metrics with which a checkpoint was saved; None if there are none, or they cannot be read."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        metrics = json.loads(files.read_bytes(folder / "note" / "metadata")).get("metrics")
        if metrics is not None:
            return metrics
    with contextlib.suppress(OSError, ValueError):  # where they lay before the note held them
        return json.loads(files.read_bytes(folder / "metrics" / "metrics"))
    return None


def _not_written(manager: Manager, cause: str, advice: str | None = None) -> UserError:
    saved = steps(manager.path)
    kept = f"checkpoint {saved[-1]} is intact" if saved else "there is no earlier checkpoint"
    cause = cause.replace(str(manager.path), str(manager.directory))
    return UserError(
        f"{manager.directory}: a checkpoint could not be written ({cause}); {kept}; {advice or _advice(cause)} "
        "and run the same command again"
    )


def _advice(cause: str) -> str:
    """What helps, by the system's own words: they come through several libraries, of which none keeps the number."""
    for pattern, advice in {
        "No space left|quota|File too large": "make room",
        "Too many open files": "raise the limit of open files (ulimit -n)",
        "start new thread|Resource temporarily unavailable": "raise the limit of threads and processes (ulimit -u)",
        "Read-only|Input/output error|Stale file|Permission denied|Not permitted|No such": "mend the disk or its mount",
        "Cannot allocate memory": "free memory",
    }.items():
        if re.search(pattern, cause, re.IGNORECASE):
            return advice
    return "see to the cause"


def _quiet() -> None:
    """Keeps off the terminal what comes to us as an exception too.

    That is orbax's log, where moreover every save is a warning, and a traceback for each array whose reading
    tensorstore ends after another array of a damaged checkpoint has failed: nobody awaits them any longer.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = _unraisable


def _unraisable(unraisable: Any) -> None:
    if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(unraisable)
