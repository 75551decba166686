"""Averaged statistics: an averaged net's batch statistics, taken anew on training data (Izmailov et al. 2018, 3.2)."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxcnn.data.pipeline import TrainBatches
from jaxcnn.runs.compilation import Compiled
from jaxcnn.runs.evaluation import Stopped
from jaxcnn.runs.reader import Reader
from jaxcnn.runs.setup import Plan
from jaxcnn.runs.stepper import Stepper
from jaxcnn.train.averages import SWA
from jaxcnn.train.state import TrainState


class AveragedStatistics:
    """Takes them anew whenever the average has changed, over the first training batches of the run, in the size with
    which it ends: a function of the average alone, so that a resumed run has the same. Of other averages than SWA, and
    of nets without statistics, nothing is changed."""

    def __init__(self, plan: Plan, stepper: Stepper):
        ema, self.stepper = plan.experiment.ema, stepper
        self.batches = int(ema.recompute.amount) if isinstance(ema, SWA) and ema.recompute is not None else 0
        self.step: Compiled | None = None
        self.count = 0
        """Weights in the average when they were taken."""

    def renewed(
        self,
        state: TrainState,
        frozen: Any,
        batches: Sequence[TrainBatches],
        reader: Reader,
        stops: Callable[[], bool],
    ) -> TrainState:
        """The state with the averaged net's own statistics. Raises Stopped if `stops` says so, asked at each batch."""
        average = state.average
        if not self.batches or average is None or not jax.tree.leaves(average.stats):
            return state
        count = int(np.max(jax.device_get(average.count)))
        if count == self.count:
            return state
        self.step = self.step or self.stepper.compile_statistics()
        stats = average.stats
        with contextlib.ExitStack() as opened:
            streams = [
                opened.enter_context(contextlib.closing(reader.first(own.at_end(), self.batches))) for own in batches
            ]
            for number, each in enumerate(zip(*streams, strict=True)):
                if stops():
                    raise Stopped
                stats = self.step.call(
                    average.params, stats, np.int32(number), state.key, frozen, self.stepper.put(each)
                )
        self.count = count
        return dataclasses.replace(state, average=dataclasses.replace(average, stats=stats))
