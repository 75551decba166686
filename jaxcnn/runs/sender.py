"""Sender: training batches on their way to the devices. A small split stays there, and each batch is taken from it by
its indices, and where its crops lie: a few bytes an example are sent in place of its image. Batches are the same to the
bit.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from jaxcnn.data.crops import Crops, crops_of
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
        self.crops: Crops | None = None
        self._rows = functools.cache(
            lambda sharding: jax.jit(self._taken, in_shardings=(everywhere, sharding), out_shardings=sharding)
        )

    def hold_if_small(self, batches: Sequence[TrainBatches], limit: int) -> list[TrainBatches]:
        """Batches of one split -> the same, of indices and crops alone if the split is now held: if it lies in memory,
        needs no transforms any more but those that are crops, and takes at most `limit` bytes, with its margins."""
        first, examples = batches[0], batches[0].examples
        if not (isinstance(examples, Memory) and examples.nbytes <= limit):
            return list(batches)
        arrays = examples.arrays
        crops = crops_of(first.transforms, arrays["image"].shape[1:], first.fields)
        if crops:
            others = {name: field for name, field in first.fields.items() if name != "image"}
            first = dataclasses.replace(first, transforms=(), fields=others)
        if not first.resident:
            return list(batches)
        if crops:
            arrays = arrays | {"image": crops.padded(arrays["image"])}
            if sum(array.nbytes for array in arrays.values()) > limit:
                return list(batches)
        # Every process has read the whole split; device_put would compare what each of them has, byte by byte.
        self.held = {
            name: jax.make_array_from_process_local_data(self.everywhere, array, array.shape)
            for name, array in arrays.items()
        }
        self.crops = crops
        return [dataclasses.replace(each, fields={}, transforms=(), crops=crops) for each in batches]

    def put(self, batch: Batch, sharding: NamedSharding) -> dict[str, jax.Array]:
        """This process's batch, [..., B, ...], as part of the global one, laid out so."""
        if not self.held:
            return meshes.put_batch(batch, self.fields, sharding)
        places: dict[str, Any] = {"index": batch["index"].astype(np.int32)}
        if self.crops:
            places["crop"] = batch["crop"]
        if jax.process_count() > 1:  # else jit puts them there, for less than a put of their own costs
            places = {n: jax.make_array_from_process_local_data(sharding, rows) for n, rows in places.items()}
        return self._rows(sharding)(self.held, places)

    def _taken(self, arrays: dict[str, jax.Array], places: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """The rows of a batch, [..., B, ...], at these places: "index" [..., B] and, of crops, "crop" [..., B, 4]."""
        index = places["index"]
        whole = {name: array for name, array in arrays.items() if not (self.crops and name == "image")}
        rows = {name: array.at[index].get(mode="promise_in_bounds") for name, array in whole.items()}
        if self.crops:
            cut = functools.partial(_cut, arrays["image"], self.crops.size)
            for _ in index.shape:
                cut = jax.vmap(cut)
            rows["image"] = cut(index, places["crop"])
        return rows


def _cut(images: jax.Array, size: tuple[int, int], index: jax.Array, crop: jax.Array) -> jax.Array:
    """One of these images, [h, w, C], cut and mirrored as Crops.draw says."""
    top, left, across, along = crop
    image = jax.lax.dynamic_slice(images, (index, top, left, 0), (1, *size, images.shape[3]))[0]
    image = jnp.where(across, image[::-1], image)
    return jnp.where(along, image[:, ::-1], image)
