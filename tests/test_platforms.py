"""What JAX has here, and what the environment asks of it: one sentence where they differ."""

import errno
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from jaxcnn.devices import check_devices, use_32_bits
from jaxcnn.errors import UserError
from jaxcnn.runs.reader import Reader
from tests.tiny_runs import ROOT


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


FAULTS = """
import ctypes, resource
from jaxcnn.devices import keep_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def faults():  # pages that the system hands out for 64 MiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    piece = libc.malloc(ctypes.c_size_t(2**26))
    libc.memset(ctypes.c_void_p(piece), 1, ctypes.c_size_t(2**26))
    libc.free(ctypes.c_void_p(piece))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), faults(), keep_memory(), faults(), faults())
"""


CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
GLIBC = pytest.mark.skipif(
    sys.platform != "linux" or os.confstr("CS_GNU_LIBC_VERSION") is None, reason="it is glibc's malloc"
)


@GLIBC
def test_what_a_step_has_freed_serves_the_next():
    done = [sys.executable, "-c", FAULTS]
    first, second, kept, third, fourth = subprocess.check_output(done, text=True, env=CLEAN).split()
    assert kept == "True" and int(first) > 10_000 and int(second) > 10_000  # pages of 4 KiB
    assert int(third) > 10_000 and int(fourth) < 100
    told = subprocess.check_output(done, text=True, env=CLEAN | {"MALLOC_ARENA_MAX": "4"}).split()
    assert told[2] == "False" and int(told[4]) > 10_000


STEPS = """
import resource, sys
import jax, jax.numpy as jnp
from jaxcnn.devices import keep_memory
kept = keep_memory()
if "ahead" in sys.argv:
    jax.config.update("jax_cpu_enable_async_dispatch", True)
step = jax.jit(lambda x: jnp.cumsum(jnp.flip(jnp.cumsum(x, 0), 0), 1))
x = step(jnp.zeros((4096, 4096))).block_until_ready()
for _ in range(8):
    x = step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    x = step(x).block_until_ready()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@GLIBC
def test_steps_take_little_new_memory():
    """They would in JAX's own threads: 64 MiB for a result, and as much again for what lies between.

    A piece has 16,384 pages; now and then malloc finds one too few.
    """
    here, ahead = (
        subprocess.check_output([sys.executable, "-c", STEPS, *flags], text=True, env=CLEAN).split()
        for flags in ((), ("ahead",))
    )
    assert here[0] == "True" and int(ahead[1]) > 10 * 16_384
    assert 4 * int(here[1]) < int(ahead[1])


WHERE = """
import threading
from jaxcnn.devices import keep_memory
kept = keep_memory()
import jax, jax.numpy as jnp, numpy as np
from jaxcnn.runs.compilation import compile_ahead
threads = []
def note(x):
    threads.append(threading.get_ident())
    return x
def step(x):
    return x + jax.pure_callback(note, jax.ShapeDtypeStruct((), jnp.float32), x[0])
compiled = compile_ahead(jax.jit(step), jax.ShapeDtypeStruct((30_000_000,), jnp.float32))
on_its_way = jax.device_put(np.zeros(30_000_001, np.float32)[1:])
jax.block_until_ready(compiled.call(on_its_way))
print(kept, threads == [threading.get_ident()])
"""


@GLIBC
def test_a_program_waits_for_its_arguments_and_computes_in_the_thread_that_calls_it():
    """In another one it would find no memory kept, and so would all steps after it, since each leaves the next a state
    that is still under way. With jax 0.10 a large copy is still under way, with 0.12 it is there at once."""
    assert subprocess.check_output([sys.executable, "-c", WHERE], text=True, env=CLEAN).split() == ["True", "True"]


@GLIBC
def test_one_of_several_processes_computes_in_other_threads_as_without():
    code = """
import jax
from jaxcnn.devices import compute_ahead, keep_memory
read = lambda: jax.config.read("jax_cpu_enable_async_dispatch")
print(read(), keep_memory() and read(), compute_ahead() or read())
"""
    told = subprocess.check_output([sys.executable, "-c", code], text=True, env=CLEAN)
    assert told.split() == ["True", "False", "True"]


SHELL = """
import sys
import jaxcnn.__main__, jaxcnn.devices
jaxcnn.devices.keep_memory = lambda: print("kept")
sys.argv = ["jaxcnn", *sys.argv[1:]]
jaxcnn.__main__.main()
"""


@pytest.mark.parametrize(
    "command, kept", [("bench-input", True), ("lr-range", True), ("k-fold", True), ("models", False)]
)
def test_commands_that_train_keep_memory_as_a_run_does(command, kept):
    """Or what they say of a step's speed would be another step's."""
    done = subprocess.run([sys.executable, "-c", SHELL, command, "--help"], text=True, capture_output=True, cwd=ROOT)
    assert "usage" in done.stdout and done.stdout.startswith("kept") == kept, done


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
