"""The rendezvous, in this process: what strangers send does not end it, hold it up, or enter it."""

import contextlib
import json
import random
import socket
import threading
import time

import pytest

from jaxcnn.cluster import rendezvous as meeting
from jaxcnn.cluster.environment import ClusterEnvironment
from jaxcnn.cluster.initialize import code_digest, versions
from jaxcnn.cluster.rendezvous import ProcessMissing, Stopped, rendezvous
from jaxcnn.errors import UserError
from tests.cluster.several import free_port

VERSIONS = {"jax": "1.0"}
GOOD = {"index": 1, "host": "node", "pid": 1, "processes": 2, "job": "", "versions": VERSIONS}


def cluster(port, index, **fields):
    return ClusterEnvironment("flags", f"127.0.0.1:{port}", 2, index, **{"nodes": None, **fields})


def in_background(function, *arguments):
    """Starts it in a thread; returns that, and the list that its result or exception comes into."""
    came = []

    def work():
        try:
            came.append(function(*arguments))
        except Exception as error:
            came.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, came


def connect(port):
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def send(port, data):
    with contextlib.suppress(OSError), connect(port) as line:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        line.recv(1)  # until process 0 has looked at it


STRANGE = [
    b"",
    b"\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\xff\xfe\n",
    b"[" * 60_000 + b"\n",
    b"x" * (meeting.MAX_LINE + 10),
    b"null\n",
    b"[1, 2]\n",
    b"{}\n",
    *(
        json.dumps(GOOD | {name: value}).encode() + b"\n"
        for name, value in [
            *[("index", value) for value in ({}, [], "1", 1.0, True, None, -1, 2)],
            *[("host", value) for value in (None, 3, "\x1b[2J", "\ud800")],
            *[("versions", value) for value in ([], {"jax": 1}, {"jax": "\x07"}, None)],
            *[("pid", "1"), ("processes", "2"), ("processes", None), ("job", 7), ("more", 1)],
        ]
    ),
    json.dumps({name: value for name, value in GOOD.items() if name != "job"}).encode() + b"\n",
]


def test_strangers_do_not_end_it():
    port = free_port()
    thread, came = in_background(rendezvous, cluster(port, 0), VERSIONS, 60)
    for data in STRANGE:
        send(port, data)
        assert thread.is_alive(), (data[:80], came)
    draw, text = random.Random(0), json.dumps(GOOD).encode() + b"\n"
    for _ in range(100):  # a good line with some bytes changed, which is bad with one exception in a few thousand
        data = bytearray(text)
        for _ in range(draw.randrange(1, 8)):
            data[draw.randrange(14)] = draw.randrange(256)
        send(port, bytes(data))
        assert thread.is_alive(), (data, came)
    members, _ = rendezvous(cluster(port, 1), VERSIONS, 30)
    thread.join(30)
    assert came[0][0] == members and [info.index for info in members] == [0, 1]


def test_a_connection_whose_bytes_come_slowly_is_dropped_and_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(meeting, "LINE_SECONDS", 0.5)
    port = free_port()
    thread, came = in_background(rendezvous, cluster(port, 0), VERSIONS, 1.5)
    with connect(port) as slow:
        for _ in range(200):
            try:
                slow.sendall(b" ")
            except OSError:
                break
            time.sleep(0.05)
        else:
            pytest.fail("it could go on for ever")
    thread.join(10)
    assert isinstance(came[0], ProcessMissing) and "process 1 of 2 did not come within 1.5 s" in str(came[0])


def test_open_connections_that_say_nothing_keep_nobody_out():
    port = free_port()
    thread, came = in_background(rendezvous, cluster(port, 0), VERSIONS, 60)
    with contextlib.ExitStack() as held:
        for _ in range(meeting.EXTRA_CONNECTIONS + 20):
            held.enter_context(connect(port))
        members, _ = rendezvous(cluster(port, 1), VERSIONS, 30)
        thread.join(30)
    assert came[0][0] == members


def test_it_listens_at_the_coordinators_address_only():
    port = free_port()
    thread, came = in_background(rendezvous, cluster(port, 0), VERSIONS, 60)
    connect(port).close()
    with pytest.raises(ConnectionRefusedError):  # the machine's other loopback addresses stand for its other networks
        socket.create_connection(("127.0.0.2", port), timeout=5).close()
    rendezvous(cluster(port, 1), VERSIONS, 30)
    thread.join(30)
    assert len(came[0][0]) == 2


def test_a_coordinator_that_leads_elsewhere_or_to_loopback_by_name_is_listened_for_everywhere(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "node1")
    answers = {"node1": "127.0.1.1", "service": "192.0.2.7"}
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, **_: [(socket.AF_INET, 1, 6, "", (answers.get(host, host), port))]
    )
    own = lambda host, nodes: meeting.own_addresses(ClusterEnvironment("flags", f"{host}:1234", 2, 0, nodes=nodes))  # noqa: E731
    assert own("service", None) == [] and own("node1", 2) == [] and own("node1", None) == []
    assert own("node1", 1) == ["127.0.1.1"] and own("127.0.0.1", None) == ["127.0.0.1"]
    monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", "0.0.0.0:1234")
    assert own("127.0.0.1", None) == []


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_is_told_to_stop_does_not_wait_for_the_others(index):
    begin = time.monotonic()
    with pytest.raises(Stopped):
        rendezvous(cluster(free_port(), index), VERSIONS, 600, lambda: time.monotonic() > begin + 0.3)


@pytest.mark.parametrize(
    "fields, versions, message",
    [
        ({"job": "8.0"}, VERSIONS, "two jobs share this port"),
        ({}, {"jax": "2.0"}, "has jax 2.0, but process 0 ("),
    ],
)
def test_a_process_of_another_job_or_version_is_named_on_both(fields, versions, message):
    port = free_port()
    thread, came = in_background(rendezvous, cluster(port, 0, job=""), VERSIONS, 30)
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        rendezvous(cluster(port, 1, **fields), versions, 30)
    thread.join(30)
    assert message in str(came[0]) and "process 1 (" in str(came[0])


def test_an_answer_of_something_else_is_no_process_0(monkeypatch):
    monkeypatch.setattr(meeting, "LINE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer():
            for text in (b"[" * 50_000 + b"\n", b"{}\n", b"[]\n", b"\xff\n"):
                line, _ = other.accept()
                with line:
                    line.recv(1000)
                    line.sendall(text)

        in_background(answer)
        with pytest.raises(ProcessMissing, match="did not answer within 1 s"):
            rendezvous(cluster(other.getsockname()[1], 1), VERSIONS, 1)


def test_versions_tell_changed_code_apart(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.py").write_text("x = 1\n")
    before = code_digest(tmp_path)
    assert code_digest(tmp_path) == before and "(code " in versions()["jaxcnn"]
    (tmp_path / "part" / "a.py").write_text("x = 2\n")
    changed = code_digest(tmp_path)
    (tmp_path / "part" / "a.py").rename(tmp_path / "part" / "b.py")
    assert len({before, changed, code_digest(tmp_path)}) == 3
