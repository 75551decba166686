"""Search: which points of a sweep's axes are tried, and how much of the training each of them gets."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.errors import UserError
from jaxcnn.studies.axes import Point, check_values, point_text, points


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Numbers between `low` and `high`, all equally likely; for RandomSearch."""

    low: float
    high: float

    def __post_init__(self):
        if not self.low < self.high:
            raise UserError(f"Uniform({self.low:g}, {self.high:g}): the first must be below the second")

    def draw(self, rng: np.random.Generator) -> float:
        return _rounded(rng.uniform(self.low, self.high))


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """Numbers between `low` and `high`, their logarithms equally likely, such as learning rates; for RandomSearch."""

    low: float
    high: float

    def __post_init__(self):
        if not 0 < self.low < self.high:
            raise UserError(f"LogUniform({self.low:g}, {self.high:g}): both are above 0, the first below the second")

    def draw(self, rng: np.random.Generator) -> float:
        return _rounded(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))


Range = Uniform | LogUniform
Space = Mapping[str, Sequence[Any] | Range]
"""{field: the values to choose from, or a range}."""


@dataclasses.dataclass(frozen=True)
class GridSearch:
    """Every combination of the values."""

    def points(self, space: Space) -> list[Point]:
        """Raises UserError if an axis is a range, which has no grid."""
        for field, values in space.items():
            if isinstance(values, Range):
                raise UserError(f"sweep.axes: {field!r} is a range, for search=jc.RandomSearch(); a grid needs values")
        check_values(space, "sweep.axes")  # pyright: ignore[reportArgumentType]
        return points(space)  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass(frozen=True)
class RandomSearch:
    """Points drawn at random, each axis by itself (Bergstra & Bengio 2012): from a range, or one of its values."""

    trials: int = 20
    seed: int = 0
    """Of the draws; the first trials are the same for any number of them."""

    def __post_init__(self):
        if self.trials < 1:
            raise UserError(f"RandomSearch.trials is {self.trials}; it must be at least 1")

    def points(self, space: Space) -> list[Point]:
        """Different ones: fewer than `trials` if there are no more.

        Raises:
          UserError: an axis has no value, or one twice.
        """
        listed = {field: values for field, values in space.items() if not isinstance(values, Range)}
        if listed:
            check_values(listed, "sweep.axes")
        rng = np.random.Generator(np.random.Philox(self.seed))
        found: dict[str, Point] = {}
        for _ in range(100 * self.trials):
            point = {
                field: values.draw(rng) if isinstance(values, Range) else values[int(rng.integers(len(values)))]
                for field, values in space.items()
            }
            found.setdefault(point_text(point), point)
            if len(found) == self.trials:
                break
        return [*found.values()]


@dataclasses.dataclass(frozen=True)
class SuccessiveHalving:
    """Many points for a short while, the best of them for longer (Jamieson & Talwalkar 2016): on each rung the best
    1/eta by the last evaluation go on, from where they are, until they have had `eta` times as much training; on the
    last rung the rest of the duration. A schedule is that of the whole duration throughout."""

    eta: int = 3
    rungs: int = 3
    start: GridSearch | RandomSearch = dataclasses.field(default=GridSearch())
    """Which points begin."""

    def __post_init__(self):
        if self.eta < 2 or self.rungs < 2:
            raise UserError(f"SuccessiveHalving(eta={self.eta}, rungs={self.rungs}): both must be at least 2")

    def points(self, space: Space) -> list[Point]:
        return self.start.points(space)

    def survivors(self, number: int) -> int:
        """How many of so many points go on to the next rung: at least one."""
        return max(1, number // self.eta)

    def share(self, rung: int) -> float:
        """Of the duration that a point of this rung, from 0, has had at its end."""
        return float(self.eta) ** (rung - self.rungs + 1)


Search = GridSearch | RandomSearch | SuccessiveHalving
GRID = GridSearch()


def _rounded(value: float) -> float:
    """To three figures: more say nothing, and names of folders hold them."""
    return float(f"{value:.3g}")
