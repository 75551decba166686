"""Doctor: the checks before a run, alone: this machine's devices, versions, data, cache and disk, and the processes'
way to each other.
"""

import dataclasses
import fcntl
import importlib.metadata
import os
import pathlib
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Literal

import jax
import jax.numpy as jnp
from packaging.requirements import Requirement
from rich.table import Table
from rich.text import Text

from jaxcnn.cluster.initialize import Deadlines, ProcessGroup, versions
from jaxcnn.cluster.preflight import check_collective, check_equal
from jaxcnn.devices import check_devices
from jaxcnn.errors import UserError
from jaxcnn.text import cell

LITTLE = 2**30
"""Free bytes below which the disk is a warning."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One check: "ok", "warning" or "fail", what was found, and what to do about it."""

    check: str
    state: Literal["ok", "warning", "fail"]
    found: str


def examine(
    group: ProcessGroup, deadlines: Deadlines, workdir: pathlib.Path, data_dir: str | None
) -> Iterator[Finding]:
    """All findings, in order; the devices of several processes are examined by all of them together."""
    yield _processes(group)
    checks: list[tuple[str, Callable[[], tuple[str, str]]]] = [
        ("versions", _versions),
        ("devices", _devices),
        ("all-reduce", lambda: _all_reduce(group, deadlines)),
        ("disk", lambda: _disk(workdir)),
        ("compile cache", _cache),
        ("data", lambda: _data(data_dir)),
    ]
    if group.heartbeat is not None:
        checks.insert(1, ("same versions", lambda: _same(group, deadlines)))
    for name, check in checks:
        try:
            state, found = check()
        except (UserError, OSError, RuntimeError) as error:
            state, found = "fail", str(error)
        yield Finding(name, state, found)  # type: ignore[arg-type]


def findings_table(findings: list[Finding]) -> Table:
    table = Table("check", "", "found")
    styles = {"ok": "green", "warning": "yellow", "fail": "red"}
    for finding in findings:
        table.add_row(finding.check, Text(finding.state, styles[finding.state]), cell(finding.found))
    return table


def _processes(group: ProcessGroup) -> Finding:
    cluster = group.cluster
    if cluster.processes == 1:
        return Finding("processes", "ok", f"one ({cluster.scheduler})")
    hosts = sorted({hello.host for hello in group.members})
    shown = ", ".join(hosts[:4]) + (", ..." if len(hosts) > 4 else "")
    found = (
        f"{cluster.processes} ({cluster.scheduler}) on {len(hosts)} hosts ({shown}), coordinator {cluster.coordinator}"
    )
    return Finding("processes", "ok", found)


def _same(group: ProcessGroup, deadlines: Deadlines) -> tuple[str, str]:
    # The rendezvous has compared the packages; what is left is what they run on.
    check_devices()
    facts = {"the Python version": platform.python_version(), "the platform": jax.devices()[0].platform}
    check_equal(group, facts | {"the device kind": jax.devices()[0].device_kind}, deadlines.start)
    return "ok", f"on all {group.size} processes"


def _versions() -> tuple[str, str]:
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    for text in importlib.metadata.requires("jaxcnn") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            return "fail", f"{wanted.name} is not installed; run: pip install '{text}'"
        if not wanted.specifier.contains(version, prereleases=True):
            return "fail", f"{wanted.name} is {version}, but {wanted.specifier} is needed; run: pip install '{text}'"
    return "ok", f"Python {platform.python_version()}, {found}"


def _devices() -> tuple[str, str]:
    check_devices()
    local, count = jax.local_devices(), jax.device_count()
    memory = (local[0].memory_stats() or {}).get("bytes_limit")
    found = f"{len(local)} {local[0].device_kind}" + (f" with {memory / 2**30:,.1f} GiB" if memory else "")
    if count > len(local):
        found += f", {count} over all processes"
    size = 256
    for device in local:
        ones = jax.device_put(jnp.ones((size, size)), device)
        if float((ones @ ones).sum()) != size**3:
            return "fail", f"{device} computes wrong products"
    if local[0].platform == "cpu" and shutil.which("nvidia-smi"):
        return "warning", f"{found}, though this machine has nvidia-smi; run: pip install 'jaxcnn[cuda]'"
    return "ok", found


def _all_reduce(group: ProcessGroup, deadlines: Deadlines) -> tuple[str, str]:
    check_devices()
    seconds = check_collective(group, deadlines.start)
    return "ok", f"over {jax.device_count()} devices, {seconds:.2f} s with its compilation"


def _disk(workdir: pathlib.Path) -> tuple[str, str]:
    folder = workdir.absolute()
    while not folder.exists():
        if folder.is_symlink():
            return "fail", f"{folder} is a link that leads nowhere"
        folder = folder.parent
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".jaxcnn-doctor") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(bytes(2**20))
        file.flush()
        os.fsync(file.fileno())
    free = shutil.disk_usage(folder).free
    found = f"{folder} can be written and locked, {free / 2**30:,.1f} GiB free"
    return ("warning" if free < LITTLE else "ok"), found


def _cache() -> tuple[str, str]:
    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if not folder:
        return "warning", "none: every start compiles anew; set JAX_COMPILATION_CACHE_DIR"
    if not os.access(folder, os.W_OK):
        return "warning", f"{folder} cannot be written; set JAX_COMPILATION_CACHE_DIR"
    entries = [entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()]
    return "ok", f"{folder}, {len(entries):,} entries, {sum(entries) / 2**20:,.0f} MiB"


def _data(data_dir: str | None) -> tuple[str, str]:
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    folder = pathlib.Path(chosen).expanduser()
    if not folder.is_dir():
        state = "fail" if data_dir else "ok"
        return state, f"no prepared TFDS data: {folder} does not exist (jaxcnn data prepare NAME makes it)"
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name != "downloads")
    return "ok", f"{folder}: {', '.join(names) or 'empty'}"
