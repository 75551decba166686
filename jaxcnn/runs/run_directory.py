"""Run directory: the run directory, everything that a run writes beside its checkpoints."""

import contextlib
import functools
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from jaxcnn import config, experiment_file, files
from jaxcnn.data.examples import label_hash
from jaxcnn.errors import UserError
from jaxcnn.runs import own_code
from jaxcnn.runs.seal import Damaged

State = Literal["running", "done", "preempted", "diverged", "failed"]
REPORT = "report.html"
SELECTION = "selection"
"""The key of result.json that is no split."""
DEEPEST = 50
"""Levels of a file of JSON."""
NO_METRICS = ("step", "split", "epoch", "count", "learning_rate", "grad_norm", "examples_per_second", "data_wait")
"""What a line or a result has beside the task's metrics."""


class RunDirectory:
    """One run directory. Files that must be whole are written beside their place and renamed.

    Of several processes only number 0 writes; the others' calls do nothing.
    """

    def __init__(self, path: pathlib.Path, process: int = 0):
        self.path, self.process = path, process
        self.checkpoints = path / "checkpoints"
        self._digested, self._digest = 0, hashlib.sha256()  # of metrics.jsonl, so far
        self._ran = False  # whether this start has written its status
        self.quarantined = {
            (line["split"], line["index"]) for line in self._readable_lines("quarantine.jsonl", "split", "index")
        }
        self.skipped = {line["step"]: line for line in self._readable_lines("skipped.jsonl", "step")}

    def config(self) -> dict[str, Any]:
        """The experiment as config.encode gives it now, whatever the format of the file."""
        try:
            return config.upgraded(self._json("config.json"))
        except UserError as error:
            raise UserError(
                f"{error}; it says which experiment's checkpoints these are: put it back, or choose another --workdir"
            ) from error

    def environment(self) -> dict[str, Any]:
        """What the first start ran on, and under "resumed" the others. A start writes a damaged one anew."""
        try:
            return self._json("environment.json")
        except UserError as error:
            raise UserError(f"{error}; launching the run's command again writes it anew") from error

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
        """Writes status.json; "running" leaves what another process has said meanwhile of why the run failed.

        A process that was stopped for long, and goes on in the middle of a save, is the one that the others lost.
        """
        if state == "running" and self._ran and self.status().get("state") == "failed":
            return
        self._ran = True
        self.write("status.json", {"state": state, "step": step, **more})

    def write_result(self, result: dict[str, dict[str, float]], selection: dict[str, Any] | None = None) -> None:
        """The figures per split, and which split chose what."""
        self.write("result.json", result | ({} if selection is None else {SELECTION: selection}))

    def log(self, line: dict[str, Any]) -> None:
        """Appends one line to metrics.jsonl; on disk before the next checkpoint (see `metrics_size`)."""
        if self.process == 0:
            self._append("metrics.jsonl", line)

    def position(self) -> dict[str, Any]:
        """Where the run is: what a checkpoint notes of it, and `recognize` knows again.

        Its config and classes, and the size and digest of metrics.jsonl, all of which is on disk then, with the other
        lists. Resume cuts metrics.jsonl to this size.
        """
        if self.process:
            return {**self._identity, "metrics_size": 0, "metrics_digest": ""}
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
        return {**self._identity, "metrics_size": size, "metrics_digest": self._digest.hexdigest()}

    def recognize(self, note: dict[str, Any]) -> None:
        """Knows again what `position` said. Raises Damaged if it was said of another run, or metrics.jsonl changed."""
        flat, free = config.flatten(self.config()), config.run_only_fields(self.config())
        for field, value in config.upgraded_flat(note["config"]).items():
            now = flat.get(field)
            if field not in free and now != value:
                raise Damaged(f"it is of another run: {field} is {value!r} there and {now!r} in config.json")
        if note.get("classes") not in (None, self._classes):
            raise Damaged("it was saved with other classes, or in another order, than environment.json lists")
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
    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must have in common with its run."""
        return {"config": config.identity(self.config()), "classes": self._classes}

    @functools.cached_property
    def _classes(self) -> str | None:
        """A digest of the names of the classes, which give a net's outputs their meaning; None if there is no list."""
        if not (self.path / "environment.json").exists():
            return None
        classes = self.environment().get("dataset", {}).get("classes")
        return None if classes is None else label_hash(classes)

    def quarantine(self, split: str, index: int, where: str, cause: str) -> bool:
        """Records an example that was passed over; false if it is recorded already."""
        if (split, index) in self.quarantined:
            return False
        self.quarantined.add((split, index))
        if self.process == 0:
            self._append("quarantine.jsonl", {"split": split, "index": index, "where": where, "cause": cause})
        return True

    def skip(self, step: int, details: dict[str, Any]) -> bool:
        """Records a step whose update was skipped; false where it is recorded, since a resumed run meets it again."""
        if step in self.skipped:
            return False
        self.skipped[step] = {"step": step, **details}
        self._append("skipped.jsonl", self.skipped[step])
        return True

    def _append(self, name: str, line: dict[str, Any]) -> None:
        try:
            with (self.path / name).open("a") as file:
                file.write(files.to_json(line) + "\n")
        except OSError as error:
            raise _not_written(self.path / name, error) from error

    def write(self, name: str, value: Any) -> None:
        """Writes a JSON file of the run whole. Raises UserError if it cannot be written."""
        if self.process:
            return
        try:
            files.write_json(self.path / name, value)
        except OSError as error:
            raise _not_written(self.path / name, error) from error

    def store(self, sources: dict[str, bytes]) -> None:
        """Keeps the experiment file, and what it imports from its folder, with the run."""
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

    def mend(self, name: str) -> None:
        """Leaves out the lines that cannot be read, so that the next one begins a line of its own."""
        lines = self._readable_lines(name)
        whole = "".join(files.to_json(line) + "\n" for line in lines).encode()
        if (self.path / name).exists() and whole != (self.path / name).read_bytes():
            self._write_bytes(name, whole)


def _object(line: bytes) -> dict[str, Any]:
    """One line of JSON, which holds an object. Raises ValueError."""
    if not line.strip(b"\0 \t\r\n"):
        raise ValueError("it is empty")
    try:
        value = json.loads(line)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not an object")
    level: list[Any] = [value]
    for _ in range(DEEPEST):  # what reads it calls itself at every level
        if not level:
            break
        level = [item for each in level for item in (each.values() if isinstance(each, dict) else each)]
        level = [item for item in level if isinstance(item, dict | list)]
    if level:
        raise ValueError("it is nested too deeply")
    return value


def is_training(line: dict[str, Any]) -> bool:
    """Whether a line of metrics.jsonl is of a training interval; the others are evaluations, of a split of any name."""
    return "epoch" in line


def metrics_of(line: Mapping[str, Any]) -> dict[str, Any]:
    """The task's metrics of a line of metrics.jsonl or of a split's result, in the order in which they are shown."""
    return {name: value for name, value in line.items() if name not in NO_METRICS}


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


def open_run(path: pathlib.Path) -> RunDirectory:
    """The record of a run that exists. Raises UserError where `path` holds none."""
    path = files.expanded(path).absolute()
    if not (path / "config.json").is_file():
        missing = "does not exist" if not path.exists() else "is not a run directory: it has no config.json"
        raise UserError(f"{path} {missing}; give the directory that a run printed, such as runs/lenet_digits")
    try:
        files.check_folder(path)
    except OSError as error:
        raise UserError(f"{error}; a run directory holds files and folders") from error
    return RunDirectory(path)
