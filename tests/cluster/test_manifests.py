"""The files in launch/: the JobSet against the published API and what a place needs; shellcheck on the scripts."""

import copy
import shutil
import subprocess

import pydantic
import pytest
import yaml
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

from jaxcnn.cluster.environment import ClusterEnvironment, detect_environment
from tests.tiny_runs import ROOT

LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch"), ROOT / "tests" / "slurm" / "setup.sh"])


@pytest.fixture
def jobset():
    return yaml.safe_load((LAUNCH / "kubernetes-jobset.yaml").read_text())


def job_of(jobset):
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]


def unknown(given, read, path=""):
    """The fields of a manifest that the models, generated from the published OpenAPI description, do not know."""
    if isinstance(given, list):
        return [name for index, each in enumerate(given) for name in unknown(each, read[index], f"{path}/{index}")]
    if not isinstance(given, dict):
        assert given == read, path
        return []
    lost = [f"{path}/{name}" for name in given.keys() - read.keys()]
    kept = given.keys() & read.keys()
    return lost + [name for key in kept for name in unknown(given[key], read[key], f"{path}/{key}")]


def changed(jobset, path, value):
    wrong = copy.deepcopy(jobset)
    place = wrong
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return wrong


def test_the_jobset_is_valid_and_what_is_not_is_found(jobset):
    read = JobsetV1alpha2JobSet.from_dict
    assert unknown(jobset, read(jobset).to_dict()) == []
    job = ["spec", "replicatedJobs", 0, "template", "spec"]
    wrong = changed(jobset, ["spec", "failurePolicy", "maxRestart"], 3)
    assert unknown(wrong, read(wrong).to_dict()) == ["/spec/failurePolicy/maxRestart"]
    wrong = changed(jobset, [*job, "template", "spec", "containers", 0, "comand"], ["python"])
    assert unknown(wrong, read(wrong).to_dict()) == [
        "/spec/replicatedJobs/0/template/spec/template/spec/containers/0/comand"
    ]
    for path, value in [([*job, "parallelism"], "2"), (["spec", "network", "enableDNSHostnames"], "often")]:
        with pytest.raises(pydantic.ValidationError):
            read(changed(jobset, path, value))


def test_a_pod_of_the_jobset_finds_its_place(jobset):
    job = job_of(jobset)
    (container,) = job["template"]["spec"]["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    environment |= {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "JOB_COMPLETION_INDEX": "1"}  # what Kubernetes adds
    name, workers = jobset["metadata"]["name"], jobset["spec"]["replicatedJobs"][0]["name"]
    port = container["ports"][0]["containerPort"]
    assert detect_environment(environment) == ClusterEnvironment(
        "kubernetes", f"{name}-{workers}-0-0.{name}:{port}", 2, 1, None, None
    )
    assert job["parallelism"] == job["completions"] == 2 and job["completionMode"] == "Indexed"


def test_the_jobset_restarts_after_everything_but_a_mistake(jobset):
    (rule,) = job_of(jobset)["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [1, 2]
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] >= 20


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck(script):
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.parent == LAUNCH], ids=lambda script: script.name)
def test_each_script_says_how_it_is_used(script):
    header = script.read_text().split("set -")[0]
    assert f"launch/{script.name} " in header and "\n#   " in header
    if script.suffix == ".sbatch":
        assert "#SBATCH --requeue" in header and "#SBATCH --signal=USR1@300" in header
    done = subprocess.run([shutil.which("bash"), script], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 2 and "usage: " in done.stderr
