"""Key-value store: small texts that all processes of a run share, in the memory of process 0.

Why our own: JAX's coordination service holds such a store, but the client that reads it has no public name (jax 0.10.2
and orbax 0.12.8 reach it through `jax._src`). The connections are those over which the processes met (rendezvous.py):
it needs no port and no secret of its own, and a process that is killed is noticed when the kernel closes its one.

A request is a line of JSON, {"set": [key, value]} or {"get": prefix}; its answer is one as well, {key: value, ...}.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Mapping
from typing import Protocol

from jaxcnn.files import to_json


class Store(Protocol):
    """What process 0, which has the texts, and the others, which ask for them, have in common."""

    closed: bool
    """Whether the connection to process 0 has ended."""

    def set(self, key: str, value: str) -> None:
        """Sets or replaces a text. Raises OSError if process 0 does not answer."""
        ...

    def get(self, prefix: str) -> dict[str, str]:
        """All texts whose keys begin with `prefix`. Raises OSError if process 0 does not answer."""
        ...


class LocalStore:
    """Process 0's: a dict, and a thread for each of the others that answers its requests.

    Args:
      connections: to the other processes, by their index. That the one to process i has ended stands in the store as
        "process/closed/i".
    """

    closed = False

    def __init__(self, connections: Mapping[int, socket.socket]):
        self._values: dict[str, str] = {}
        self._lock = threading.Lock()
        for index, connection in connections.items():
            connection.settimeout(None)
            threading.Thread(target=self._serve, args=[index, connection], daemon=True).start()

    def set(self, key: str, value: str) -> None:
        with self._lock:
            self._values[key] = value

    def get(self, prefix: str) -> dict[str, str]:
        with self._lock:
            return {key: value for key, value in self._values.items() if key.startswith(prefix)}

    def _serve(self, index: int, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                if "set" in request:
                    self.set(*request["set"])
                found = self.get(request["get"]) if "get" in request else {}
                connection.sendall(to_json(found).encode() + b"\n")
        self.set(f"process/closed/{index}", "")


class RemoteStore:
    """Another process's: asks process 0, one request at a time.

    Args:
      connection: to process 0.
      timeout: seconds after which a request that has no answer fails.
    """

    def __init__(self, connection: socket.socket, timeout: float):
        self.closed = False
        self._connection, self._timeout = connection, timeout
        self._received = bytearray()
        self._late = False  # whether the answer to a request that failed can still come
        self._lock = threading.Lock()

    def set(self, key: str, value: str) -> None:
        self._ask({"set": [key, value]})

    def get(self, prefix: str) -> dict[str, str]:
        return self._ask({"get": prefix})

    def _ask(self, request: dict[str, object]) -> dict[str, str]:
        with self._lock:
            deadline = time.monotonic() + self._timeout
            sent = True
            try:
                if self._late:
                    self._read_line(deadline)
                self._late, sent = True, False
                self._connection.settimeout(self._timeout)
                self._connection.sendall(to_json(request).encode() + b"\n")
                sent = True
                answer = json.loads(self._read_line(deadline))
            except OSError as error:
                self.closed = self.closed or not sent or not isinstance(error, TimeoutError)
                raise
            self._late = False
            return answer

    def _read_line(self, deadline: float) -> bytes:
        while (end := self._received.find(b"\n")) < 0:
            self._connection.settimeout(max(0.01, deadline - time.monotonic()))
            more = self._connection.recv(2**16)
            if not more:
                raise ConnectionError("process 0 closed the connection")
            self._received += more
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line
