"""Start: a run directory made, or opened again for the same experiment, data and code, under a lock."""

import contextlib
import fcntl
import functools
import importlib.metadata
import logging
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterator
from typing import Any

import jax

from jaxcnn import config, experiment_file, files, trust
from jaxcnn.errors import UserError
from jaxcnn.ops import onednn, onednn_library
from jaxcnn.runs import own_code
from jaxcnn.runs.run_directory import REPORT, RunDirectory

log = logging.getLogger("jaxcnn")

LONGEST = 3800
"""Bytes of a run directory's path; the system's limit is 4,096, and the paths of the files in it are longer."""
PICTURES = "predictions"
"""The folder of a run for pictures of what its net predicts."""
DATASET = ("name", "version", "versions", "label_hash", "splits")
FILES = [
    *("config.json", "experiment.py", "environment.json", "metrics.jsonl", "status.json", "result.json"),
    *(
        "quarantine.jsonl",
        "skipped.jsonl",
        "checkpoints",
        "damaged",
        "tensorboard",
        "lock",
        REPORT,
        "explain",
        PICTURES,
    ),
    experiment_file.FOLDER,
    *("claims.json", "probes.json", "right.json"),  # of a study's cell
]
PACKAGES = [
    *("jaxcnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain", "array_record"),
    *("tensorflow-datasets", "pillow", "opencv-python-headless", "scikit-learn"),
]


class InUse(UserError):
    """Another process holds the run directory."""


@contextlib.contextmanager
def start_run(
    path: pathlib.Path,
    encoded: dict[str, Any],
    file: pathlib.Path | None,
    dataset: dict[str, Any],
    accept_code: bool = False,
) -> Iterator[RunDirectory]:
    """Creates the run directory, or opens it again for the same config, and holds its lock until the end.

    Args:
      path: the run directory.
      encoded: the resolved experiment, by config.encode.
      file: the experiment file, copied into the run with what it imports from its folder; None if there is none.
      dataset: name, version, class names, label hash and split sizes, for environment.json.
      accept_code: go on with code that is another than the run began with.

    Raises:
      UserError: the directory cannot be written, is in use by another process, holds something else, or a run with
        another config, other labels or other code.
    """
    sources = {} if file is None else experiment_file.sources(file)
    if file is not None:
        _warn_of_modules(file)
    if len(os.fsencode(path)) > LONGEST:
        raise UserError(f"{path} is too long a path: of more than {LONGEST:,} bytes; choose another --workdir")
    try:
        path.mkdir(parents=True, exist_ok=True)
        files.sync_folder(path.parent)
        files.check_folder(path)
        lock = (path / "lock").open("w")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}; choose another --workdir") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # EWOULDBLOCK, and EACCES on some systems
            raise InUse(f"{path} is in use by another process; wait for it, or choose another --workdir") from None
        except OSError as error:  # a file system without locks: ENOLCK, ENOSYS, EOPNOTSUPP
            log.warning(f"{path}: not locked ({error.strerror}): see to it that no other process uses this run")
        others = sorted(entry.name for entry in path.iterdir() if entry.name not in FILES and entry.name[0] != ".")
        if not (path / "config.json").exists() and others:
            raise UserError(
                f"{path} is not a run directory but holds {', '.join(others[:5])}; choose another --workdir"
            )
        if not (path / "config.json").exists() and any(path.glob("checkpoints/*/")):
            raise UserError(
                f"{path} holds checkpoints but no config.json, so that it is unknown which experiment's they are; put "
                "it back, or choose another --workdir"
            )
        directory = RunDirectory(path)
        for name in ("quarantine.jsonl", "skipped.jsonl"):
            directory.mend(name)
        if (path / "config.json").exists():
            _same_config(directory, encoded)
            first = _earlier_starts(directory)
            _same_data(directory, first, encoded, dataset)
            now = environment(dataset, encoded) | {"code": own_code.digests(sources)}
            _same_code(directory, first, sources, encoded, accept_code)
            _warn_of_other_convolutions(directory, first, now)
            starts = [*first.pop("resumed", []), now] if first else []
            first = first or now | {"rebuilt": True}
            first["code"] = own_code.digests(own_code.stored(path))
            directory.write("environment.json", first | {"resumed": starts})
        else:
            directory.store(sources)
            directory.write("environment.json", environment(dataset, encoded) | {"code": own_code.digests(sources)})
            # Last, because a directory with a config is a run that can be resumed.
            directory.write("config.json", {"format": config.FORMAT} | encoded)
        if config.foreign(encoded) and not trust.remember(own_code.trusted_as(path, encoded)):
            log.warning(f"{trust.folder()} cannot be written: reading this run later needs --trust, for its own code")
        yield directory


@functools.cache  # once, and not for every cell of a study
def _warn_of_modules(file: pathlib.Path) -> None:
    for name in experiment_file.not_kept(file):
        log.warning(
            f"{file} imports {name} from the current folder: it is not kept with the run, nor compared when the run "
            f"goes on, and found from here alone; put it beside {file.name}, or install it"
        )


def environment(dataset: dict[str, Any], encoded: dict[str, Any]) -> dict[str, Any]:
    """What a start of a run depends on beside config.json, and the fields of that which may change between starts."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    devices = jax.devices()
    return {
        "git": _git(pathlib.Path(__file__)),
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)},
        "convolutions": onednn.computed_by(),
        "processes": jax.process_count(),
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith(("XLA_", "JAX_", "LIBTPU_"))},
        "free": {
            field: value for field, value in config.flatten(encoded).items() if field in config.run_only_fields(encoded)
        },
        "dataset": dataset,
    }


def _git(file: pathlib.Path) -> dict[str, Any] | None:
    """The commit of the checkout that `file` belongs to, and whether tracked files differ; None outside of one."""

    def ask(*words: str) -> str:
        command = ["git", "-C", file.parent, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", file.name)
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _earlier_starts(directory: RunDirectory) -> dict[str, Any]:
    """What environment.json says; {}, with a warning, if it is gone or damaged: the checkpoints are good all the same,
    and know their config and their classes."""
    try:
        return directory.environment()
    except UserError as error:
        log.warning(
            f"{error.__cause__ or error}: it is written anew, and the data and the code of now are taken "
            "for those that the run began with"
        )
        return {}


def _same_code(
    directory: RunDirectory, first: dict[str, Any], sources: dict[str, bytes], encoded: dict[str, Any], accept: bool
) -> None:
    """Refuses code that may do something else now, unless it is accepted; and mends the run's copy of it."""
    if not sources:
        return
    known = first.get("code", {})
    if not accept:
        changed = own_code.check_same(directory.path, known, sources, encoded)
        if changed:
            log.warning(f"{directory.path}: {changed}")
            return
    if own_code.digests(own_code.stored(directory.path)) != own_code.digests(sources):
        directory.store(sources)


def _warn_of_other_convolutions(directory: RunDirectory, first: dict[str, Any], now: dict[str, Any]) -> None:
    """What XLA and oneDNN compute differs by rounding, as it does between devices, which may change as well."""
    before = [first, *first.get("resumed", [])][-1].get("convolutions", "XLA")
    if first and before != now["convolutions"]:
        log.warning(
            f"{directory.path}: its convolutions were {before}'s and are {now['convolutions']}'s from here on, which "
            f"round otherwise: the result will not be, to the bit, that of a run without this; {_how_to_keep(before)}"
        )


def _how_to_keep(convolutions: str) -> str:
    """How a run gets back the convolutions with which it began, which this process has not."""
    if convolutions == "XLA":
        return f"{onednn_library.SWITCH}=0 keeps XLA's"
    if os.environ.get(onednn_library.SWITCH) == "0":
        return f"without {onednn_library.SWITCH}=0 they stay oneDNN's"
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return "oneDNN computes on a CPU that is one device"
    return "the extra onednn has the former"


def _same_config(directory: RunDirectory, encoded: dict[str, Any]) -> None:
    changed = config.changes(directory.config(), encoded)
    if changed:
        lines = "\n".join(f"  {field}: {old!r} there, {new!r} now" for field, (old, new) in changed.items())
        raise UserError(f"{directory.path} holds a run with another config:\n{lines}\nchoose another --workdir")


def _same_data(
    directory: RunDirectory, first: dict[str, Any], encoded: dict[str, Any], dataset: dict[str, Any]
) -> None:
    if "dataset" not in first:
        return
    before = first["dataset"]
    moved = bool(config.folder_fields(encoded))  # a folder's name is where it lies, and not what is in it
    for field in ("version", "versions", "label_hash", "splits") if moved else DATASET:
        old, new = before.get(field), dataset.get(field)
        if old != new:
            raise UserError(
                f"{directory.path} was started with other data: {field} was {old!r} and is {new!r}; put back the "
                "images that it began with, or begin anew in another --workdir"
            )
