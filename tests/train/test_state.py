"""Whether a state is finite: every array that a net computes with is looked at, and nothing is compiled for it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.train.state import Average, TrainState, all_finite


def state(**parts):
    of = lambda name: {"a": jnp.ones((2, 3)), "b": parts.get(name, jnp.ones(4))}  # noqa: E731
    average = Average(of("average_params"), of("average_stats"), jnp.int32(1))
    one = jnp.int32(0)
    return TrainState(one, of("params"), of("stats"), of("opt_state"), average, None, {}, one, one, jax.random.key(0))


@pytest.mark.parametrize("part", ["params", "stats", "average_params", "average_stats"])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_one_element_that_is_not_finite_is_found_in_every_part(part, value):
    assert all_finite(state()) and all_finite(dataclasses.replace(state(), average=None))
    assert not all_finite(state(**{part: jnp.ones(4).at[3].set(value)}))
    assert not all_finite(state(**{part: jnp.ones(4, jnp.bfloat16).at[0].set(value)}))


def test_what_the_optimizer_holds_is_not_asked():
    assert all_finite(state(opt_state=jnp.full(4, np.inf)))


def test_nothing_is_compiled_for_arrays_in_the_memory_of_this_process():
    made, compiled = state(params=jnp.ones(23)), []  # a shape of its own, that no other test has compiled
    listen = lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        assert all_finite(made)
        assert not compiled
        jax.block_until_ready(jax.jit(lambda x: x + 17)(made.params["a"]))
        assert compiled  # the listener hears it
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
