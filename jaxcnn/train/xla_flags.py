"""Named sets of XLA options, off by default: a set is never changed, a better one gets the next number."""

from jaxcnn.errors import UserError, did_you_mean

Options = dict[str, bool | int | str]

SETS: dict[str, Options] = {
    "none": {},
    # Collectives beside computation, in few large pieces: for several GPUs, at the cost of some memory.
    "gpu-latency-v1": {
        "xla_gpu_enable_latency_hiding_scheduler": True,
        "xla_gpu_all_gather_combine_threshold_bytes": 2**27,
        "xla_gpu_reduce_scatter_combine_threshold_bytes": 2**27,
        "xla_gpu_all_reduce_combine_threshold_bytes": 2**27,
    },
    # The order of operations that needs the least memory, which XLA has for GPUs by default and for the CPU not.
    "cpu-memory-v1": {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"},
}
DETERMINISTIC: Options = {"xla_gpu_deterministic_ops": True}


def check_flags(name: str) -> None:
    """Raises UserError where there is no set of this name."""
    if name not in SETS:
        raise UserError(f"xla_flags: no set {name!r}{did_you_mean(name, SETS) or ';'} there is {[*SETS]}")


def compiler_options(name: str, deterministic: bool) -> Options:
    """What XLA is told when a step is compiled; it refuses an option that it does not know."""
    return SETS[name] | (DETERMINISTIC if deterministic else {})
