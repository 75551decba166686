"""Roll call: before JAX connects, every process reports to process 0, which tells all of them who is missing.

JAX's own start blocks until all processes have come and, where one has not, ends the others with a stack trace that
does not name it. So process 0 listens at the coordinator's address first, for one line of JSON from each process, and
answers each with one line: go on, or why not. After that the address is free for JAX.
"""

import contextlib
import dataclasses
import json
import os
import socket
import time

from jaxcnn.cluster.place import Place, check_coordinator
from jaxcnn.errors import UserError


class Missing(UserError):
    """A process did not come: another start may end better, unlike after other mistakes."""


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


def roll_call(place: Place, versions: dict[str, str], seconds: float) -> tuple[Hello, ...]:
    """Meets the other processes; returns what all of them said, in order.

    Args:
      place: of this process; more than one process.
      versions: of the packages that must be equal everywhere.
      seconds: how long the slowest may take to start.

    Raises:
      Missing: a process did not come, process 0 included.
      UserError: two claim one place, versions differ, or the port is taken.
    """
    assert place.coordinator is not None
    mine = Hello(place.index, socket.gethostname(), os.getpid(), place.processes, place.job, versions)
    host, _, port = place.coordinator.rpartition(":")
    deadline = time.monotonic() + seconds
    if place.index == 0:
        return _receive(place, mine, int(port), deadline, seconds)
    return _report(place, mine, host.strip("[]"), int(port), deadline, seconds)


def _receive(place: Place, mine: Hello, port: int, deadline: float, seconds: float) -> tuple[Hello, ...]:
    """Process 0's side."""
    present = {0: mine}
    open_lines: list[socket.socket] = []
    problem, absent = "", False
    with contextlib.ExitStack() as held:
        listener = held.enter_context(_listen(place, port))
        while len(present) < place.processes and not problem:
            listener.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                line, _ = listener.accept()
            except TimeoutError:
                problem, absent = _missing(place, present, seconds), True
                break
            held.enter_context(line)
            line.settimeout(5)
            try:
                told = Hello(**json.loads(_read_line(line)))
            except (OSError, ValueError, TypeError):
                continue  # a port scan, or a process that died while it spoke
            open_lines.append(line)
            problem = _contradiction(mine, told, present)
            present.setdefault(told.index, told)
        everyone = tuple(present[index] for index in sorted(present))
        problem = problem or _different_versions(everyone)
        answer = {"problem": problem, "absent": absent, "everyone": [dataclasses.asdict(hello) for hello in everyone]}
        for line in open_lines:
            with contextlib.suppress(OSError):
                line.sendall(json.dumps(answer).encode() + b"\n")
        for line in open_lines:  # the other side closes first, so that the port is free at once
            with contextlib.suppress(OSError):
                line.recv(1)
    if problem:
        raise (Missing if absent else UserError)(problem)
    return everyone


def _report(place: Place, mine: Hello, host: str, port: int, deadline: float, seconds: float) -> tuple[Hello, ...]:
    """Every other process's side."""
    last = ""
    while True:
        try:
            addresses = tuple(sorted({str(info[4][0]) for info in socket.getaddrinfo(host, port)}))
            check_coordinator(place, addresses)
            with socket.create_connection((host, port), timeout=max(1.0, deadline - time.monotonic())) as line:
                line.sendall(json.dumps(dataclasses.asdict(mine)).encode() + b"\n")
                # Process 0 answers when all are there or its time is over; it may have started later than this one.
                line.settimeout(seconds + 10)
                answer = json.loads(_read_line(line))
            break
        except (OSError, ValueError) as error:  # not there yet, or it died while it waited
            last = str(error) or type(error).__name__
        if time.monotonic() > deadline:
            raise Missing(
                f"process {place.index}: the coordinator, process 0 at {place.coordinator}, did not answer within "
                f"{seconds:g} s ({last}){_loopback_hint(host)}; see that process 0 started and that its port is open "
                "between the nodes"
            )
        time.sleep(0.2)
    if answer["problem"]:
        raise (Missing if answer["absent"] else UserError)(answer["problem"])
    return tuple(Hello(**hello) for hello in answer["everyone"])


def _listen(place: Place, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        return socket.create_server(
            ("", port), family=family, backlog=min(4096, place.processes), dualstack_ipv6=family == socket.AF_INET6
        )
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen at port {port}: {error.strerror or error}; another job may use it: give a free "
            "one with --coordinator or JAX_COORDINATOR_PORT"
        ) from error


def _read_line(line: socket.socket) -> str:
    with line.makefile() as file:
        text = file.readline(2**24)
    if not text.endswith("\n"):
        raise OSError("the connection was closed")
    return text


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
