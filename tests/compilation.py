"""Compilation for tests: what runs once or twice compiles longer than it runs.

conftest.py compiles all that the tests' own processes run without XLA's optimizations of machine code, which take a
third of the time. Runs in processes of their own (tiny_runs.py) compile as they do for everyone.
"""

from collections.abc import Callable
from typing import Any

UNOPTIMIZED = "--xla_backend_optimization_level=0"


def quick(function: Callable[..., Any], **options: Any) -> Any:
    """jax.jit, compiled so whoever calls it; `options` are those of jax.jit."""
    import jax

    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **options)
