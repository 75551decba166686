"""Consensus: all processes learn at the same point of the run that one of them was told to stop, or has news for all.

Each process votes after every step and evaluation batch, by a tiny all-reduce that runs on the devices behind the step,
and reads the vote of two calls before. So all stop at one step, nothing waits for the vote, and no clock decides: a
notice through a key-value store would need a barrier to be as exact, and costs a round trip to process 0.

Why our own: `multihost_utils.reached_preemption_sync_point`, which is also orbax's, knows SIGTERM only and through a
handler of its own; a process has no way to tell it of another signal, of closed output or of a broken image.
docs/clusters.md has the cost of a vote (benchmarks/vote.py).
"""

import collections
import enum
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxcnn.train import mesh as meshes

_BEHIND = 2  # as many votes as steps wait for the device


class Vote(enum.IntEnum):
    """What a process says after a step; of all processes the largest counts."""

    GO = 0
    NEWS = 1  # it has something to tell the others: all then call `all_gather`
    STOP = 2


class Consensus:
    """Whether any process was told to stop, with the same answer on all of them.

    Args:
      mesh: all devices.
      stop_requested: whether this process was told to stop.
      report_progress: told where this process is; for the heartbeat.
    """

    def __init__(
        self,
        mesh: Mesh,
        stop_requested: Callable[[], bool],
        report_progress: Callable[..., None] = lambda where, patient=False: None,
    ):
        self.mesh, self.stop_requested, self.report_progress = mesh, stop_requested, report_progress
        self._votes: collections.deque[jax.Array] = collections.deque()
        self._on_devices: dict[int, jax.Array] = {}
        """What this process votes, on its devices."""
        self._max = jax.jit(jnp.max, out_shardings=meshes.replicated(mesh))

    def vote(self, where: str, news: bool = False) -> Vote:
        """Votes, and returns the result of two calls before: STOP at most two calls after a process was told."""
        self.report_progress(where)
        vote = Vote.STOP if self.stop_requested() else Vote.NEWS if news else Vote.GO
        if jax.process_count() == 1:
            return vote
        self._votes.append(self._all_reduce_max(vote))
        return Vote(int(self._votes.popleft())) if len(self._votes) > _BEHIND else Vote.GO

    def vote_and_wait(self, where: str) -> bool:
        """Votes and waits for the answer."""
        self.report_progress(where, patient=True)
        return self.stop_requested() if jax.process_count() == 1 else bool(self._all_reduce_max(self.stop_requested()))

    def all_true(self, good: bool) -> bool:
        """Whether `good` is true on every process; waits for all of them."""
        return good if jax.process_count() == 1 else not bool(self._all_reduce_max(not good))

    def all_gather(self, text: str) -> list[str]:
        """The text of every process, in their order; waits for all of them."""
        if jax.process_count() == 1:
            return [text]
        encoded = np.frombuffer(text.encode(), np.uint8)
        sizes = multihost_utils.process_allgather(np.int32(len(encoded)))
        padded = np.zeros(sizes.max(), np.uint8)
        padded[: len(encoded)] = encoded
        rows = multihost_utils.process_allgather(padded)
        return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]

    def _all_reduce_max(self, value: bool | Vote) -> jax.Array:
        if value not in self._on_devices:  # to place one anew takes longer than all else that a vote costs this thread
            local = np.full(jax.local_device_count(), value, np.int8)
            self._on_devices[value] = jax.make_array_from_process_local_data(meshes.split(self.mesh), local)
        return self._max(self._on_devices[value])
