"""jaxcnn doctor on one machine and on two processes."""

import json
import math

import pytest

from jaxcnn.cluster.doctor import _disk
from jaxcnn.cluster.initialize import Deadlines
from jaxcnn.errors import UserError
from tests.cluster.several import ended, free_port
from tests.tiny_runs import call, start


def test_one_machine(tmp_path):
    done = call("doctor", "--json", "--workdir", tmp_path, module="jaxcnn")
    assert done.returncode == 0, done.stderr
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert findings.keys() == {"processes", "versions", "devices", "all-reduce", "disk", "compile cache", "data"}
    assert all(finding["state"] != "fail" for finding in findings.values())
    assert "jax 0." in findings["versions"]["found"] and "GiB free" in findings["disk"]["found"]


def test_a_folder_that_cannot_be_written_is_a_failure(tmp_path):
    (tmp_path / "file").write_text("")
    done = call("doctor", "--workdir", tmp_path / "file", "--data-dir", tmp_path / "none", module="jaxcnn")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stdout.count("fail") == 2 and "jaxcnn data prepare" in done.stdout.replace("\n", " ")


def test_two_processes_meet_and_reduce():
    place = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", 2, "--process"]
    first, second = ended([start("doctor", "--json", *place, index, module="jaxcnn") for index in (0, 1)])
    assert first[0] == second[0] == 0, first[2] + second[2]
    text = first[1][first[1].index("[\n") :]
    findings = {finding["check"]: finding["found"] for finding in json.loads(text)}
    assert "2 (flags) on 1 hosts" in findings["processes"] and "over 2 devices" in findings["all-reduce"]
    assert findings["same versions"] == "on all 2 processes"


def test_a_process_that_is_missing_is_named():
    flags = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", 2, "--process", 0, "--start-timeout", 2]
    done = call("doctor", *flags, module="jaxcnn")
    assert done.returncode == 1 and "process 1 of 2 did not come within 2 s" in done.stderr


def test_a_link_that_leads_nowhere_is_a_failure_and_no_folder_of_runs(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for workdir in (tmp_path / "loop", tmp_path / "loop" / "runs"):
        assert _disk(workdir) == ("fail", f"{tmp_path / 'loop'} is a link that leads nowhere")


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_deadlines_are_seconds(seconds):
    for deadlines in ({"start": seconds}, {"lost": seconds}):
        with pytest.raises(UserError, match="are seconds above 0"):
            Deadlines(**deadlines)
