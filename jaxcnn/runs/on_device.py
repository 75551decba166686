"""On device: a training split that lies on the devices, where the batch of a step is taken from it by its indices.

What the host sends is then four bytes an example in place of its image. Batches are the same to the bit.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxcnn.data.memory import Memory
from jaxcnn.data.pipeline import TrainBatches
from jaxcnn.train import mesh as meshes


class OnDevice:
    """The fields of a split, whole on each device.

    Args:
      arrays: by field, [N, ...].
      everywhere: how they lie: replicated.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], everywhere: NamedSharding):
        # Every process has read the whole split; device_put would compare what each of them has, byte by byte.
        self.arrays = {
            name: jax.make_array_from_process_local_data(everywhere, array, array.shape)
            for name, array in arrays.items()
        }
        self._taken = functools.cache(lambda sharding: jax.jit(_rows, out_shardings=sharding))

    def rows(self, indices: np.ndarray, sharding: NamedSharding) -> dict[str, jax.Array]:
        """This process's `indices`, int [..., B] -> the fields of these examples, [..., B, ...], laid out so."""
        placed = meshes.put_batch({"index": indices.astype(np.int32)}, ("index",), sharding)["index"]
        return self._taken(sharding)(self.arrays, placed)


class Holding(Protocol):
    """What can hold a split: a stepper (runs/stepper.py)."""

    def hold(self, examples: Memory) -> None: ...


def hold_if_small(holding: Holding, batches: Sequence[TrainBatches], limit: int) -> list[TrainBatches]:
    """Batches of one split -> the same, of indices alone if the split is now held: if it lies in memory, needs no
    transform any more and takes at most `limit` bytes."""
    examples = batches[0].examples
    if not (batches[0].resident and isinstance(examples, Memory) and examples.nbytes <= limit):
        return list(batches)
    holding.hold(examples)
    return [dataclasses.replace(each, fields={}) for each in batches]


def _rows(arrays: dict[str, jax.Array], indices: jax.Array) -> dict[str, jax.Array]:
    return {name: array.at[indices].get(mode="promise_in_bounds") for name, array in arrays.items()}
