"""Watch: each process tells the others, through JAX's key-value store, that it lives and how far it is.

A collective with a dead or stopped process waits for ever or fails without a name. So every process has a thread that
writes its beat and reads the others', and one that judges: silent for longer than the deadline, alive but standing
still while others wait for it, or gone with a message of its own. Then this process says so and leaves, since its main
thread may be inside a collective from which nothing else brings it back. The last committed checkpoint is untouched.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from jaxcnn.terminal import say

LOST = 69
"""Exit code of a process that stopped because another one was lost: EX_UNAVAILABLE."""

_GOES_ON = "the newest checkpoint is good, and the same command goes on from it"
_BEATS, _FAREWELLS = "jaxcnn/beat/", "jaxcnn/farewell/"


@dataclasses.dataclass
class _Seen:
    """What was last heard of another process, and when, on this process's own clock."""

    text: str = ""
    heard: float = 0.0
    """From when its silence counts: its last beat, or the end of a pause of this process."""
    beat: float = 0.0
    """When its last beat came."""
    progress: int = 0
    where: str = "the start"
    patient: bool = True


class Watch:
    """Watches the other processes until it is closed.

    Args:
      client: JAX's distributed client: key_value_set and key_value_dir_get are used.
      index: this process.
      names: all processes for a person, in order: "process 1 (node7)".
      deadline: seconds after which a silent or standing process counts as lost.
      leave: called once with (exit code, message), from another thread; must not return.
    """

    def __init__(
        self, client: Any, index: int, names: Sequence[str], deadline: float, leave: Callable[[int, str], None]
    ):
        self.client, self.index, self.names, self.deadline, self.leave = client, index, names, deadline, leave
        now = time.monotonic()
        self._seen = {i: _Seen(heard=now) for i in range(len(names)) if i != index}
        self._mine = _Seen()
        self._behind: dict[int, tuple[int, float]] = {}
        self._round = now
        self._left: dict[int, dict[str, Any]] = {}
        self._closed = threading.Event()
        self.stopped = ""
        """What became of this process itself, if it was stopped for long."""
        self.code: int | None = None
        """With which this process has said farewell."""
        self._lock = threading.Lock()
        self.interval = min(1.0, deadline / 10)
        for target in (self._beat, self._judge):
            threading.Thread(target=target, daemon=True).start()

    def reached(self, where: str, *, patient: bool = False) -> None:
        """This process is at `where`; `patient` where it may stand for long with nothing wrong, as in compilation."""
        mine = self._mine
        self._mine = _Seen(progress=mine.progress + 1, where=where, patient=patient)

    def farewell(self, code: int, message: str) -> None:
        """Tells the others that this process leaves, and why; 0 and 75 are no reason for them to stop.

        From here on it watches nobody: whoever is lost now, this process's part is done.
        """
        self._closed.set()
        self.code = code
        self._tell(code, message)

    def _tell(self, code: int, message: str) -> None:
        with contextlib.suppress(Exception):
            text = json.dumps({"code": code, "message": message})
            self.client.key_value_set(f"{_FAREWELLS}{self.index}", text, allow_overwrite=True)

    def all_leave(self) -> bool:
        """Waits until all have said farewell; false if one has not within the deadline."""
        end = time.monotonic() + self.deadline
        while time.monotonic() < end:
            with contextlib.suppress(Exception):
                if len(self.client.key_value_dir_get(_FAREWELLS)) == len(self.names):
                    return True
            time.sleep(0.05)
        return False

    def explain(self) -> None:
        """Called before a failure is blamed on this process: returns once all others are known to have outlived it.

        The loss of another process comes as an error of many kinds, from a collective, a save or a file that is not
        there; where one is lost this does not return, since the watch ends this process with its name.
        """
        self.reached("a failure", patient=True)
        # A beat that is seen two intervals from now was written after the failure.
        since = time.monotonic() + 2 * self.interval
        while True:
            with self._lock:
                silent = [i for i, seen in self._seen.items() if seen.beat <= since and i not in self._left]
            if not silent and not self._closed.is_set():
                return
            time.sleep(self.interval / 4)

    def _beat(self) -> None:
        number = 0
        while not self._closed.wait(self.interval):
            mine, number = self._mine, number + 1
            text = json.dumps([number, mine.progress, mine.where, mine.patient])
            try:
                self.client.key_value_set(f"{_BEATS}{self.index}", text, allow_overwrite=True)
                beats = dict(self.client.key_value_dir_get(_BEATS))
                left = dict(self.client.key_value_dir_get(_FAREWELLS))
            except Exception:
                continue  # the judge notices when this goes on
            now = time.monotonic()
            with self._lock:
                self._round = now
                self._left = {_number(key): json.loads(value) for key, value in left.items()}
                for key, value in beats.items():
                    self._hear(_number(key), value, now)

    def _hear(self, index: int, text: str, now: float) -> None:
        seen = self._seen.get(index)
        if seen is None or seen.text == text:
            return
        _, progress, where, patient = json.loads(text)
        self._seen[index] = _Seen(text, now, now, progress, where, patient)

    def _judge(self) -> None:
        woke = time.monotonic()
        while not self._closed.wait(self.interval / 2):
            slept, woke = time.monotonic() - woke, time.monotonic()
            if slept > self.deadline / 2:  # this process itself was stopped: hear the others anew first
                self.stopped = f"{self.names[self.index]} is lost: it was stopped for {slept:.0f} s; {_GOES_ON}"
                with self._lock:
                    self._round = woke
                    for seen in self._seen.values():
                        seen.heard = woke
                    self._behind.clear()
                continue
            with self._lock:
                verdict = self._verdict(woke)
            if verdict is not None and not self._closed.is_set():
                self._closed.set()
                if self.index == 0:
                    # With it the store ends, and JAX aborts the others, to whom it would be the one that is lost.
                    self._tell(*verdict)
                    time.sleep(1.5 * self.interval + 0.3)
                self.leave(*verdict)

    def _verdict(self, now: float) -> tuple[int, str] | None:
        for index, farewell in self._left.items():
            if index != self.index and farewell["code"] not in (0, 75):
                return farewell["code"], f"{self.names[index]} stopped: {farewell['message']}"
        if now - self._round > self.deadline:
            if self.index != 0:
                return LOST, self._lost(0, f"it holds the coordination service, which has not answered for {self._s()}")
            return LOST, f"the coordination service of this process has not answered for {self._s()}"
        watched = {index: seen for index, seen in self._seen.items() if index not in self._left}
        for index, seen in watched.items():
            if now - seen.heard > self.deadline:
                return LOST, self._lost(index, f"it was not heard of for {self._s()}, last at {seen.where}")
        furthest = max([self._mine.progress, *(seen.progress for seen in watched.values())])
        for index, seen in watched.items():
            if seen.progress >= furthest or seen.patient:
                self._behind.pop(index, None)
                continue
            # From when it was first seen behind: a step may take longer than the deadline on all of them.
            progress, since = self._behind.setdefault(index, (seen.progress, now))
            if progress != seen.progress:
                self._behind[index] = (seen.progress, now)
            elif now - since > self.deadline:
                why = f"it lives, but has stood at {seen.where} for {self._s()} while others wait for it"
                return LOST, self._lost(index, why)
        return None

    def _s(self) -> str:
        return f"{self.deadline:g} s"

    def _lost(self, index: int, why: str) -> str:
        return f"{self.names[index]} is lost: {why}; {_GOES_ON}"

    def forget(self, index: int) -> None:
        """Process `index` is known to be gone."""
        self._seen[index].heard = -float("inf")

    def first_survivor(self) -> int:
        """The lowest process that this one still hears, itself included: it is the one to write the status."""
        now = time.monotonic()
        alive = [i for i, seen in self._seen.items() if now - seen.heard <= self.deadline / 2 and i not in self._left]
        return min([self.index, *alive])


def is_loss(message: str) -> bool:
    """Whether a message of the watch says that a process is lost."""
    return message.endswith(_GOES_ON)


def leave_on_abort(watch: Watch) -> None:
    """Ends this process in order where JAX's client ends it through abort(), with a stack trace and no name.

    That is where process 0 dies, or where any does while they part. A handler of the signal is called in the thread
    that aborts; Python's own would wait for the main thread, which is inside a collective. So it is set in C.
    """

    def handle(_: int) -> None:
        if watch.code is not None:
            os._exit(watch.code)
        if watch.index == 0:
            watch.leave(LOST, f"another process is lost: JAX gave up waiting for it; {_GOES_ON}")
        watch.forget(0)
        watch.leave(LOST, f"{watch.names[0]} is lost: its coordination service is gone; {_GOES_ON}")

    global _on_abort  # the C side holds no reference
    _on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(handle)
    library = ctypes.CDLL(None)
    library.signal.restype = ctypes.c_void_p
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal(signal.SIGABRT, ctypes.cast(_on_abort, ctypes.c_void_p))


_on_abort: Any = None


def _number(key: str) -> int:
    return int(key.rpartition("/")[2])


def exit_at_once(code: int, text: str) -> None:
    """Says so and ends the process, from any thread."""
    say(f"\nerror: {text}\n")
    os._exit(code)
