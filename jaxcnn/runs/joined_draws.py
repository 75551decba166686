"""Joined draws: a function of random keys, with the random numbers of all its arrays drawn by one operation.

A net draws some hundred arrays, each with a key of its own that is folded from the first. Written down one by one,
each key and each array is a loop of its own for XLA to compile. One operation draws the same bits, since the bits of
threefry at one place of an array depend on the key and on the place alone. The same operation makes of them what
`jax.random` makes of each array's, such as normal numbers: long loops, and the same for all.
"""

import collections
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal
from jax.extend.random import threefry2x32_p

ROW = 1024
"""Numbers in a row of what is drawn. A row has one key, so that an array takes whole rows."""
BLOCK = 128
"""Rows that are drawn at a time: while it draws, threefry takes ten times the memory of its bits."""
CALLS = {"jit", "pjit"}
"""Operations that call a function; those that draw are written out."""
BY_NUMBER = {
    *("add", "sub", "mul", "div", "max", "min", "neg", "log", "log1p", "erf_inv"),
    *("or", "and", "xor", "shift_right_logical", "bitcast_convert_type", "convert_element_type"),
}
"""Operations on each number of an array by itself, whose parameters say nothing of the array's shape. Neither `exp` nor
`sqrt`, of which XLA makes something else if a quotient or a power follows."""
ARITHMETIC = {"add", "sub", "mul", "div"}
"""Two of them with constants, one after the other, XLA may join, which rounds once less: they stay in one loop."""


def joined_draws(function: Callable[..., Any], below: int = 1 << 32) -> Callable[..., Any]:
    """The same function of arrays and keys, to be given to `jax.jit`: the same bits drawn in fewer loops.

    Arrays of `below` numbers or more are drawn as they were, each by itself; so is what has another kind of key than
    threefry, another width than 32 bits, or stands in a loop, a branch or a vmap. A function is left alone if it has
    effects, as printing, or if parts of it are traced in other contexts, as of a mesh.

    >>> import jax
    >>> draw = lambda key: [jax.random.normal(k, (3,)) for k in jax.random.split(key)]
    >>> bool((jax.jit(joined_draws(draw))(jax.random.key(0))[1] == jax.jit(draw)(jax.random.key(0))[1]).all())
    True
    """

    @functools.wraps(function)
    def joined(*arguments: Any) -> Any:
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        equations = list(_equations(traced))
        contexts: set[Any] = {equation.ctx for equation in equations}
        if len(contexts) != 1 or any(equation.effects for equation in equations):
            return function(*arguments)
        (context,) = contexts
        if not context.cur_abstract_mesh.empty:
            return function(*arguments)
        with context.manager:
            results = _evaluate(traced, jax.tree.leaves(arguments), below)
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return joined


def _equations(traced: ClosedJaxpr) -> Iterator[JaxprEqn]:
    """Of a traced function and of all that it calls, callers after what they call."""
    for equation in traced.jaxpr.eqns:
        if equation.primitive.name in CALLS:
            yield from _equations(equation.params["jaxpr"])
        yield equation


class _Operation(NamedTuple):
    """An operation of a traced function, with its variables by number.

    `call` is the number of the outermost call around it that draws one array; None if there is none.
    """

    traced: JaxprEqn
    inputs: list[int]
    outputs: list[int]
    call: int | None


def _evaluate(traced: ClosedJaxpr, arguments: Sequence[Any], below: int) -> list[Any]:
    """The results of a traced function. Folding a key waits until several can be folded at once; drawing, until nothing
    else is left to do."""
    values: dict[int, Any] = {}  # of variables, by number
    operations, results = _written_out(traced, arguments, values, below)
    left = _needed(operations, results)
    while left:
        waiting = []
        for operation in left:
            if _is_ready(operation, values) and not _waits(operation.traced, below):
                _do(operation, values)
            else:
                waiting.append(operation)
        ready = [operation for operation in waiting if _is_ready(operation, values)]
        folds = [operation for operation in ready if _folds(operation.traced)]
        if folds:
            _fold(folds, values)
        elif ready:
            _draw(ready, waiting, results, values)
        left = [operation for operation in waiting if operation.outputs[0] not in values]
    return [values[number] for number in results]


def _written_out(
    traced: ClosedJaxpr, arguments: Sequence[Any], values: dict[int, Any], below: int
) -> tuple[list[_Operation], list[int]]:
    """The operations of a traced function, and those of what it calls to draw, and the numbers of its results. The
    values of arguments and constants are put into `values`. Scalars that are made in the same way have one number."""
    numbers, calls, operations = itertools.count(), itertools.count(), list[_Operation]()
    scalars: dict[Any, list[int]] = {}

    def known(value: Any) -> int:
        number = next(numbers)
        values[number] = value
        return number

    def made_by(equation: JaxprEqn, given: list[int], call: int | None) -> list[int]:
        shapes: list[Any] = [variable.aval for variable in equation.outvars]
        way = _way(equation, given) if all(shape.size == 1 for shape in shapes) else object()
        if way not in scalars:
            scalars[way] = [next(numbers) for _ in shapes]
            operations.append(_Operation(equation, given, scalars[way], call))
        return scalars[way]

    def add(closed: ClosedJaxpr, inputs: Sequence[int], call: int | None = None) -> list[int]:
        jaxpr = closed.jaxpr
        variables = dict(zip(jaxpr.invars, inputs, strict=True))
        variables |= zip(jaxpr.constvars, map(known, closed.consts), strict=True)

        def number_of(variable: Any) -> int:
            if not isinstance(variable, Literal):
                return variables[variable]
            way = (variable.aval, np.asarray(variable.val).tobytes())  # the bytes, since -0.0 == 0.0
            if way not in scalars:
                scalars[way] = [known(variable.val)]
            return scalars[way][0]

        for equation in jaxpr.eqns:
            given = [number_of(variable) for variable in equation.invars]
            called: Any = equation.params["jaxpr"] if equation.primitive.name in CALLS else None
            waiting = [inner for inner in _equations(called) if _waits(inner, below)] if called else []
            if not waiting:
                made = made_by(equation, given, call)
            elif call is None and len(waiting) == 1 and _draws(waiting[0], below):
                made = add(called, given, next(calls))
            else:
                made = add(called, given, call)
            variables |= zip(equation.outvars, made, strict=True)
        return [number_of(variable) for variable in jaxpr.outvars]

    results = add(traced, [known(argument) for argument in arguments])
    return operations, results


def _way(equation: JaxprEqn, given: Sequence[int]) -> Any:
    """The same only if the same is made of the same; what cannot be compared is like nothing else."""
    way = (equation.primitive, *equation.params.items(), *given)
    try:
        hash(way)
    except TypeError:
        return object()
    return way


def _needed(operations: Sequence[_Operation], results: Sequence[int]) -> list[_Operation]:
    """Those that some result needs: not what a net makes of the images that it is shown for their shape."""
    needed, kept = set(results), list[_Operation]()
    for operation in reversed(operations):
        if not needed.isdisjoint(operation.outputs):
            needed.update(operation.inputs)
            kept.append(operation)
    return kept[::-1]


def _is_ready(operation: _Operation, values: dict[int, Any]) -> bool:
    return all(number in values for number in operation.inputs)


def _do(operation: _Operation, values: dict[int, Any]) -> None:
    primitive = operation.traced.primitive
    params = primitive.get_bind_params(operation.traced.params)
    made = primitive.bind(*(values[number] for number in operation.inputs), **params)
    values.update(zip(operation.outputs, made if primitive.multiple_results else [made], strict=True))


def _waits(equation: JaxprEqn, below: int) -> bool:
    return _folds(equation) or _draws(equation, below)


def _folds(equation: JaxprEqn) -> bool:
    return equation.primitive.name == "random_fold_in" and _is_key(equation.outvars[0])


def _draws(equation: JaxprEqn, below: int) -> bool:
    if equation.primitive.name != "random_bits" or equation.params["bit_width"] != 32:
        return False
    config: Any = jax.config
    by_place = config.jax_threefry_partitionable  # else bits depend on the size of the array too
    return by_place and _is_key(equation.invars[0]) and 0 < math.prod(equation.params["shape"]) < below


def _is_key(variable: Any) -> bool:
    """Whether it is one key, and threefry's."""
    return variable.aval.shape == () and variable.aval.dtype == _threefry()


@functools.cache
def _threefry() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32")).dtype


def _fold(operations: Sequence[_Operation], values: dict[int, Any]) -> None:
    keys, data = zip(*([values[number] for number in operation.inputs] for operation in operations), strict=True)
    folded = jax.vmap(jax.random.fold_in)(jnp.stack(keys), jnp.stack(data))
    values.update((operation.outputs[0], key) for operation, key in zip(operations, folded, strict=True))


def _draw(
    drawing: Sequence[_Operation], waiting: Sequence[_Operation], results: Sequence[int], values: dict[int, Any]
) -> None:
    """Draws arrays, and makes of them what their calls make of each number by itself."""
    calls = collections.defaultdict[int | None, list[_Operation]](list)
    for operation in waiting:
        calls[operation.call].append(operation)
    uses = collections.Counter(itertools.chain(results, *(operation.inputs for operation in waiting)))
    alike = collections.defaultdict[Any, list[list[_Operation]]](list)
    for operation in drawing:
        chain = _chain(operation, [] if operation.call is None else calls[operation.call], uses, values)
        places = {made.outputs[0]: -place for place, made in enumerate(chain, 1)}  # as numbers that all chains share
        way = tuple(_way(made.traced, [places.get(number, number) for number in made.inputs]) for made in chain[1:])
        alike[way].append(chain)
    for chains in alike.values():
        _draw_alike(chains, values)


def _chain(
    drawing: _Operation, call: Sequence[_Operation], uses: collections.Counter[int], values: dict[int, Any]
) -> list[_Operation]:
    """What draws the bits of an array, and what its call makes of each number by itself, with scalars or without.
    Nothing else uses what lies between. The last is no arithmetic, which may be joined with what follows."""
    own, chain, longest = {drawing.outputs[0]}, [drawing], 1
    used = collections.Counter[int]()
    for operation in call:
        if operation.traced.primitive.name not in BY_NUMBER or own.isdisjoint(operation.inputs):
            continue
        made: Any = operation.traced.outvars[0].aval
        if made.shape != drawing.traced.params["shape"]:  # a number of 32 bits may become several
            continue
        if not all(number in own or (number in values and np.size(values[number]) == 1) for number in operation.inputs):
            continue
        between = set(own)
        own.update(operation.outputs)
        used.update(operation.inputs)
        chain.append(operation)
        if operation.traced.primitive.name in ARITHMETIC:
            continue
        if all(used[number] == uses[number] for number in between):
            longest = len(chain)
    return chain[:longest]


def _draw_alike(chains: Sequence[Sequence[_Operation]], values: dict[int, Any]) -> None:
    """Draws arrays of whose bits the same is made."""
    shapes = [chain[0].traced.params["shape"] for chain in chains]
    rows = [-(-math.prod(shape) // ROW) for shape in shapes]
    block = min(sum(rows), BLOCK)
    spare = (0, -sum(rows) % block)
    array = np.pad(np.repeat(np.arange(len(rows)), rows), spare)  # of each row
    first = np.pad(np.concatenate([np.arange(count, dtype=np.uint32) * ROW for count in rows]), spare)
    keys = jax.random.key_data(jnp.stack([values[chain[0].inputs[0]] for chain in chains]))
    drawing, *others = chains[0]

    def drawn(given: tuple[jax.Array, jax.Array]) -> jax.Array:
        made: dict[int, Any] = {drawing.outputs[0]: _bits(given)}
        for operation in others:
            scalars = {n: jnp.reshape(values[n], ()) for n in operation.inputs if n not in made}
            made |= {n: jnp.broadcast_to(scalar, (block, ROW)) for n, scalar in scalars.items()}
            _do(operation, made)
        return made[chains[0][-1].outputs[0]]

    blocks = jax.lax.map(drawn, (keys[array].reshape(-1, block, 2), first.reshape(-1, block, 1)))
    numbers = blocks.reshape(-1, ROW)
    for chain, shape, count, end in zip(chains, shapes, rows, np.cumsum(rows), strict=True):
        values.update((operation.outputs[0], None) for operation in chain)  # nothing needs what lies between
        values[chain[-1].outputs[0]] = numbers[end - count : end].reshape(-1)[: math.prod(shape)].reshape(shape)


def _bits(given: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Keys [rows, 2] and the first places [rows, 1] -> bits [rows, ROW], as jax.random.bits gives them."""
    keys, first = given
    places = first + jax.lax.broadcasted_iota(jnp.uint32, (1, ROW), 1)
    one, other = (jnp.broadcast_to(keys[:, word, None], places.shape) for word in range(2))
    high, low = threefry2x32_p.bind(one, other, jnp.zeros_like(places), places)
    return high ^ low
