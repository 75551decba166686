"""How long something lasts: epochs, steps or examples, converted to steps once."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, Literal, cast

from jaxcnn.errors import UserError

Unit = Literal["epochs", "steps", "examples"]


@dataclasses.dataclass(frozen=True)
class Duration:
    """An amount of training, such as `epochs(5)`, `steps(200)` or `examples(1e6)`; on the command line `5epochs`.

    Raises:
      UserError: the amount is negative or not finite, or the unit is unknown.
    """

    amount: float
    unit: Unit

    def __post_init__(self):
        if self.unit not in ("epochs", "steps", "examples"):
            raise UserError(f"a duration has the unit epochs, steps or examples, not {self.unit!r}")
        if not 0 <= self.amount < float("inf"):
            raise UserError(f"a duration is finite and not negative, not {self.amount!r} {self.unit}")

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}" if self.amount < 1e6 else f"{self.amount!r} {self.unit}"

    def in_steps(self, examples_per_epoch: int, batch_size: int) -> int:
        """Optimizer steps, rounded to the nearest: epochs need not be a whole number of batches."""
        examples_per_unit = {"epochs": examples_per_epoch, "steps": batch_size, "examples": 1}[self.unit]
        return round(self.amount * examples_per_unit / batch_size)


def check_length(field: str, value: Any) -> None:
    """Raises UserError, which names the field, unless the value is a Duration above 0."""
    if not isinstance(value, Duration):
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else 5
        raise UserError(f"{field} is {value!r}, and not a duration; give jc.steps({number}) or jc.epochs({number})")
    if value.amount == 0:
        raise UserError(f"{field} is 0; give it a length, such as 5epochs or 100steps")


def in_steps(part: Any, to_steps: Callable[[Duration], int]) -> Any:
    """A dataclass, or a tuple of them, with each of its own durations in steps; the same object if it has none."""
    if isinstance(part, tuple):
        changed = tuple(in_steps(each, to_steps) for each in part)
        return part if all(new is old for new, old in zip(changed, part, strict=True)) else changed
    found = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    given = {name: steps(to_steps(value)) for name, value in found.items() if isinstance(value, Duration)}
    return dataclasses.replace(part, **given) if given else part


def epochs(amount: float) -> Duration:
    return Duration(amount, "epochs")


def steps(amount: float) -> Duration:
    return Duration(amount, "steps")


def examples(amount: float) -> Duration:
    return Duration(amount, "examples")


def parse(text: str) -> Duration:
    """'5 epochs', '200steps' or '1e6 examples' -> Duration. Raises ValueError that shows the form."""
    match = re.fullmatch(r"\s*([-+.\deE]+?)\s*(epoch|step|example)s?\s*", text)
    try:
        if match:
            return Duration(float(match[1]), cast(Unit, f"{match[2]}s"))
    except ValueError:
        pass
    raise ValueError(f"{text!r} is not a duration; write 5epochs, 200steps or 1e6examples")
