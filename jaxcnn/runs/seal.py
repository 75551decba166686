"""Seal: the digests of a checkpoint's files, written with it, so that no damaged byte is ever restored unseen."""

import asyncio
import hashlib
import json
import os
import pathlib
from typing import Any

from orbax.checkpoint.path import atomicity

from jaxcnn import files

SEAL = "seal.json"
# Orbax writes these in the moment of the commit, after the seal. They say when and by what, and no value is read there.
UNSEALED = ("_CHECKPOINT_METADATA", "commit_success.txt")


class Damaged(Exception):
    """A checkpoint is not what was saved, or not of this run; the message says in what."""


def seal(folder: pathlib.Path) -> None:
    """Flushes every file of a checkpoint to the disk and writes their digests into it. Raises OSError."""
    digests = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            path = pathlib.Path(directory, name)
            with path.open("rb") as file:
                os.fsync(file.fileno())
                if str(path.relative_to(folder)) not in UNSEALED:
                    digests[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
        files.sync_folder(pathlib.Path(directory))
    files.write_json(folder / SEAL, {"files": digests, "digest": _digest(digests)})


def check(folder: pathlib.Path) -> bool:
    """Whether the checkpoint is sealed, and then whole; one that was saved before there were seals has none.

    Raises:
      Damaged: a file is missing or another than was saved, or the seal itself is.
    """
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                files.check_regular(os.path.join(directory, name))
            except OSError as error:
                raise Damaged(f"{name}: {error.strerror or error}") from error
    try:
        sealed = json.loads((folder / SEAL).read_bytes())
        digests = sealed["files"]
        good = sealed["digest"] == _digest(digests)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Damaged(f"{SEAL} cannot be read: {type(error).__name__}") from error
    if not good:
        raise Damaged(f"{SEAL} has changed")
    for name, digest in digests.items():
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Damaged(f"{name}: {error.strerror or type(error).__name__}") from error
        if found != digest:
            raise Damaged(f"{name} has changed since it was saved")
    return True


def _digest(digests: Any) -> str:
    return hashlib.sha256(files.to_json(sorted(digests.items())).encode()).hexdigest()


class Sealed(atomicity.AtomicRenameTemporaryPath):
    """Orbax's place of an unfinished checkpoint, sealed in the moment before it gets its name.

    Orbax calls `finalize` in the thread that saves, on process 0, when all processes have written their parts.
    """

    async def finalize(self) -> None:
        final = pathlib.Path(self.get_final())
        whole = final.name.isdigit()  # a checkpoint, and no item of one
        if whole:
            await asyncio.to_thread(seal, pathlib.Path(self.get()))
        await super().finalize()
        if whole:
            await asyncio.to_thread(_flush, final)


def _flush(folder: pathlib.Path) -> None:
    for name in UNSEALED:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
    files.sync_folder(folder)
    files.sync_folder(folder.parent)
