"""TrainState: everything that training changes, as arrays and nothing else, so that a checkpoint of it is exact."""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcnn.train import mesh as meshes
from jaxcnn.train.groups import Group, split


@flax.struct.dataclass
class Average:
    """Averages of the parameters and statistics, with the number of updates so far."""

    params: Any
    stats: Any
    count: jax.Array


@flax.struct.dataclass
class TrainState:
    """The state of a run after `step` optimizer steps.

    `sums` are the task's sums since the last logged step; `not_finite` counts the newest steps in a row whose loss or
    gradient was not finite, and `bad_step` is the step (counted from 1) at which they were too many, or 0; `key` is the
    run's dropout key, the same at every step (the step folds its number in).
    """

    step: jax.Array
    params: Any
    stats: Any
    """Non-trainable collections of the model, {"batch_stats": ...} or {}."""
    opt_state: Any
    average: Average | None
    plateau: Any
    """State of the plateau schedule, or None."""
    sums: Any
    not_finite: jax.Array
    bad_step: jax.Array
    key: jax.Array


def create_state(
    variables: Any,
    optimizer: Any,
    averaged: bool,
    plateau: Any,
    sums: Any,
    key: jax.Array,
    groups: tuple[Group, ...] = (),
) -> TrainState:
    """The state before the first step, from the model's initial variables. The optimizer has none of what is frozen."""
    stats = {name: value for name, value in variables.items() if name != "params"}
    params = variables["params"]
    # Copies: a donated buffer must not appear in the state twice.
    copy = lambda tree: jax.tree.map(jnp.copy, tree)  # noqa: E731
    average = Average(copy(params), copy(stats), jnp.int32(0)) if averaged else None
    return TrainState(
        step=jnp.int32(0),
        params=params,
        stats=stats,
        opt_state=optimizer.init(split(params, groups)[0]),
        average=average,
        plateau=plateau,
        sums=sums,
        not_finite=jnp.int32(0),
        bad_step=jnp.int32(0),
        key=key,
    )


def all_finite(state: TrainState, mesh: Mesh | None = None) -> bool:
    """Whether all that a net of this state computes with is finite: parameters, statistics and their averages.

    A step's loss and gradient are those of the parameters before its update, which may overflow all the same. `mesh` is
    that of the state, if all processes are to know.

    Arrays that this process has in its own memory are read where they are: the program would be a kernel for each of
    them, and takes eight seconds to compile for DenseNet-121.
    """
    average = state.average and (state.average.params, state.average.stats)
    arrays = jax.tree.leaves((state.params, state.stats, average))
    if jax.process_count() == 1 and all(device.platform == "cpu" for array in arrays for device in array.devices()):
        pieces = (piece for array in arrays for piece in array.addressable_shards if piece.replica_id == 0)
        return all(bool(np.isfinite(np.asarray(piece.data)).all()) for piece in pieces)
    return bool(_on_all_processes(mesh)(arrays))


@functools.cache
def _on_all_processes(mesh: Mesh | None) -> Callable[[Any], jax.Array]:
    def finite(arrays: list[jax.Array]) -> jax.Array:
        return jnp.all(jnp.stack([jnp.isfinite(array).all() for array in arrays]))

    return jax.jit(finite, out_shardings=None if mesh is None else meshes.replicated(mesh))
