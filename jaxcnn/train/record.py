"""Record: the run directory, everything that a run writes beside its checkpoints."""

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax

from jaxcnn import config, experiment_file, files, trust
from jaxcnn.errors import UserError
from jaxcnn.train import own_code
from jaxcnn.train.seal import Damaged

log = logging.getLogger("jaxcnn")

State = Literal["running", "done", "preempted", "diverged", "failed"]
REPORT = "report.html"
LONGEST = 3800
"""Bytes of a run directory's path; the system's limit is 4,096, and the paths of the files in it are longer."""
DATASET = ("name", "version", "versions", "label_hash", "splits")
SELECTION = "selection"
"""The key of result.json that is no split."""
FILES = [
    *("config.json", "experiment.py", "environment.json", "metrics.jsonl", "status.json", "result.json"),
    *("quarantine.jsonl", "skipped.jsonl", "checkpoints", "damaged", "tensorboard", "lock", REPORT, "explain"),
    experiment_file.FOLDER,
    *("claims.json", "probes.json"),  # of a study's cell
]
PACKAGES = [
    *("jaxcnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain", "array_record"),
    *("tensorflow-datasets", "pillow", "opencv-python-headless", "scikit-learn"),
]


class InUse(UserError):
    """Another process holds the run directory."""


class Record:
    """One run directory. Files that must be whole are written beside their place and renamed.

    Of several processes only number 0 writes; the others' calls do nothing.
    """

    def __init__(self, path: pathlib.Path, process: int = 0):
        self.path, self.process = path, process
        self.checkpoints = path / "checkpoints"
        self._digested, self._digest = 0, hashlib.sha256()  # of metrics.jsonl, so far
        self.quarantined = {
            (line["split"], line["index"]) for line in self._readable_lines("quarantine.jsonl", "split", "index")
        }
        self.skipped = {line["step"]: line for line in self._readable_lines("skipped.jsonl", "step")}

    def config(self) -> dict[str, Any]:
        return config.renamed(self._json("config.json"))

    def environment(self) -> dict[str, Any]:
        return self._json("environment.json")

    def newest_start(self) -> dict[str, Any]:
        """The environment of the newest start; {} of a run that has none yet."""
        if not (self.path / "environment.json").exists():
            return {}
        first = self.environment()
        return [first, *first.get("resumed", [])][-1]

    def status(self) -> dict[str, Any]:
        """State, step and what else is known; {} if the file is not there or damaged: a checkpoint has the step."""
        try:
            status = self._json("status.json")
        except UserError:
            return {}
        return status if isinstance(status.get("state"), str) and isinstance(status.get("step"), int) else {}

    def state(self) -> str | None:
        """The state in status.json; a run that is "done" without a result there is "running": its end was lost."""
        state = self.status().get("state")
        if state != "done":
            return state
        try:
            return "done" if self.result() else "running"
        except UserError:
            return "running"

    def result(self) -> dict[str, dict[str, float]]:
        """The final metrics per split; {} before the end. What is null in the file is NaN here."""
        return {
            split: {name: math.nan if value is None else value for name, value in metrics.items()}
            for split, metrics in self._result().items()
            if split != SELECTION
        }

    def selection(self) -> dict[str, Any]:
        """Which split chose what (selection.py), {} before the end."""
        return self._result().get(SELECTION, {})

    def roles(self) -> dict[str, str]:
        """{split: "validation" for one that was evaluated during training, "test" for one read at the end only}."""
        data = self.config().get("data", {})
        return dict.fromkeys(data.get("test_splits", ()), "test") | dict.fromkeys(
            data.get("evaluation_splits", ()), "validation"
        )

    def _result(self) -> dict[str, Any]:
        return self._json("result.json") if (self.path / "result.json").exists() else {}

    def metrics(self) -> list[dict[str, Any]]:
        return self._lines("metrics.jsonl")

    def write_status(self, state: State, step: int, **more: Any) -> None:
        self._write("status.json", {"state": state, "step": step, **more})

    def write_result(self, result: dict[str, dict[str, float]], selection: dict[str, Any] | None = None) -> None:
        """The figures per split, and which split chose what."""
        self._write("result.json", result | ({} if selection is None else {SELECTION: selection}))

    def log(self, line: dict[str, Any]) -> None:
        """Appends one line to metrics.jsonl; on disk before the next checkpoint (see `metrics_size`)."""
        if self.process == 0:
            self._append("metrics.jsonl", line)

    def position(self) -> dict[str, Any]:
        """Where the run is: what a checkpoint notes of it, and `recognize` knows again.

        Its config, and the size and the digest of metrics.jsonl, all of which is on disk then, with the other lists.
        Resume cuts metrics.jsonl to this size.
        """
        if self.process:
            return {"config": self._fixed, "metrics_size": 0, "metrics_digest": ""}
        for name in ("quarantine.jsonl", "skipped.jsonl"):
            with contextlib.suppress(FileNotFoundError), (self.path / name).open("rb") as file:
                os.fsync(file.fileno())
        try:
            with (self.path / "metrics.jsonl").open("a+b") as file:
                os.fsync(file.fileno())
                size = file.tell()
                file.seek(self._digested)
                self._digest.update(file.read(size - self._digested))
                self._digested = size
            files.sync_folder(self.path)
        except OSError as error:
            raise _not_written(self.path / "metrics.jsonl", error) from error
        return {"config": self._fixed, "metrics_size": size, "metrics_digest": self._digest.hexdigest()}

    def recognize(self, note: dict[str, Any]) -> None:
        """Knows again what `position` said. Raises Damaged if it was said of another run, or metrics.jsonl changed."""
        flat, free = config.flatten(self.config()), config.free(self.config())
        for field, value in note["config"].items():
            now = flat.get(field)
            if field not in free and now != value:
                raise Damaged(f"it is of another run: {field} is {value!r} there and {now!r} in config.json")
        if self.process or not note["metrics_size"]:
            return
        try:
            with (self.path / "metrics.jsonl").open("rb") as file:
                logged = file.read(note["metrics_size"])
        except OSError as error:
            raise Damaged(f"metrics.jsonl, which belongs to it: {error.strerror}") from error
        if len(logged) < note["metrics_size"]:
            raise Damaged("metrics.jsonl is shorter than when it was saved")
        if hashlib.sha256(logged).hexdigest() != note["metrics_digest"]:
            raise Damaged("metrics.jsonl is another than when it was saved")

    def cut_metrics(self, size: int) -> None:
        """Drops what was logged after the checkpoint that the run resumes from."""
        if self.process:
            return
        with (self.path / "metrics.jsonl").open("a") as file:
            if file.tell() > size:
                file.truncate(size)
        self._digested, self._digest = 0, hashlib.sha256()

    @functools.cached_property
    def _fixed(self) -> dict[str, Any]:
        return config.fixed(self.config())

    def quarantine(self, split: str, index: int, where: str, cause: str) -> bool:
        """Records an example that was passed over; false if it is recorded already."""
        if (split, index) in self.quarantined:
            return False
        self.quarantined.add((split, index))
        if self.process == 0:
            self._append("quarantine.jsonl", {"split": split, "index": index, "where": where, "cause": cause})
        return True

    def skip(self, step: int, figures: dict[str, Any]) -> bool:
        """Records a step whose update was skipped; false where it is recorded, since a resumed run meets it again."""
        if step in self.skipped:
            return False
        self.skipped[step] = {"step": step, **figures}
        self._append("skipped.jsonl", self.skipped[step])
        return True

    def _append(self, name: str, line: dict[str, Any]) -> None:
        try:
            with (self.path / name).open("a") as file:
                file.write(files.to_json(line) + "\n")
        except OSError as error:
            raise _not_written(self.path / name, error) from error

    def _write(self, name: str, value: Any) -> None:
        if self.process:
            return
        try:
            files.write_json(self.path / name, value)
        except OSError as error:
            raise _not_written(self.path / name, error) from error

    def _store(self, sources: dict[str, bytes]) -> None:
        try:
            own_code.store(self.path, sources)
        except OSError as error:
            raise _not_written(self.path / experiment_file.FILE, error) from error

    def _write_bytes(self, name: str, data: bytes) -> None:
        try:
            files.write_bytes(self.path / name, data)
        except OSError as error:
            raise _not_written(self.path / name, error) from error

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return _object((self.path / name).read_bytes())
        except FileNotFoundError:
            raise UserError(f"{self.path} is not a run directory: it has no {name}") from None
        except (OSError, ValueError) as error:
            cause = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{self.path / name} cannot be read: {cause}") from error

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """The lines of a file, [] if it is not there. Raises UserError with the number of one that cannot be read."""
        found = []
        for number, line in enumerate(self._whole_lines(name), 1):
            try:
                found.append(_object(line))
            except ValueError as error:
                raise UserError(
                    f"{self.path / name}: line {number} cannot be read: {error}; launching the run's command again "
                    "drops what was written after its newest checkpoint"
                ) from error
        return found

    def _readable_lines(self, name: str, *fields: str) -> list[dict[str, Any]]:
        """The lines of a file that can be read and have these fields; what the others said, the run meets again."""
        found = []
        for line in self._whole_lines(name):
            with contextlib.suppress(ValueError):
                value = _object(line)
                found += [value] if all(field in value for field in fields) else []
        return found

    def _whole_lines(self, name: str) -> list[bytes]:
        try:
            text = (self.path / name).read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self.path / name} cannot be read: {error.strerror}") from error
        # A line without its end was cut by a kill; it belongs to a step that resume runs again.
        return text[: text.rfind(b"\n") + 1].splitlines()

    def _mend(self, name: str) -> None:
        """Leaves out the lines that cannot be read, so that the next one begins a line of its own."""
        lines = self._readable_lines(name)
        whole = "".join(files.to_json(line) + "\n" for line in lines).encode()
        if (self.path / name).exists() and whole != (self.path / name).read_bytes():
            self._write_bytes(name, whole)


def _object(line: bytes) -> dict[str, Any]:
    """One line of JSON, which holds an object. Raises ValueError."""
    try:
        value = json.loads(line)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not an object")
    return value


def is_training(line: dict[str, Any]) -> bool:
    """Whether a line of metrics.jsonl is of a training interval; the others are evaluations, of a split of any name."""
    return "epoch" in line


def line_name(line: dict[str, Any]) -> str:
    """What a line's curve and figures are called: "train" for training, else the split."""
    if line["split"] == "train" and not is_training(line):
        return "train (evaluated)"
    return line["split"]


def labeled(split: str, roles: Mapping[str, str]) -> str:
    """A split's name in tables, with its role where the name does not say it: "test", "train[90%:] (validation)"."""
    role = roles.get(split) or roles.get(split.removesuffix("_ema"))
    return split if role is None or split.startswith(role) else f"{split} ({role})"


def _not_written(path: pathlib.Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written: {error}; the checkpoints are intact")


def open_run(path: pathlib.Path) -> Record:
    """The record of a run that exists. Raises UserError where `path` holds none."""
    path = files.expanded(path).absolute()
    if not (path / "config.json").is_file():
        missing = "does not exist" if not path.exists() else "is not a run directory: it has no config.json"
        raise UserError(f"{path} {missing}; give the directory that a run printed, such as runs/lenet_digits")
    return Record(path)


@contextlib.contextmanager
def start_run(
    path: pathlib.Path,
    encoded: dict[str, Any],
    file: pathlib.Path | None,
    dataset: dict[str, Any],
    accept_code: bool = False,
) -> Iterator[Record]:
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
    if len(os.fsencode(path)) > LONGEST:
        raise UserError(f"{path} is too long a path: of more than {LONGEST:,} bytes; choose another --workdir")
    try:
        path.mkdir(parents=True, exist_ok=True)
        files.sync_folder(path.parent)
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
        record = Record(path)
        for name in ("quarantine.jsonl", "skipped.jsonl"):
            record._mend(name)
        if (path / "config.json").exists():
            _same_config(record, encoded)
            _same_data(record, encoded, dataset)
            now = environment(dataset, encoded) | {"code": own_code.digests(sources)}
            first = record.environment()
            _same_code(record, sources, encoded, accept_code)
            starts = first.pop("resumed", [])
            first["code"] = own_code.digests(own_code.stored(path))
            record._write("environment.json", first | {"resumed": [*starts, now]})
        else:
            record._store(sources)
            record._write("environment.json", environment(dataset, encoded) | {"code": own_code.digests(sources)})
            # Last, because a directory with a config is a run that can be resumed.
            record._write("config.json", encoded)
        if config.foreign(encoded) and not trust.remember(own_code.trusted_as(path, encoded)):
            log.warning(f"{trust.folder()} cannot be written: reading this run later needs --trust, for its own code")
        yield record


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
        "processes": jax.process_count(),
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith(("XLA_", "JAX_", "LIBTPU_"))},
        "free": {field: value for field, value in config.flatten(encoded).items() if field in config.free(encoded)},
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


def _same_code(record: Record, sources: dict[str, bytes], encoded: dict[str, Any], accept: bool) -> None:
    """Refuses code that may do something else now, unless it is accepted; and mends the run's copy of it."""
    if not sources:
        return
    known = record.environment().get("code", {})
    if not accept:
        changed = own_code.check_same(record.path, known, sources, encoded)
        if changed:
            log.warning(f"{record.path}: {changed}")
            return
    if own_code.digests(own_code.stored(record.path)) != own_code.digests(sources):
        record._store(sources)


def _same_config(record: Record, encoded: dict[str, Any]) -> None:
    changed = config.changes(record.config(), encoded)
    if changed:
        lines = "\n".join(f"  {field}: {old!r} there, {new!r} now" for field, (old, new) in changed.items())
        raise UserError(f"{record.path} holds a run with another config:\n{lines}\nchoose another --workdir")


def _same_data(record: Record, encoded: dict[str, Any], dataset: dict[str, Any]) -> None:
    before = record.environment()["dataset"]
    moved = "data.source.path" in config.free(encoded)  # a folder's name is where it lies, and not what is in it
    for field in ("version", "versions", "label_hash", "splits") if moved else DATASET:
        old, new = before.get(field), dataset.get(field)
        if old != new:
            raise UserError(f"{record.path} was started with other data: {field} was {old!r} and is {new!r}")
