"""Scale: the forms of a study or a sweep, told by the annotation of its function's one argument.

`def study(scale: jc.Scale = "full")` has all three, `def study(scale: Literal["quick", "full"] = "full")` two, and
`def study()` is of one form.
"""

import inspect
import pathlib
import typing
from collections.abc import Callable
from typing import Any, Literal

from jaxcnn.errors import UserError

Scale = Literal["quick", "medium", "full"]
""" "quick": two CPU cores, under 20 minutes; "medium": one GPU, minutes; "full": as the paper has it."""
SCALES: tuple[Scale, ...] = typing.get_args(Scale)


def scales_of(function: Callable[..., Any], file: pathlib.Path) -> tuple[Scale, ...]:
    """The scales that a function can make, () of one that takes none.

    Raises:
      UserError: its arguments are others.
    """
    parameters = inspect.signature(function, eval_str=True).parameters
    if not parameters:
        return ()
    known = typing.get_args(parameters["scale"].annotation) if [*parameters] == ["scale"] else ()
    if not known or not {*known} <= {*SCALES}:
        raise UserError(
            f"{file}: {function.__name__}({', '.join(parameters)}): it takes nothing, or "
            f'`scale: jc.Scale = "full"`, or fewer of these, as Literal["quick", "full"]'
        )
    return known


def at_scale(function: Callable[..., Any], scale: Scale, file: pathlib.Path) -> Any:
    """What the function makes at a scale; one of a single form makes that at "full".

    Raises:
      UserError: it has no form of this scale.
    """
    scales = scales_of(function, file)
    if not scales and scale == "full":
        return function()
    if scale not in scales:
        forms = f"the forms {', '.join(scales)}" if scales else "one form, without a flag"
        raise UserError(f"{file} has no {scale} form; it has {forms}")
    return function(scale)
