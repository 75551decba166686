"""Averages of the weights, evaluated beside the raw net: exponential (EMA) or equal (SWA)."""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxcnn.errors import UserError
from jaxcnn.train.duration import Duration, check_length, epochs
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

    @property
    def on(self) -> bool:
        return self.decay > 0

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


@dataclasses.dataclass(frozen=True)
class SWA:
    """Stochastic weight averaging (Izmailov et al. 2018, Algorithm 1): the equal mean of the weights after `start`, and
    of those after every further `every`. Until then it is the raw net.

    The paper averages at the end of each cycle, or epoch, of a rate that stays high: schedule.final of a cosine, or a
    constant one. torch.optim.swa_utils.AveragedModel has the same mean.

    Departure: a checkpoint that a stop leaves between two evaluations has the statistics of the last of these.

    Example, the last quarter of a run:
        Experiment(..., duration=epochs(100), schedule=Cosine(final=0.1), ema=SWA(start=epochs(75)))
    """

    start: Duration
    """When the first weights are taken, counted from the begin of the run."""
    every: Duration = epochs(1)
    recompute: Duration | None = epochs(1)
    """How much of the training data the averaged net sees anew, from the begin of the run on, for its batch statistics
    (section 3.2) before each evaluation and save: the mean of those of its batches, as torch's update_bn has it. None:
    the mean of the raw nets', which are those of another net."""

    def __post_init__(self):
        for field in ("start", "every", "recompute"):
            if field != "recompute" or self.recompute is not None:
                check_length(f"ema.{field}", getattr(self, field))

    @property
    def on(self) -> bool:
        return True

    def update(self, average: Average, params: Any, stats: Any, groups: tuple[Group, ...], step: jax.Array) -> Average:
        """The average after the update of this step; of what was always the same it is that, to the bit."""
        assert self.start.unit == self.every.unit == "steps"  # as `Plan` has them
        since, every = step + 1 - int(self.start.amount), max(1, int(self.every.amount))
        taken = (since >= 0) & (since % every == 0)
        count = average.count + taken

        def blend(old: jax.Array, new: jax.Array) -> jax.Array:
            moved = jnp.where(taken & (new != old), old + (new - old) / jnp.maximum(count, 1), old)
            return jnp.where(average.count == 0, new, moved)

        mean = lambda old, new: jax.tree.map(blend, old, new)  # noqa: E731
        return Average(
            params=mean(average.params, params),
            stats=mean(average.stats, stats),
            count=count,
        )


@runtime_checkable
class Averaging(Protocol):
    """EMA or SWA."""

    if TYPE_CHECKING:  # the command line can tell what a value is by the methods of a protocol only

        @property
        def on(self) -> bool:
            """Whether there is an average."""
            ...

    def update(self, average: Average, params: Any, stats: Any, groups: tuple[Group, ...], step: jax.Array) -> Average:
        """The average after an update; `step` counts from 0."""
        ...
