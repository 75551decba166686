"""Where the positions of a value are, and what they see of the image: receptive fields through a jaxpr.

Every value of the program that depends on the image carries a Place: along height and along width, the axis on which
positions lie, where the first one is in the image, the distance between them (jump) and the side of the square that
each of them sees (field).
Every value that depends on parameters alone carries their paths. The rules, by the kind of equation:

* convolution, pooling: field + (K - 1) * dilation * jump, jump * stride. A strided slice steps as a pooling of 1 does.
* elementwise, concatenation: the largest field of the operands. In elementwise equations an operand without positions,
  such as the gate of squeeze-and-excite or the statistics of a layer norm, counts for nothing beside one with
  positions: by convention what comes from a mean over the whole image does not widen the field.
* sum, mean or product over an axis of positions: behind it there are none, and the field is the whole image. A product
  with a constant matrix (adaptive pooling, resizing) makes other positions, each with the whole image for its field.
* gather at indices that depend on the image (deformable convolution): positions are those of the indices, and the field
  is the larger one of both, which is that of the undeformed kernel: the offsets themselves are not counted.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from jaxcnn.summary.formulas import grow_field


@dataclasses.dataclass(frozen=True)
class Side:
    """Positions of a value along the image's height or width."""

    field: float
    jump: float
    axis: int | None
    """The axis they lie on; None: there are none, the value is one for the whole image."""
    size: int = 1
    inner: int = 1
    """Elements of the axis per position: W where height and width are flattened into one axis."""
    first: float = 0
    """Where in the image the middle of the first position's field lies, in pixels; 0: the middle of the first pixel."""


WHOLE = Side(math.inf, math.inf, None)


@dataclasses.dataclass(frozen=True)
class Value:
    """What is known of one value."""

    spatial: tuple[Side, Side] | None = None
    """(height, width); None where it does not depend on the image."""
    parameters: frozenset[str] = frozenset()
    """Paths of the parameters it is made of, where it does not depend on the image."""
    sampled: tuple[float, float] | None = None
    """Jumps of the map that a deformable convolution gathered it from."""

    @property
    def sides(self) -> tuple[Side, Side]:
        """`place` of a value that depends on the image."""
        assert self.spatial is not None
        return self.spatial


CONSTANT = Value()


def tidy(number: float) -> float:
    """Whole numbers as int, others as float: paddings may be NumPy's."""
    return int(number) if number % 1 == 0 else float(number)


Shape = tuple[int, ...]
Params = dict[str, Any]
# (operands, their shapes, the output's shape, the equation's parameters) -> the output's value.
Rule = Callable[[list[Value], list[Shape], Shape, Params], Value]


def _each_side(value: Value, change: Any) -> Value:
    if value.spatial is None:
        return value
    rows, columns = value.spatial
    return dataclasses.replace(value, spatial=(change(rows), change(columns)))


def shift(value: Value, by: int) -> Value:
    """For a leading axis that comes or goes."""
    return _each_side(value, lambda side: side if side.axis is None else dataclasses.replace(side, axis=side.axis + by))


def _moved(value: Value, axes: dict[int, int]) -> Value:
    """Each old axis is now the given one; positions on the others are gone."""

    def move(side: Side) -> Side:
        return dataclasses.replace(side, axis=axes[side.axis]) if side.axis in axes else WHOLE

    return _each_side(value, move)


def _image(operands: list[Value]) -> Value:
    """The first operand that depends on the image."""
    return next(operand for operand in operands if operand.spatial is not None)


def _elementwise(operands: list[Value], shapes: list[Shape], out: Shape, params: Params) -> Value:
    values = [(value, shape) for value, shape in zip(operands, shapes, strict=True) if value.spatial is not None]
    values = [(value, shape) for value, shape in values if len(shape) == len(out)]
    if not values:
        return Value((WHOLE, WHOLE))

    def join(sides: list[Side], shapes: list[tuple[int, ...]]) -> Side:
        placed = [
            side
            for side, shape in zip(sides, shapes, strict=True)
            if side.axis is not None and shape[side.axis] == out[side.axis]
        ]
        if not placed:
            return WHOLE
        # Where fields have different middles, as under TensorFlow's padding, the largest one's is taken.
        widest = max(placed, key=lambda side: side.field)
        return dataclasses.replace(placed[0], field=widest.field, first=widest.first, jump=max(s.jump for s in placed))

    rows, columns = (join([value.sides[i] for value, _ in values], [shape for _, shape in values]) for i in (0, 1))
    return Value((rows, columns), sampled=next((value.sampled for value, _ in values if value.sampled), None))


def _concatenate(operands: list[Value], shapes: list[Shape], out: Shape, params: Params) -> Value:
    """As elementwise, but an operand without positions widens the field here: it is no gate."""
    joined = params["dimension"]
    shapes = [(*shape[:joined], out[joined], *shape[joined + 1 :]) for shape in shapes]
    value = _elementwise(operands, shapes, out, params)
    sides = []
    for i, side in enumerate(value.sides):
        field = max(operand.spatial[i].field for operand in operands if operand.spatial is not None)
        sides.append(dataclasses.replace(side, field=field, size=out[joined] if side.axis == joined else side.size))
    return dataclasses.replace(value, spatial=(sides[0], sides[1]))


def _same(operands: list[Value], shapes: list[Shape], out: Shape, params: Params) -> Value:
    """Positions stay on their axes, though there may be fewer or more of them."""

    def resize(side: Side) -> Side:
        if side.axis is None or side.inner > 1 or side.size != shapes[0][side.axis]:
            return side
        return dataclasses.replace(side, size=out[side.axis])

    return _each_side(_image(operands), resize)


def _pad(operands: list[Value], shapes: list[Shape], out: Shape, params: Params) -> Value:
    def move(side: Side) -> Side:
        if side.axis is None or side.inner > 1:
            return side
        return dataclasses.replace(side, first=tidy(side.first - params["padding_config"][side.axis][0] * side.jump))

    return _each_side(_same(operands, shapes, out, params), move)


def _slice(operands: list[Value], shapes: list[Shape], out: Shape, params: Params) -> Value:
    starts, strides = params["start_indices"], params["strides"]

    def step(side: Side) -> Side:
        if side.axis is None:
            return side
        first = side.first + (starts[side.axis] * side.jump if side.inner == 1 else 0)
        return dataclasses.replace(side, first=tidy(first), jump=side.jump * (strides[side.axis] if strides else 1))

    return _each_side(_same(operands, shapes, out, params), step)


def _transpose(operands: list[Value], shapes: list[Shape], out: Shape, params: Params) -> Value:
    return _moved(operands[0], {old: new for new, old in enumerate(params["permutation"])})


def _broadcast(operands: list[Value], shapes: list[Shape], out: Shape, params: Params) -> Value:
    return _moved(operands[0], dict(enumerate(params["broadcast_dimensions"])))


def _squeeze(operands: list[Value], shapes: list[Shape], out: Shape, params: Params) -> Value:
    kept = [axis for axis in range(len(shapes[0])) if axis not in params["dimensions"]]
    return _moved(operands[0], {old: new for new, old in enumerate(kept)})


def _reshape(operands: list[Value], shapes: list[Shape], out: Shape, params: Params) -> Value:
    """Positions are found again by how many elements apart they are, which a reshape does not change."""
    old = shapes[0]

    def find(side: Side) -> Side:
        if side.axis is None:
            return side
        step = side.inner * math.prod(old[side.axis + 1 :])
        for axis in reversed(range(len(out))):
            inner = math.prod(out[axis + 1 :])
            if step % inner == 0 and (out[axis] * inner) % (step * side.size) == 0 and out[axis] >= side.size:
                return dataclasses.replace(side, axis=axis, inner=step // inner)
        return WHOLE

    return _each_side(operands[0], find)


def _reduce(operands: list[Value], shapes: list[Shape], out: Shape, params: Params) -> Value:
    kept = [axis for axis in range(len(shapes[0])) if axis not in params["axes"]]
    return _moved(_image(operands), {old: new for new, old in enumerate(kept)})


def _first(side: Side, jump: float, kernel: int, dilation: int, padding: int) -> float:
    """The middle of the first window over positions that are `jump` apart, after `padding` before the first one."""
    return tidy(side.first + ((kernel - 1) * dilation / 2 - padding) * jump)


def _window(operands: list[Value], shapes: list[Shape], out: Shape, params: Params) -> Value:
    def grow(side: Side) -> Side:
        if side.axis is None:
            return side
        kernel, stride, dilation, spread = (
            params[name][side.axis]
            for name in ("window_dimensions", "window_strides", "window_dilation", "base_dilation")
        )
        before = tidy(side.jump / spread)
        field, jump = grow_field(side.field, before, kernel, stride, dilation)
        first = _first(side, before, kernel, dilation, params["padding"][side.axis][0])
        return dataclasses.replace(side, field=field, jump=jump, size=out[side.axis], first=first)

    return _each_side(_image(operands), grow)


def _conv(operands: list[Value], shapes: list[Shape], out: Shape, params: Params) -> Value:
    value, kernel, spec = operands[0], shapes[1], params["dimension_numbers"]
    if value.spatial is None:
        return Value((WHOLE, WHOLE))
    into = list(spec.lhs_spec[2:])

    def grow(side: Side) -> Side:
        if side.axis not in into or side.inner > 1:
            return WHOLE
        i = into.index(side.axis)
        before = tidy(side.jump / params["lhs_dilation"][i])
        size, dilation = kernel[spec.rhs_spec[2 + i]], params["rhs_dilation"][i]
        field, jump = grow_field(side.field, before, size, params["window_strides"][i], dilation)
        axis = spec.out_spec[2 + i]
        return Side(field, jump, axis, out[axis], first=_first(side, before, size, dilation, params["padding"][i][0]))

    return _each_side(Value(value.spatial), grow)


def _dot(operands: list[Value], shapes: list[Shape], out: Shape, params: Params) -> Value:
    contracted, batch = params["dimension_numbers"]
    values, axes, before = [], [], len(batch[0])
    for number, shape in enumerate(shapes):
        free = [axis for axis in range(len(shape)) if axis not in {*batch[number], *contracted[number]}]
        placed = {axis: index for index, axis in enumerate(batch[number])}
        axes.append(placed | {axis: before + index for index, axis in enumerate(free)})
        before += len(free)
    for number, value in enumerate(operands):
        other = 1 - number
        if value.spatial is None:
            continue
        moved = _moved(Value(value.spatial), axes[number])
        constant = operands[other].spatial is None and not operands[other].parameters and len(shapes[other]) == 2
        if constant and len(contracted[number]) == 1:
            # A constant matrix mixes positions to others on its own free axis.
            (new,) = [index for axis, index in axes[other].items() if axis not in contracted[other]]
            mixed = [side.axis == contracted[number][0] and side.inner == 1 for side in value.sides]
            rows, columns = (
                Side(math.inf, side.jump * side.size / out[new], new, out[new]) if is_mixed else after
                for side, is_mixed, after in zip(value.sides, mixed, moved.sides, strict=True)
            )
            moved = Value((rows, columns))
        values.append(moved)
    return _elementwise(values, [out] * len(values), out, params)


def _gather(operands: list[Value], shapes: list[Shape], out: Shape, params: Params) -> Value:
    source, indices = operands
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    dropped = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    if indices.spatial is not None:
        # The last axis of the indices is the index itself; the others are where offset_dims are not.
        free = [axis for axis in range(len(out)) if axis not in numbers.offset_dims]
        value = _moved(indices, dict(enumerate(free)))
        if source.spatial is None:
            return value
        rows, columns = (
            dataclasses.replace(side, field=max(side.field, other.field))
            for side, other in zip(value.sides, source.spatial, strict=True)
        )
        return Value((rows, columns), sampled=(source.spatial[0].jump, source.spatial[1].jump))
    kept = [axis for axis in range(len(shapes[0])) if axis not in dropped]
    axes = {old: new for old, new in zip(kept, numbers.offset_dims, strict=True) if sizes[old] == shapes[0][old]}
    return _moved(source, axes)


def rule(kind: str, params: dict[str, Any]) -> Rule:
    """The rule for a primitive."""
    if kind.startswith("reduce_window"):
        return _window
    if kind.startswith(("reduce_", "arg")) and "axes" in params:
        return _reduce
    return RULES.get(kind, _elementwise)


RULES = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "dynamic_slice": _same,
    "gather": _gather,
    "pad": _pad,
    "reshape": _reshape,
    "slice": _slice,
    "split": _same,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
