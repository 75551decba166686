"""Devices: whether JAX has what the environment asks of it, before anything is computed, and memory that stays."""

import ctypes
import os
import sys

import jax

from jaxcnn.errors import UserError


def check_devices() -> None:
    """Starts JAX's backend. Raises UserError if it has not the platform that JAX_PLATFORMS names."""
    try:
        jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # of a platform without its device JAX asserts, and says nothing
        named = os.environ.get("JAX_PLATFORMS") or jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
        if not named:
            raise UserError(f"JAX cannot start: {str(error) or type(error).__name__}") from error
        why = f": {error}".partition("\n")[0] if str(error) else ""
        raise UserError(
            f"JAX_PLATFORMS is {named!r}, but JAX finds no such device here{why}; see that its driver and plugin are "
            "installed (pip install 'jaxcnn[cuda]' for a GPU), or unset it"
        ) from error


def use_32_bits() -> str:
    """Turns JAX's 64 bit types off, and returns what to tell of it; "" if they were off.

    Everything here states its types, float32 at most, so that the same command gives the same run everywhere.
    """
    if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]  # JAX adds its options at import
        return ""
    jax.config.update("jax_enable_x64", False)
    return "JAX_ENABLE_X64 has no effect: all is computed with 32 bits, or fewer where compute_dtype says so"


# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
NEVER = -1


def keep_memory() -> bool:
    """Keeps what a step on a CPU has freed for the next one, and returns whether it could: on Linux with glibc.

    XLA allocates the memory of a step's intermediate values anew each time. By default malloc gives so large a piece
    back to the system, which hands it out again page by page, zeroed. What the process was given it now keeps.

    It does so in the pool of the thread that was there first; the pools of others cannot hold such a piece. So what a
    CPU computes it computes in the thread that asks for it, and not in one of JAX's own. One pool for all threads would
    keep it too, but those that compile would wait for one another there (docs/speed.md).
    To be called in that first thread, before JAX has its devices.
    Nothing is changed where the environment has malloc settings of its own, MALLOC_... or GLIBC_TUNABLES.
    """
    own = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if own or sys.platform != "linux":
        return False
    if not (_mallopt(M_MMAP_MAX, 0) and _mallopt(M_TRIM_THRESHOLD, NEVER)):
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return True


def computes_in_caller() -> bool:
    """Whether a CPU computes in the thread that asks for it, as `keep_memory` wants it.

    It does so only for arguments that are there. If one is still under way, the call returns at once, and one of JAX's
    own threads computes later; the next step finds the state of this one not there, and so on until somebody waits.
    """
    return jax.default_backend() == "cpu" and not jax.config.read("jax_cpu_enable_async_dispatch")


def compute_ahead() -> None:
    """For one of several processes, before JAX has its devices: undoes that `keep_memory` has this thread compute.

    One that computes in this thread stands in the middle of a step while it waits for another process, where it is no
    further than that one: the heartbeat would not know for whom it waits. JAX's threads share one pool in its place.
    """
    if not jax.config.read("jax_cpu_enable_async_dispatch"):
        jax.config.update("jax_cpu_enable_async_dispatch", True)
        _mallopt(M_ARENA_MAX, 1)


def _mallopt(name: int, value: int) -> bool:
    """Sets an option of malloc's; false with another C library than glibc, or if it refuses."""
    try:
        return ctypes.CDLL(None).mallopt(name, value) == 1
    except (OSError, AttributeError):
        return False
