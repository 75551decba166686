"""A process's place, on a table of environments. Those of Slurm were recorded from 22.05; the others are as documented:
JobSet with the variables of launch/kubernetes-jobset.yaml, GKE's TPU variables, Open MPI 4.1 and 5.0.
"""

import json
import os
import pathlib

import pytest
from jax._src.clusters.ompi_cluster import OmpiCluster  # noqa: TID251  the oracle
from jax._src.clusters.slurm_cluster import SlurmCluster  # noqa: TID251  the oracle

from jaxcnn.cluster.environment import (
    ClusterEnvironment,
    ProcessFlags,
    check_coordinator,
    detect_environment,
    first_host,
)
from jaxcnn.errors import UserError

SLURM = json.loads((pathlib.Path(__file__).parent / "recorded.json").read_text())
JOBSET = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "JOB_COMPLETION_INDEX": "2"}
WORKERS = {"JAX_COORDINATOR_ADDRESS": "run-workers-0-0.run:55527", "JAX_NUM_PROCESSES": "4"}
GKE = {"TPU_WORKER_HOSTNAMES": "t-0.t,t-1.t,t-2.t,t-3.t", "TPU_WORKER_ID": "3"}
SLICES = {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1", "MEGASCALE_COORDINATOR_ADDRESS": "t-job-0-0.t:8080"}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}
URI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"}
PLACES = [
    ({}, ClusterEnvironment("none")),
    ({"CUDA_VISIBLE_DEVICES": "0,1"}, ClusterEnvironment("none")),
    (SLURM["slurm: a task per node"], ClusterEnvironment("slurm", "n1:61441", 2, 1, None, 2, "1.0")),
    (SLURM["slurm: a task per GPU"], ClusterEnvironment("slurm", "n1:61442", 8, 5, (1,), 2, "2.0")),
    (SLURM["slurm: --gpus-per-task=2"], ClusterEnvironment("slurm", "n1:61443", 4, 3, None, 2, "3.0")),
    (SLURM["slurm: half a node"], ClusterEnvironment("slurm", "n1:61444", 2, 1, (1,), 1, "4.0")),
    (SLURM["slurm: one task, one node"], ClusterEnvironment("slurm", None, 1, 0, None, 1, "5")),
    (SLURM["slurm: no GPUs"], ClusterEnvironment("slurm", "n1:61446", 4, 2, None, 2, "6.0")),
    (SLURM["slurm: array"], ClusterEnvironment("slurm", "n1:61448", 4, 3, None, 2, "8.0")),
    (
        SLURM["slurm: a task per GPU"] | {"JAX_COORDINATOR_PORT": "7000"},
        ClusterEnvironment("slurm", "n1:7000", 8, 5, (1,), 2, "2.0"),
    ),
    (JOBSET | WORKERS, ClusterEnvironment("kubernetes", "run-workers-0-0.run:55527", 4, 2, None, None)),
    (
        JOBSET | WORKERS | {"JAX_PROCESS_ID": "3"},
        ClusterEnvironment("kubernetes", "run-workers-0-0.run:55527", 4, 3, None, None),
    ),
    (JOBSET | {"JAX_NUM_PROCESSES": "1"}, ClusterEnvironment("variables")),
    ({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, ClusterEnvironment("none")),
    (GKE, ClusterEnvironment("tpu", "t-0.t:8482", 4, 3, None, 4)),
    (GKE | SLICES, ClusterEnvironment("tpu", "t-job-0-0.t:8482", 8, 7, None, 8)),
    ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, ClusterEnvironment("tpu")),
    (MPI | URI, ClusterEnvironment("openmpi", "10.96.0.1:62624", 8, 5, (1,), None)),
    (MPI | URI | {"CUDA_VISIBLE_DEVICES": "3"}, ClusterEnvironment("openmpi", "10.96.0.1:62624", 8, 5, None, None)),
    (MPI | {"JAX_COORDINATOR_ADDRESS": "a:1"}, ClusterEnvironment("openmpi", "a:1", 8, 5, (1,), None)),
    (MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, ClusterEnvironment("openmpi", "127.0.0.1:61440", 8, 5, (1,), 1)),
    (MPI | {"OMPI_COMM_WORLD_SIZE": "1"} | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, ClusterEnvironment("openmpi")),
    (WORKERS | {"JAX_PROCESS_ID": "0"}, ClusterEnvironment("variables", "run-workers-0-0.run:55527", 4, 0, None, None)),
]


@pytest.mark.parametrize("environment, place", PLACES)
def test_the_place_in_recorded_environments(environment, place):
    assert detect_environment(environment) == place


def test_flags_go_before_the_scheduler():
    environment = SLURM["slurm: a task per GPU"]
    assert detect_environment(environment, ProcessFlags(processes=1)) == ClusterEnvironment("flags")
    assert detect_environment(environment, ProcessFlags("a:5", 2, 1)) == ClusterEnvironment(
        "flags", "a:5", 2, 1, None, None
    )
    own = detect_environment({"JAX_LOCAL_DEVICE_IDS": "2,3"}, ProcessFlags("a:5", 2, 1))
    assert own.local_devices == (2, 3)


@pytest.mark.parametrize("name", [name for name in SLURM if "batch" not in name and "three" not in name])
def test_slurm_coordinators_are_jaxs_own(name, monkeypatch):
    for variable in [variable for variable in os.environ if variable.startswith("SLURM_")]:
        monkeypatch.delenv(variable)
    for variable, value in SLURM[name].items():
        monkeypatch.setenv(variable, value)
    place = detect_environment(SLURM[name])
    assert SlurmCluster.is_env_present()
    assert (SlurmCluster.get_process_count(), SlurmCluster.get_process_id()) == (place.processes, place.index)
    if place.processes > 1:
        assert SlurmCluster.get_coordinator_address(None, None) == place.coordinator


def test_an_open_mpi_coordinator_is_jaxs_own(monkeypatch):
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", URI["OMPI_MCA_orte_hnp_uri"])
    assert OmpiCluster.get_coordinator_address(None, None) == detect_environment(MPI | URI).coordinator


@pytest.mark.parametrize(
    "nodes, host",
    [
        ("n1", "n1"),
        ("n1,n3", "n1"),
        ("gpu[007-009,012],login1", "gpu007"),
        ("n[1,5-7]", "n1"),
        ("a-b[2-3]-ib,c", "a-b2-ib"),
    ],
)
def test_the_first_host_of_a_node_list(nodes, host):
    assert first_host(nodes) == host


@pytest.mark.parametrize(
    "environment, flags, line",
    [
        (
            SLURM["slurm: batch script without srun"],
            ProcessFlags(),
            "has 2 nodes and 4 tasks, but this process was not started",
        ),
        (SLURM["slurm: batch script without srun"], ProcessFlags(), "use: srun python -m jaxcnn.launch FILE.py"),
        (SLURM["slurm: three tasks, four GPUs"], ProcessFlags(), "3 tasks of this Slurm job share a node's 4 GPUs"),
        (
            SLURM["slurm: three tasks, four GPUs"],
            ProcessFlags(),
            "srun --ntasks-per-node=4 --gpus-per-node=4 python -m",
        ),
        (
            {},
            ProcessFlags(coordinator="a:1"),
            "--coordinator without --processes and --process; use: python -m jaxcnn.launch",
        ),
        ({}, ProcessFlags(processes=4), "--processes without --coordinator and --process"),
        ({}, ProcessFlags("a:1", 4, 4), "--process is 4 of --processes 4; it must be 0 to --processes - 1"),
        ({}, ProcessFlags("a", 4, 1), "--coordinator is 'a'; write HOST:PORT"),
        ({"JAX_NUM_PROCESSES": "4"}, ProcessFlags(), "without JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID"),
        ({"JAX_NUM_PROCESSES": "four"}, ProcessFlags(), "JAX_NUM_PROCESSES is 'four' and not a number"),
        (JOBSET, ProcessFlags(), "set them as launch/kubernetes-jobset.yaml does"),
        (MPI, ProcessFlags(), "mpirun -x JAX_COORDINATOR_ADDRESS=HOST_OF_RANK_0:61440"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, ProcessFlags(), "TPU_WORKER_ID does not say which"),
    ],
)
def test_wrong_combinations_are_refused_with_the_line_to_use(environment, flags, line):
    with pytest.raises(UserError) as refused:
        detect_environment(environment, flags)
    assert line in str(refused.value)


def test_a_loopback_coordinator_is_refused_where_other_nodes_need_it():
    two, one = (
        ClusterEnvironment("slurm", "n1:61441", 2, 1, None, 2),
        ClusterEnvironment("slurm", "n1:61441", 2, 1, None, 1),
    )
    with pytest.raises(UserError, match=r"n1:61441 resolves to 127\.0\.1\.1 here, a loopback address"):
        check_coordinator(two, ("127.0.1.1",))
    check_coordinator(two, ("10.0.0.1", "fe80::1%eth0"))
    check_coordinator(one, ("127.0.1.1",))


@pytest.mark.parametrize("text", ["", "x", "2(x3", "2(x),1", "2,,1"])
def test_a_list_of_tasks_that_cannot_be_read_is_named(text):
    job = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "n1", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}
    with pytest.raises(UserError, match="SLURM_STEP_TASKS_PER_NODE is "):
        detect_environment(job | {"SLURM_PROCID": "0", "SLURM_STEP_TASKS_PER_NODE": text})
