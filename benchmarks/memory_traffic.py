"""The memory traffic of a train step, counted by a model of fusion, without a GPU: bytes and passes over activations.

    python -m benchmarks.memory_traffic [--models resnet50 ...] [--out memory_traffic.json]

The step is traced in bfloat16 in the forms that a GPU has, and in the plain ones. Convolutions and matrix products read
their operands and write their result. Between them, what is elementwise is computed wherever it is read, as XLA does,
and is stored where a convolution reads it, or where computing it again would read more than storing it costs; sums over
the same arrays are one kernel. It counts what has to move, not how fast a kernel moves it, and no weights.
"""

import argparse
import collections
import dataclasses
import math
import pathlib
import unittest.mock as mock
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp

from jaxcnn import create_model, files
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models import resnet
from jaxcnn.ops import window_max
from jaxcnn.ops.convolution import plain_convolutions
from jaxcnn.ops.platform import traced_for
from jaxcnn.runs.batch_shapes import abstract_batch
from jaxcnn.runs.initial_state import abstract_state
from jaxcnn.runs.program import train_step
from jaxcnn.train.mesh import make_mesh
from jaxcnn.train.optimizers import SGD, build_optimizer

NETS = ("resnet50", "vgg16", "efficientnet_b0", "densenet121")
BATCH = 127
"""A prime, so that what holds a batch is known by its first side."""
LARGE = 2**14
"""Bytes an image from which on an array is counted."""
MOVES = (
    "broadcast_in_dim reshape squeeze expand_dims transpose slice pad concatenate rev copy convert_element_type iota"
)
COMPUTES = (
    "add sub mul div neg abs sign exp log log1p expm1 tanh logistic sqrt rsqrt cbrt square integer_pow pow max min "
    "floor ceil round is_finite eq ne lt le gt ge and or not xor select_n clamp add_any stop_gradient erf "
    "shift_left shift_right_logical shift_right_arithmetic rem random_bits threefry2x32 random_wrap random_unwrap "
    "bitcast_convert_type nextafter reduce_precision optimization_barrier reshard"
)
FUSABLE = frozenset(f"{MOVES} {COMPUTES}".split())
REDUCTIONS = frozenset(
    ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin")
)


@dataclasses.dataclass(eq=False)
class Value:
    """An array of the program, and what it is computed from; without an operation it is given."""

    bytes: int
    shape: tuple[int, ...]
    operation: str = ""
    operands: tuple["Value", ...] = ()
    stored: bool = True
    """Whether it lies in memory; else it is computed wherever it is read."""
    reads: frozenset["Value"] = frozenset()
    """What lies in memory and is read where it is computed."""
    stage: int = 0
    """How many sums and convolutions, one after the other, have to be complete before it is computed."""
    kernels: frozenset[Any] = frozenset()
    """What reads it, however far on, without a store between: (stage, shape) of the kernels."""


@dataclasses.dataclass
class Traffic:
    """Bytes of a step, an image: what convolutions and products move, and what is moved between them."""

    convolutions: int = 0
    between: int = 0
    passes: int = 0
    """Reads and writes of an array between convolutions."""
    kernels: int = 0
    """Between convolutions."""


def flat(jaxpr: Any, known: dict[Any, Value], batch: int) -> Iterator[Value]:
    """The values of a program in order, with those of the functions that it calls. `known` holds its inputs."""

    def of(atom: Any) -> Value:
        if isinstance(atom, jax.extend.core.Literal):
            return Value(0, ())
        if atom not in known:
            known[atom] = Value(large(atom.aval, batch), atom.aval.shape)  # a constant
        return known[atom]

    for equation in jaxpr.eqns:
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr", equation.params.get("fun_jaxpr")))
        operands = tuple(map(of, equation.invars))
        if inner is not None and equation.primitive.name not in ("scan", "while", "cond"):
            body = getattr(inner, "jaxpr", inner)
            inside = dict(zip(body.invars, operands, strict=True))
            yield from flat(body, inside, batch)
            for outer, result in zip(equation.outvars, body.outvars, strict=True):
                known[outer] = Value(0, ()) if isinstance(result, jax.extend.core.Literal) else inside[result]
            continue
        for out in equation.outvars:
            known[out] = Value(large(out.aval, batch), out.aval.shape, equation.primitive.name, operands)
            yield known[out]


def large(aval: Any, batch: int) -> int:
    """Bytes of an array if it is counted, else 0: it holds a batch and is large."""
    shape = getattr(aval, "shape", ())
    if not shape or shape[0] % batch:
        return 0
    size = math.prod(shape) * getattr(aval.dtype, "itemsize", 0)
    return size if size >= LARGE * batch else 0


def traffic(jaxpr: Any, batch: int) -> Traffic:
    """Of a closed program whose large arrays have a multiple of `batch` in front."""
    known = {variable: Value(large(variable.aval, batch), variable.aval.shape) for variable in jaxpr.jaxpr.invars}
    values = list(flat(jaxpr.jaxpr, known, batch))
    outs = [out for out in jaxpr.jaxpr.outvars if not isinstance(out, jax.extend.core.Literal)]
    results = {known[out] for out in outs}
    used = needed(values, results)
    values = [value for value in values if value in used]
    for value in values:
        value.stored = value.operation not in FUSABLE or value in results or not value.bytes
    for value in values:
        value.stage = max((each.stage + (each.operation not in FUSABLE) for each in value.operands), default=0)
        if value.operation not in FUSABLE | REDUCTIONS:
            for operand in value.operands:
                operand.stored = True  # what a convolution reads
    for value in reversed(values):  # what a value is read by
        mine = value.kernels
        if value.stored:
            mine = frozenset({(value.stage, iterated(value))})
        for operand in value.operands:
            if not operand.stored:
                operand.kernels |= mine
    readers = collections.Counter(operand for value in values for operand in {*value.operands})
    for value in values:
        value.reads = frozenset().union(*map(read, value.operands))
        again = len(value.kernels)
        if not value.stored and again > 1 and readers[value] > 1:
            value.stored = (again - 1) * size(value.reads) > again * value.bytes
    return counted(values)


def needed(values: Sequence[Value], results: set[Value]) -> set[Value]:
    used = set(results)
    for value in reversed(values):
        if value in used:
            used.update(value.operands)
    return used


def read(value: Value) -> frozenset[Value]:
    return frozenset({value} if value.bytes else ()) if value.stored else value.reads


def iterated(value: Value) -> tuple[int, ...]:
    """The shape that the kernel goes over which computes it."""
    return value.operands[0].shape if value.operation in REDUCTIONS else value.shape


def size(values: frozenset[Value]) -> int:
    return sum(value.bytes for value in values)


def counted(values: Sequence[Value]) -> Traffic:
    """What is computed at one stage over one shape is one kernel, if it needs nothing that this does not have."""
    found, fused = Traffic(), collections.defaultdict(list)
    for value in values:
        if not value.stored or not (value.reads or value.bytes):
            continue
        if value.operation not in FUSABLE | REDUCTIONS:
            found.convolutions += value.bytes + size(value.reads)
            continue
        if not value.reads:
            continue
        shape = iterated(value)
        for reads, writes in reversed(fused[shape, value.stage]):
            if value.reads <= reads | writes:
                writes.add(value)
                break
        else:
            fused[shape, value.stage].append((set(value.reads), {value}))
    for reads, writes in (kernel for kernels in fused.values() for kernel in kernels):
        moved = [each for each in (*reads, *writes) if each.bytes]
        found.between += sum(each.bytes for each in moved)
        found.passes += len(moved)
        found.kernels += 1
    return found


def step_of(name: str, image: int = 224, batch: int = BATCH) -> Any:
    """The train step of a net as a program of shapes."""
    shape = (image, image, 3)
    data = Data(shape, source=Synthetic(shape), batch_size=batch)
    made = Experiment(create_model(name, dtype="bfloat16"), data, optimizer=SGD(0.1, momentum=0.9))
    mesh = make_mesh(made.parallel, jax.devices()[:1])
    rate = lambda step: jnp.float32(0.1)  # noqa: E731
    step = train_step(made, build_optimizer(made.optimizer, rate, None), rate, log_every=1)
    return jax.make_jaxpr(step)(abstract_state(made, mesh), {}, abstract_batch(made, mesh, batch, evaluated=False))


def both(name: str) -> dict[str, Any]:
    """A row of the result: bytes an image in MiB, passes and kernels, in the plain forms and in those of a GPU."""
    with (
        plain_convolutions(),
        mock.patch.object(window_max, "picked_in_blocks", window_max.picked_by_selection),
        mock.patch.object(resnet, "relu_of_sum", jax.nn.relu),
    ):
        plain = traffic(step_of(name), BATCH)
    jax.clear_caches()
    with traced_for("gpu"):
        ours = traffic(step_of(name), BATCH)
    return {which: in_mib(each) for which, each in (("plain", plain), ("gpu", ours))}


def in_mib(found: Traffic) -> dict[str, float]:
    per_image = {field: getattr(found, field) / BATCH / 2**20 for field in ("convolutions", "between")}
    return {
        "MiB an image, convolutions": round(per_image["convolutions"], 2),
        "MiB an image, between": round(per_image["between"], 2),
        "passes": found.passes,
        "kernels between": found.kernels,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(NETS))
    parser.add_argument("--out", type=pathlib.Path)
    given = parser.parse_args()
    result: dict[str, Any] = {
        "what": "memory traffic of a train step in bfloat16 at 224 pixels, counted by a model of fusion; not measured",
        "versions": {"jax": jax.__version__},
        "nets": {},
    }
    for name in given.models:
        result["nets"][name] = both(name)
        print(name, result["nets"][name], flush=True)
        if given.out:
            files.write_json(given.out, result)


if __name__ == "__main__":
    main()
