"""Learning-rate schedules: each a frozen dataclass that builds step -> multiplier of the optimizer's peak rate.

Every schedule takes a linear warm-up from 0. Steps are optimizer steps, counted from 0.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxcnn.errors import UserError
from jaxcnn.train.duration import Duration, epochs, steps

ToSteps = Callable[[Duration], int]
NO_WARMUP = steps(0)


@dataclasses.dataclass(frozen=True)
class Constant:
    """The peak rate throughout, after the warm-up."""

    warmup: Duration = NO_WARMUP

    def build(self, total: int, to_steps: ToSteps) -> optax.Schedule:
        return _warmed(optax.constant_schedule(1.0), to_steps(self.warmup))


@dataclasses.dataclass(frozen=True)
class StepDecay:
    """The rate times `factor` at each milestone (AlexNet, ResNet). Milestones count from the run's first step."""

    milestones: tuple[Duration, ...] = (epochs(30), epochs(60), epochs(80))
    factor: float = 0.1
    warmup: Duration = NO_WARMUP

    def build(self, total: int, to_steps: ToSteps) -> optax.Schedule:
        first = to_steps(self.warmup)
        boundaries = [to_steps(milestone) for milestone in self.milestones]
        if any(boundary <= first for boundary in boundaries) or sorted(set(boundaries)) != boundaries:
            raise UserError(f"schedule.milestones are steps {boundaries}: they must rise, and after warm-up ({first})")
        # The warm-up shifts the inner schedule's zero, so the boundaries are shifted back.
        inner = optax.piecewise_constant_schedule(1.0, {boundary - first: self.factor for boundary in boundaries})
        return _warmed(inner, first)


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Half a cosine from the peak to `final` times the peak at the last step (Loshchilov & Hutter 2017)."""

    final: float = 0.0
    warmup: Duration = NO_WARMUP

    def build(self, total: int, to_steps: ToSteps) -> optax.Schedule:
        first = to_steps(self.warmup)
        if first >= total:
            raise UserError(f"schedule.warmup is {first} steps, but the run has {total}")
        return _warmed(optax.cosine_decay_schedule(1.0, total - first, alpha=self.final), first)


@dataclasses.dataclass(frozen=True)
class OneCycle:
    """One cycle (Smith & Topin 2018) with cosine ends: peak/start_divisor -> peak -> peak/start_divisor/end_divisor."""

    warm_fraction: float = 0.3
    """The part of the run in which the rate rises."""
    start_divisor: float = 25.0
    end_divisor: float = 1e4

    def build(self, total: int, to_steps: ToSteps) -> optax.Schedule:
        if total < 2:
            return optax.constant_schedule(1.0)
        return optax.cosine_onecycle_schedule(total, 1.0, self.warm_fraction, self.start_divisor, self.end_divisor)


@dataclasses.dataclass(frozen=True)
class Plateau:
    """The rate times `factor` when the watched validation figure stops improving (VGG section 3.1).

    The figure is that of the first evaluation split, read at each evaluation; `patience` counts evaluations
    without improvement. The state is optax's reduce_on_plateau, kept in the train state, so that resume is exact.
    """

    metric: Literal["loss", "accuracy"] = "accuracy"
    factor: float = 0.1
    patience: int = 3
    tolerance: float = 1e-4
    """The smallest relative change of the loss, or of the error rate, that counts as an improvement."""
    smallest: float = 1e-4
    """The multiplier never falls below this."""
    warmup: Duration = NO_WARMUP

    def build(self, total: int, to_steps: ToSteps) -> optax.Schedule:
        return _warmed(optax.constant_schedule(1.0), to_steps(self.warmup))

    def initial_state(self) -> Any:
        return self._transformation().init(jnp.float32(0))

    def observe(self, state: Any, metrics: dict[str, float]) -> Any:
        """The plateau state after one evaluation. Accuracy is watched as the error rate, so lower is better."""
        value = metrics["loss"] if self.metric == "loss" else 1.0 - metrics["accuracy"]
        _, state = self._transformation().update(jnp.float32(0), state, value=jnp.float32(value))
        return state

    def _transformation(self) -> optax.GradientTransformationExtraArgs:
        return optax.contrib.reduce_on_plateau(
            factor=self.factor, patience=self.patience, rtol=self.tolerance, min_scale=self.smallest
        )


Schedule = Constant | StepDecay | Cosine | OneCycle | Plateau


def _warmed(schedule: optax.Schedule, warmup: int) -> optax.Schedule:
    """Linear warm-up to the peak: step s of the warm-up runs at (s + 1) / warmup, so that no step is wasted at 0."""
    if warmup == 0:
        return schedule
    return optax.join_schedules([lambda step: (step + 1) / jnp.float32(warmup), schedule], [warmup])


def make_rate(schedule: Schedule, peak: float, total: int, to_steps: ToSteps) -> Callable[[jax.Array], jax.Array]:
    """step -> learning rate, before any plateau multiplier. `total` is the run's number of optimizer steps."""
    multiplier = schedule.build(total, to_steps)
    return lambda step: jnp.asarray(peak * multiplier(step), jnp.float32)
