"""What JAX has here, and what the environment asks of it: one sentence where they differ."""

import errno

import jax
import jax.numpy as jnp
import pytest

from jaxcnn.devices import check_devices, use_32_bits
from jaxcnn.errors import UserError
from jaxcnn.runs.reader import Reader


@pytest.mark.parametrize(
    "error, why", [(AssertionError(), "here; see"), (RuntimeError("no GPU\nfound"), "here: no GPU;")]
)
def test_a_platform_without_its_device_is_named(error, why, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr(jax, "local_devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UserError, match=f"JAX_PLATFORMS is 'cuda', but JAX finds no such device {why}"):
        check_devices()
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(type(jax.config), "jax_platforms", None, raising=False)
    with pytest.raises(UserError, match=r"JAX cannot start: (AssertionError|no GPU)"):
        check_devices()


def test_64_bits_are_turned_off_and_it_is_said():
    assert use_32_bits() == ""
    jax.config.update("jax_enable_x64", True)
    try:
        assert "JAX_ENABLE_X64 has no effect" in use_32_bits()
        assert jnp.zeros(1).dtype == jnp.float32
    finally:
        jax.config.update("jax_enable_x64", False)


def refused_by_the_system():
    try:
        raise OSError(errno.EMFILE, "Too many open files")
    except OSError:
        raise AssertionError("can only join a started process")  # noqa: B904 as multiprocessing does


def test_worker_processes_that_cannot_be_started_are_no_assertion(monkeypatch):
    def iterate(*_, **__):
        refused_by_the_system()
        yield

    monkeypatch.setattr("jaxcnn.runs.reader.iterate", iterate)
    with pytest.raises(UserError, match=r"2 worker processes cannot be started: Too many open files; .*ulimit -n"):
        next(Reader(2).training(None, 0))
    with pytest.raises(AssertionError):  # with threads it is something else
        next(Reader(0).training(None, 0))
