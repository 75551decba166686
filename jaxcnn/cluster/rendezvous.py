"""Roll call: before JAX connects, every process reports to process 0, which tells all of them who is missing.

JAX's own start blocks until all processes have come and, where one has not, ends the others with a stack trace that
does not name it. So process 0 listens at the coordinator's address first, for one line of JSON from each process, and
answers each with one line: go on, or why not. After that the address is free for JAX.

What strangers send is dropped: it must be a Hello of the right types and range, whole within SPEAKING seconds.
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

from jaxcnn.cluster.environment import Place, check_coordinator
from jaxcnn.errors import UserError

SPEAKING = 5.0
"""Seconds that a connection has for its one line, however slowly its bytes come."""
LONGEST = 2**16
"""Bytes of the longest line that process 0 reads; a Hello has some hundred."""
STRANGERS = 64
"""Connections that may be open beyond one of each process."""


class Missing(UserError):
    """A process did not come: another start may end better, unlike after other mistakes."""


class Stopped(Exception):
    """This process was told to stop while it waited for the others."""


@dataclasses.dataclass(frozen=True)
class Hello:
    """What a process says of itself."""

    index: int
    host: str
    pid: int
    processes: int
    job: str
    versions: dict[str, str]

    def __str__(self) -> str:
        return f"process {self.index} ({self.host})"


def roll_call(
    place: Place, versions: dict[str, str], seconds: float, stop: Callable[[], bool] = lambda: False
) -> tuple[Hello, ...]:
    """Meets the other processes; returns what all of them said, in order.

    Args:
      place: of this process; more than one process.
      versions: of the packages that must be equal everywhere.
      seconds: how long the slowest may take to start.
      stop: whether this process was told to stop.

    Raises:
      Missing: a process did not come, process 0 included.
      UserError: two claim one place, versions differ, or the port is taken.
      Stopped: `stop` was true before all were there.
    """
    assert place.coordinator is not None
    mine = Hello(place.index, socket.gethostname(), os.getpid(), place.processes, place.job, versions)
    if place.index == 0:
        return _Receiver(place, mine, seconds, stop).receive()
    return _report(place, mine, seconds, stop)


class _Receiver:
    """Process 0's side: one thread, which waits for no single connection."""

    def __init__(self, place: Place, mine: Hello, seconds: float, stop: Callable[[], bool]):
        self.place, self.mine, self.seconds, self.stop = place, mine, seconds, stop
        self.deadline = time.monotonic() + seconds
        self.present = {0: mine}
        self.speaking: dict[socket.socket, tuple[bytearray, float]] = {}
        """What each connection has said so far, and until when it may."""
        self.spoken: list[socket.socket] = []
        self.problem = ""

    def receive(self) -> tuple[Hello, ...]:
        absent = False
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as held:
            self.selector = selector
            for listener in _listen(self.place):
                held.enter_context(listener)
                listener.setblocking(False)
                selector.register(listener, selectors.EVENT_READ, self._accept)
            held.callback(self._close)
            while len(self.present) < self.place.processes and not self.problem:
                if self.stop():
                    raise Stopped("stopped before all processes had come")
                now = time.monotonic()
                if now > self.deadline:
                    self.problem, absent = _missing(self.place, self.present, self.seconds), True
                    break
                for key, _ in selector.select(min(0.2, self.deadline - now)):
                    key.data(key.fileobj)
                for line in [line for line, (_, until) in self.speaking.items() if until < time.monotonic()]:
                    self._drop(line)
            everyone = tuple(self.present[index] for index in sorted(self.present))
            self.problem = self.problem or _different_versions(everyone)
            self._answer({"problem": self.problem, "absent": absent, "everyone": [*map(dataclasses.asdict, everyone)]})
        if self.problem:
            raise (Missing if absent else UserError)(self.problem)
        return everyone

    def _accept(self, listener: socket.socket) -> None:
        try:
            line, _ = listener.accept()
        except OSError as error:  # it has gone again; or this process may open no more
            if error.errno in (errno.EMFILE, errno.ENFILE) and self.speaking:
                self._drop(next(iter(self.speaking)))
            return
        line.setblocking(False)
        if len(self.speaking) >= self.place.processes + STRANGERS:
            self._drop(next(iter(self.speaking)))
        self.speaking[line] = bytearray(), time.monotonic() + SPEAKING
        self.selector.register(line, selectors.EVENT_READ, self._read)

    def _read(self, line: socket.socket) -> None:
        said, _ = self.speaking[line]
        try:
            more = line.recv(LONGEST)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        said += more
        text, end, _ = said.partition(b"\n")
        told = _hello(bytes(text)) if end and len(text) <= LONGEST else None
        if told is None:
            if end or not more or len(said) > LONGEST:
                self._drop(line)
            return
        del self.speaking[line]
        self.selector.unregister(line)
        self.spoken.append(line)
        self.problem = self.problem or _contradiction(self.mine, told, self.present)
        self.present.setdefault(told.index, told)

    def _drop(self, line: socket.socket) -> None:
        """Closes the connection of a port scan, of another program, or of a process that died while it spoke."""
        del self.speaking[line]
        self.selector.unregister(line)
        line.close()

    def _answer(self, answer: dict[str, Any]) -> None:
        text = json.dumps(answer).encode() + b"\n"
        until = time.monotonic() + SPEAKING
        for line in self.spoken:
            with contextlib.suppress(OSError):
                line.settimeout(max(0.01, until - time.monotonic()))
                line.sendall(text)
        for line in self.spoken:  # the other side closes first, so that the port is free at once
            with contextlib.suppress(OSError):
                line.settimeout(max(0.01, until - time.monotonic()))
                line.recv(1)

    def _close(self) -> None:
        for line in [*self.speaking, *self.spoken]:
            line.close()


def _hello(text: bytes) -> Hello | None:
    """The Hello in a line of JSON, or None where it holds anything else."""
    kinds = {"index": int, "host": str, "pid": int, "processes": int, "job": str, "versions": dict}
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.keys() != kinds.keys():
        return None
    if any(type(told[name]) is not kind for name, kind in kinds.items()):
        return None
    texts = [told["host"], told["job"], *told["versions"].keys(), *told["versions"].values()]
    if not all(isinstance(text, str) and text.isprintable() for text in texts):  # they are shown to people
        return None
    return Hello(**told) if 0 <= told["index"] < told["processes"] else None


def _report(place: Place, mine: Hello, seconds: float, stop: Callable[[], bool]) -> tuple[Hello, ...]:
    """Every other process's side."""
    host, port = place.host_and_port
    deadline = time.monotonic() + seconds
    last = ""
    while True:
        try:
            addresses = tuple(sorted({str(info[4][0]) for info in socket.getaddrinfo(host, port)}))
            check_coordinator(place, addresses)
            with socket.create_connection(
                (host, port), timeout=min(5.0, max(1.0, deadline - time.monotonic()))
            ) as line:
                line.sendall(json.dumps(dataclasses.asdict(mine)).encode() + b"\n")
                # Process 0 answers when all are there or its time is over; it may have started later than this one.
                everyone, problem, absent = _answered(_read_line(line, seconds + 2 * SPEAKING, stop))
            break
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:  # not there yet, or it has died
            last = str(error) or type(error).__name__
        if stop():
            raise Stopped("stopped before all processes had come")
        if time.monotonic() > deadline:
            raise Missing(
                f"process {place.index}: the coordinator, process 0 at {place.coordinator}, did not answer within "
                f"{seconds:g} s ({last}){_loopback_hint(host)}; see that process 0 started and that its port is open "
                "between the nodes"
            )
        time.sleep(0.2)
    if problem:
        raise (Missing if absent else UserError)(problem)
    return everyone


def _answered(text: bytes) -> tuple[tuple[Hello, ...], str, bool]:
    """Everyone, the problem or "", and whether that is a process that did not come."""
    answer = json.loads(text)
    return tuple(Hello(**hello) for hello in answer["everyone"]), str(answer["problem"]), bool(answer["absent"])


def own_addresses(place: Place) -> list[str]:
    """The addresses of the coordinator at which process 0 listens; [] for all that this machine has.

    All it must be if the coordinator's name leads elsewhere, as to a Kubernetes service or a forwarded port; if it
    leads to a loopback address here, by a line in /etc/hosts, and to another from the other nodes; and if
    JAX_COORDINATOR_BIND_ADDRESS says something else.
    """
    if "JAX_COORDINATOR_BIND_ADDRESS" in os.environ:
        return []
    host, port = place.host_and_port
    try:
        addresses = sorted({str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
        for address in addresses:
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
                probe.bind((address, 0))
    except OSError:
        return []
    by_name = host not in ("localhost", *addresses)
    if (
        place.nodes != 1
        and by_name
        and any(ipaddress.ip_address(each.partition("%")[0]).is_loopback for each in addresses)
    ):
        return []
    return addresses


def _listen(place: Place) -> Iterator[socket.socket]:
    host, port = place.host_and_port
    for address in own_addresses(place) or ["::" if socket.has_dualstack_ipv6() else ""]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            yield socket.create_server(
                (address, port),
                family=family,
                backlog=min(4096, place.processes + STRANGERS),
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
            more = line.recv(LONGEST)
        except TimeoutError:
            continue
        if not more:
            raise OSError("the connection was closed")
        said += more
    return bytes(said)


def _missing(place: Place, present: dict[int, Hello], seconds: float) -> str:
    absent = [index for index in range(place.processes) if index not in present]
    shown = ", ".join(map(str, absent[:8])) + (f" and {len(absent) - 8} more" if len(absent) > 8 else "")
    there = ", ".join(f"{index} ({present[index].host})" for index in sorted(present)[:8])
    noun = "process" if len(absent) == 1 else "processes"
    return (
        f"{noun} {shown} of {place.processes} did not come within {seconds:g} s; there: {there}"
        f"{', ...' if len(present) > 8 else ''}; see why it did not start, or wait longer with --start-timeout"
    )


def _contradiction(mine: Hello, told: Hello, present: dict[int, Hello]) -> str:
    if told.job != mine.job:
        return f"{told} of job {told.job or '(none)'} reported to job {mine.job or '(none)'}: two jobs share this port"
    if told.processes != mine.processes:
        return f"{told} believes that there are {told.processes} processes, process 0 {mine.processes}"
    if told.index in present:
        other = present[told.index]
        return f"two processes are number {told.index}: {other.host}, pid {other.pid}, and {told.host}, pid {told.pid}"
    return ""


def _different_versions(everyone: tuple[Hello, ...]) -> str:
    first = everyone[0]
    for hello in everyone[1:]:
        for package in sorted(first.versions.keys() | hello.versions.keys()):
            one, other = first.versions.get(package), hello.versions.get(package)
            if one != other:
                return (
                    f"{hello} has {package} {other or 'not installed'}, but {first} has {one or 'not installed'}; "
                    "install the same versions on all nodes"
                )
    return ""


def _loopback_hint(host: str) -> str:
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return ""
    return f"; {address} is a loopback address, which only reaches this machine" if address.startswith("127.") else ""
