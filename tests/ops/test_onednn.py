"""oneDNN's convolutions are the convolution, in all that JAX asks of one, and are left alone if they cannot be had."""

import concurrent.futures
import importlib.metadata
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from jaxcnn.ops import onednn, onednn_library
from jaxcnn.ops.convolution import convolve, plain_convolutions
from jaxcnn.runs import start
from tests.compilation import quick
from tests.ops.test_convolution import SHAPES, assert_equal, given, outcomes, plain
from tests.tiny_runs import ROOT

MUCH_SMALLER_THAN_KERNEL = ("small", "small, one side", "small, tf")


@pytest.fixture
def library(monkeypatch):
    """Turned on for a test, which is skipped if this machine lacks what it needs."""
    monkeypatch.setenv(onednn_library.SWITCH, "1")
    monkeypatch.setattr(onednn_library, "cores", lambda: 2)
    if onednn_library.version() is None:
        pytest.skip("needs the extra onednn, and a C++ compiler that can build onednn.cc")


def program(function, *arguments) -> str:
    return str(jax.make_jaxpr(lambda *of: function(*of))(*arguments))  # anew, for JAX keeps traces


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_the_convolution_with_both_gradients(library, name):
    form, images, weights = given(name)
    assert program(form, images, weights).count("onednn_convolution[") == (name not in MUCH_SMALLER_THAN_KERNEL)
    if name not in MUCH_SMALLER_THAN_KERNEL:
        assert_equal(outcomes(form, images, weights), outcomes(plain(form), images, weights), 1e-5)


def dense(seed: int = 0, batch: int = 4):
    random = np.random.default_rng(seed)
    return tuple(jnp.asarray(random.normal(size=s), jnp.float32) for s in ((batch, 6, 5, 3), (3, 3, 3, 8)))


def padded(images, kernel):
    return convolve(images, kernel, (2, 1), ((1, 1), (0, 1)))


def test_every_way_to_batch_it_is_the_loop(library):
    images, kernels = jnp.stack([dense(i)[0] for i in range(2)]), jnp.stack([dense(i)[1] for i in range(3)])

    def losses(form):
        loss = lambda images, kernel: jnp.sum(jnp.sin(form(images, kernel)))  # noqa: E731
        both = jax.vmap(jax.vmap(jax.grad(loss, (0, 1)), (None, 0)), (0, None))
        other = jax.vmap(jax.vmap(jax.grad(loss, (0, 1)), (0, None)), (None, 0))
        each = jax.vmap(jax.grad(loss, 1), (0, None))  # the gradient of each example
        shared = jax.grad(lambda kernel: jax.vmap(loss, (0, None))(images, kernel).sum())

        def second(images, kernel):  # of the gradient, forward
            return jax.jvp(jax.grad(loss, (0, 1)), (images, kernel), (images, kernel))[1]

        def steepness(images, kernel):
            return sum(jnp.sum(gradient**2) for gradient in jax.grad(loss, (0, 1))(images, kernel))

        return quick(
            lambda: (
                both(images, kernels),
                other(images, kernels),
                each(images[0][:, None], kernels[0]),
                shared(kernels[0]),
                second(images[0], kernels[0]),
                jax.grad(steepness, (0, 1))(images[0], kernels[0]),  # and backward
            )
        )()

    ours, theirs = jax.tree.leaves(losses(padded)), jax.tree.leaves(losses(plain(padded)))
    assert_equal([np.asarray(x) for x in ours], [np.asarray(x) for x in theirs], 1e-5)


def test_it_works_inside_of_shard_map_and_remat_and_eagerly(library):
    images, kernel = dense()
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    rows = PartitionSpec("data")

    def loss(images, kernel):
        return lax.psum(jnp.sum(jax.checkpoint(padded)(images, kernel) ** 2), "data")

    shared = jax.shard_map(loss, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=PartitionSpec())
    exact = jax.grad(lambda kernel: jnp.sum(plain(padded)(images, kernel) ** 2))(kernel)
    assert "onednn_convolution[" in program(shared, images, kernel)
    assert_equal([quick(jax.grad(shared, 1))(images, kernel)], [exact], 1e-5)
    assert_equal([padded(images, kernel)], [plain(padded)(images, kernel)], 1e-5)


def test_parts_of_the_batch_on_many_threads_give_the_same_bits(library):
    images, kernel = dense(batch=257)  # parts of two sizes
    wide = jnp.tile(images, (1, 3, 3, 4))
    kernel = jnp.tile(kernel, (1, 1, 4, 2))

    @quick
    def gradients(images, kernel):
        return jax.grad(lambda *of: jnp.sum(jnp.sin(padded(*of))), (0, 1))(images, kernel)

    first = gradients(wide, kernel)
    exact = jax.grad(lambda *of: jnp.sum(jnp.sin(plain(padded)(*of))), (0, 1))(wide, kernel)
    assert_equal(first, exact, 1e-4)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for again in threads.map(lambda _: gradients(wide, kernel), range(16)):
            assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_other_arrays_devices_and_programs_are_xlas(library, monkeypatch):
    images, kernel = dense()
    is_ours = lambda *of: "onednn_convolution[" in program(padded, *of)  # noqa: E731
    assert is_ours(images, kernel)
    assert not is_ours(images.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert not is_ours(images[:, :2, :2], kernel)
    with jax.enable_x64(True):
        assert not is_ours(images.astype(jnp.float64), kernel.astype(jnp.float64))
    with plain_convolutions():
        assert not is_ours(images, kernel)
    cropped = lambda images, kernel: convolve(images, kernel, (1, 1), ((-1, 0), (0, 0)))  # noqa: E731
    assert "onednn_convolution[" not in program(cropped, images, kernel)
    for name, value in (("device_count", lambda: 8), ("default_backend", lambda: "gpu")):
        with monkeypatch.context() as patch:
            patch.setattr(jax, name, value)
            assert not is_ours(images, kernel) and onednn.computed_by() == "XLA"
    monkeypatch.setattr(onednn_library, "cores", lambda: 9)  # more than twice the images
    assert not is_ours(images, kernel)
    monkeypatch.setenv(onednn_library.SWITCH, "0")
    assert onednn.computed_by() == "XLA"


def test_a_program_for_another_device_has_xlas_convolutions(library):
    images, kernel = dense()
    kernels = jnp.stack([kernel, 2 * kernel])
    gradient = jax.vmap(jax.grad(lambda *of: jnp.sum(padded(*of) ** 2), (0, 1)), (None, 0))
    traced = jax.jit(gradient).trace(images, kernels)
    assert onednn_library.TARGET in traced.lower().as_text()
    elsewhere = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert onednn_library.TARGET not in elsewhere and elsewhere.count("stablehlo.convolution") == 3
    # What is lowered there, computed here, where the primitive's own rule for a CPU is left out.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onednn.convolution_p, "bind", lambda *of, **parameters: onednn._by_xla(*of, **parameters))
        forward = quick(jax.vmap(padded, (None, 0)))(images, kernels)
    assert_equal([forward], [quick(jax.vmap(plain(padded), (None, 0)))(images, kernels)], 1e-6)


SCRIPT = """
import hashlib, jax, jax.numpy as jnp, numpy as np
from jaxcnn.ops.convolution import convolve
from jaxcnn.runs.compilation import HIT
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event == HIT))
images, kernel = jnp.sin(jnp.arange(2304.0)).reshape(8, 6, 6, 8), jnp.cos(jnp.arange(1152.0)).reshape(3, 3, 8, 16)
loss = jax.jit(lambda images, kernel: convolve(images, kernel, (1, 1), "SAME"))
compiled = loss.lower(images, kernel).compile()
assert "jaxcnn_onednn" in compiled.as_text()
print(any(hits), hashlib.sha256(np.asarray(compiled(images, kernel)).tobytes()).hexdigest())
"""


def test_a_stored_program_runs_in_the_next_process(library, tmp_path):
    variables = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "XLA_FLAGS": ""}
    answers = [
        subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=variables, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert [each.returncode for each in answers] == [0, 0], answers[-1].stderr
    (before, first), (after, second) = (each.stdout.split() for each in answers)
    assert (before, after) == ("False", "True") and first == second


def test_a_package_that_cannot_be_used_is_warned_of_once(monkeypatch, caplog, tmp_path):
    class Package:
        version = "1"
        files = ()

    monkeypatch.setenv(onednn_library.SWITCH, "1")
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Package())
    monkeypatch.setattr(onednn_library, "_ready", onednn_library._ready.__wrapped__)
    assert onednn_library.version() is None
    assert "libdnnl.so.3 is not where" in caplog.text and "convolutions are XLA's" in caplog.text

    file = tmp_path / "libdnnl.so.3"
    file.write_bytes(b"no library")
    located = type("File", (), {"name": file.name, "locate": lambda self: file})
    monkeypatch.setattr(Package, "files", (located(),))
    caplog.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert onednn_library.version() is None and "a C++ compiler is missing" in caplog.text
    caplog.clear()
    (tmp_path / "c++").write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    (tmp_path / "c++").chmod(0o755)
    assert onednn_library.version() is None and "c++ fails: broken" in caplog.text
    assert [path.name for path in (tmp_path / "jaxcnn").iterdir()] == []  # no half of a library is left
    caplog.clear()
    monkeypatch.setattr(onednn_library.platform, "machine", lambda: "aarch64")
    assert onednn_library.version() is None and "made for Linux on x86-64" in caplog.text
    assert len(caplog.records) == 1


def test_a_run_that_goes_on_with_other_convolutions_is_told(monkeypatch, caplog, tmp_path):
    def begin(by: str) -> None:
        caplog.clear()
        monkeypatch.setattr(onednn, "computed_by", lambda: by)
        with start.start_run(pathlib.Path(tmp_path, "run"), {"seed": 0}, None, {}) as directory:
            assert directory.newest_start()["convolutions"] == by

    begin("XLA")
    begin("XLA")
    assert not caplog.records
    begin("oneDNN 2023.2.0")
    assert "were XLA's and are oneDNN 2023.2.0's" in caplog.text and "JAXCNN_ONEDNN=0" in caplog.text
    with monkeypatch.context() as patch:
        patch.delenv(onednn_library.SWITCH, raising=False)
        patch.setattr(jax, "device_count", lambda: 1)
        begin("XLA")
        assert "the extra onednn" in caplog.text
    for setting, count, told in (("1", 2, "on a CPU that is one device"), ("0", 1, "without JAXCNN_ONEDNN=0")):
        begin("oneDNN 2023.2.0")
        with monkeypatch.context() as patch:
            patch.setenv(onednn_library.SWITCH, setting)
            patch.setattr(jax, "device_count", lambda count=count: count)
            begin("XLA")
            assert told in caplog.text and "the extra" not in caplog.text
