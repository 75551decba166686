"""Rendezvous: before JAX connects, every process reports to process 0, which tells all of them who is missing.

Why our own: if a process has not come, `jax.distributed.initialize` aborts the others with a stack trace that does
not name it, 17 s after an `initialization_timeout` of 10 s has begun (jax 0.10.2), and it compares no versions. So
process 0 listens at the coordinator's address first, for one line of JSON from each process, and answers each with one
line: go on, or why not. After that the address is free for JAX, and the connections serve the store (store.py).

What strangers send is dropped: it must be a ProcessInfo of the right types and range, whole within LINE_SECONDS.
"""

import contextlib
import dataclasses
import errno
import ipaddress
import json
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from jaxcnn.cluster.environment import ClusterEnvironment, check_coordinator
from jaxcnn.cluster.store import LocalStore, RemoteStore, Store
from jaxcnn.errors import UserError

LINE_SECONDS = 5.0
"""Seconds that a connection has for its one line, however slowly its bytes come."""
MAX_LINE = 2**16
"""Bytes of the longest line that process 0 reads; a ProcessInfo has some hundred."""
EXTRA_CONNECTIONS = 64
"""Connections that may be open beyond one of each process."""


class ProcessMissing(UserError):
    """A process did not come: another start may end better, unlike after other mistakes."""


class Stopped(Exception):
    """This process was told to stop while it waited for the others."""


@dataclasses.dataclass(frozen=True)
class ProcessInfo:
    """What a process says of itself."""

    index: int
    host: str
    pid: int
    processes: int
    job: str
    versions: dict[str, str]

    def __str__(self) -> str:
        return f"process {self.index} ({self.host})"


def rendezvous(
    cluster: ClusterEnvironment, versions: dict[str, str], seconds: float, stop: Callable[[], bool] = lambda: False
) -> tuple[tuple[ProcessInfo, ...], Store]:
    """Meets the other processes; returns what all of them said, in order, and the store that they share.

    Args:
      cluster: this process among the others; more than one process.
      versions: of the packages that must be equal everywhere.
      seconds: how long the slowest may take to start.
      stop: whether this process was told to stop.

    Raises:
      ProcessMissing: a process did not come, process 0 included.
      UserError: two claim one index, versions differ, or the port is taken.
      Stopped: `stop` was true before all were there.
    """
    assert cluster.coordinator is not None
    mine = ProcessInfo(cluster.index, socket.gethostname(), os.getpid(), cluster.processes, cluster.job, versions)
    if cluster.index == 0:
        return _Receiver(cluster, mine, seconds, stop).receive()
    return _ask(cluster, mine, seconds, stop)


class _Receiver:
    """Process 0's side: one thread, which waits for no single connection."""

    def __init__(self, cluster: ClusterEnvironment, mine: ProcessInfo, seconds: float, stop: Callable[[], bool]):
        self.cluster, self.mine, self.seconds, self.stop = cluster, mine, seconds, stop
        self.deadline = time.monotonic() + seconds
        self.present = {0: mine}
        self.pending: dict[socket.socket, tuple[bytearray, float]] = {}
        """What each connection has said so far, and until when it may."""
        self.accepted: list[tuple[int, socket.socket]] = []
        """The connections of those that have reported, and who they are."""
        self.problem = ""

    def receive(self) -> tuple[tuple[ProcessInfo, ...], Store]:
        absent = False
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as held:
            self.selector = selector
            for listener in _listen(self.cluster):
                held.enter_context(listener)
                listener.setblocking(False)
                selector.register(listener, selectors.EVENT_READ, self._accept)
            held.callback(self._close)
            while len(self.present) < self.cluster.processes and not self.problem:
                if self.stop():
                    raise Stopped("stopped before all processes had come")
                now = time.monotonic()
                if now > self.deadline:
                    self.problem, absent = _missing(self.cluster, self.present, self.seconds), True
                    break
                for key, _ in selector.select(min(0.2, self.deadline - now)):
                    key.data(key.fileobj)
                for line in [line for line, (_, until) in self.pending.items() if until < time.monotonic()]:
                    self._drop(line)
            members = tuple(self.present[index] for index in sorted(self.present))
            self.problem = self.problem or _different_versions(members)
            self._answer({"problem": self.problem, "absent": absent, "members": [*map(dataclasses.asdict, members)]})
            if self.problem:
                raise (ProcessMissing if absent else UserError)(self.problem)
            connections, self.accepted = dict(self.accepted), []
        return members, LocalStore(connections)

    def _accept(self, listener: socket.socket) -> None:
        try:
            line, _ = listener.accept()
        except OSError as error:  # it has gone again; or this process may open no more
            if error.errno in (errno.EMFILE, errno.ENFILE) and self.pending:
                self._drop(next(iter(self.pending)))
            return
        line.setblocking(False)
        if len(self.pending) >= self.cluster.processes + EXTRA_CONNECTIONS:
            self._drop(next(iter(self.pending)))
        self.pending[line] = bytearray(), time.monotonic() + LINE_SECONDS
        self.selector.register(line, selectors.EVENT_READ, self._read)

    def _read(self, line: socket.socket) -> None:
        said, _ = self.pending[line]
        try:
            more = line.recv(MAX_LINE)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        said += more
        text, end, _ = said.partition(b"\n")
        info = _process_info(bytes(text)) if end and len(text) <= MAX_LINE else None
        if info is None:
            if end or not more or len(said) > MAX_LINE:
                self._drop(line)
            return
        del self.pending[line]
        self.selector.unregister(line)
        self.accepted.append((info.index, line))
        self.problem = self.problem or _conflict(self.mine, info, self.present)
        self.present.setdefault(info.index, info)

    def _drop(self, line: socket.socket) -> None:
        """Closes the connection of a port scan, of another program, or of a process that died while it spoke."""
        del self.pending[line]
        self.selector.unregister(line)
        line.close()

    def _answer(self, answer: dict[str, Any]) -> None:
        text = json.dumps(answer).encode() + b"\n"
        until = time.monotonic() + LINE_SECONDS
        for _, line in self.accepted:
            with contextlib.suppress(OSError):
                line.settimeout(max(0.01, until - time.monotonic()))
                line.sendall(text)
        if self.problem:
            for _, line in self.accepted:  # the other side closes first, so that the port is free at once
                with contextlib.suppress(OSError):
                    line.settimeout(max(0.01, until - time.monotonic()))
                    line.recv(1)

    def _close(self) -> None:
        for line in [*self.pending, *(line for _, line in self.accepted)]:
            line.close()


def _process_info(text: bytes) -> ProcessInfo | None:
    """The ProcessInfo in a line of JSON, or None if it holds anything else."""
    kinds = {"index": int, "host": str, "pid": int, "processes": int, "job": str, "versions": dict}
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(info, dict) or info.keys() != kinds.keys():
        return None
    if any(type(info[name]) is not kind for name, kind in kinds.items()):
        return None
    texts = [info["host"], info["job"], *info["versions"].keys(), *info["versions"].values()]
    if not all(isinstance(text, str) and text.isprintable() for text in texts):  # they are shown to people
        return None
    return ProcessInfo(**info) if 0 <= info["index"] < info["processes"] else None


def _ask(
    cluster: ClusterEnvironment, mine: ProcessInfo, seconds: float, stop: Callable[[], bool]
) -> tuple[tuple[ProcessInfo, ...], Store]:
    """Every other process's side."""
    host, port = cluster.host_and_port
    deadline = time.monotonic() + seconds
    last = ""
    while True:
        try:
            addresses = tuple(sorted({str(info[4][0]) for info in socket.getaddrinfo(host, port)}))
            check_coordinator(cluster, addresses)
            wait = min(5.0, max(1.0, deadline - time.monotonic()))
            with contextlib.ExitStack() as held:
                line = held.enter_context(socket.create_connection((host, port), timeout=wait))
                line.sendall(json.dumps(dataclasses.asdict(mine)).encode() + b"\n")
                # Process 0 answers when all are there or its time is over; it may have started later than this one.
                members, problem, absent = _answered(_read_line(line, seconds + 2 * LINE_SECONDS, stop))
                if not problem:
                    held.pop_all()
            break
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:  # not there yet, or it has died
            last = str(error) or type(error).__name__
        if stop():
            raise Stopped("stopped before all processes had come")
        if time.monotonic() > deadline:
            raise ProcessMissing(
                f"process {cluster.index}: the coordinator, process 0 at {cluster.coordinator}, did not answer within "
                f"{seconds:g} s ({last}){_loopback_hint(host)}; see that process 0 started and that its port is open "
                "between the nodes"
            )
        time.sleep(0.2)
    if problem:
        raise (ProcessMissing if absent else UserError)(problem)
    return members, RemoteStore(line, LINE_SECONDS)


def _answered(text: bytes) -> tuple[tuple[ProcessInfo, ...], str, bool]:
    """All processes, the problem or "", and whether that is a process that did not come."""
    answer = json.loads(text)
    return tuple(ProcessInfo(**info) for info in answer["members"]), str(answer["problem"]), bool(answer["absent"])


def own_addresses(cluster: ClusterEnvironment) -> list[str]:
    """The addresses of the coordinator at which process 0 listens; [] for all that this machine has.

    All it must be if the coordinator's name leads elsewhere, as to a Kubernetes service or a forwarded port; if it
    leads to a loopback address here, by a line in /etc/hosts, and to another from the other nodes; and if
    JAX_COORDINATOR_BIND_ADDRESS says something else.
    """
    if "JAX_COORDINATOR_BIND_ADDRESS" in os.environ:
        return []
    host, port = cluster.host_and_port
    try:
        addresses = sorted({str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
        for address in addresses:
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
                probe.bind((address, 0))
    except OSError:
        return []
    by_name = host not in ("localhost", *addresses)
    if (
        cluster.nodes != 1
        and by_name
        and any(ipaddress.ip_address(each.partition("%")[0]).is_loopback for each in addresses)
    ):
        return []
    return addresses


def _listen(cluster: ClusterEnvironment) -> Iterator[socket.socket]:
    host, port = cluster.host_and_port
    for address in own_addresses(cluster) or ["::" if socket.has_dualstack_ipv6() else ""]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            yield socket.create_server(
                (address, port),
                family=family,
                backlog=min(4096, cluster.processes + EXTRA_CONNECTIONS),
                dualstack_ipv6=address == "::",
            )
        except OSError as error:
            raise UserError(
                f"process 0 cannot listen at port {port} of {host}: {error.strerror or error}; another job may use it: "
                "give a free one with --coordinator or JAX_COORDINATOR_PORT"
            ) from error


def _read_line(line: socket.socket, seconds: float, stop: Callable[[], bool]) -> bytes:
    """One line, whole within these seconds."""
    said, deadline = bytearray(), time.monotonic() + seconds
    while not said.endswith(b"\n"):
        if stop():
            raise Stopped("stopped before all processes had come")
        if time.monotonic() > deadline:
            raise TimeoutError("no answer")
        line.settimeout(0.2)
        try:
            more = line.recv(MAX_LINE)
        except TimeoutError:
            continue
        if not more:
            raise OSError("the connection was closed")
        said += more
    return bytes(said)


def _missing(cluster: ClusterEnvironment, present: dict[int, ProcessInfo], seconds: float) -> str:
    absent = [index for index in range(cluster.processes) if index not in present]
    shown = ", ".join(map(str, absent[:8])) + (f" and {len(absent) - 8} more" if len(absent) > 8 else "")
    there = ", ".join(f"{index} ({present[index].host})" for index in sorted(present)[:8])
    noun = "process" if len(absent) == 1 else "processes"
    return (
        f"{noun} {shown} of {cluster.processes} did not come within {seconds:g} s; there: {there}"
        f"{', ...' if len(present) > 8 else ''}; see why it did not start, or wait longer with --start-timeout"
    )


def _conflict(mine: ProcessInfo, info: ProcessInfo, present: dict[int, ProcessInfo]) -> str:
    if info.job != mine.job:
        return f"{info} of job {info.job or '(none)'} reported to job {mine.job or '(none)'}: two jobs share this port"
    if info.processes != mine.processes:
        return f"{info} believes that there are {info.processes} processes, process 0 {mine.processes}"
    if info.index in present:
        other = present[info.index]
        return f"two processes are number {info.index}: {other.host}, pid {other.pid}, and {info.host}, pid {info.pid}"
    return ""


def _different_versions(members: tuple[ProcessInfo, ...]) -> str:
    first = members[0]
    for info in members[1:]:
        for package in sorted(first.versions.keys() | info.versions.keys()):
            one, other = first.versions.get(package), info.versions.get(package)
            if one != other:
                return (
                    f"{info} has {package} {other or 'not installed'}, but {first} has {one or 'not installed'}; "
                    "install the same versions on all nodes"
                )
    return ""


def _loopback_hint(host: str) -> str:
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return ""
    return f"; {address} is a loopback address, which only reaches this machine" if address.startswith("127.") else ""
