"""Files: whole, valid and on disk. Every file of a run, a study or a page is written here, all JSON is made here; what
a user or a data set names is read here, if it is a regular file.
"""

import contextlib
import errno
import json
import math
import os
import pathlib
import re
import secrets
import stat
from typing import Any

import numpy as np

from jaxcnn.errors import UserError

# What a file system answers that cannot flush a folder; it has no need to, or no way.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM)

LARGEST = 1 << 30
"""Bytes that are read of one file, unless more are asked for."""
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def read_bytes(path: str | os.PathLike, largest: int = LARGEST) -> bytes:
    """The bytes of a regular file, or of what a link leads to.

    Raises:
      OSError: as `check_regular`; it has more than `largest` bytes; it cannot be read.
    """
    check_regular(path)
    with open(path, "rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise OSError(f"it has more than {largest / 2**20:,.0f} MiB")
    return data


def check_regular(path: str | os.PathLike) -> None:
    """Asks before a file is opened, since opening a pipe that nobody writes to waits for ever, and a device has no end.

    Raises:
      OSError: there is none, its links lead in a circle, or it is a folder, a pipe, a device or a socket.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError("it is a link that leads back to itself") from error
        raise OSError(error.errno, error.strerror) from error  # without the path, which the caller names
    if not stat.S_ISREG(mode):
        raise OSError(f"it is {KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file")


def check_folder(folder: pathlib.Path) -> None:
    """Asks of every entry of a folder that is there, before any is opened. A link that leads nowhere is met later.

    Raises:
      OSError: one is a pipe, a device or a socket; the message has its path.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if os.path.exists(entry.path) and not entry.is_dir():
                try:
                    check_regular(entry.path)
                except OSError as error:
                    raise OSError(f"{entry.path}: {error.strerror or error}") from error


def to_json(value: Any, indent: int | None = None) -> str:
    """The value as JSON, which any reader takes: NaN and infinities are null, numpy's scalars and arrays their values.

    Raises:
      TypeError: it holds something else than numbers, strings, None, lists, tuples and dicts of these.
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes the value as indented JSON with a newline at the end. Raises OSError as `write_bytes`."""
    write_bytes(path, (to_json(value, indent=2) + "\n").encode())


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes text as UTF-8; what has no UTF-8, such as a part of a strange file name, becomes "?".

    Raises OSError as `write_bytes`.
    """
    write_bytes(path, text.encode("utf-8", errors="replace"))


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file that is there whole or not at all, also after a crash of the machine.

    It is written to a hidden file beside its place, flushed to the disk and renamed; then the folder is flushed. A
    device or a pipe is written to directly.

    Raises:
      OSError: it could not be written; what was there before is still there.
    """
    path = pathlib.Path(path)
    if path.is_symlink():  # which stays a link
        path = pathlib.Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    # A name of its own, for two processes may write the report of one study at the same time.
    part = path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: pathlib.Path) -> None:
    """Flushes a folder's list of names to the disk, where its file system can. Raises OSError where that fails."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def expanded(path: pathlib.Path) -> pathlib.Path:
    """The path with "~" as the home; a shell leaves it alone in --flag=~/x. UserError if there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: {error}; write ./{path} for a folder of this name") from error


def reach(folder: pathlib.Path) -> tuple[pathlib.Path, int | None]:
    """A path of this folder for libraries that read a path as a pattern or as UTF-8, and the descriptor it lives by.

    Most paths are returned as they are, without a descriptor. For one with brackets, stars, backslashes, bytes that are
    not UTF-8, or near the system's limit it is /proc/self/fd/N, which holds for this process while N is open.

    Raises:
      UserError: the path is such a one, and this system has no /proc/self/fd.
      OSError: the folder is not there.
    """
    text = os.fsencode(folder)
    if len(text) < 3000 and not re.search(rb"[\\\[\]*?{}]", text) and _is_utf8(text):
        return folder, None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    path = pathlib.Path(f"/proc/self/fd/{descriptor}")
    if not path.exists():
        os.close(descriptor)
        raise UserError(
            f"{folder}: checkpoints cannot be kept under this path on this system; choose one of letters, digits, "
            "'.', '-' and '_'"
        )
    return path, descriptor


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
