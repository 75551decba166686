"""Sender: training batches on their way to the devices. A small split stays there, and each batch is taken from it by
its indices: four bytes an example are sent in place of its image. Batches are the same to the bit.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxcnn.data.memory import Memory
from jaxcnn.data.pipeline import Batch, TrainBatches
from jaxcnn.train import mesh as meshes


class Sender:
    """Puts training batches onto the devices: their fields, or, once it holds their split there, their indices.

    Args:
      fields: of a batch, by name.
      everywhere: how a split that is held lies: replicated.
    """

    def __init__(self, fields: Iterable[str], everywhere: NamedSharding):
        self.fields, self.everywhere = tuple(fields), everywhere
        self.held: dict[str, jax.Array] = {}
        self._rows = functools.cache(
            lambda sharding: jax.jit(_rows, in_shardings=(everywhere, sharding), out_shardings=sharding)
        )

    def hold_if_small(self, batches: Sequence[TrainBatches], limit: int) -> list[TrainBatches]:
        """Batches of one split -> the same, of indices alone if the split is now held: if it lies in memory, needs no
        transform any more and takes at most `limit` bytes."""
        examples = batches[0].examples
        if not (batches[0].resident and isinstance(examples, Memory) and examples.nbytes <= limit):
            return list(batches)
        # Every process has read the whole split; device_put would compare what each of them has, byte by byte.
        self.held = {
            name: jax.make_array_from_process_local_data(self.everywhere, array, array.shape)
            for name, array in examples.arrays.items()
        }
        return [dataclasses.replace(each, fields={}) for each in batches]

    def put(self, batch: Batch, sharding: NamedSharding) -> dict[str, jax.Array]:
        """This process's batch, [..., B, ...], as part of the global one, laid out so."""
        if not self.held:
            return meshes.put_batch(batch, self.fields, sharding)
        indices: Any = batch["index"].astype(np.int32)
        if jax.process_count() > 1:  # else jit puts them there, for less than a put of their own costs
            indices = jax.make_array_from_process_local_data(sharding, indices)
        return self._rows(sharding)(self.held, indices)


def _rows(arrays: dict[str, jax.Array], indices: jax.Array) -> dict[str, jax.Array]:
    return {name: array.at[indices].get(mode="promise_in_bounds") for name, array in arrays.items()}
