"""What each of JAX's primitives is in ONNX (opset 18): rules (graph, operands, outs, params) -> values.

The primitives are those that nets of convolutions are traced to. What a rule does not cover raises NotImplementedError
with a clause that says what.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

if TYPE_CHECKING:
    from jaxcnn.runs.onnx_graph import Graph

Shape = tuple[Any, ...]
"""Of integers, and the symbol of the batch."""


@dataclasses.dataclass(frozen=True)
class Value:
    """What a variable of the jaxpr is in the graph: the name of a tensor, or an array that is known.

    ONNX broadcasts in arithmetic, so that a value may be stored with sides of 1 where all along a side is equal.
    """

    full: Shape
    """As the jaxpr has it."""
    shape: Shape
    """As it is stored."""
    dtype: np.dtype
    name: str = ""
    known: np.ndarray | None = None


Rule = Callable[["Graph", Sequence[Value], Sequence[Any], dict[str, Any]], list[Value]]


def stored(dtype: Any) -> np.dtype:
    """The type that an array of this one has in the graph."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float32) if dtype.name == "bfloat16" else dtype


def _value(out: Any, name: str, shape: Shape | None = None) -> Value:
    return Value(out.shape, out.shape if shape is None else shape, np.dtype(out.dtype), name)


def _type(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(stored(dtype))


def _like(value: Value, graph: "Graph", number: float) -> str:
    return graph.constant(np.array(number), value.dtype)


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    """NumPy's rule; a side that is not an integer is the same wherever it is not 1."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(
        next((s for s in sides if not (isinstance(s, int) and s == 1)), 1) for sides in zip(*padded, strict=True)
    )


def _elementwise(make: Callable[..., str]) -> Rule:
    """Of make(graph, operands, names) -> name."""

    def rule(graph, operands, outs, params):
        shape = _broadcast([value.shape for value in operands])
        return [_value(outs[0], make(graph, operands, [graph.name(value) for value in operands]), shape)]

    return rule


def _op(op: str, **attributes: Any) -> Rule:
    return _elementwise(lambda graph, operands, names: graph.node(op, names, **attributes))


def _same(graph, operands, outs, params):
    return [*operands]


def _convert(graph, operands, outs, params):
    (value,) = operands
    name = graph.name(value)
    if _type(value.dtype) != _type(outs[0].dtype):
        name = graph.node("Cast", [name], to=_type(outs[0].dtype))
    return [_value(outs[0], name, value.shape)]


def _integer_pow(graph, operands, outs, params):
    (value,) = operands
    return [_value(outs[0], graph.node("Pow", [graph.name(value), _like(value, graph, params["y"])]), value.shape)]


def _select(graph, operands, outs, params):
    if len(operands) != 3 or operands[0].dtype != np.bool_:
        raise NotImplementedError("a choice between more than two arrays")
    return _elementwise(lambda graph, _, names: graph.node("Where", [names[0], names[2], names[1]]))(
        graph, operands, outs, params
    )


def _clamp(graph, operands, outs, params):
    low, value, high = operands
    return _elementwise(lambda g, _, names: g.node("Min", [g.node("Max", [names[1], names[0]]), names[2]]))(
        graph, (low, value, high), outs, params
    )


def _broadcast_in_dim(graph, operands, outs, params):
    """Sides of 1 alone: ONNX's arithmetic broadcasts, and what does not asks for the whole."""
    (value,) = operands
    shape = [1] * len(params["shape"])
    for axis, side in zip(params["broadcast_dimensions"], value.shape, strict=True):
        shape[axis] = side
    if value.known is not None:
        return [Value(outs[0].shape, tuple(shape), value.dtype, known=value.known.reshape(shape))]
    return [_value(outs[0], graph.reshape(value.name, value.shape, tuple(shape)), tuple(shape))]


def _reshape(graph, operands, outs, params):
    if "new_sizes" in params and params["dimensions"] is not None:
        raise NotImplementedError("one that moves axes")
    return [_value(outs[0], graph.reshape(graph.whole(operands[0]), operands[0].full, outs[0].shape))]


def _transpose(graph, operands, outs, params):
    order = params["permutation"]
    shape = tuple(operands[0].shape[axis] for axis in order)
    return [_value(outs[0], graph.transpose(graph.name(operands[0]), order), shape)]


def _concatenate(graph, operands, outs, params):
    names = [graph.whole(value) for value in operands if 0 not in value.shape]
    return [_value(outs[0], graph.node("Concat", names, axis=params["dimension"]) if len(names) > 1 else names[0])]


def _pad(graph, operands, outs, params):
    value, filler = operands
    if any(inner for _, _, inner in params["padding_config"]):
        raise NotImplementedError("padding between the elements")
    low, high = ([side[i] for side in params["padding_config"]] for i in (0, 1))
    return [_value(outs[0], _padded(graph, graph.whole(value), low, high, graph.name(filler)))]


def _padded(graph: "Graph", name: str, low: Sequence[int], high: Sequence[int], filler: str) -> str:
    """With `filler` around; less than nothing takes away."""
    if any(side > 0 for side in (*low, *high)):
        sides = [max(0, side) for side in (*low, *high)]
        name = graph.node("Pad", [name, graph.constant(sides, np.int64), filler])
    cut = [axis for axis in range(len(low)) if low[axis] < 0 or high[axis] < 0]
    if cut:
        ends = [high[axis] if high[axis] < 0 else np.iinfo(np.int64).max for axis in cut]
        name = graph.slice(name, cut, [max(0, -low[axis]) for axis in cut], ends)
    return name


def _slice(graph, operands, outs, params):
    steps = params["strides"] or (1,) * len(outs[0].shape)
    return [_part(graph, operands[0], outs[0], params["start_indices"], params["limit_indices"], steps)]


def _part(graph: "Graph", value: Value, out: Any, starts: Any, ends: Any, steps: Any) -> Value:
    sides = zip(starts, ends, steps, value.full, strict=True)
    axes = [axis for axis, (start, end, step, side) in enumerate(sides) if (start, end, step) != (0, side, 1)]
    if not axes:
        return value
    first, last = ([_bound(bounds[axis], value.full[axis]) for axis in axes] for bounds in (starts, ends))
    return _value(out, graph.slice(graph.whole(value), axes, first, last, [steps[axis] for axis in axes]))


def _bound(bound: Any, side: Any) -> int:
    """Of a slice, counted from the end if the side is not fixed."""
    if isinstance(bound, int | np.integer):
        return int(bound)
    left = side - bound
    if not isinstance(left, int):
        raise NotImplementedError(f"a part of the batch, at {bound}")
    return -left if left else np.iinfo(np.int64).max


def _split(graph, operands, outs, params):
    (value,), axis, values, start = operands, params["axis"], [], 0
    for size, out in zip(params["sizes"], outs, strict=True):
        starts, ends = [0] * len(value.full), [*value.full]
        starts[axis], ends[axis] = start, start + size
        values.append(_part(graph, value, out, starts, ends, (1,) * len(starts)))
        start += size
    return values


def _stack(graph, operands, outs, params):
    axis = params["axis"]
    names = [graph.node("Unsqueeze", [graph.whole(value), graph.constant([axis], np.int64)]) for value in operands]
    return [_value(outs[0], graph.node("Concat", names, axis=axis) if len(names) > 1 else names[0])]


def _reverse(graph, operands, outs, params):
    axes = params["dimensions"]
    first = [np.iinfo(np.int64).min] * len(axes)
    return [_value(outs[0], graph.slice(graph.whole(operands[0]), axes, [-1] * len(axes), first, [-1] * len(axes)))]


def _dynamic_slice(graph, operands, outs, params):
    value, *at = operands
    if any(index.known is None for index in at):
        raise NotImplementedError("a place that depends on the images")
    starts = [
        0 if size is side or size == side else min(max(int(index.known), 0), side - size)
        for index, side, size in zip(at, value.full, params["slice_sizes"], strict=True)
    ]
    ends = [start + size for start, size in zip(starts, params["slice_sizes"], strict=True)]
    return [_part(graph, value, outs[0], starts, ends, (1,) * len(starts))]


def _gather(graph, operands, outs, params):
    """A window at a place that is known, or the elements at places that are known, along one axis."""
    value, index = operands
    numbers, sizes, rank = params["dimension_numbers"], params["slice_sizes"], len(value.full)
    if index.known is None:
        raise NotImplementedError("places that depend on the images")
    if numbers.operand_batching_dims:
        raise NotImplementedError("other places for each example")
    places = np.broadcast_to(index.known, index.full)
    if places.ndim == 1 and not numbers.collapsed_slice_dims and numbers.offset_dims == tuple(range(rank)):
        starts = [0] * rank
        for axis, start in zip(numbers.start_index_map, places, strict=True):
            starts[axis] = int(np.clip(start, 0, value.full[axis] - sizes[axis]))
        ends = [start + size for start, size in zip(starts, sizes, strict=True)]
        return [_part(graph, value, outs[0], starts, ends, (1,) * rank)]
    (axis, *others), places = numbers.start_index_map, places[..., 0]
    kept = all(size == side for i, (size, side) in enumerate(zip(sizes, value.full, strict=True)) if i != axis)
    behind = axis + places.ndim
    offset = (*range(axis), *range(behind, rank - 1 + places.ndim))
    if others or not kept or numbers.collapsed_slice_dims != (axis,) or numbers.offset_dims != offset:
        raise NotImplementedError("places along several axes")
    if places.size and (places.min() < 0 or places.max() >= value.full[axis]):
        raise NotImplementedError("places outside the array")
    name = graph.node("Gather", [graph.whole(value), graph.constant(places, np.int64)], axis=axis)
    return [_value(outs[0], name)]


def _reduce(op: str) -> Rule:
    def rule(graph, operands, outs, params):
        axes = graph.constant(params["axes"], np.int64)
        return [_value(outs[0], graph.node(op, [graph.whole(operands[0]), axes], keepdims=0))]

    return rule


def _arg(op: str) -> Rule:
    def rule(graph, operands, outs, params):
        (axis,) = params["axes"]
        name = graph.node(op, [graph.whole(operands[0])], axis=axis, keepdims=0)
        return [_value(outs[0], graph.node("Cast", [name], to=_type(outs[0].dtype)))]

    return rule


def _dot_general(graph, operands, outs, params):
    """MatMul of [batch, rows, sum] and [batch, sum, columns], with what does not matter in one axis each."""
    (sums, batches), (left, right) = params["dimension_numbers"], operands
    free = [
        [i for i in range(len(v.full)) if i not in (*s, *b)] for v, s, b in zip(operands, sums, batches, strict=True)
    ]
    if not batches[0] and len(free[1]) == len(sums[1]) == 1:  # a dense layer, a resizing: MatMul takes any rows
        rows, columns = _moved(graph, left, (*free[0], *sums[0])), _moved(graph, right, (*sums[1], *free[1]))
        return [_value(outs[0], graph.node("MatMul", [rows, columns]))]
    orders = ((*batches[0], *free[0], *sums[0]), (*batches[1], *sums[1], *free[1]))
    sides = [[value.full[axis] for axis in order] for value, order in zip(operands, orders, strict=True)]
    batch, total = sides[0][: len(batches[0])], math.prod(left.full[axis] for axis in sums[0])
    rows, columns = (math.prod(v.full[axis] for axis in f) for v, f in zip(operands, free, strict=True))
    shapes = ((*batch, rows, total), (*batch, total, columns))
    names = [
        graph.reshape(_moved(graph, value, order), tuple(there), shape)
        for value, order, there, shape in zip(operands, orders, sides, shapes, strict=True)
    ]
    found = graph.node("MatMul", names)
    return [_value(outs[0], graph.reshape(found, (*batch, rows, columns), outs[0].shape))]


def _moved(graph: "Graph", value: Value, order: Sequence[int]) -> str:
    """The tensor of a value, its axes in another order."""
    if value.known is None:
        return graph.transpose(graph.whole(value), order)
    return graph.constant(np.broadcast_to(value.known, value.full).transpose(order))


def _convolution(graph, operands, outs, params):
    """Conv, or where the input is dilated ConvTranspose, between transpositions to channels first and back."""
    image, kernel = operands
    numbers = params["dimension_numbers"]
    if params["batch_group_count"] != 1:
        raise NotImplementedError("groups of the batch")
    x = _moved(graph, image, numbers.lhs_spec)
    if kernel.known is None:
        raise NotImplementedError("a kernel that depends on the images")
    weights = np.broadcast_to(kernel.known, kernel.full).transpose(numbers.rhs_spec)
    low, high = ([side[i] for side in params["padding"]] for i in (0, 1))
    common = {
        "kernel_shape": weights.shape[2:],
        "dilations": params["rhs_dilation"],
        "group": params["feature_group_count"],
    }
    zero = _like(image, graph, 0)
    if all(factor == 1 for factor in params["lhs_dilation"]):
        if min(*low, *high) < 0:
            x, low, high = _padded(graph, x, [0, 0, *low], [0, 0, *high], zero), [0] * len(low), [0] * len(high)
        pads, strides = [*low, *high], params["window_strides"]
        y = graph.node("Conv", [x, graph.constant(weights)], pads=pads, strides=strides, **common)
    else:
        if any(step != 1 for step in params["window_strides"]):
            raise NotImplementedError("steps over a dilated input")
        groups, (outputs, inputs, *window) = params["feature_group_count"], weights.shape
        weights = weights.reshape(groups, outputs // groups, inputs, *window).swapaxes(1, 2)
        weights = np.flip(weights.reshape(groups * inputs, outputs // groups, *window), (2, 3))
        # Without pads a transposed convolution gives all that the kernel reaches: what is less is cut off.
        reach = [(side - 1) * factor for side, factor in zip(window, params["rhs_dilation"], strict=True)]
        y = graph.node("ConvTranspose", [x, graph.constant(weights)], strides=params["lhs_dilation"], **common)
        low, high = ([0, 0, *(pad - far for pad, far in zip(side, reach, strict=True))] for side in (low, high))
        y = _padded(graph, y, low, high, zero)
    return [_value(outs[0], graph.transpose(y, np.argsort(numbers.out_spec)))]


def _pool(op: str) -> Rule:
    """MaxPool or AveragePool over one or two axes, which become the last ones."""

    def rule(graph, operands, outs, params):
        if any(factor != 1 for factor in (*params["base_dilation"], *params["window_dilation"])):
            raise NotImplementedError("a dilated window")
        (value,), window, steps, padding = (
            operands,
            params["window_dimensions"],
            params["window_strides"],
            params["padding"],
        )
        rank = len(window)
        axes = [i for i in range(rank) if window[i] != 1 or steps[i] != 1 or any(padding[i])]
        axes = sorted({*axes, *[i for i in range(rank - 1, -1, -1) if i not in axes][: max(0, 2 - len(axes))]})
        if rank != 4 or len(axes) > 2:
            raise NotImplementedError(f"a window of {window}")
        order = [*(i for i in range(rank) if i not in axes), *axes]
        if any(max(padding[i]) >= window[i] > 1 or min(padding[i]) < 0 for i in axes):
            raise NotImplementedError(f"padding of {padding} around a window of {window}")
        name = graph.node(
            op,
            [_moved(graph, value, order)],
            kernel_shape=[window[i] for i in axes],
            strides=[steps[i] for i in axes],
            pads=[padding[i][end] for end in (0, 1) for i in axes],
            **({"count_include_pad": 1} if op == "AveragePool" else {}),
        )
        if op == "AveragePool":
            name = graph.node("Mul", [name, _like(value, graph, math.prod(window))])
        return [_value(outs[0], graph.transpose(name, np.argsort(order)))]

    return rule


OPERATORS = (
    *("Abs", "Add", "And", "Ceil", "Cos", "Div", "Erf", "Exp", "Floor", "Log", "Max", "Min", "Mul", "Neg", "Not", "Or"),
    *("Pow", "Sign", "Sin", "Sqrt", "Sub", "Tanh", "Xor"),
)
NAMED = {
    **{op.lower(): op for op in OPERATORS},
    **{"add_any": "Add", "eq": "Equal", "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "lt": "Less"},
    "logistic": "Sigmoid",
}
"""Arithmetic that is one operator."""

RULES: dict[str, Rule] = {
    **{primitive: _op(op) for primitive, op in NAMED.items()},
    "argmax": _arg("ArgMax"),
    "argmin": _arg("ArgMin"),
    "broadcast_in_dim": _broadcast_in_dim,
    "clamp": _clamp,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _convert,
    "copy": _same,
    "copy_p": _same,
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "erfc": _elementwise(lambda graph, v, names: graph.node("Sub", [_like(v[0], graph, 1), graph.node("Erf", names)])),
    "expand_dims": _reshape,
    "gather": _gather,
    "integer_pow": _integer_pow,
    "ne": _elementwise(lambda graph, _, names: graph.node("Not", [graph.node("Equal", names)])),
    "pad": _pad,
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_precision": _same,
    "reduce_prod": _reduce("ReduceProd"),
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_window_max": _pool("MaxPool"),
    "reduce_window_sum": _pool("AveragePool"),
    "reshape": _reshape,
    "rev": _reverse,
    "rsqrt": _elementwise(lambda graph, _, names: graph.node("Reciprocal", [graph.node("Sqrt", names)])),
    "select_n": _select,
    "slice": _slice,
    "split": _split,
    "square": _elementwise(lambda graph, _, names: graph.node("Mul", [*names, *names])),
    "squeeze": _reshape,
    "stack": _stack,
    "stop_gradient": _same,
    "transpose": _transpose,
}
