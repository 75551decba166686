"""oneDNN beside XLA: found if its package is installed, tied to XLA by onednn.cc, which is compiled at its first use.

Nothing here is needed for a convolution: without the package, a compiler or the right machine, XLA's own are used.
"""

import ctypes
import functools
import hashlib
import importlib.metadata
import logging
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
import threading

import jax

PACKAGE = "onednn-cpu-gomp"
TARGET = "jaxcnn_onednn_convolution"
SOURCE = pathlib.Path(__file__).with_suffix("").with_name("onednn.cc")
SWITCH = "JAXCNN_ONEDNN"
"""The environment variable that turns oneDNN off: 0."""
COMPILERS = ("c++", "g++", "clang++")
log = logging.getLogger(__name__)
_one_at_a_time = threading.Lock()


class Unusable(Exception):
    """Why oneDNN cannot be used, though it is installed."""


def version() -> str | None:
    """The version of oneDNN's package that convolutions are given to, ready for XLA; None, if to none.

    The first call in a process opens the library; the first with a new version of anything compiles, for some seconds.
    A package that is installed and cannot be used is warned of, once.
    """
    if os.environ.get(SWITCH) == "0":
        return None
    with _one_at_a_time:  # for programs may be traced in several threads
        return _ready()


def cores() -> int:
    """As many as this process may use, and XLA has threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _ready() -> str | None:
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    try:
        _register(_library(package))
    except (Unusable, OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: XLA's refusal
        log.warning(
            f"{PACKAGE} is installed and cannot be used, {error}: convolutions are XLA's; {SWITCH}=0 hides this"
        )
        return None
    return package.version


def _library(package: importlib.metadata.Distribution) -> pathlib.Path:
    found = [pathlib.Path(str(file.locate())) for file in package.files or () if file.name == "libdnnl.so.3"]
    if not found or not found[0].is_file():
        raise Unusable("its libdnnl.so.3 is not where its package says")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Unusable("it is made for Linux on x86-64")
    return found[0].resolve()


def _register(library: pathlib.Path) -> None:
    handler = ctypes.CDLL(str(_compiled()))
    handler.jaxcnn_onednn_open.restype = ctypes.c_char_p
    error = handler.jaxcnn_onednn_open(os.fsencode(library))
    if error:
        raise Unusable(error.decode(errors="replace"))
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(getattr(handler, TARGET)), platform="cpu")


def _compiled() -> pathlib.Path:
    """onednn.cc as a shared library in the user's cache, made anew for another source, jaxlib or libc."""
    source = SOURCE.read_bytes()
    parts = [source, importlib.metadata.version("jaxlib").encode(), repr(platform.libc_ver()).encode()]
    name = f"onednn-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}.so"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    target = pathlib.Path(cache, "jaxcnn", name)
    if target.is_file():
        return target
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS))), None)
    if compiler is None:
        raise Unusable(f"for a C++ compiler is missing ({', '.join(COMPILERS)})")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = pathlib.Path(folder, name)
        flags = ["-std=c++17", "-O2", "-fPIC", "-shared", "-w", f"-I{jax.ffi.include_dir()}"]
        command = [compiler, *flags, str(SOURCE), "-o", str(built), "-ldl", "-pthread"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if run.returncode:
            raise Unusable(f"for {compiler} fails: {(run.stderr.strip().splitlines() or ['without a word'])[0]}")
        os.replace(built, target)  # whole or not at all, whoever else compiles it
    return target
