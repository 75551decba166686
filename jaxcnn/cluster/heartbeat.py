"""Heartbeat: each process tells the others, through the store, that it lives and how far it is.

A collective with a dead or stopped process waits for ever or fails without a name. So every process has a thread that
writes its beat and reads the others', and one that judges: silent for longer than the deadline, alive but standing
still while others wait for it, or gone with a message of its own. Then this process says so and exits, since its main
thread may be inside a collective from which nothing else brings it back. The last committed checkpoint is untouched.

Why our own: JAX's heartbeats (`heartbeat_timeout_seconds`) end the other processes by abort(), with a stack trace,
signal 6 in place of code 69, and no line in status.json; they do not see a process that lives and stands still; and a
save that fails because of a lost process would be blamed on the disk long before they time out. They stay on behind
this one, with three times its deadline. docs/clusters.md says what was tried.
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

from jaxcnn.cluster.store import Store
from jaxcnn.terminal import say

LOST = 69
"""Exit code of a process that stopped because another one was lost: EX_UNAVAILABLE."""

_GOES_ON = "the newest checkpoint is good, and the same command goes on from it"
_PROCESSES = "process/"


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


class Heartbeat:
    """Beats, and listens to the other processes, until this one announces its exit.

    Args:
      store: which all processes share.
      index: this process.
      names: all processes for a person, in order: "process 1 (node7)".
      deadline: seconds after which a silent or standing process counts as lost.
      exit: called once with (exit code, message), from another thread, when another process is lost; must not return.
    """

    def __init__(
        self, store: Store, index: int, names: Sequence[str], deadline: float, exit: Callable[[int, str], None]
    ):
        self.store, self.index, self.names, self.deadline, self.exit = store, index, names, deadline, exit
        now = time.monotonic()
        self._seen = {i: _Seen(heard=now) for i in range(len(names)) if i != index}
        self._mine = _Seen()
        self._behind: dict[int, tuple[int, float]] = {}
        self._round = now
        self._exits: dict[int, dict[str, Any]] = {}
        self._cut: set[int] = set()
        self._closed = threading.Event()
        self.stopped = ""
        """What became of this process itself, if it was stopped for long."""
        self.code: int | None = None
        """With which this process has announced its exit."""
        self._lock = threading.Lock()
        self.interval = min(1.0, deadline / 10)
        for target in (self._beat, self._judge):
            threading.Thread(target=target, daemon=True).start()

    def report_progress(self, where: str, *, patient: bool = False) -> None:
        """This process is at `where`; `patient` where it may stand for long with nothing wrong, as in compilation."""
        mine = self._mine
        self._mine = _Seen(progress=mine.progress + 1, where=where, patient=patient)

    def announce_exit(self, code: int, message: str) -> None:
        """Tells the others that this process exits, and why; 0 and 75 are no reason for them to stop.

        From here on it listens to nobody: whoever is lost now, this process's part is done.
        """
        self._closed.set()
        self.code = code
        self._tell(code, message)

    def _tell(self, code: int, message: str) -> None:
        with contextlib.suppress(Exception):
            text = json.dumps({"code": code, "message": message})
            self.store.set(f"{_PROCESSES}exit/{self.index}", text)

    def wait_for_exits(self) -> bool:
        """Waits until all have announced their exit; false if one has not within the deadline."""
        end = time.monotonic() + self.deadline
        while time.monotonic() < end:
            with contextlib.suppress(Exception):
                if len(self.store.get(f"{_PROCESSES}exit/")) == len(self.names):
                    return True
            time.sleep(0.05)
        return False

    def confirm_others_alive(self) -> None:
        """Called before a failure is blamed on this process: returns once all others are known to have outlived it.

        The loss of another process comes as an error of many kinds, from a collective, a save or a file that is not
        there; if one is lost, this does not return, since the judge ends this process with its name.
        """
        self.report_progress("a failure", patient=True)
        # A beat that is seen two intervals from now was written after the failure.
        since = time.monotonic() + 2 * self.interval
        while True:
            with self._lock:
                silent = [i for i, seen in self._seen.items() if seen.beat <= since and i not in self._exits]
            if not silent and not self._closed.is_set():
                return
            time.sleep(self.interval / 4)

    def _beat(self) -> None:
        number = 0
        while not self._closed.wait(self.interval):
            mine, number = self._mine, number + 1
            text = json.dumps([number, mine.progress, mine.where, mine.patient])
            try:
                self.store.set(f"{_PROCESSES}beat/{self.index}", text)
                found = self.store.get(_PROCESSES)
            except Exception:
                continue  # the judge notices when this goes on
            now = time.monotonic()
            with self._lock:
                self._round = now
                for key, value in found.items():
                    _, kind, index = key.split("/")
                    if kind == "beat":
                        self._hear(int(index), value, now)
                    elif kind == "exit":
                        self._exits[int(index)] = json.loads(value)
                    else:
                        self._cut.add(int(index))

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
                    # With it the store and JAX's service end, and to the others it would be the one that is lost.
                    self._tell(*verdict)
                    time.sleep(1.5 * self.interval + 0.3)
                self.exit(*verdict)

    def _verdict(self, now: float) -> tuple[int, str] | None:
        for index, announced in self._exits.items():
            if index != self.index and announced["code"] not in (0, 75):
                return announced["code"], f"{self.names[index]} stopped: {announced['message']}"
        if self.store.closed:
            self._cut.add(0)
        if cut := sorted(self._cut - self._exits.keys() - {self.index}):
            for index in cut:
                self.mark_lost(index)
            return LOST, self._lost(cut[0], "its connection ended")
        if now - self._round > self.deadline:
            return LOST, self._lost(0, f"it holds the store, which has not answered for {self._s()}")
        others = {index: seen for index, seen in self._seen.items() if index not in self._exits}
        for index, seen in others.items():
            if now - seen.heard > self.deadline:
                return LOST, self._lost(index, f"it was not heard of for {self._s()}, last at {seen.where}")
        furthest = max([self._mine.progress, *(seen.progress for seen in others.values())])
        for index, seen in others.items():
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

    def mark_lost(self, index: int) -> None:
        """Process `index` is known to be gone."""
        self._seen[index].heard = -float("inf")

    def first_survivor(self) -> int:
        """The lowest process that this one still hears, itself included: it is the one to write the status."""
        now = time.monotonic()
        alive = [i for i, seen in self._seen.items() if now - seen.heard <= self.deadline / 2 and i not in self._exits]
        return min([self.index, *alive])


def is_loss(message: str) -> bool:
    """Whether a message says, as this module does, that a process is lost."""
    return message.endswith(_GOES_ON)


def exit_on_abort(heartbeat: Heartbeat) -> None:
    """Ends this process in order when JAX's client ends it through abort(), with a stack trace and no name.

    It does so when process 0 dies, or any other while they disconnect. Why it is needed: JAX has no public way to
    take the error instead; with `jax_enable_recoverability` it still aborts when process 0 dies, and tells nobody
    when another one does (both tried with jax 0.10.2). A handler of the signal is called in the thread that aborts;
    Python's own would wait for the main thread, which is inside a collective. So it is set in C.
    """

    def handle(_: int) -> None:
        if heartbeat.code is not None:
            os._exit(heartbeat.code)
        if heartbeat.index == 0:
            heartbeat.exit(LOST, f"another process is lost: JAX gave up waiting for it; {_GOES_ON}")
        heartbeat.mark_lost(0)
        heartbeat.exit(LOST, f"{heartbeat.names[0]} is lost: its coordination service is gone; {_GOES_ON}")

    global _on_abort  # the C side holds no reference
    _on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(handle)
    library = ctypes.CDLL(None)
    library.signal.restype = ctypes.c_void_p
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal(signal.SIGABRT, ctypes.cast(_on_abort, ctypes.c_void_p))


_on_abort: Any = None


def exit_at_once(code: int, text: str) -> None:
    """Says so and ends the process, from any thread."""
    say(f"\nerror: {text}\n")
    os._exit(code)
