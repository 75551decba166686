"""One compile cache for the whole test run, child processes included: most of the suite's time is compilation."""

import os
import pathlib
import sys
import tempfile

import pytest

from tests.compilation import UNOPTIMIZED

# Before JAX is imported, which reads these once.
cache = pathlib.Path(tempfile.gettempdir()) / f"jaxcnn-tests-{os.getuid()}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# PyTorch's threads of two workers would wait for each other: its part of a parity test took twice as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The tests are of what everyone has, with or without this extra; its own tests turn it on.
os.environ.setdefault("JAXCNN_ONEDNN", "0")
# What runs of the tests are trusted is nobody's business outside of them.
os.environ["XDG_STATE_HOME"] = str(cache / "state")


def pytest_configure() -> None:
    """XLA reads its flags once: the environment of what tests start stays as it was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", f"{UNOPTIMIZED} {os.environ.get('XLA_FLAGS', '')}")
        import jax

        jax.devices()


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """Between modules: kept, they take gigabytes by the end of the suite, and no module uses another's."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
