"""The device mesh, and how states and batches lie on it: one `data` axis, states replicated, batches split."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcnn.errors import UserError


def make_mesh() -> Mesh:
    """All devices of all processes in one `data` axis. Auto, because dropout does not trace under Explicit axes."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis of an array over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def place(batch: dict[str, np.ndarray], names: tuple[str, ...], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's rows of `batch`, those fields only, as part of the global arrays."""
    return {name: jax.make_array_from_process_local_data(sharding, batch[name]) for name in names}


def check_batch_size(size: int, accumulate: int, mesh: Mesh, field: str) -> None:
    """Raises UserError where the global batch cannot be shared out over the devices and microbatches."""
    if size < 1 or size % (mesh.size * accumulate):
        per = f"{mesh.size} devices" + (f" times accumulate={accumulate}" if accumulate > 1 else "")
        unit = mesh.size * accumulate
        fitting = max(unit, unit * math.floor(size / unit))
        raise UserError(f"{field} is {size}, which does not divide over {per}; try {fitting}")


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays in a tree."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
