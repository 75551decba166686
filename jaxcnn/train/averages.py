"""Averages of the weights, evaluated beside the raw net."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxcnn.errors import UserError
from jaxcnn.train.groups import Group, joined, split, while_frozen
from jaxcnn.train.state import Average


@dataclasses.dataclass(frozen=True)
class EMA:
    """Exponential moving average of the parameters, evaluated beside the raw ones. Off while `decay` is 0."""

    decay: float = 0.0
    """Weight of the old average at each step, such as 0.9999; 0 switches the average off."""
    warm: bool = True
    """Warm, the decay rises as min(decay, (1 + n) / (10 + n)), n updates so far (TensorFlow's num_updates); not warm,
    it is `decay` from the first update on."""
    statistics: Literal["average", "copy"] = "average"
    """Batch statistics of the averaged net: averaged like the parameters, or the raw net's latest."""

    def __post_init__(self):
        if not 0 <= self.decay < 1:
            raise UserError(f"ema.decay is {self.decay}; it must be at least 0 (off) and below 1")

    def update(self, average: Average, params: Any, stats: Any, groups: tuple[Group, ...], step: jax.Array) -> Average:
        """The average after the update of this step; of what the groups freeze it is the parameter."""
        n = average.count.astype(jnp.float32)
        decay = jnp.minimum(self.decay, (1 + n) / (10 + n)) if self.warm else jnp.float32(self.decay)
        blend = lambda old, new: decay * old + (1 - decay) * new  # noqa: E731
        (averages, kept), (trained, _) = split(average.params, groups), split(params, groups)
        blended = while_frozen(trained, jax.tree.map(blend, averages, trained), groups, step)
        return Average(
            params=joined(blended, kept),
            stats=stats if self.statistics == "copy" else jax.tree.map(blend, average.stats, stats),
            count=average.count + 1,
        )
