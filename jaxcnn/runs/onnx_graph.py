"""An ONNX graph of a function of images: what JAX traces of it, equation by equation.

Equations whose operands are all known, such as a batch norm's factor, are computed here, so that the graph holds
what depends on the images alone. onnx_primitives.py says what each primitive is in ONNX. bfloat16 is computed as
float32, which ONNX's runtimes have everywhere.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from onnx import helper, numpy_helper

from jaxcnn.errors import UserError
from jaxcnn.ops.convolution import plain_convolutions
from jaxcnn.runs.onnx_primitives import RULES, Shape, Value, stored
from jaxcnn.summary.jaxpr import module_of

OPSET = 18
IR_VERSION = 8
"""The file format that came with this operator set: newer ones are refused by older runtimes."""
INPUT = "images"
LARGEST = 2**31 - 2**20
"""Bytes: protobuf's limit of a message, less what is not weights."""


class Graph:
    """The nodes and weights of a graph under construction; rules of primitives call its methods."""

    def __init__(self, batch: Any):
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._batch = batch
        self._scope = ""
        self._names: set[str] = {INPUT}
        self._small: dict[Any, str] = {}

    def run(self, jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Value], scope: str = "") -> list[Value]:
        """The values of a jaxpr's outputs; `scope` is the name stack around it."""
        variables = dict(zip(jaxpr.constvars, map(known, consts), strict=True))
        variables.update(zip(jaxpr.invars, inputs, strict=True))
        value = lambda atom: known(atom.val, atom.aval) if isinstance(atom, Literal) else variables[atom]  # noqa: E731
        for equation in jaxpr.eqns:
            found = self._equation(equation, [value(atom) for atom in equation.invars], scope)
            variables.update(zip(equation.outvars, found, strict=True))
        return [value(atom) for atom in jaxpr.outvars]

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Adds a node with one output, whose name is returned."""
        name = self._unique(op)
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, array: Any, dtype: Any = None) -> str:
        """The name of a tensor with these values."""
        array = np.ascontiguousarray(np.asarray(array, stored(np.asarray(array).dtype if dtype is None else dtype)))
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= 64 else None
        if key is None or key not in self._small:
            name = self._unique("constant")
            self.weights.append(numpy_helper.from_array(array, name))
            if key is None:
                return name
            self._small[key] = name
        return self._small[key]

    def name(self, value: Value) -> str:
        """The tensor of a value, as it is stored."""
        return value.name or self.constant(value.known)

    def whole(self, value: Value) -> str:
        """The tensor of a value with all its sides."""
        name = self.name(value)
        return name if value.shape == value.full else self.node("Expand", [name, self._sides(value.full)])

    def reshape(self, name: str, there: Shape, shape: Shape) -> str:
        """A tensor of shape `there` with another one, of which one side may be the batch or a product with it."""
        if there == shape:
            return name
        open_sides = [side for side in shape if not isinstance(side, int)]
        if len(open_sides) > 1:
            raise NotImplementedError(f"a reshape to {shape}, of which more than one side is not fixed")
        return self.node("Reshape", [name, self.constant([s if isinstance(s, int) else -1 for s in shape], np.int64)])

    def transpose(self, name: str, order: Sequence[int]) -> str:
        return name if list(order) == sorted(order) else self.node("Transpose", [name], perm=[*map(int, order)])

    def slice(self, name: str, axes: Sequence[int], starts: Sequence[int], ends: Sequence[int], steps: Any = None):
        """The part of a tensor from `starts` to `ends` of these axes."""
        parts = [starts, ends, axes, [1] * len(axes) if steps is None else steps]
        return self.node("Slice", [name, *(self.constant([*map(int, part)], np.int64) for part in parts)])

    def _sides(self, shape: Shape) -> str:
        """A shape as a tensor."""
        if all(isinstance(side, int) for side in shape):
            return self.constant(shape, np.int64)
        if any(not isinstance(side, int) and side != self._batch for side in shape):
            raise NotImplementedError(f"an array of shape {shape}")
        batch = self.node("Shape", [INPUT], start=0, end=1)
        sides = [self.constant([side], np.int64) if isinstance(side, int) else batch for side in shape]
        return self.node("Concat", sides, axis=0) if len(sides) > 1 else sides[0]

    def _unique(self, word: str) -> str:
        stem = f"{module_of(self._scope)}/{word}".lstrip("/")
        name = next(name for n in range(len(self._names) + 1) if (name := f"{stem}_{n}") not in self._names)
        self._names.add(name)
        return name

    def _equation(self, equation: Any, operands: list[Value], scope: str) -> list[Value]:
        kind, params = equation.primitive.name, equation.params
        scope = "/".join(filter(None, (scope, str(equation.source_info.name_stack))))
        inside = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)
        if isinstance(inside, ClosedJaxpr) and kind not in ("scan", "while") and not kind.startswith("reduce"):
            return self.run(inside.jaxpr, inside.consts, operands, scope)
        if isinstance(inside, Jaxpr) and kind in ("checkpoint", "remat2"):
            return self.run(inside, (), operands, scope)
        outs = [atom.aval for atom in equation.outvars]
        if kind != "broadcast_in_dim" and all(value.known is not None for value in operands) and _fixed(outs):
            return [known(array) for array in _computed(equation, operands)]
        if all(0 in aval.shape for aval in outs):
            return [_empty(aval) for aval in outs]
        self._scope = scope
        rule = RULES.get(kind)
        where = f"in {module_of(scope) or 'what is computed around the layers'}"
        if rule is None:
            raise UserError(
                f"this net's ONNX graph cannot be written: jaxcnn has no ONNX operator for JAX's {kind} {where}; "
                "--format jax writes any net's program"
            )
        try:
            return rule(self, operands, outs, params)
        except NotImplementedError as error:
            raise UserError(f"this net's ONNX graph cannot be written: {kind} {where}: {error}") from error


def onnx_model(
    function: Callable[[jax.Array], Any], images: jax.ShapeDtypeStruct, notes: dict[str, str] | None = None
) -> onnx.ModelProto:
    """The ONNX model of a function of images, opset 18, checked by the package onnx.

    Args:
      function: images -> an array or a dict of arrays; weights that it holds become the model's.
      images: shape [B, H, W, C] and type; B may be a symbol of `jax.export.symbolic_shape`.
      notes: texts for the model's metadata.

    Returns:
      The model; its input is "images", its outputs have the dict's names, and a single one is "output".

    Raises:
      UserError: the function computes something that has no ONNX operator here (the message names it and the layer), or
        its weights take more than 2 GB.

    Example: onnx_model(lambda x: model.apply(variables, x, train=False), jax.ShapeDtypeStruct((1, 28, 28, 1), "f4"))
    """
    with plain_convolutions():
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(images)
    graph = Graph(images.shape[0])
    given = Value(images.shape, images.shape, np.dtype(images.dtype), INPUT)
    found = graph.run(closed.jaxpr, closed.consts, [given])
    outputs = []
    for (path, aval), value in zip(jax.tree_util.tree_flatten_with_path(shapes)[0], found, strict=True):
        name = "/".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path) or "output"
        graph.nodes.append(helper.make_node("Identity", [graph.whole(value)], [name], name=name))
        outputs.append(_described(name, aval))
    if sum(len(weight.raw_data) for weight in graph.weights) > LARGEST:
        raise UserError(
            "this net's weights take more than the 2 GB that one ONNX file holds; --format jax has no limit"
        )
    made = helper.make_graph(graph.nodes, "jaxcnn", [_described(INPUT, images)], outputs, graph.weights)
    model = helper.make_model(made, producer_name="jaxcnn", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    helper.set_model_props(model, notes or {})
    onnx.checker.check_model(model)
    return model


def known(array: Any, aval: Any = None) -> Value:
    """The value of an array."""
    array = np.asarray(array) if aval is None else np.asarray(array, aval.dtype)
    return Value(array.shape, array.shape, array.dtype, known=array)


NUMPY: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "mul": np.multiply,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sub": np.subtract,
}
"""What a batch norm's factors take: JAX would compile each of them for each width."""


def _computed(equation: Any, operands: Sequence[Value]) -> list[Any]:
    kind, params = equation.primitive.name, equation.params
    arrays = [np.broadcast_to(value.known, value.full) for value in operands if value.known is not None]
    if kind in NUMPY:
        return [NUMPY[kind](*arrays)]
    if kind == "reshape":
        return [arrays[0].reshape(params["new_sizes"])]
    found = equation.primitive.bind(*map(jnp.asarray, arrays), **params)
    return [*found] if equation.primitive.multiple_results else [found]


def _empty(aval: Any) -> Value:
    shape = tuple(side if isinstance(side, int) else 1 for side in aval.shape)
    return Value(aval.shape, shape, np.dtype(aval.dtype), known=np.zeros(shape, aval.dtype))


def _fixed(avals: Sequence[Any]) -> bool:
    return all(isinstance(side, int) for aval in avals for side in aval.shape) and all(
        math.prod(aval.shape) < 2**28 for aval in avals
    )


def _described(name: str, aval: Any) -> onnx.ValueInfoProto:
    sides = [side if isinstance(side, int) else "batch" for side in aval.shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(stored(aval.dtype)), sides)
