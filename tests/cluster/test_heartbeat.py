"""The watch, in this process, over a store that is a dict: who is blamed for a failure, and how processes part."""

import subprocess
import sys
import threading
import time

import pytest

from jaxcnn.cluster.heartbeat import LOST, Watch
from tests.tiny_runs import LIGHT, ROOT

NAMES = ["process 0 (a)", "process 1 (b)", "process 2 (c)"]


class Store:
    """What the watch asks of JAX's client."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite
        self.values[key] = value

    def key_value_dir_get(self, prefix):
        return [(key, value) for key, value in list(self.values.items()) if key.startswith(prefix)]


class Process:
    """One of three; `left` is what its watch wants it to leave with."""

    def __init__(self, store, index, deadline):
        self.left = []
        self.ended = threading.Event()
        self.watch = Watch(store, index, NAMES, deadline, self._leave)

    def _leave(self, code, message):
        self.left.append((code, message))
        self.ended.set()

    def die(self):
        self.watch._closed.set()


@pytest.fixture
def three():
    store = Store()
    processes = [Process(store, index, 1.0) for index in range(3)]
    yield processes
    for process in processes:
        process.die()


def test_a_failure_is_blamed_on_the_process_that_was_lost(three):
    three[1].die()
    waiting = threading.Thread(target=three[0].watch.explain, daemon=True)
    waiting.start()
    assert three[0].ended.wait(10)
    ((code, message),) = three[0].left
    assert code == LOST and message.startswith("process 1 (b) is lost")
    waiting.join(0.5)
    assert waiting.is_alive()  # so nothing else is said meanwhile


def test_process_0_tells_whom_it_lost_before_its_store_ends_with_it(three):
    three[2].die()
    three[1].watch.deadline = 60  # so that it does not find out by itself
    for process in three[:2]:
        assert process.ended.wait(10)
    assert three[1].left[0][0] == LOST and "process 2 (c) is lost" in three[1].left[0][1]


def test_a_failure_with_all_others_alive_is_ones_own_and_known_to_be_at_once(three):
    begin = time.monotonic()
    three[0].watch.explain()
    assert time.monotonic() - begin < 60 and not three[0].left


def test_a_process_that_has_left_in_order_is_not_waited_for(three):
    three[2].watch.farewell(0, "done")
    three[0].watch.explain()
    assert not three[0].left


def test_all_leave_is_true_once_all_have_said_farewell(three):
    for process in three[:2]:
        process.watch.farewell(75, "stopped")
    assert not three[0].watch.all_leave()
    three[2].watch.farewell(75, "stopped")
    assert three[0].watch.all_leave() and not any(process.left for process in three)


ABORT = f"""{LIGHT}
import os, sys, threading
from jaxcnn.cluster.heartbeat import Watch, exit_at_once, leave_on_abort
from tests.cluster.test_watch import NAMES, Store
index, code = map(int, sys.argv[1:])
watch = Watch(Store(), index, NAMES, 60, exit_at_once)
leave_on_abort(watch)
if code >= 0:
    watch.farewell(code, "")
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
