"""Once: what is traced and compiled of a plan, kept by name, so that the plans of its other seeds share it."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxcnn.runs.compilation import Compiled


class Once:
    """Whatever is asked for again was made before."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, at the first call of this name. A program that is there took no time."""
        if name not in self._made:
            self._made[name] = make()
            return self._made[name]
        made = self._made[name]
        return dataclasses.replace(made, seconds=0.0, cache="shared") if isinstance(made, Compiled) else made

    def lowered(self, name: str, lower: Callable[[], Callable[[], Compiled]]) -> Callable[[], Compiled]:
        """A program that `lower` traces, unless it is there; what comes back compiles it, and gives it like `get`."""
        compile_program = lower if name in self._made else lower()  # what is there is not made again
        return lambda: self.get(name, compile_program)
