"""Once: what is traced and compiled of a plan, kept by name, so that the plans of its other seeds share it."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from jaxcnn.runs.compilation import Compiled, compiled_at_once


class Once:
    """Whatever is asked for again was made before."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, at the first call of this name. A program that is there took no time.

        For one that is compiled beside something else the second call waits.
        """
        if name not in self._made:
            self._made[name] = make()
            return self._made[name]
        made = self._made[name]
        if isinstance(made, Future):
            return compiled_at_once(_shared(made.result()))
        return _shared(made) if isinstance(made, Compiled) else made


def _shared(compiled: Compiled) -> Compiled:
    return dataclasses.replace(compiled, seconds=0.0, cache="shared")
