"""Files are whole and valid JSON, and nothing in the package writes any other way."""

import ast
import json
import math
import pathlib
import stat

import numpy as np
import pytest

from jaxcnn import files
from jaxcnn.commands.output import show
from jaxcnn.report import page
from jaxcnn.runs.run_directory import RunDirectory

PACKAGE = pathlib.Path(files.__file__).parent
# Modules that make JSON for other processes or for a hash, never for a file or a reader.
WIRE = ("cluster/heartbeat.py", "cluster/rendezvous.py", "cluster/preflight.py", "prove/resume.py")
NOT_FINITE = {"loss": math.nan, "rates": (math.inf, np.float32("-inf"), np.float64(0.5)), "step": np.int64(3)}


def strict(text):
    """Parses JSON as other languages do: NaN and Infinity are errors."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_holds_no_nan_and_numpy_is_taken():
    assert strict(files.to_json(NOT_FINITE)) == {"loss": None, "rates": [None, None, 0.5], "step": 3}
    assert strict(files.to_json({"map": np.array([[1.5, np.nan]])})) == {"map": [[1.5, None]]}
    with pytest.raises(TypeError):
        files.to_json({"file": pathlib.Path("x")})


def test_every_file_of_a_run_is_json(tmp_path, capsys):
    directory = RunDirectory(tmp_path)
    directory.log({"step": 1, "split": "test", "loss": math.nan, "accuracy": np.float32(0.5)})
    directory.write_result({"test": {"loss": math.inf, "accuracy": 0.5}})
    directory.write_status("failed", 1, loss=math.nan)
    directory.skip(1, {"loss": math.nan})
    for name in ("result.json", "status.json", "metrics.jsonl", "skipped.jsonl"):
        strict((tmp_path / name).read_text())
    assert math.isnan(directory.result()["test"]["loss"]), "whoever formats figures gets a number"
    show({"loss": math.nan}, "", as_json=True)
    assert strict(capsys.readouterr().out) == {"loss": None}


def test_a_file_is_there_whole_or_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    files.write_json(file, {"a": 1})
    before, mode = file.read_bytes(), stat.S_IMODE((tmp_path / "a.json").stat().st_mode)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(file, {"a": 2})
    monkeypatch.undo()
    assert file.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["a.json"]
    (tmp_path / "plain").write_text("")
    assert mode == stat.S_IMODE((tmp_path / "plain").stat().st_mode), "others of the group can read it"


def test_file_and_folder_are_flushed_before_and_after_the_rename(tmp_path, monkeypatch):
    flushed, original = [], files.os.fsync

    def note(descriptor):
        place = pathlib.Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.append((place == tmp_path.resolve(), (tmp_path / "a").exists()))
        original(descriptor)

    monkeypatch.setattr(files.os, "fsync", note)
    files.write_bytes(tmp_path / "a", b"1")
    assert flushed == [(False, False), (True, True)]  # (is the folder, the file has its name)


def test_a_link_stays_a_link_and_long_and_strange_names_work(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    files.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"
    long = tmp_path / ("x" * 255)
    files.write_text(long, "bird \udcff")
    assert long.read_text() == "bird ?"
    page.save_png(tmp_path, "p", np.zeros((2, 2, 3), np.uint8))
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


def calls(tree):
    """(line, name of the called attribute, name before the dot) of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.lineno, node.func.attr, getattr(node.func.value, "id", "")


def test_nothing_else_writes_files_or_json():
    found = []
    for source in sorted(PACKAGE.rglob("*.py")):
        name = str(source.relative_to(PACKAGE))
        if name == "files.py":
            continue
        for line, function, before in calls(ast.parse(source.read_text())):
            of_json = before == "json" and function in ("dump", "dumps") and name not in WIRE
            of_path = function in ("write_text", "write_bytes", "write_json") and before != "files"
            of_copy = before == "shutil" and function in ("copyfile", "copy", "copy2")
            if of_json or of_path or of_copy:
                found.append(f"{name}:{line} {before}.{function}")
    assert not found, found
