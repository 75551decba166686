"""Devices: whether JAX has what the environment asks of it, before anything is computed."""

import os

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
