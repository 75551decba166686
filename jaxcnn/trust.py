"""Trust: which code of runs may be run here: that of runs made by this user, and what `--trust` was said of.

Known code has a file named by its digest in the user's state folder, $XDG_STATE_HOME/jaxcnn/trusted or
~/.local/state/jaxcnn/trusted. Nothing in a run directory can put one there.
"""

import os
import pathlib

_here: set[str] = set()  # what this process knows, if the folder cannot be written


def folder() -> pathlib.Path:
    """Where trust is kept. Machines that share a home share it."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return pathlib.Path(state, "jaxcnn", "trusted")


def remember(digest: str) -> bool:
    """Trusts code from now on; false if that lasts for this process only, since the folder cannot be written."""
    _here.add(digest)
    try:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder() / digest).touch()
    except OSError:
        return False
    return True


def is_trusted(digest: str) -> bool:
    try:
        return digest in _here or (folder() / digest).is_file()
    except OSError:
        return False
