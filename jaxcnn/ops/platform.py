"""The platform that operations are traced for: some take the form that is fastest there, by their shape.

The choice is no part of what jax.jit keeps a trace by: a function that was traced for one platform stays so.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def platform() -> str:
    """ "cpu", "gpu" or "tpu": what `traced_for` says, else JAX's default backend."""
    return _platform.get() or jax.default_backend()


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Traces for another platform than this machine's: to lower a program for it, or to test its forms.

    Example: with traced_for("gpu"): lowered = jax.jit(step).trace(state, batch).lower(lowering_platforms=("cuda",))
    """
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)
