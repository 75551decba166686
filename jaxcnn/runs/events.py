"""Events: what the loop tells of its course to whoever watches a run from inside, such as the proof of resume."""

import contextlib
import pathlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np


class Events:
    """What the loop tells of its course; this one listens to nothing."""

    def phase(self, name: str) -> AbstractContextManager[Any]:
        """Around "compile", "step", "evaluation", "save" and "end"."""
        return contextlib.nullcontext()

    def read(self, run: pathlib.Path, step: int, examples: Sequence[np.ndarray]) -> None:
        """The examples of the batch that follows `step` steps: of each seed the indices, [B], in this process's part.

        `run` is the run directory, of several seeds that of the first.
        """

    def saved(self, wait: Callable[[], None]) -> None:
        """A save has begun; `wait` returns once it is committed."""


SILENT = Events()
