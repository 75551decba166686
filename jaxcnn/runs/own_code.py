"""The code of a run's own: its experiment file and the modules from that file's folder, as they were at its start.

config.json alone says what a run is, unless it names a class of this code: then the code is part of what the run is,
may not change between its starts, and is read later by whoever trusts it.
"""

import ast
import difflib
import hashlib
import os
import pathlib
from typing import Any

from jaxcnn import config, files
from jaxcnn.errors import UserError
from jaxcnn.experiment_file import FILE, FOLDER, MODULE


def stored(run: pathlib.Path) -> dict[str, bytes]:
    """{place in the run directory: text} of what is there.

    Raises:
      UserError: something cannot be read, or is a link: Python would import what it leads to, and nothing here would
        have been asked about that.
    """
    found = [path for path in (run / FILE, run / FOLDER) if os.path.lexists(path)]
    found += sorted((run / FOLDER).rglob("*"))
    sources = {}
    for path in found:
        if path.is_symlink():
            raise UserError(f"{path} is a link; a run keeps its code as files: put the file there, or remove it")
        if not path.is_dir():
            try:
                sources[str(path.relative_to(run))] = files.read_bytes(path)
            except OSError as error:
                raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    return sources


def store(run: pathlib.Path, sources: dict[str, bytes]) -> None:
    """Writes the code into the run directory, in place of what is there. Raises OSError."""
    for file in stored(run).keys() - sources.keys():
        (run / file).unlink()
    for file, text in sources.items():
        (run / file).parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(run / file, text)


def digests(sources: dict[str, bytes]) -> dict[str, str]:
    """For environment.json."""
    return {file: hashlib.sha256(text).hexdigest() for file, text in sorted(sources.items())}


def check_same(run: pathlib.Path, known: dict[str, str], sources: dict[str, bytes], encoded: dict[str, Any]) -> str:
    """What changed in code that config.json does not need, "" if nothing did. Comments and docstrings do not count.

    Args:
      run: the run directory.
      known: digests of the run's code; {} for a run that was begun before there were any.
      sources: the code now.
      encoded: the experiment.

    Raises:
      UserError: a class that config.json names may be another one now; the message shows where.
    """
    before, changed = stored(run), []
    for file in sorted(before.keys() | sources.keys() | known.keys()):
        old, new = before.get(file), sources.get(file)
        digest = known.get(file)
        if digest is not None and (old is None or hashlib.sha256(old).hexdigest() != digest):
            if new is not None and hashlib.sha256(new).hexdigest() == digest:
                continue  # the copy in the run is damaged, and this is what it was
            changed.append(f"  {file}: the copy in the run is damaged, and the file is not the one it was made of")
        elif old is None or new is None:
            changed.append(f"  {file}: {'not there before' if old is None else 'not there any more'}")
        elif old != new and _meaning(old) != _meaning(new):
            changed.append("\n".join([f"  {file}:", *_difference(old, new)]))
    if not changed:
        return ""
    own = {
        MODULE,
        *(pathlib.PurePath(file).parts[1].removesuffix(".py") for file in before | sources if file != FILE),
    }
    if not any(name.partition(":")[0].partition(".")[0] in own for name in config.foreign(encoded)):
        files_changed = ", ".join(change.strip().partition(":")[0] for change in changed)
        return f"{files_changed} changed since the run began; config.json, which says what the run is, did not"
    raise UserError(
        f"{run} holds a run with other code:\n" + "\n".join(changed) + "\nchoose another --workdir, or go on with the "
        "code as it is now with --accept-code: the result is then that of no one version"
    )


def trusted_as(run: pathlib.Path, encoded: dict[str, Any]) -> str:
    """The digest under which jaxcnn.trust knows this code: of all its files, and of the classes that are from it."""
    text = files.to_json([digests(stored(run)), sorted(config.foreign(encoded))])
    return hashlib.sha256(text.encode()).hexdigest()


def _meaning(text: bytes) -> str | bytes:
    """What two versions must have in common to do the same: all but comments, layout and docstrings."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return text
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant(value=str()) as docstring), *_]:
                docstring.value = ""
    return ast.dump(tree)


def _difference(old: bytes, new: bytes, most: int = 8) -> list[str]:
    before, now = (text.decode(errors="replace").splitlines() for text in (old, new))
    changed = difflib.unified_diff(before, now, n=0, lineterm="")
    found = [line for line in changed if not line.startswith(("---", "+++"))]
    return [f"    {line}" for line in found[:most]] + ["    ..."] * (len(found) > most)


def modules(run: pathlib.Path) -> set[str]:
    """The top-level names of the modules that the run keeps."""
    try:
        return {pathlib.Path(name).stem for name in os.listdir(run / FOLDER)}
    except OSError:
        return set()
