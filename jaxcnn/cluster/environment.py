"""Cluster environment: which process of how many this one is, read from the variables that a scheduler set, no more.

`detect_environment` is a pure function of a mapping, so that every scheduler's variables can be tested on a table.

Why our own: `jax.distributed.initialize` detects too, but tells what it found only once it has connected, and by then
a process that is missing has ended all others. This agrees with JAX on the coordinator's address, and departs from it
where JAX is wrong for a training run: JAX gives a Slurm task GPU number SLURM_LOCALID, which is one GPU of eight with a
task per node and a GPU that is not there with --gpus-per-task; it does not notice a batch script that forgot srun; its
Kubernetes detection asks the API server, for which pods need a package and a role.
"""

import dataclasses
import ipaddress
import re
from collections.abc import Mapping

from jaxcnn.errors import UserError

PORTS = 2**12
FIRST_PORT = 2**16 - PORTS  # JAX's own range for a port that is a function of the job's number
KUBERNETES_PORT, TPU_PORT = 55527, 8482  # JAX's own choices
LAUNCH = "python -m jaxcnn.launch FILE.py"


@dataclasses.dataclass(frozen=True)
class ProcessFlags:
    """What the command line says of this process; all three, or only `processes` = 1, or nothing."""

    coordinator: str | None = None
    """HOST:PORT of process 0, for several processes without a scheduler that tells."""
    processes: int | None = None
    """How many processes there are; 1 ignores the scheduler."""
    process: int | None = None
    """Which of them this is, from 0."""


@dataclasses.dataclass(frozen=True)
class ClusterEnvironment:
    """Which process of a run this one is, among how many, and where the first one listens."""

    scheduler: str
    """Who said so: "none", "flags", "variables", "slurm", "kubernetes", "tpu" or "openmpi"."""
    coordinator: str | None = None
    """HOST:PORT at which process 0 listens; None with one process."""
    processes: int = 1
    index: int = 0
    local_devices: tuple[int, ...] | None = None
    """Which of the GPUs that this process sees are its own; None: all of them."""
    nodes: int | None = 1
    """Machines over which the processes are spread; None if the environment does not say."""
    job: str = ""
    """The scheduler's number of the job: two jobs whose coordinators meet at one port are told apart by it."""

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The coordinator's; an IPv6 address without its brackets."""
        assert self.coordinator is not None
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


def detect_environment(environment: Mapping[str, str], flags: ProcessFlags = ProcessFlags()) -> ClusterEnvironment:
    """Which process this is, among how many.

    Flags go before the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, these before a
    scheduler's own. A Cloud TPU machine outside of GKE has no variables: see tpu_metadata.py.

    Raises:
      UserError: the environment or the flags contradict themselves; the message has the line to use.
    """
    if flags != ProcessFlags():
        return _from_flags(environment, flags)
    for read in (_variables, _openmpi, _slurm, _tpu, _kubernetes):
        found = read(environment)
        if found is not None:
            return found
    return ClusterEnvironment("none", local_devices=_device_list(environment))


def check_coordinator(cluster: ClusterEnvironment, addresses: tuple[str, ...]) -> None:
    """Raises UserError if `addresses`, the coordinator's, cannot be reached from all nodes."""
    if cluster.nodes == 1:
        return
    if cluster.nodes is not None and any(
        ipaddress.ip_address(each.partition("%")[0]).is_loopback for each in addresses
    ):
        raise UserError(
            f"the coordinator {cluster.coordinator} resolves to {', '.join(addresses)} here, a loopback address, which "
            f"the other {cluster.nodes - 1} nodes cannot reach; correct its line in /etc/hosts, or give an address of "
            "the network: --coordinator IP:PORT --processes N --process I"
        )


def _from_flags(environment: Mapping[str, str], flags: ProcessFlags) -> ClusterEnvironment:
    if flags.processes == 1 and flags.process in (None, 0):
        return ClusterEnvironment("flags", local_devices=_device_list(environment))
    given = {"--coordinator": flags.coordinator, "--processes": flags.processes, "--process": flags.process}
    return _stated(environment, given, "flags", f"{LAUNCH} --coordinator HOST:PORT --processes N --process I")


def _variables(environment: Mapping[str, str]) -> ClusterEnvironment | None:
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    if not any(name in environment for name in names[:2]):
        return None
    given: dict[str, str | int | None] = {name: environment.get(name) for name in names}
    in_kubernetes = "KUBERNETES_SERVICE_HOST" in environment
    if given[names[2]] is None and in_kubernetes:
        given[names[2]] = environment.get("JOB_COMPLETION_INDEX")
    if names[1] not in environment and ("SLURM_STEP_ID" in environment or "OMPI_COMM_WORLD_SIZE" in environment):
        return None  # only the address is overridden; the scheduler knows the rest
    for name in names[1:]:
        if given[name] is not None:
            given[name] = _number(name, str(given[name]))
    if given[names[1]] == 1:
        return ClusterEnvironment("variables", local_devices=_device_list(environment))
    scheduler = "kubernetes" if in_kubernetes else "variables"
    return _stated(environment, given, scheduler, f"{names[0]}=HOST:PORT {names[1]}=N {names[2]}=I {LAUNCH}")


def _stated(
    environment: Mapping[str, str], given: Mapping[str, str | int | None], scheduler: str, line: str
) -> ClusterEnvironment:
    """What flags or variables state in full."""
    missing = [name for name, value in given.items() if value is None]
    if missing:
        found = " and ".join(name for name, value in given.items() if value is not None)
        raise UserError(f"{found} without {' and '.join(missing)}; use: {line}")
    coordinator, processes, index = given.values()
    assert isinstance(coordinator, str) and isinstance(processes, int) and isinstance(index, int)
    coordinator_name, processes_name, index_name = given
    if processes < 1 or not 0 <= index < processes:
        raise UserError(
            f"{index_name} is {index} of {processes_name} {processes}; it must be 0 to {processes_name} - 1"
        )
    host, colon, port = coordinator.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"{coordinator_name} is {coordinator!r}; write HOST:PORT, such as node1:{FIRST_PORT}")
    if processes == 1:
        return ClusterEnvironment(scheduler, local_devices=_device_list(environment))
    return ClusterEnvironment(scheduler, coordinator, processes, index, _device_list(environment), nodes=None)


def _slurm(environment: Mapping[str, str]) -> ClusterEnvironment | None:
    """A task of `srun`; a shell of salloc or a batch script is one process, if the job is meant for one."""
    if "SLURM_JOB_ID" not in environment:
        return None
    job, step = environment["SLURM_JOB_ID"], environment.get("SLURM_STEP_ID", "")
    processes = _number("SLURM_NTASKS", environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1")))
    if "SLURM_STEP_NODELIST" not in environment:
        nodes = _number("SLURM_JOB_NUM_NODES", environment.get("SLURM_JOB_NUM_NODES", "1"))
        if max(processes, nodes) > 1:
            raise UserError(
                f"Slurm job {job} has {nodes} nodes and {processes} tasks, but this process was not started by srun "
                f"and would run alone; use: srun {LAUNCH} (or --processes 1 for one process)"
            )
        return ClusterEnvironment("slurm", local_devices=_device_list(environment), job=job)
    tasks = _per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", str(processes)))
    node = _number("SLURM_NODEID", environment.get("SLURM_NODEID", "0"))
    here = tasks[node] if node < len(tasks) else 1
    local = _number("SLURM_LOCALID", environment.get("SLURM_LOCALID", "0"))
    devices = _slurm_devices(environment, local, here)
    nodes = _number("SLURM_STEP_NUM_NODES", environment.get("SLURM_STEP_NUM_NODES", str(len(tasks))))
    if processes == 1:
        return ClusterEnvironment("slurm", local_devices=devices, job=job)
    address = environment.get("JAX_COORDINATOR_ADDRESS")
    if address is None:
        # The job's number, as JAX has it, and the step's, so that two steps of a job can share a node.
        offset = _number("SLURM_JOB_ID", job) + (int(step) if step.isdigit() and int(step) < 1000 else 0)
        port = environment.get("JAX_COORDINATOR_PORT", str(FIRST_PORT + offset % PORTS))
        address = f"{first_host(environment['SLURM_STEP_NODELIST'])}:{port}"
    index = _number("SLURM_PROCID", environment.get("SLURM_PROCID", ""))
    return ClusterEnvironment("slurm", address, processes, index, devices, nodes, f"{job}.{step}")


def first_host(nodes: str) -> str:
    """'gpu[007-009,012],login1' -> 'gpu007'."""
    head = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    if head is None:
        raise UserError(f"SLURM_STEP_NODELIST is {nodes!r}, which is no list of nodes")
    return "".join(part or "" for part in head.groups())


def _per_node(text: str) -> list[int]:
    """'2(x3),1' -> [2, 2, 2, 1]."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise UserError(f"SLURM_STEP_TASKS_PER_NODE is {text!r}; it should be like '2(x3),1'")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def _slurm_devices(environment: Mapping[str, str], local: int, here: int) -> tuple[int, ...] | None:
    """The own GPUs of task `local` of the `here` on its node, as numbers among the GPUs that it sees."""
    visible = _visible(environment)
    if "JAX_LOCAL_DEVICE_IDS" in environment or here == 1 or visible is None:
        return _device_list(environment)
    on_node = _number("SLURM_GPUS_ON_NODE", environment.get("SLURM_GPUS_ON_NODE", str(len(visible))))
    if len(visible) < on_node or any(name in environment for name in ("SLURM_GPUS_PER_TASK", "SLURM_NTASKS_PER_GPU")):
        return None  # Slurm shows each task its own GPUs only
    if len(visible) % here == 0:
        share = len(visible) // here
        return tuple(range(local * share, (local + 1) * share))
    gpus = len(visible)
    raise UserError(
        f"{here} tasks of this Slurm job share a node's {gpus} GPU{'s' if gpus > 1 else ''}, which do not divide among "
        f"them; use: srun --ntasks-per-node={gpus} --gpus-per-node={gpus} {LAUNCH} (a process per GPU) or "
        f"srun --ntasks-per-node=1 --gpus-per-node={gpus} {LAUNCH} (a process per node)"
    )


def _openmpi(environment: Mapping[str, str]) -> ClusterEnvironment | None:
    if "OMPI_COMM_WORLD_SIZE" not in environment:
        return None
    names = ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")
    processes, index, local, here = (_number(name, environment.get(name, "0")) for name in names)
    devices = _device_list(environment)
    if devices is None and here > 1:
        visible = _visible(environment)
        share = len(visible) // here if visible and len(visible) % here == 0 else 1
        devices = tuple(range(local * share, (local + 1) * share))
        if visible is not None and len(visible) == 1:
            devices = None  # a wrapper script has given each rank its own
    if processes == 1:
        return ClusterEnvironment("openmpi", local_devices=devices)
    # Open MPI 4 tells where mpirun runs, which is where rank 0 is; Open MPI 5 does not.
    uri = environment.get("OMPI_MCA_orte_hnp_uri", "")
    found = re.search(r"tcp://(.+?)[,:]|tcp6://\[(.+?)[,\]]", uri)
    number = int(uri.split(".")[0]) // PORTS if uri else 0
    port = environment.get("JAX_COORDINATOR_PORT", str(FIRST_PORT + number % PORTS))
    nodes = 1 if here == processes else None
    if "JAX_COORDINATOR_ADDRESS" in environment:
        address = environment["JAX_COORDINATOR_ADDRESS"]
    elif nodes == 1:
        address = f"127.0.0.1:{port}"
    elif found is not None:
        address = f"{next(group for group in found.groups() if group)}:{port}"
    else:
        raise UserError(
            "this Open MPI does not say where rank 0 is; use: "
            f"mpirun -x JAX_COORDINATOR_ADDRESS=HOST_OF_RANK_0:{FIRST_PORT} ... {LAUNCH}"
        )
    return ClusterEnvironment("openmpi", address, processes, index, devices, nodes)


def _tpu(environment: Mapping[str, str]) -> ClusterEnvironment | None:
    """A worker of a TPU slice on GKE, or of several slices. A TPU machine without GKE has no such variables."""
    listed = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if not listed:
        return None
    workers = [worker.partition(":")[0] for worker in listed.split(",")]
    slices = _number("MEGASCALE_NUM_SLICES", environment.get("MEGASCALE_NUM_SLICES") or "1")
    slice_index = _number("MEGASCALE_SLICE_ID", environment.get("MEGASCALE_SLICE_ID") or "0")
    if "TPU_WORKER_ID" not in environment:
        raise UserError(f"{len(workers)} TPU workers are listed, but TPU_WORKER_ID does not say which one this is")
    worker = _number("TPU_WORKER_ID", environment["TPU_WORKER_ID"])
    processes, index = len(workers) * slices, slice_index * len(workers) + worker
    if processes == 1:
        return ClusterEnvironment("tpu")
    if worker >= len(workers) or slice_index >= slices:
        raise UserError(f"TPU_WORKER_ID is {worker} of {len(workers)} workers, slice {slice_index} of {slices}")
    host = (environment.get("MEGASCALE_COORDINATOR_ADDRESS") or workers[0]).partition(":")[0]
    port = environment.get("JAX_COORDINATOR_PORT", str(TPU_PORT))
    return ClusterEnvironment("tpu", f"{host}:{port}", processes, index, None, nodes=processes)


def _kubernetes(environment: Mapping[str, str]) -> ClusterEnvironment | None:
    """An indexed job without the variables of launch/kubernetes-jobset.yaml: alone or forgotten, nobody can tell."""
    if "KUBERNETES_SERVICE_HOST" not in environment or "JOB_COMPLETION_INDEX" not in environment:
        return None
    raise UserError(
        f"this pod is number {environment['JOB_COMPLETION_INDEX']} of an indexed Kubernetes job, but "
        "JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES are not set; set them as launch/kubernetes-jobset.yaml does, or "
        f"use: {LAUNCH} --processes 1"
    )


def _visible(environment: Mapping[str, str]) -> list[str] | None:
    """The GPUs that the process sees, or None if nothing limits them."""
    for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        if environment.get(name):
            return [device for device in environment[name].split(",") if device not in ("-1", "NoDevFiles")] or None
    return None


def _device_list(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """JAX_LOCAL_DEVICE_IDS, which goes before all that is derived."""
    listed = environment.get("JAX_LOCAL_DEVICE_IDS")
    return tuple(_number("JAX_LOCAL_DEVICE_IDS", each) for each in listed.split(",")) if listed else None


def _number(name: str, text: str) -> int:
    if not text.strip().isdigit():
        raise UserError(f"{name} is {text!r} and not a number")
    return int(text)
