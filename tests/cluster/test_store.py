"""The store over two real connections, made by a rendezvous in this process."""

import socket
import threading
import time

import pytest

from jaxcnn.cluster.environment import ClusterEnvironment
from jaxcnn.cluster.rendezvous import rendezvous
from jaxcnn.cluster.store import LocalStore, RemoteStore
from tests.cluster.several import free_port


def until(true):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def meet():
    """The port, and the stores of processes 0 and 1."""
    port, stores = free_port(), {}

    def process(index):
        cluster = ClusterEnvironment("flags", f"127.0.0.1:{port}", 2, index, nodes=1)
        stores[index] = rendezvous(cluster, {"jax": "1.0"}, 30)[1]

    threads = [threading.Thread(target=process, args=[index]) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return port, stores[0], stores[1]


def test_what_one_sets_the_other_gets():
    _, first, second = meet()
    first.set("a/0", "zero")
    second.set("a/1", "one\n" + "x" * 200_000)
    second.set("a/1", "one\n")
    second.set("b", "")
    for store in (first, second):
        assert store.get("a/") == {"a/0": "zero", "a/1": "one\n"} and store.get("c") == {}
        assert not store.closed


def test_the_port_is_free_for_jax_while_the_store_is_in_use():
    port, first, second = meet()
    with socket.create_server(("127.0.0.1", port)) as jax:
        socket.create_connection(("127.0.0.1", port)).close()
        jax.accept()[0].close()
        second.set("a", "1")
        assert first.get("a") == {"a": "1"}


def test_a_process_that_ends_is_known_to_have_ended():
    _, first, second = meet()
    second._connection.close()
    until(lambda: "process/closed/1" in first.get("process/"))


def test_the_end_of_process_0_is_known():
    ours, theirs = socket.socketpair()
    store = RemoteStore(ours, 5)
    theirs.close()
    with pytest.raises(OSError):
        store.get("")
    assert store.closed


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one():
    ours, theirs = socket.socketpair()
    store = RemoteStore(ours, 0.1)
    with pytest.raises(TimeoutError):
        store.set("a", "1")
    with pytest.raises(TimeoutError):
        store.set("a", "2")  # not even sent
    assert not store.closed
    served = LocalStore({1: theirs})
    until(lambda: served.get("a") == {"a": "1"})
    store._timeout = 10
    assert store.get("") == {"a": "1"}
