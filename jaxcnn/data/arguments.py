"""Arguments of transforms: what a size, a range or a level may be, and the sentence for one that may not."""

from typing import cast, get_args

from jaxcnn.data.images import Method
from jaxcnn.errors import UserError, did_you_mean


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size; an int is both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def levels(transform, field: str, values: int | tuple[int, ...], shape: tuple[int, ...]) -> int | tuple[int, ...]:
    """A level, or one for each channel of an image of this shape. UserError for another number of them."""
    return values if isinstance(values, int) else cast(tuple[int, ...], per_channel(transform, field, values, shape[2]))


def per_channel(transform, field: str, values: float | tuple[float, ...], channels: int) -> tuple[float, ...]:
    """`values` as a tuple of one number or of `channels` numbers."""
    values = (values,) if isinstance(values, int | float) else tuple(values)
    if len(values) not in (1, channels):
        raise UserError(
            f"{transform}: {field} has {len(values)} numbers, but the image has {channels} "
            f"channel{'s'[: channels > 1]}; give {' or '.join(map(str, sorted({1, channels})))}"
        )
    return values


def check_size(transform, field: str, size: int | tuple[int, int], least: int = 1) -> None:
    sides = size if isinstance(size, tuple | list) else (size,)
    if not (len(sides) in (1, 2) and all(isinstance(side, int) for side in sides)) or min(pair(size)) < least:
        raise UserError(
            f"{transform}: {field} must be a whole number of pixels, at least {least}, or (height, width) of such"
        )


def check_range(
    transform, field: str, bounds: tuple[float, float], least: float, most: float, open_low: bool = False
) -> None:
    valid = len(bounds) == 2 and least <= bounds[0] <= bounds[1] <= most  # false for NaN too
    if not valid or (open_low and bounds[0] == least):
        limits = f"{'above' if open_low else 'at least'} {least:g} and at most {most:g}".replace(" and at most inf", "")
        raise UserError(f"{transform}: {field} must be {limits}, a range in the order (low, high)")


def check_number(transform, field: str, least: float, most: float, whole: bool = False, open_low: bool = False) -> None:
    value = getattr(transform, field)
    number = isinstance(value, int) if whole else isinstance(value, int | float)
    if not number or isinstance(value, bool) or not least <= value <= most or (open_low and value == least):
        limits = f"{'above' if open_low else 'at least'} {least:g} and at most {most:g}"
        raise UserError(f"{transform}: {field} must be a {'whole ' * whole}number, {limits}")


def check_levels(transform, field: str, given: int | tuple[int, ...]) -> None:
    values = given if isinstance(given, tuple | list) else (given,)
    if not values or not all(isinstance(v, int) and 0 <= v <= 255 for v in values):
        raise UserError(f"{transform}: {field} must be a level in 0..255, or one per channel")


def check_method(transform) -> None:
    methods = get_args(Method)
    if transform.method not in methods:
        raise UserError(f"{transform}: method is one of {', '.join(methods)}{did_you_mean(transform.method, methods)}")
