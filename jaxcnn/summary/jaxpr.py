"""Layers, counts and receptive fields, read off the jaxpr of a net: nothing is computed and no memory is taken.

What depends on the image, and where its positions are, is followed by the rules of positions.py.

Multiply-adds are those of trained weights in convolutions and matrix products. Products with fixed matrices (adaptive
pooling, resizing) or between activations are none.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxcnn.summary.formulas import conv_multiply_adds, fc_multiply_adds
from jaxcnn.summary.positions import CONSTANT, Value, rule, shift, tidy


@dataclasses.dataclass
class Layer:
    """One row of a summary. Pairs are (height, width); sizes and counts are those of one image."""

    name: str
    """Path of its parameters, "backbone/conv1"; for a layer without, the module and what it does."""
    kind: str
    """conv, deconv, deform, dense, norm, scale (parameters but no kernel), lrn, max_pool, avg_pool, adaptive (average
    pooling to a grid), gap (global average pooling) or resize."""
    output: tuple[int, ...]
    """(H, W, C), or (C,) where there are no positions."""
    bytes: int
    """Of the output."""
    kernel: tuple[int, int] | None = None
    stride: tuple[float, float] | None = None
    groups: int = 1
    multiply_adds: int = 0
    parameters: int = 0
    field: tuple[float, float] | None = None
    """Receptive field behind it, in pixels; inf where it is the whole image."""
    jump: tuple[float, float] | None = None
    """Distance in the image between neighbouring positions; None where there are none or each sees the whole image."""


# No arithmetic.
MOVES = {
    *("broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice", "expand_dims", "gather"),
    *("iota", "pad", "reshape", "rev", "scatter", "slice", "split", "squeeze", "stop_gradient", "transpose"),
}


class Walk:
    """Walks through a jaxpr and collects `layers` and `other_flops`, the arithmetic that is not multiply-adds.

    Args:
      parameters: {"backbone/conv1/kernel": shape, ...}.
      norms: paths of the modules that normalise.
    """

    def __init__(self, parameters: dict[str, tuple[int, ...]], norms: frozenset[str] = frozenset()):
        self.layers: list[Layer] = []
        self.other_flops = 0
        self._leaves = parameters
        self._norms = norms | {_parent(path) for path in parameters if path.endswith("/scale")}
        self._sizes: dict[str, int] = {}  # parameters by module, until a layer takes them
        for path, shape in parameters.items():
            module = _parent(path)
            self._sizes[module] = self._sizes.get(module, 0) + math.prod(shape)
        self._modules = frozenset(self._sizes)
        self._rows: dict[str, Layer] = {}  # of the modules that have parameters
        self._repeat = 1

    def run(self, jaxpr: Jaxpr, inputs: Sequence[Value], scope: str = "") -> list[Value]:
        """The values of a jaxpr's outputs; `scope` is the name stack around it."""
        known = dict(zip(jaxpr.invars, inputs, strict=True))
        value = lambda atom: CONSTANT if isinstance(atom, Literal) else known.get(atom, CONSTANT)  # noqa: E731
        for equation in jaxpr.eqns:
            operands = [value(atom) for atom in equation.invars]
            known.update(zip(equation.outvars, self._equation(equation, operands, scope), strict=True))
        return [value(atom) for atom in jaxpr.outvars]

    def finish(self) -> list[Layer]:
        """The layers, with every parameter in one of them, and numbers where names are shared.

        A module with parameters that is used again, such as an RPN on each map of a pyramid, has them the first time.
        """
        for module, size in list(self._sizes.items()):
            self.layers.append(Layer(module, "unused", (), 0, parameters=size))
            del self._sizes[module]
        shared: dict[str, list[Layer]] = {}
        for layer in self.layers:
            shared.setdefault(layer.name, []).append(layer)
        for name, layers in shared.items():
            if len(layers) > 1:
                for number, layer in enumerate(layers, 1):
                    again = f" ({number})" if number > 1 else ""
                    layer.name = f"{name}{again if name in self._modules else number}"
        return self.layers

    def _equation(self, equation: Any, operands: list[Value], scope: str) -> list[Value]:
        kind, params = equation.primitive.name, equation.params
        scope = "/".join(filter(None, (scope, str(equation.source_info.name_stack))))
        if kind == "scan":
            return self._scan(equation, operands, scope)
        if kind == "while":
            raise NotImplementedError("a summary cannot count a loop whose length is not known")
        if kind == "cond":
            return self.run(params["branches"][-1].jaxpr, operands[1:], scope)
        inside = params.get("call_jaxpr", params.get("jaxpr"))
        if isinstance(inside, ClosedJaxpr | Jaxpr) and not kind.startswith(("reduce", "scatter", "select_and")):
            return self.run(inside.jaxpr if isinstance(inside, ClosedJaxpr) else inside, operands, scope)

        if all(operand.spatial is None for operand in operands):
            parameters = frozenset().union(*(operand.parameters for operand in operands))
            return [Value(None, parameters)] * len(equation.outvars)
        shapes = [atom.aval.shape for atom in equation.invars]
        out = equation.outvars[0].aval
        result = rule(kind, params)(operands, shapes, out.shape, params)
        self._count(kind, equation, operands, result, module_of(scope))
        return [result] * len(equation.outvars)

    def _scan(self, equation: Any, operands: list[Value], scope: str) -> list[Value]:
        params = equation.params
        consts, carries = params["num_consts"], params["num_carry"]
        constant, carry = operands[:consts], operands[consts : consts + carries]
        slices = [shift(operand, -1) for operand in operands[consts + carries :]]
        body = params["jaxpr"].jaxpr
        # What a step hands on is known when it no longer changes: only then are its layers counted.
        for _ in range(4):
            trial = Walk(self._leaves, self._norms)
            outputs = trial.run(body, [*constant, *carry, *slices], scope)
            if outputs[:carries] == carry:
                break
            carry = outputs[:carries]
        self._repeat *= params["length"]
        outputs = self.run(body, [*constant, *carry, *slices], scope)
        self._repeat //= params["length"]
        return [*outputs[:carries], *(shift(output, 1) for output in outputs[carries:])]

    def _count(self, kind: str, equation: Any, operands: list[Value], result: Value, module: str) -> None:
        """Adds the equation to a layer, or to the arithmetic between layers."""
        out, params = equation.outvars[0].aval, equation.params
        shapes = [atom.aval.shape for atom in equation.invars]
        elements = math.prod(out.shape)
        weights = next((operand for operand in operands if operand.parameters), CONSTANT)
        owner = _parent(min(weights.parameters, key=self._kernel_first)) if weights.parameters else module
        if kind in ("conv_general_dilated", "dot_general"):
            if weights.parameters:
                self._weighted(kind, equation, operands, result, owner)
                return
            self.other_flops += 2 * elements * _contracted(kind, shapes, params) * self._repeat
            if kind == "dot_general" and _mixes_positions(operands, params):
                before = max(map(math.prod, shapes))
                self._pool("adaptive" if elements <= before else "resize", out, result, module)
            return
        if kind.startswith("reduce_window"):
            window = params["window_dimensions"]
            self.other_flops += elements * (math.prod(window) - 1) * self._repeat
            sides = operands[0].sides
            if any(side.axis is not None and window[side.axis] > 1 for side in sides):
                name = "max_pool" if "max" in kind else "min_pool" if "min" in kind else "avg_pool"
                kernel, stride = (
                    tuple(1 if side.axis is None else params[of][side.axis] for side in sides)
                    for of in ("window_dimensions", "window_strides")
                )
                self._pool(name, out, result, module, kernel=kernel, stride=stride)
            else:
                self._pool("lrn", out, result, module)  # over channels
            return
        if "axes" in params and kind.startswith("reduce_"):
            self.other_flops += (math.prod(shapes[0]) - elements) * self._repeat
            if operands[0].spatial and all(side.axis in params["axes"] for side in operands[0].spatial):
                kernel = tuple(side.size for side in operands[0].spatial)
                self._pool("gap", out, result, module, kernel=kernel)
            return
        if kind not in MOVES:
            self.other_flops += elements * self._repeat
        if weights.parameters and owner not in self._rows:
            self._row(Layer(owner, "norm" if owner in self._norms else "scale", (), 0), out, result)
        row = self._rows.get(owner)
        if row is not None and elements >= math.prod(row.output):
            _describe(row, out, result)

    def _weighted(self, kind: str, equation: Any, operands: list[Value], result: Value, name: str) -> None:
        """A layer of trained weights."""
        out, params = equation.outvars[0].aval, equation.params
        side = 0 if operands[0].parameters else 1
        shape = equation.invars[side].aval.shape
        # Weights that are spread over a larger kernel, as in LeNet's C3: the zeros between them cost nothing.
        trained = sum(math.prod(self._leaves[path]) for path in operands[side].parameters)
        if kind == "conv_general_dilated":
            spec = params["dimension_numbers"]
            kernel = tuple(shape[axis] for axis in spec.rhs_spec[2:])
            transposed = max(params["lhs_dilation"]) > 1
            if transposed:  # every position of the input meets every weight, and zeros between them cost nothing
                source = equation.invars[0].aval.shape
                positions = tuple(source[axis] for axis in spec.lhs_spec[2:])
            else:
                positions = tuple(out.shape[axis] for axis in spec.out_spec[2:])
            inputs, outputs = shape[spec.rhs_spec[1]], shape[spec.rhs_spec[0]]
            count = conv_multiply_adds(positions, kernel, inputs, outputs)
            strides = zip(params["window_strides"], params["lhs_dilation"], strict=True)
            layer = Layer(
                *(name, "deconv" if transposed else "conv", (), 0),
                kernel=kernel,
                stride=_pair(tidy(stride / spread) for stride, spread in strides),
                groups=params["feature_group_count"],
            )
        else:
            contracted = _contracted(kind, [atom.aval.shape for atom in equation.invars], params)
            count = fc_multiply_adds(contracted, math.prod(out.shape))
            layer = Layer(name, "dense", (), 0)
            source = operands[1 - side]
            if source.sampled:
                leaf = self._leaves[min(operands[side].parameters, key=self._kernel_first)]
                layer.kind, layer.kernel = "deform", leaf[:2] if len(leaf) == 4 else None
                layer.stride = _pair(tidy(s.jump / jump) for s, jump in zip(result.sides, source.sampled, strict=True))
        layer.multiply_adds = count * min(trained, math.prod(shape)) // math.prod(shape) * self._repeat
        self._row(layer, out, result)

    def _pool(self, kind: str, out: Any, result: Value, module: str, **fields: Any) -> None:
        """A layer without weights, unless its module has some, as LeNet's sub-sampling; none inside a norm."""
        if module in self._modules:
            if module not in self._norms and module not in self._rows:
                self._row(Layer(module, kind, (), 0, **fields), out, result)
            return
        name = f"{module}/{kind}" if module else kind
        last = self.layers[-1] if self.layers else None
        if kind in ("adaptive", "resize") and last is not None and last.name == name:  # rows, then columns
            _describe(last, out, result)
            return
        layer = Layer(name, kind, (), 0, **fields)
        _describe(layer, out, result)
        self.layers.append(layer)

    def _row(self, layer: Layer, out: Any, result: Value) -> None:
        """Appends the layer of a module with parameters; they are its own the first time that it is used."""
        layer.parameters = self._sizes.pop(layer.name, 0)
        _describe(layer, out, result)
        self._rows[layer.name] = layer
        self.layers.append(layer)

    def _kernel_first(self, path: str) -> tuple[bool, str]:
        return not path.endswith("/kernel"), path


def module_of(stack: str) -> str:
    """The module's path in a name stack: "Net/Net.features/backbone/backbone.stem/conv1" -> "backbone/conv1"."""
    path: list[str] = []
    root = ""
    for part in re.sub(r"\w+\(\)", "", stack).split("/"):
        name = part.split(".")[0]
        root = root or name
        if name and not (name == root if not path else "." in part and name == path[-1]):
            path.append(name)
    return "/".join(path)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _describe(layer: Layer, out: Any, result: Value) -> None:
    """Writes output, field and jump."""
    elements = math.prod(out.shape)
    layer.bytes = elements * out.dtype.itemsize
    sides = result.sides
    if any(side.axis is None for side in sides):
        layer.output = tuple(size for size in out.shape if size > 1) or (1,)
        layer.jump = None
    else:
        positions = tuple(side.size for side in sides)
        layer.output = (*positions, elements // math.prod(positions))
        layer.jump = None if any(side.field == math.inf for side in sides) else _pair(side.jump for side in sides)
    layer.field = _pair(side.field for side in sides)


def _pair(values: Iterable[float]) -> tuple[float, float]:
    """(height, width)."""
    height, width = values
    return height, width


def _mixes_positions(operands: list[Value], params: dict[str, Any]) -> bool:
    """Whether a matrix product of the image and something fixed sums over positions."""
    contracted = params["dimension_numbers"][0]
    spatials = [operand.spatial for operand in operands]
    return None in spatials and any(
        side.axis in axes for spatial, axes in zip(spatials, contracted, strict=True) if spatial for side in spatial
    )


def _contracted(kind: str, shapes: list[tuple[int, ...]], params: dict[str, Any]) -> int:
    """Products per element of the output."""
    if kind == "dot_general":
        return math.prod(shapes[0][axis] for axis in params["dimension_numbers"][0][0])
    kernel, spec = shapes[1], params["dimension_numbers"].rhs_spec
    return math.prod(kernel) // kernel[spec[0]]
