"""What a run's status says after the loss of another process: the first reason, and nothing over a later start."""

import json

import pytest

from jaxcnn.runs.failure import failure_recorder
from jaxcnn.runs.run_directory import RunDirectory


@pytest.fixture
def path(tmp_path):
    (tmp_path / "environment.json").write_text(json.dumps({"resumed": []}))
    RunDirectory(tmp_path).write_status("running", 7)
    return tmp_path


def says_so(message):
    return message.endswith("is lost")


def message(path):
    return RunDirectory(path).status().get("message", "")


def test_the_first_reason_stays(path):
    one, other = failure_recorder(path, says_so), failure_recorder(path, says_so)
    one("process 1 is lost")
    other("process 0 is lost")
    status = RunDirectory(path).status()
    assert (status["state"], status["step"], status["message"]) == ("failed", 7, "process 1 is lost")


def test_a_reason_of_another_kind_gives_way(path):
    RunDirectory(path).write_status("failed", 7, message="it cannot be written")
    failure_recorder(path, says_so)("process 1 is lost")
    assert message(path) == "process 1 is lost"


def test_a_run_that_is_done_or_started_again_is_left_alone(path):
    record = failure_recorder(path, says_so)
    RunDirectory(path).write_status("done", 9, message="done at step 9")
    record("process 1 is lost")
    assert message(path) == "done at step 9"
    RunDirectory(path).write_status("running", 9)
    (path / "environment.json").write_text(json.dumps({"resumed": ["again"]}))
    record("process 1 is lost")
    assert RunDirectory(path).status()["state"] == "running"
