"""Memory of the devices: what a step needs, what there is, and what to do where it is too much."""

import os
from collections.abc import Callable

from jax.sharding import Mesh

from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs.initial_state import abstract_state
from jaxcnn.train import mesh as meshes

# In the messages of JAX's errors: XLA's status, CUDA's and the allocators' words, at compile time and at run time.
_SIGNS = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "CUDA_ERROR_OUT_OF_MEMORY", "Failed to allocate")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of JAX, or one that caused it, says that memory ran out."""
    seen: BaseException | None = error
    while seen is not None:
        # JaxRuntimeError is a RuntimeError; XLA's name for it has changed over time, its words have not.
        if isinstance(seen, MemoryError) or (isinstance(seen, RuntimeError) and any(s in str(seen) for s in _SIGNS)):
            return True
        seen = seen.__cause__
    return False


def device_memory(mesh: Mesh) -> int:
    """Bytes that this process can use on each device; devices of a CPU share the machine's memory."""
    device = mesh.local_devices[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(mesh.local_devices)


def batch_unit(experiment: Experiment, mesh: Mesh) -> int:
    """Batch sizes are multiples of this: of the devices times microbatches, and of whole groups of batch norm."""
    unit = mesh.size * experiment.accumulate
    group = 1 if experiment.bn_group == "global" else experiment.bn_group * experiment.accumulate
    while unit % group:
        unit += mesh.size * experiment.accumulate
    return unit


def check_memory(experiment: Experiment, mesh: Mesh, needed: int) -> None:
    """Raises UserError where the compiled step needs more memory than each device has."""
    if needed > device_memory(mesh):
        raise UserError(advice(experiment, mesh, needed))


def advice(experiment: Experiment, mesh: Mesh, needed: int | None) -> str:
    """What an out-of-memory error says: needs about X, has Y; try ...

    The batch size that it names follows from the part of the memory that grows with the batch: all but the state and
    the gradients.
    """
    has = device_memory(mesh)
    kind = mesh.devices.flat[0].device_kind
    what = "the memory ran out" if needed is None else f"the train step needs about {gib(needed)}"
    state = abstract_state(experiment, mesh)
    constant = meshes.device_bytes(state) + meshes.device_bytes(state.params)
    tries = []
    unit, size = batch_unit(experiment, mesh), experiment.data.batch_size
    smaller = size // 2 if needed is None else int(size * max(0, has - constant) / max(1, needed - constant))
    smaller = min(smaller // unit * unit, size - unit)
    if smaller >= unit:
        tries.append(f"--data.batch-size {smaller}")
    if mesh.size > mesh.shape["fsdp"]:
        tries.append(f"--parallel.fsdp {mesh.size}")
    if not experiment.rematerialize:
        tries.append("--rematerialize")
    if size % (2 * unit) == 0:
        tries.append(f"--accumulate {2 * experiment.accumulate}")
    tried = " or ".join(tries) or "a smaller net or image"
    return f"{what} per device and {kind} has {gib(has)}; try {tried} (jaxcnn fit-batch finds the largest batch)"


def largest_batch(
    needs: Callable[[int], int], unit: int, limit: int, start: int, most: int | None = None
) -> tuple[int, dict[int, int]]:
    """The largest multiple of `unit`, at most `most`, whose `needs(batch)` is at most `limit`, or 0; and all computed.

    Memory grows with the batch nearly along a line, so the next guess is where the line through two known sizes meets
    the limit; it ends when the next multiple is known not to fit.
    """
    known: dict[int, int] = {}

    def fits(units: int) -> bool:
        if units * unit not in known:
            known[units * unit] = needs(units * unit)
        return known[units * unit] <= limit

    last = float("inf") if most is None else most // unit
    low, high = 0, int(min(last, max(1, start // unit)))
    while fits(high):
        if high == last:
            return high * unit, known
        low, high = high, int(min(last, 2 * high))
    while high - low > 1:
        guess = (low + high) // 2
        if low:
            slope = (known[high * unit] - known[low * unit]) / (high - low)
            # A line can be off by a little on the same side for ever; a half cannot.
            if slope > 0 and len(known) % 3:
                guess = low + max(1, int((limit - known[low * unit]) / slope))
        guess = min(max(guess, low + 1), high - 1)
        low, high = (guess, high) if fits(guess) else (low, guess)
    return low * unit, known


def parse_bytes(text: str) -> int:
    """'16GiB', '80 GB' or '512MiB' -> bytes. Raises UserError that shows the form."""
    units = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "GB": 10**9, "MB": 10**6, "kB": 10**3}
    for unit, size in units.items():
        if text.endswith(unit):
            try:
                found = int(float(text.removesuffix(unit)) * size)
            except (ValueError, OverflowError):  # not a number; nan; infinity
                break
            if found > 0:
                return found
    raise UserError(f"{text!r} is no amount of memory; write 16GiB, 80GB or 512MiB")


def gib(size: int) -> str:
    """'1.5 GiB', '12 MiB' or '3.4 KiB'."""
    if size >= 2**30:
        return f"{size / 2**30:,.1f} GiB"
    return f"{size / 2**20:,.0f} MiB" if size >= 2**20 else f"{size / 2**10:,.1f} KiB"
