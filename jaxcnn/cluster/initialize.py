"""Initialize: makes this process one of several. Called by the front door before JAX touches a device."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping

import jax

from jaxcnn.cluster.environment import ClusterEnvironment, ProcessFlags, detect_environment
from jaxcnn.cluster.heartbeat import Heartbeat, exit_at_once, exit_on_abort
from jaxcnn.cluster.rendezvous import ProcessInfo, own_addresses, rendezvous
from jaxcnn.cluster.store import Store
from jaxcnn.cluster.tpu_metadata import has_tpu, tpu_environment
from jaxcnn.devices import compute_ahead
from jaxcnn.errors import UserError

# What must be the same on all nodes: the programs that decide what a step computes and how a checkpoint is written.
PACKAGES = ("jaxcnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain")


@dataclasses.dataclass(frozen=True)
class Deadlines:
    """How long processes wait for each other, in seconds."""

    start: float = 300.0
    """For the slowest process to start."""
    lost: float = 120.0
    """After which a process that is silent, or stands still while others wait for it, counts as lost."""

    def __post_init__(self):
        if not (0 < self.start < math.inf and 0 < self.lost < math.inf):
            raise UserError("--start-timeout and --lost-after are seconds above 0")


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, as this one sees them."""

    cluster: ClusterEnvironment
    members: tuple[ProcessInfo, ...] = ()
    store: Store | None = None
    heartbeat: Heartbeat | None = None
    """None, like the store, if this process is the only one."""

    @property
    def index(self) -> int:
        return self.cluster.index

    @property
    def size(self) -> int:
        return self.cluster.processes

    @property
    def names(self) -> list[str]:
        return [str(process) for process in self.members]

    def report_progress(self, where: str, *, patient: bool = False) -> None:
        """This process is at `where`: see Heartbeat.report_progress."""
        if self.heartbeat is not None:
            self.heartbeat.report_progress(where, patient=patient)

    def barrier(self, where: str) -> None:
        """Waits for all processes; the heartbeat ends the wait if one is lost."""
        if self.heartbeat is not None:
            from orbax.checkpoint import multihost  # JAX's barrier; slow to import, and a single process needs none

            self.report_progress(where, patient=True)
            multihost.get_barrier_sync_fn()(key=f"jaxcnn/{where}", timeout_ms=24 * 3600 * 1000)

    def confirm_others_alive(self) -> None:
        """Before a failure is blamed on this process: see Heartbeat.confirm_others_alive."""
        if self.heartbeat is not None:
            self.heartbeat.confirm_others_alive()

    def disconnect(self, code: int, message: str) -> None:
        """Parts from the others if all ended well; from here on this process may take any time, and fail alone."""
        if self.heartbeat is None or self.heartbeat.code is not None:
            return
        self.heartbeat.announce_exit(code, message)
        # JAX's own shutdown waits for all, and aborts those that are there if one does not come.
        if self.heartbeat.wait_for_exits():
            with contextlib.suppress(Exception):
                jax.distributed.shutdown()

    def exit(self, code: int, message: str) -> None:
        """The end of this process's part. Returns if it has disconnected from all; else ends the process."""
        if self.heartbeat is None:
            return
        if code in (0, 75):
            self.disconnect(code, message)
            if not jax.distributed.is_initialized():
                return
        else:
            self.heartbeat.announce_exit(code, message)
            if self.index == 0:  # with it the store ends, in which the others read why
                time.sleep(2 * self.heartbeat.interval + 0.5)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # an ordinary exit would wait for the others inside JAX

    def on_loss(self, record: Callable[[str], None]) -> None:
        """From here on, if the run stops because of another process, the lowest one that is left calls `record` with
        the reason, before it exits. `record` may be called from any thread, and by more than one process: one that was
        stopped for long, and goes on, finds all others gone.
        """
        if self.heartbeat is None:
            return
        heartbeat, leave = self.heartbeat, self.heartbeat.exit

        def record_and_exit(code: int, message: str) -> None:
            if heartbeat.first_survivor() == self.index:
                with contextlib.suppress(Exception):
                    record(heartbeat.stopped or message)
            leave(code, message)

        heartbeat.exit = record_and_exit


def initialize(
    variables: Mapping[str, str],
    flags: ProcessFlags,
    deadlines: Deadlines = Deadlines(),
    stop: Callable[[], bool] = lambda: False,
) -> ProcessGroup:
    """Finds out which process this is and, if there are several, meets the others and connects JAX.

    Raises:
      UserError: from detect_environment and rendezvous; a process that is missing is named.
      Stopped: `stop` was true while this process waited for the others.
    """
    cluster = detect_environment(variables, flags)
    if cluster.scheduler == "none" and has_tpu():
        cluster = tpu_environment() or cluster
    if cluster.local_devices is not None:
        for option in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
            jax.config.update(option, ",".join(map(str, cluster.local_devices)))
    if cluster.processes == 1:
        return ProcessGroup(cluster)
    members, store = rendezvous(cluster, versions(), deadlines.start, stop)
    compute_ahead()
    # Our own handlers stop a run, and all processes agree on the step; JAX's would note SIGTERM only.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    own = own_addresses(cluster)
    jax.distributed.initialize(
        cluster.coordinator,
        cluster.processes,
        cluster.index,
        local_device_ids=cluster.local_devices,
        coordinator_bind_address=cluster.coordinator if own else None,  # None: all addresses
        cluster_detection_method="deactivate",
        initialization_timeout=round(max(30, deadlines.start)),
        # Our heartbeat names a lost process within its deadline; JAX's, which aborts without a name, comes after it.
        heartbeat_timeout_seconds=round(max(100, 3 * deadlines.lost)),
        shutdown_timeout_seconds=round(max(30, deadlines.lost)),
    )
    heartbeat = Heartbeat(store, cluster.index, [str(process) for process in members], deadlines.lost, exit_at_once)
    exit_on_abort(heartbeat)
    return ProcessGroup(cluster, members, store, heartbeat)


def versions() -> dict[str, str]:
    """Of the PACKAGES that are installed; of jaxcnn also a digest of its code: a checkout keeps its version."""
    found = {name: version for name in PACKAGES if (version := _version(name)) is not None}
    return found | {"jaxcnn": f"{found.get('jaxcnn', '')} (code {code_digest(pathlib.Path(__file__).parent.parent)})"}


def code_digest(package: pathlib.Path) -> str:
    """A short hash of all Python files of a package, and their names."""
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:8]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
