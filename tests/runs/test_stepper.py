"""How the state of a start is made: the options that let it compile quickly change no bit of it."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.models.layers import INITIALIZERS
from jaxcnn.train.xla_flags import once_options

OPTIMIZED = {"xla_backend_optimization_level": 3}  # XLA's own level on a CPU


def test_what_is_compiled_to_run_once_is_the_fully_optimized_program_s_to_the_bit():
    names = ["lecun_normal", "glorot_uniform", "he_fan_out", "normal_0.01", "truncated_normal_0.1"]

    def made(seed):
        key = jax.random.key(seed)
        return {name: INITIALIZERS[name](key, (3, 3, 24, 41), jnp.float32) for name in names}

    assert once_options("cpu") != {} and once_options("gpu") == {}
    once, expected = (
        jax.jit(made, compiler_options=options)(np.uint32(7)) for options in (once_options("cpu"), OPTIMIZED)
    )
    for name in names:
        np.testing.assert_array_equal(once[name], expected[name], name)
