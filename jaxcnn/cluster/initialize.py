"""Join: makes this process one of several. Called by the front door before JAX touches a device."""

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
from typing import Any

import jax

from jaxcnn.cluster.environment import Flags, Place, find_place
from jaxcnn.cluster.heartbeat import Watch, exit_at_once, is_loss, leave_on_abort
from jaxcnn.cluster.rendezvous import Hello, own_addresses, roll_call
from jaxcnn.errors import UserError
from jaxcnn.runs.run_directory import RunDirectory

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

    place: Place
    everyone: tuple[Hello, ...] = ()
    watch: Watch | None = None

    @property
    def names(self) -> list[str]:
        return [str(hello) for hello in self.everyone]

    def reached(self, where: str, *, patient: bool = False) -> None:
        """This process is at `where`: see Watch.reached."""
        if self.watch is not None:
            self.watch.reached(where, patient=patient)

    def meet(self, where: str) -> None:
        """Waits for all processes; the watch ends the wait where one is lost."""
        if self.watch is not None:
            self.reached(where, patient=True)
            client().wait_at_barrier(f"jaxcnn/{where}", 24 * 3600 * 1000)

    def explain(self) -> None:
        """Before a failure is blamed on this process: does not return where another one is lost (see Watch.explain)."""
        if self.watch is not None:
            self.watch.explain()

    def part(self, code: int, message: str) -> None:
        """Parts from the others where all ended well; from here on this process may take any time, and fail alone."""
        if self.watch is None or self.watch.code is not None:
            return
        self.watch.farewell(code, message)
        # JAX's own parting waits for all, and aborts those that are there where one does not come.
        if self.watch.all_leave():
            with contextlib.suppress(Exception):
                jax.distributed.shutdown()

    def leave(self, code: int, message: str) -> None:
        """The end of this process's part. Returns where it has parted from all of them; else ends the process."""
        if self.watch is None:
            return
        if code in (0, 75):
            self.part(code, message)
            if client() is None:
                return
        else:
            self.watch.farewell(code, message)
            if self.place.index == 0:  # with it the store ends, in which the others read why
                time.sleep(2 * self.watch.interval + 0.5)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # an ordinary exit would wait for the others inside JAX

    def on_leave(self, path: pathlib.Path) -> None:
        """From here on, where the run stops because of another process, the lowest one that is left says so in
        status.json. The first to say so is right: a process that was stopped for long, and goes on, finds all others
        gone, and the run done or started again.
        """
        if self.watch is None:
            return
        watch, leave = self.watch, self.watch.leave
        starts = _starts(path)

        def say_so_and_leave(code: int, message: str) -> None:
            if watch.first_survivor() == self.place.index:
                with contextlib.suppress(Exception):
                    record, status = RunDirectory(path), RunDirectory(path).status()
                    said = status.get("state") == "done" or is_loss(status.get("message", ""))
                    if not said and _starts(path) == starts:
                        # What the others said may be gone: a process can be stopped while it replaces status.json.
                        record.write_status("failed", status.get("step", 0), message=watch.stopped or message)
            leave(code, message)

        watch.leave = say_so_and_leave


def _starts(path: pathlib.Path) -> int:
    """How often the run in this directory was started."""
    return len(RunDirectory(path).environment().get("resumed", []))


def join(
    environment: Mapping[str, str],
    flags: Flags,
    deadlines: Deadlines = Deadlines(),
    stop: Callable[[], bool] = lambda: False,
) -> ProcessGroup:
    """Finds this process's place and, where there are several, meets the others and connects JAX.

    Raises:
      UserError: from find_place and roll_call; a process that is missing is named.
      Stopped: `stop` was true while this process waited for the others.
    """
    place = _metadata_place(find_place(environment, flags), deadlines)
    if place.local_devices is not None:
        for option in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
            jax.config.update(option, ",".join(map(str, place.local_devices)))
    if place.processes == 1:
        return ProcessGroup(place)
    everyone = roll_call(place, versions(), deadlines.start, stop)
    # Our own handlers stop a run, and all processes agree on the step; JAX's would note SIGTERM only.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    names = [str(hello) for hello in everyone]
    own = own_addresses(place)
    jax.distributed.initialize(
        place.coordinator,
        place.processes,
        place.index,
        local_device_ids=place.local_devices,
        coordinator_bind_address=place.coordinator if own else None,  # None: all addresses
        cluster_detection_method="deactivate",
        initialization_timeout=round(max(30, deadlines.start)),
        # The watch names a lost process within its deadline; JAX's own, which ends this one without, comes after it.
        heartbeat_timeout_seconds=round(max(100, 3 * deadlines.lost)),
        shutdown_timeout_seconds=round(max(30, deadlines.lost)),
    )
    watch = Watch(client(), place.index, names, deadlines.lost, exit_at_once)
    leave_on_abort(watch)
    return ProcessGroup(place, everyone, watch)


def client() -> Any:
    """JAX's distributed client, which holds the key-value store; None with one process."""
    from jax._src import distributed

    return distributed.global_state.client


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


def _metadata_place(place: Place, deadlines: Deadlines) -> Place:
    """On a Cloud TPU machine outside of GKE only its metadata server knows the place; JAX asks it."""
    from jax._src import cloud_tpu_init, clusters

    if place.scheduler != "none" or not cloud_tpu_init.running_in_cloud_tpu_vm:
        return place
    address, processes, index, _ = clusters.ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, round(deadlines.start)
    )
    if processes in (None, 1):
        return place
    return Place("tpu", address, processes, index, None, nodes=processes)
