"""Out of memory in every shape that JAX gives it, what is advised, and the search for the largest batch."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxcnn.data.synthetic import Synthetic
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.runs.compilation import compile_ahead
from jaxcnn.runs.memory import advice, batch_unit, check_memory, is_out_of_memory, largest_batch, parse_bytes
from jaxcnn.train.mesh import make_mesh
from jaxcnn.train.xla_flags import DETERMINISTIC, SETS, compiler_options
from tests.nets import TinyNet

EXPERIMENT = Experiment(TinyNet(), Data((9, 9, 3), source=Synthetic((9, 9, 3), classes=4), batch_size=64))


def test_a_real_one_is_recognised():
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jnp.zeros(2**46, jnp.uint8).block_until_ready()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 bytes.",
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.53G of 15.48G hbm. Exceeded hbm capacity",
        "INTERNAL: Failed to allocate 1048576 bytes for new constant",
        "INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    ],
)
def test_the_words_of_gpus_and_tpus_are_recognised_also_as_a_cause(message):
    error = jax.errors.JaxRuntimeError(message)
    assert is_out_of_memory(error)
    wrapped = ValueError("the step failed")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("INTERNAL: no such file"), ValueError("Out of memory")])
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


def test_advice_names_a_batch_that_divides_and_what_else_there_is():
    mesh = make_mesh()
    with pytest.raises(UserError) as caught:
        check_memory(EXPERIMENT, mesh, 2**60)
    text = str(caught.value)
    assert "needs about 1,073,741,824.0 GiB per device" in text and "has " in text
    assert "--rematerialize" in text and "--accumulate 2" in text and "fit-batch" in text
    check_memory(EXPERIMENT, mesh, 1)
    assert "--data.batch-size 32" in advice(EXPERIMENT, mesh, None)


def test_batches_are_multiples_of_microbatches_and_of_groups_of_batch_norm():
    mesh = make_mesh()
    assert batch_unit(EXPERIMENT, mesh) == 1
    assert batch_unit(dataclasses.replace(EXPERIMENT, accumulate=2, bn_group=6), mesh) == 12


@pytest.mark.parametrize("unit, start", [(1, 1), (8, 256), (3, 1000)])
@pytest.mark.parametrize(
    "needs", [lambda b: 1000 + 7 * b, lambda b: 1000 + 7 * b + b**2 // 50, lambda b: 2000 + b**1.5]
)
def test_the_largest_batch_is_found_with_few_compilations(needs, unit, start):
    found, known = largest_batch(needs, unit, 9000, start)
    assert found % unit == 0 and needs(found) <= 9000 < needs(found + unit)
    assert len(known) <= 20
    assert largest_batch(needs, unit, 900, start)[0] == 0


def test_amounts_of_memory():
    assert parse_bytes("16GiB") == 2**34 and parse_bytes("1.5 GB") == 1_500_000_000 and parse_bytes("3KiB") == 3072
    for wrong in ("nanGiB", "infGiB", "-1GiB", "0GiB"):
        with pytest.raises(UserError, match="write 16GiB"):
            parse_bytes(wrong)
    with pytest.raises(UserError, match="write 16GiB"):
        parse_bytes("16")


@pytest.mark.parametrize("options", [*SETS.values(), DETERMINISTIC])
def test_xla_knows_every_option_of_the_sets(options):
    """XLA checks names and types for all platforms; a wrong one is refused, so that this can fail."""
    step = jax.jit(lambda x: 2 * x)
    assert float(compile_ahead(step, jnp.float32(1), options=options).call(jnp.float32(1))) == 2
    with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):
        compile_ahead(step, jnp.float32(1), options=options | {"xla_gpu_no_such_thing": True})


def test_an_unknown_set_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'gpu-latency-v1'"):
        dataclasses.replace(EXPERIMENT, xla_flags="gpu-latency-1")
    assert compiler_options("none", deterministic=True) == {"xla_gpu_deterministic_ops": True}
