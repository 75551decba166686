"""Several train steps in one call, `Experiment.steps_per_call`: for nets whose step is shorter than a call.

A call ends where something is due: an interval of the log, an evaluation, a save, another size of images. What does not
fit before it is taken step by step. So where calls begin is a function of the step alone, and a run that is resumed
computes what it would have computed, to the bit. From a run step by step it differs by rounding: XLA fuses the body of
a loop otherwise.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxcnn.runs.compilation import Compiled
from jaxcnn.runs.setup import Plan
from jaxcnn.runs.sizes import begins
from jaxcnn.train.step import TrainStep

EACH = ("step_loss", "grad_norm")
"""What of every step is kept, [steps, ...], under "each"; all other metrics are those of the last."""


def several(step: TrainStep) -> TrainStep:
    """The step for batches with the steps in front: (state, frozen, batches) -> (state, metrics)."""

    def steps(state: Any, frozen: Any, batches: Any) -> tuple[Any, Any]:
        state, metrics = jax.lax.scan(lambda state, batch: step(state, frozen, batch), state, batches)
        return state, jax.tree.map(lambda x: x[-1], metrics) | {"each": {name: metrics[name] for name in EACH}}

    return steps


def steps_of_call(plan: Plan, step: int) -> int:
    """How many steps the call takes that follows `step` steps: `steps_per_call`, or 1 if something is due before."""
    experiment = plan.experiment
    ends = [plan.total, *(step - step % interval + interval for interval in _intervals(plan))]
    ends += [first for first, _ in begins(experiment.data, len(plan.train)) if first > step]
    return experiment.steps_per_call if step + experiment.steps_per_call <= min(ends) else 1


def least_interval(plan: Plan) -> int:
    """The steps after which something is due at the latest: no call can take more."""
    return min(plan.total, *_intervals(plan))


def _intervals(plan: Plan) -> list[int]:
    """Of the log, the saves and the evaluations, in steps."""
    return [plan.log_every, plan.checkpoint_every, *([plan.evaluate_every] if plan.evaluations else [])]


def stacked(batches: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Batches of several steps, or seeds, as one with these in front."""
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def in_steps(shapes: Any, steps: int, sharding: NamedSharding) -> Any:
    """The shapes of a batch -> those of so many steps."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((steps, *x.shape), x.dtype, sharding=sharding), shapes)


def either(one: Compiled, many: Compiled) -> Compiled:
    """One step for a batch, several for a tuple that holds stacked ones."""

    def call(state: Any, frozen: Any, batch: Any) -> Any:
        return many.call(state, frozen, batch[0]) if isinstance(batch, tuple) else one.call(state, frozen, batch)

    cache = one.cache if one.cache == many.cache else "miss"
    return Compiled(call, one.seconds + many.seconds, max(one.memory, many.memory), cache, one.sizes)
