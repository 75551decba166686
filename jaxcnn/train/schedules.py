"""Learning-rate schedules: each a frozen dataclass that builds step -> multiplier of the optimizer's peak rate.

All but OneCycle and Rising take a linear warm-up. Its step s of n is at (s + 1) / n of the peak, so that no step is
wasted (Goyal et al. 2017); with `warmup_from`, f, at f + (1 - f) s / n, as in timm and torch's LinearLR. Steps are
optimizer steps, counted from 0.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

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
    warmup_from: float = 0.0
    """Where the warm-up begins, in units of the peak; 0: at one of its steps."""

    def build(self, total: int, to_steps: ToSteps) -> optax.Schedule:
        return _warmed(optax.constant_schedule(1.0), to_steps(self.warmup), total, self.warmup_from)


@dataclasses.dataclass(frozen=True)
class StepDecay:
    """The rate times `factor` at each milestone (AlexNet, ResNet). Milestones count from the run's first step.

    One at or after the run's end is allowed, for a shorter try of a long recipe, and warned of (runs/warnings.py).
    """

    milestones: tuple[Duration, ...] = (epochs(30), epochs(60), epochs(80))
    factor: float = 0.1
    warmup: Duration = NO_WARMUP
    warmup_from: float = 0.0
    """Where the warm-up begins, in units of the peak; 0: at one of its steps."""

    def build(self, total: int, to_steps: ToSteps) -> optax.Schedule:
        _check(0 < self.factor < 1, "factor", self.factor, "above 0 and below 1")
        first = to_steps(self.warmup)
        boundaries = [to_steps(milestone) for milestone in self.milestones]
        if any(boundary <= first for boundary in boundaries) or sorted(set(boundaries)) != boundaries:
            raise UserError(f"schedule.milestones are steps {boundaries}: they must rise, and after warm-up ({first})")
        # The warm-up shifts the inner schedule's zero, so the boundaries are shifted back.
        inner = optax.piecewise_constant_schedule(1.0, {boundary - first: self.factor for boundary in boundaries})
        return _warmed(inner, first, total, self.warmup_from)


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Half a cosine from the peak to `final` times the peak (Loshchilov & Hutter 2017).

    The first step after the warm-up is at the peak, the last of the run at `final`. A run of one step is at the peak.
    """

    final: float = 0.0
    warmup: Duration = NO_WARMUP
    warmup_from: float = 0.0
    """Where the warm-up begins, in units of the peak; 0: at one of its steps."""

    def build(self, total: int, to_steps: ToSteps) -> optax.Schedule:
        _check(0 <= self.final <= 1, "final", self.final, "at least 0 and at most 1")
        first, span = to_steps(self.warmup), total - 1 - to_steps(self.warmup)
        if first and span == 0:
            raise UserError(f"schedule.warmup is {first} steps of {total}: no step is left for the cosine to fall")
        return _warmed(lambda step: _half_cosine(1.0, self.final, step / max(span, 1)), first, total, self.warmup_from)


@dataclasses.dataclass(frozen=True)
class Exponential:
    """The rate times `factor` every so often, for as long as the run is (GoogLeNet section 6, Inception-v3 section 8).

    The decays count from the run's first step, as TensorFlow's exponential_decay does, not from the end of the warm-up.
    `every` is rounded to whole steps.
    """

    factor: float = 0.97
    every: Duration = epochs(2.4)
    staircase: bool = True
    """Constant between two decays; else the rate falls at every step, by the same factor in the same time."""
    warmup: Duration = NO_WARMUP
    warmup_from: float = 0.0
    """Where the warm-up begins, in units of the peak; 0: at one of its steps."""

    def build(self, total: int, to_steps: ToSteps) -> optax.Schedule:
        _check(0 < self.factor < 1, "factor", self.factor, "above 0 and below 1")
        first, every = to_steps(self.warmup), to_steps(self.every)
        if every < 1:
            raise UserError(f"schedule.every is {self.every}, which is no whole step of this run: make it longer")

        def schedule(step: Any) -> jax.Array:
            times = (step + first) // every if self.staircase else (step + first) / every
            return jnp.float32(self.factor) ** times

        return _warmed(schedule, first, total, self.warmup_from)


@dataclasses.dataclass(frozen=True)
class Polynomial:
    """final + (1 - final) (1 - s / n)^power of the peak, s of the n steps after the warm-up being done.

    Power 1 is a straight line, 2 that of LARS in MLPerf, 0.5 that of Caffe's quick GoogLeNet. The first step after the
    warm-up is at the peak; `final` would be reached by the step after the last, as in Caffe and TensorFlow.
    """

    power: float = 1.0
    final: float = 0.0
    """In units of the peak."""
    warmup: Duration = NO_WARMUP
    warmup_from: float = 0.0
    """Where the warm-up begins, in units of the peak; 0: at one of its steps."""

    def build(self, total: int, to_steps: ToSteps) -> optax.Schedule:
        _check(0 < self.power < float("inf"), "power", self.power, "positive, and finite")
        _check(0 <= self.final <= 1, "final", self.final, "at least 0 and at most 1")
        first = to_steps(self.warmup)
        span = max(total - first, 1)
        left = lambda step: jnp.maximum(span - step, 0) / jnp.float32(span)  # noqa: E731
        return _warmed(
            lambda step: self.final + (1 - self.final) * left(step) ** self.power, first, total, self.warmup_from
        )


@dataclasses.dataclass(frozen=True)
class OneCycle:
    """One cycle (Smith & Topin 2018) with cosine ends: peak/start_divisor -> peak -> peak/start_divisor/end_divisor.

    PyTorch's OneCycleLR, step by step: the first step is at the start, the last at the end, and the peak lies at step
    warm_fraction * steps - 1 counted from 0, which need not be a whole number.
    """

    warm_fraction: float = 0.3
    """The part of the run in which the rate rises."""
    start_divisor: float = 25.0
    end_divisor: float = 1e4

    def build(self, total: int, to_steps: ToSteps) -> optax.Schedule:
        _check(0 < self.warm_fraction < 1, "warm_fraction", self.warm_fraction, "above 0 and below 1")
        for field in ("start_divisor", "end_divisor"):
            _check(1 <= getattr(self, field) < float("inf"), field, getattr(self, field), "at least 1, and finite")
        top, last = self.warm_fraction * total - 1, total - 1
        if top <= 0:
            raise UserError(
                f"schedule.warm_fraction is {self.warm_fraction}: of {total} steps, that is not more than one, and the "
                "rate could not rise; give a longer duration or a larger warm_fraction"
            )
        start, end = 1 / self.start_divisor, 1 / self.start_divisor / self.end_divisor

        def schedule(step: Any) -> jax.Array:
            rise = _half_cosine(start, 1.0, step / top)
            return jnp.where(step <= top, rise, _half_cosine(1.0, end, (step - top) / (last - top)))

        return schedule


@dataclasses.dataclass(frozen=True)
class Rising:
    """From `start` times the peak up to the peak, by the same factor at each step: a range test (Smith 2017).

    `jaxcnn lr-range` uses it.
    """

    start: float = 1e-6

    def build(self, total: int, to_steps: ToSteps) -> optax.Schedule:
        _check(0 < self.start < 1, "start", self.start, "above 0 and below 1")
        return lambda step: jnp.float32(self.start) ** (1 - step / max(total - 1, 1))


@dataclasses.dataclass(frozen=True)
class Plateau:
    """The rate times `factor` when the watched validation figure stops improving (VGG section 3.1).

    The figure is that of the first evaluation split, read at each evaluation; `patience` counts evaluations
    without improvement. The state is optax's reduce_on_plateau, kept in the train state, so that resume is exact.
    """

    metric: str | None = None
    """A metric of the task; None: its score, such as accuracy."""
    factor: float = 0.1
    patience: int = 3
    tolerance: float = 1e-4
    """The smallest relative change of the metric that counts; of one that is better when higher, of 1 minus it."""
    smallest: float = 1e-4
    """The multiplier never falls below this."""
    warmup: Duration = NO_WARMUP
    warmup_from: float = 0.0
    """Where the warm-up begins, in units of the peak; 0: at one of its steps."""

    def build(self, total: int, to_steps: ToSteps) -> optax.Schedule:
        _check(0 < self.factor < 1, "factor", self.factor, "above 0 and below 1")
        _check(self.patience >= 1, "patience", self.patience, "at least 1")
        for field in ("tolerance", "smallest"):
            _check(0 <= getattr(self, field) < 1, field, getattr(self, field), "at least 0 and below 1")
        return _warmed(optax.constant_schedule(1.0), to_steps(self.warmup), total, self.warmup_from)

    def initial_state(self) -> Any:
        return self._transformation().init(jnp.float32(0))

    def observe(self, state: Any, value: float, direction: Literal["higher", "lower"]) -> Any:
        """The plateau state after one evaluation. A rate that is better when higher is watched as 1 minus it."""
        value = value if direction == "lower" else 1.0 - value
        _, state = self._transformation().update(jnp.float32(0), state, value=jnp.float32(value))
        return state

    def _transformation(self) -> optax.GradientTransformationExtraArgs:
        return optax.contrib.reduce_on_plateau(
            factor=self.factor, patience=self.patience, rtol=self.tolerance, min_scale=self.smallest
        )


@runtime_checkable
class Schedule(Protocol):
    """A frozen dataclass that builds step -> multiplier of the peak rate: Constant, StepDecay, Cosine, ..."""

    def build(self, total: int, to_steps: ToSteps) -> optax.Schedule:
        """From the run's number of optimizer steps, and what turns a Duration into steps."""
        ...


def make_rate(schedule: Schedule, peak: float, total: int, to_steps: ToSteps) -> optax.Schedule:
    """step -> learning rate, before any plateau multiplier. `total` is the run's number of optimizer steps.

    Raises:
      UserError: a field of the schedule cannot be meant, by itself or in a run of this length; the message names it.
    """
    multiplier = schedule.build(total, to_steps)
    return lambda step: jnp.asarray(peak * multiplier(step), jnp.float32)


def _warmed(schedule: optax.Schedule, warmup: int, total: int, start: float) -> optax.Schedule:
    """The schedule behind a linear warm-up to the peak."""
    _check(0 <= start <= 1, "warmup_from", start, "at least 0 and at most 1")
    if warmup == 0:
        return schedule
    if warmup >= total:
        raise UserError(f"schedule.warmup is {warmup} steps, but the run has {total}: it must end before the run does")
    rise = lambda step: start + (1 - start) * (step if start else step + 1) / jnp.float32(warmup)  # noqa: E731
    return optax.join_schedules([rise, schedule], [warmup])


def _half_cosine(start: float, end: float, part: Any) -> jax.Array:
    """From `start` at 0 to `end` at 1. As a squared sine: small values near the end keep their digits in float32."""
    return end + (start - end) * jnp.square(jnp.sin(jnp.pi / 2 * (1 - part)))


def _check(meant: bool, field: str, value: float, must: str) -> None:
    if not meant:
        raise UserError(f"schedule.{field} is {value}; it must be {must}")
