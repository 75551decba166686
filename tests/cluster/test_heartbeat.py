"""The heartbeat, in this process, over a store in this process: who is blamed for a failure, and how processes exit."""

import subprocess
import sys
import threading
import time

import pytest

from jaxcnn.cluster.heartbeat import LOST, Heartbeat
from jaxcnn.cluster.store import LocalStore
from tests.tiny_runs import LIGHT, ROOT

NAMES = ["process 0 (a)", "process 1 (b)", "process 2 (c)"]


class Process:
    """One of three; `left` is what its heartbeat wants it to exit with."""

    def __init__(self, store, index, deadline):
        self.left = []
        self.ended = threading.Event()
        self.heartbeat = Heartbeat(store, index, NAMES, deadline, self._leave)

    def _leave(self, code, message):
        self.left.append((code, message))
        self.ended.set()

    def die(self):
        self.heartbeat._closed.set()


@pytest.fixture
def three():
    store = LocalStore({})
    processes = [Process(store, index, 1.0) for index in range(3)]
    yield processes
    for process in processes:
        process.die()


def test_a_failure_is_blamed_on_the_process_that_was_lost(three):
    three[1].die()
    waiting = threading.Thread(target=three[0].heartbeat.confirm_others_alive, daemon=True)
    waiting.start()
    assert three[0].ended.wait(10)
    ((code, message),) = three[0].left
    assert code == LOST and message.startswith("process 1 (b) is lost")
    waiting.join(0.5)
    assert waiting.is_alive()  # so nothing else is said meanwhile


def test_process_0_tells_whom_it_lost_before_its_store_ends_with_it(three):
    three[2].die()
    three[1].heartbeat.deadline = 60  # so that it does not find out by itself
    for process in three[:2]:
        assert process.ended.wait(10)
    assert three[1].left[0][0] == LOST and "process 2 (c) is lost" in three[1].left[0][1]


def test_a_failure_with_all_others_alive_is_ones_own_and_known_to_be_at_once(three):
    begin = time.monotonic()
    three[0].heartbeat.confirm_others_alive()
    assert time.monotonic() - begin < 60 and not three[0].left


def test_a_process_that_has_left_in_order_is_not_waited_for(three):
    three[2].heartbeat.announce_exit(0, "done")
    three[0].heartbeat.confirm_others_alive()
    assert not three[0].left


def test_the_wait_for_exits_ends_once_all_have_announced_theirs(three):
    for process in three[:2]:
        process.heartbeat.announce_exit(75, "stopped")
    assert not three[0].heartbeat.wait_for_exits()
    three[2].heartbeat.announce_exit(75, "stopped")
    assert three[0].heartbeat.wait_for_exits() and not any(process.left for process in three)


def test_a_process_whose_connection_ends_is_lost_at_once_unless_it_had_announced_its_exit(three):
    three[0].heartbeat.deadline = three[1].heartbeat.deadline = 60  # so that no silence counts
    three[2].heartbeat.announce_exit(0, "done")
    three[0].heartbeat.store.set("process/closed/2", "")
    three[0].heartbeat.store.set("process/closed/1", "")
    assert three[0].ended.wait(10)
    ((code, message),) = three[0].left
    assert code == LOST and message.startswith("process 1 (b) is lost: its connection ended")
    assert three[0].heartbeat.first_survivor() == 0 and not three[2].left


ABORT = f"""{LIGHT}
import os, sys, threading
from jaxcnn.cluster.heartbeat import Heartbeat, exit_at_once, exit_on_abort
from jaxcnn.cluster.store import LocalStore
from tests.cluster.test_heartbeat import NAMES
index, code = map(int, sys.argv[1:])
heartbeat = Heartbeat(LocalStore({{}}), index, NAMES, 60, exit_at_once)
exit_on_abort(heartbeat)
if code >= 0:
    heartbeat.announce_exit(code, "")
thread = threading.Thread(target=os.abort)
thread.start()
thread.join()
"""


@pytest.mark.parametrize(
    "index, code, expected", [(1, -1, "process 0 (a) is lost"), (0, -1, "another process"), (0, 0, "")]
)
def test_an_abort_of_jax_ends_a_process_with_a_name_or_as_it_had_ended(index, code, expected):
    command = [sys.executable, "-c", ABORT, str(index), str(code)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == (LOST if code < 0 else code), done.stderr
    assert expected in done.stderr
