"""The device mesh, and how states and batches lie on it: axes `data` and `fsdp`, batches split over both."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcnn.errors import UserError

AXES = ("data", "fsdp")


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How a run is spread over devices. It changes memory and speed; results only by rounding.

    Every device computes its share of the batch. With `fsdp` N each group of N devices holds one copy of the
    parameters, the optimizer's state and the averages between them (Rajbhandari et al. 2020, stage 3), and XLA puts
    the exchange where a layer needs it.
    """

    data: int = -1
    """Copies of the state; -1: as many as there are devices for."""
    fsdp: int = 1
    """Devices that share one copy of the state; 1: each has its own."""
    shard_above: int = 2**16
    """Arrays of fewer elements are held whole by every device: splitting them would cost more than it saves."""

    def __post_init__(self):
        if self.fsdp < 1 or (self.data < 1 and self.data != -1):
            raise UserError(f"parallel.data is {self.data} and parallel.fsdp {self.fsdp}; at least 1, or data -1")


def make_mesh(parallel: Parallel = Parallel(), devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over `devices`, default all of all processes. Auto axes, for dropout does not trace under Explicit ones.

    Raises:
      UserError: the devices are not data times fsdp.
    """
    count = jax.device_count() if devices is None else len(devices)
    data = count // parallel.fsdp if parallel.data == -1 else parallel.data
    if data * parallel.fsdp != count:
        raise UserError(
            f"parallel.data {parallel.data} and parallel.fsdp {parallel.fsdp} do not fit {count} devices; "
            f"try --parallel.data -1 --parallel.fsdp {math.gcd(count, parallel.fsdp)}"
        )
    return jax.make_mesh((data, parallel.fsdp), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def on_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def described(mesh: Mesh) -> str:
    """'8 cpu devices of 2 processes'."""
    kind = mesh.devices.flat[0].device_kind
    devices = f"{mesh.size} {kind} device{'s' if mesh.size > 1 else ''}"
    return devices + (f" of {jax.process_count()} processes" if jax.process_count() > 1 else "")


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis of an array over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def with_shardings(tree: Any, mesh: Mesh, above: int) -> Any:
    """The shapes of a state, each with its sharding: arrays of at least `above` elements are split over `fsdp`.

    They are split along the largest axis that divides, of equal ones the last, which are a kernel's output channels.
    """
    parts = mesh.shape["fsdp"]

    def sharded(x: Any) -> jax.ShapeDtypeStruct:
        axes = [(size, axis) for axis, size in enumerate(x.shape) if size % parts == 0]
        spec = PartitionSpec()
        if parts > 1 and axes and math.prod(x.shape) >= above:
            spec = PartitionSpec(*[None] * max(axes)[1], "fsdp")
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(sharded, tree)


def shardings(tree: Any) -> Any:
    """The sharding of every array, or shape, of a tree."""
    return jax.tree.map(lambda x: x.sharding, tree)


def split_steps(mesh: Mesh) -> NamedSharding:
    """The second axis of an array over all devices: of batches with the steps in front."""
    return NamedSharding(mesh, PartitionSpec(None, AXES))


def put_batch(batch: dict[str, np.ndarray], names: tuple[str, ...], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's rows of `batch`, those fields only, as part of the global arrays."""
    local = {name: batch[name] for name in names}
    if jax.process_count() == 1:  # one call for all of them, which costs a third less
        return jax.device_put(local, sharding)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in local.items()}


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


def device_bytes(tree: Any) -> int:
    """Bytes that each device holds of a tree of shapes with shardings."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))
