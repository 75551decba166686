"""Compilation for tests: what runs once or twice compiles longer than it runs."""

from collections.abc import Callable
from typing import Any

import jax


def quick(function: Callable[..., Any], **options: Any) -> Any:
    """jax.jit without XLA's optimisations, which take half of the time; `options` are those of jax.jit."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **options)
