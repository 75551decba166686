"""Agreement: all processes learn at the same point of the run that one of them was told to stop.

Each process votes after every step and evaluation batch, by a tiny all-reduce that runs on the devices behind the step,
and reads the vote of two calls before. So all stop at one step, nothing waits for the vote, and no clock decides: a
notice through a key-value store would need a barrier to be as exact, and costs a round trip to process 0.
"""

import collections
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcnn.train import mesh as meshes

_BEHIND = 2  # as many votes as steps wait for the device


class Agreement:
    """Whether any process was told to stop, with the same answer on all of them.

    Args:
      mesh: all devices.
      asked: whether this process was told to stop.
      reached: told where this process is; for the watch.
    """

    def __init__(
        self, mesh: Mesh, asked: Callable[[], bool], reached: Callable[..., None] = lambda where, patient=False: None
    ):
        self.mesh, self.asked, self.reached = mesh, asked, reached
        self._votes: collections.deque[jax.Array] = collections.deque()
        self._count = jax.jit(jnp.max, out_shardings=meshes.replicated(mesh))

    def soon(self, where: str) -> bool:
        """Votes, and answers with the vote of two calls before: true at most two calls after a process was told."""
        self.reached(where)
        if jax.process_count() == 1:
            return self.asked()
        self._votes.append(self._vote())
        return len(self._votes) > _BEHIND and bool(self._votes.popleft())

    def now(self, where: str) -> bool:
        """Votes and waits for the answer."""
        self.reached(where, patient=True)
        return self.asked() if jax.process_count() == 1 else bool(self._vote())

    def all(self, good: bool) -> bool:
        """Whether `good` is true on every process; waits for all of them."""
        return good if jax.process_count() == 1 else not bool(self._cast(not good))

    def _vote(self) -> jax.Array:
        return self._cast(self.asked())

    def _cast(self, value: bool) -> jax.Array:
        local = np.full(jax.local_device_count(), value, np.int8)
        return self._count(jax.make_array_from_process_local_data(meshes.split(self.mesh), local))
