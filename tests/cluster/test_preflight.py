"""The comparison of facts before a run, in this process: who differs from process 0, and in what, on all of them."""

import threading
import time

import pytest

from jaxcnn.cluster.environment import ClusterEnvironment
from jaxcnn.cluster.initialize import ProcessGroup
from jaxcnn.cluster.preflight import check_equal
from jaxcnn.cluster.rendezvous import ProcessInfo
from jaxcnn.cluster.store import LocalStore
from jaxcnn.errors import UserError


def compare(facts, seconds=20.0):
    """What each process is told, "" for nothing; one whose facts are None does not come."""
    store, told = LocalStore({}), [""] * len(facts)
    members = tuple(ProcessInfo(index, "node", 1, len(facts), "", {}) for index in range(len(facts)))

    def process(index):
        cluster = ClusterEnvironment("flags", "node:1", len(facts), index)
        try:
            check_equal(ProcessGroup(cluster, members, store), facts[index], seconds)
        except UserError as error:
            told[index] = str(error)

    threads = [threading.Thread(target=process, args=[i]) for i, own in enumerate(facts) if own is not None]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return told


def test_equal_facts_are_nothing_to_tell():
    facts = {"the config": {"seed": 0, "optimizer": {"lr": 0.1}}, "the data set": ["digits"]}
    assert compare([facts, {**facts}, dict(reversed(facts.items()))]) == ["", "", ""]


def test_the_process_that_differs_and_the_field_are_named_on_all():
    facts = [{"the config": {"seed": 0, "optimizer": {"lr": lr}}} for lr in (0.1, 0.1, 0.2)]
    expected = "process 2 (node) differs from process 0 (node): the config is not the same in optimizer.lr: "
    assert compare(facts) == [expected + "0.2 there, 0.1 on process 0"] * 3


def test_a_process_that_does_not_report_is_named_on_all():
    begin = time.monotonic()
    first, second, _ = compare([{"a": 1}, {"a": 1}, None], 0.3)
    assert first == second == "process 2 (node) did not report its config within 0.3 s"
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize("facts", [{"a": 1}, {}])
def test_one_process_has_nothing_to_compare(facts):
    check_equal(ProcessGroup(ClusterEnvironment("none")), facts, 1)
