"""Evaluation: metrics of one split, with every example counted exactly once."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcnn.data.examples import Examples
from jaxcnn.train import mesh as meshes
from jaxcnn.train.losses import zero_sums

BATCH_FIELDS = ("image", "label", "mask")


class Stopped(Exception):
    """The run was told to stop."""


def evaluate(
    step: Callable[..., dict[str, jax.Array]],
    weights: list[tuple[Any, Any]],
    batches: Iterator[dict[str, np.ndarray]],
    examples: Examples,
    mesh: Mesh,
    *,
    stop: Callable[[], bool] = lambda: False,
    on_broken: Callable[[np.ndarray], None] = lambda indices: None,
) -> list[dict[str, float]]:
    """Mean loss, accuracy (and top5, from six classes on) and the count, for each (params, stats) of `weights`.

    Args:
      step: the evaluation step, compiled.
      weights: the nets to evaluate on the same batches, such as the raw and the averaged one.
      batches: of this split, from its start to its end.
      examples: the split, for its length.
      mesh: the device mesh.
      stop: asked after every batch.
      on_broken: called with the indices of examples that could not be read.

    Raises:
      Stopped: `stop` said so.
      RuntimeError: the examples counted are not those of the split. A bug, never a user's mistake.
    """
    sharding = meshes.split(mesh)
    zero = jax.device_put(zero_sums(len(examples.classes)), meshes.replicated(mesh))
    totals = [zero for _ in weights]
    broken = 0
    for batch in batches:
        if stop():
            raise Stopped
        if batch["broken"].any():
            broken += int(batch["broken"].sum())
            on_broken(batch["index"][batch["broken"]])
        placed = meshes.place(batch, BATCH_FIELDS, sharding)
        sums = [step(params, stats, placed) for params, stats in weights]
        # The host may be one batch ahead of the device and no more, or batches would pile up in its memory.
        jax.block_until_ready(totals)
        totals = [jax.tree.map(jnp.add, total, new) for total, new in zip(totals, sums, strict=True)]
    results = []
    for total in jax.device_get(totals):
        count = int(total["count"])
        if count + broken != len(examples):
            raise RuntimeError(f"{examples.split}: counted {count} and {broken} broken of {len(examples)} examples")
        means = {name: float(np.float64(value) / max(count, 1)) for name, value in total.items() if name != "count"}
        results.append(means | {"count": count})
    return results
