"""Checkpoints: orbax behind one file. Each holds the train state and a small JSON note, and is committed atomically."""

import dataclasses
import logging
import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxcnn.errors import UserError
from jaxcnn.train.duration import Duration, epochs
from jaxcnn.train.mesh import tree_bytes


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """Which checkpoints a run keeps. One is also saved at the end, and when the run is told to stop."""

    every: Duration = epochs(1)
    latest: int = 2
    """How many of the newest are kept; at least 2, so that one can be damaged."""
    best: int = 1
    """How many of the best by `metric` are kept as well."""
    metric: str = "accuracy"
    """A metric of the raw net on the first evaluation split; "loss" counts as better when lower."""

    def __post_init__(self):
        if self.latest < 2 or self.best < 0:
            raise UserError("checkpoints.latest must be at least 2 and checkpoints.best at least 0")

    def score(self, metrics: dict[str, float]) -> float:
        """Higher is better."""
        return -metrics["loss"] if self.metric == "loss" else metrics[self.metric]


@dataclasses.dataclass(frozen=True)
class Restored:
    """What `restore_latest` read: the step, the state, the note, and a line for each newer one that was damaged."""

    step: int
    state: Any
    note: dict[str, Any]
    damaged: tuple[str, ...]


def open_manager(directory: pathlib.Path, kept: Checkpoints) -> ocp.CheckpointManager:
    """A manager that saves asynchronously, after removing what a killed save left behind.

    Raises:
      UserError: the directory cannot be created or written.
    """
    _quiet()
    best = policies.BestN(get_metric_fn=kept.score, n=kept.best, keep_checkpoints_without_metrics=False)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(n=kept.latest), best]),
        # Beside the policy, only because orbax writes a checkpoint's metrics to disk where this is set.
        best_fn=kept.score,
        cleanup_tmp_directories=True,
    )
    try:
        return ocp.CheckpointManager(directory, options=options)
    except OSError as error:
        raise UserError(f"{directory}: checkpoints cannot be written there: {error}") from error


def open_reader(directory: pathlib.Path, kept: Checkpoints) -> ocp.CheckpointManager:
    """A manager that only reads, and so can look into a run that is under way."""
    _quiet()
    return ocp.CheckpointManager(directory, options=ocp.CheckpointManagerOptions(best_fn=kept.score, read_only=True))


def save(
    manager: ocp.CheckpointManager, step: int, state: Any, note: dict[str, Any], metrics: dict[str, float] | None = None
) -> None:
    """Starts saving; returns once the state may be overwritten. First waits for the save before.

    Raises:
      UserError: this save, or the one before it, could not be written; what was committed before stays.
    """
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), note=ocp.args.JsonSave(note))
    wait(manager)
    needed, free = tree_bytes(state), shutil.disk_usage(manager.directory).free
    if needed > free:
        raise _not_written(manager, f"it takes {needed / 2**20:,.1f} MiB and {free / 2**20:,.1f} MiB are free")
    try:
        manager.save(step, args=args, metrics=metrics, force=True)
    except Exception as error:
        raise _not_written(manager, cause_of(error)) from error


def wait(manager: ocp.CheckpointManager) -> None:
    """Blocks until the save in progress is committed. Raises UserError as `save` does."""
    try:
        manager.wait_until_finished()
    except Exception as error:
        raise _not_written(manager, cause_of(error)) from error


def cause_of(error: Exception) -> str:
    """The type and the end of the message's first line, which is where the system's error stands.

    tensorstore writes the whole specification of the array behind it, in brackets.
    """
    text = str(error).strip().partition(" [tensorstore_spec")[0].partition("\n")[0]
    return f"{type(error).__name__}: {text if len(text) < 200 else '...' + text[-200:]}"


def steps(directory: pathlib.Path) -> list[int]:
    """The committed checkpoints, oldest first; [] where there are none."""
    return sorted(ocp.utils.checkpoint_steps(directory)) if directory.is_dir() else []


def restore(manager: ocp.CheckpointManager, step: int, abstract: Any) -> tuple[Any, dict[str, Any]]:
    """The state and the note of one checkpoint; `abstract` has a ShapeDtypeStruct with its sharding per array."""
    args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), note=ocp.args.JsonRestore())
    restored = manager.restore(step, args=args)
    return restored["state"], restored["note"]


def restore_latest(
    manager: ocp.CheckpointManager, abstract: Any, agree: Callable[[bool], bool] = lambda good: good
) -> Restored | None:
    """The newest checkpoint that every process can read, or None where there is none at all.

    Newer ones that cannot be read are moved to `damaged/` beside it, so that their steps can be saved anew. `agree`
    tells whether something is true on all processes.

    Raises:
      UserError: there are checkpoints and not one can be read; none is moved.
    """
    directory = pathlib.Path(manager.directory)
    failures: dict[int, str] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        cause = "another process failed"
        try:
            state, note = restore(manager, step, abstract)
            good = True
        except Exception as error:  # orbax and tensorstore raise many types on damaged files
            good, cause = False, cause_of(error)
        if not agree(good):
            failures[step] = f"checkpoint {step} cannot be read ({cause})"
            continue
        for bad in failures:
            target = directory.parent / "damaged" / str(bad)
            if jax.process_index() == 0:
                shutil.rmtree(target, ignore_errors=True)
                target.parent.mkdir(exist_ok=True)
                (directory / str(bad)).rename(target)
            failures[bad] += f"; moved to {target}"
        if failures:
            agree(True)  # all wait until they are moved
            manager.reload()
        return Restored(step, state, note, tuple(failures.values()))
    if failures:
        raise UserError(
            f"{directory}: no checkpoint can be read; start anew in another --workdir, or delete this one:\n  "
            + "\n  ".join(failures.values())
        )
    return None


def _not_written(manager: ocp.CheckpointManager, cause: str) -> UserError:
    saved = steps(pathlib.Path(manager.directory))
    kept = f"checkpoint {saved[-1]} is intact" if saved else "there is no earlier checkpoint"
    return UserError(
        f"{manager.directory}: a checkpoint could not be written ({cause}); {kept}; "
        "make room or mend the disk and run the same command again"
    )


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
