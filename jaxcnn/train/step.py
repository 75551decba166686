"""The train step: a pure function of (state, frozen, batch), the same on one device and on many."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from einops import rearrange

from jaxcnn.train.averages import EMA, Averaging
from jaxcnn.train.batch_norm import of_this_batch
from jaxcnn.train.groups import Group, joined, split, while_frozen
from jaxcnn.train.optimizers import at_step
from jaxcnn.train.state import TrainState

Batch = dict[str, jax.Array]
Sums = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
LossFn = Callable[[Any, Any, Any, Batch, jax.Array], tuple[jax.Array, tuple[Any, Sums]]]
"""(params, stats, frozen, batch, key) -> loss, (new statistics, sums)."""
TrainStep = Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformationExtraArgs,
    rate: optax.Schedule,
    *,
    accumulate: int = 1,
    normalizer: Callable[[Batch], jax.Array] = lambda batch: jnp.float32(1),
    ema: Averaging = EMA(),
    log_every: int = 1,
    skip: int = 0,
    groups: tuple[Group, ...] = (),
    rho: float = 0.0,
) -> TrainStep:
    """(state, frozen, batch) -> (next state, metrics).

    `frozen` are variables that no step changes, such as a teacher's or a trunk's: {} for most. They are an argument, so
    that they are no constants of the program, and no part of the state, so that no checkpoint holds them.

    Args:
      loss_fn: the task's loss; its value is a mean over what it is given, such as its examples.
      optimizer: an optax transformation that already scales by `rate`, and may ask for the run's `step`.
      rate: step -> learning rate, for the report; the optimizer is brought to the same step.
      accumulate: the batch is cut into this many microbatches, run one after another. Loss and gradient are those of
        the whole batch; batch statistics go through the microbatches in turn: batch norm normalises over one of them.
      normalizer: microbatch -> what the mean in its loss was divided by, such as the pixels that count; a multiple of
        it does as well. Default: the same for each.
      ema: the average of the parameters.
      log_every: metric sums start anew after every multiple of it.
      skip: so many steps in a row whose loss or gradient is not finite leave all but the step's number as it was. The
        learning rate goes by that number; what counts updates (Adam's correction, a warm average) does not move.
      groups: of parameters; those that are frozen are in the state, and are handed to the loss as `frozen` are.
      rho: how far from the parameters, along their gradient, the gradient is taken that moves them (SAM); 0: there.

    Metrics: the task's sums since the last multiple of `log_every`, over steps that were not skipped, under "sums";
    `learning_rate`, `grad_norm` (before clipping), `step_loss` (this step's, which is differentiated) and `bad_step`
    (see TrainState).
    """

    def step(state: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        trained, fixed = split(state.params, groups)
        if fixed:
            frozen = {**frozen, "params": joined(frozen.get("params", {}), fixed)}

        def gradients(params: Any) -> Any:
            grads, *more = _gradients(loss_fn, params, state.stats, frozen, batch, key, accumulate, normalizer)
            return while_frozen(jax.tree.map(jnp.zeros_like, grads), grads, groups, state.step), *more

        grads, stats, sums, loss = gradients(trained)
        if rho:
            norm = optax.tree.norm(grads)
            grads, *_ = gradients(optax.tree.add_scale(trained, jnp.where(norm > 0, rho / norm, norm), grads))
        updates, opt_state = optimizer.update(grads, at_step(state.opt_state, state.step), trained, step=state.step)
        learning_rate = rate(state.step)
        if state.plateau is not None:
            updates = jax.tree.map(lambda update: update * state.plateau.scale, updates)
            learning_rate *= state.plateau.scale
        moved = while_frozen(trained, cast(Any, optax.apply_updates(trained, updates)), groups, state.step)
        params = joined(moved, fixed)
        average = None if state.average is None else ema.update(state.average, params, stats, groups, state.step)
        grad_norm = optax.tree.norm(grads)
        now = state.step + 1
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        not_finite = jnp.where(finite, 0, state.not_finite + 1)
        bad_step = jnp.where((state.bad_step == 0) & (not_finite > skip), now, state.bad_step)
        if skip:
            keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)  # noqa: E731
            params, stats = keep(params, state.params), keep(stats, state.stats)
            opt_state, average = keep(opt_state, state.opt_state), keep(average, state.average)
            sums = keep(sums, jax.tree.map(jnp.zeros_like, sums))
        fresh = state.step % log_every == 0
        sums = jax.tree.map(lambda old, new: jnp.where(fresh, 0, old) + new, state.sums, sums)
        state = dataclasses.replace(
            state,
            step=now,
            params=params,
            stats=stats,
            opt_state=opt_state,
            average=average,
            sums=sums,
            not_finite=not_finite,
            bad_step=bad_step,
        )
        scalars = {"learning_rate": learning_rate, "grad_norm": grad_norm, "step_loss": loss, "bad_step": bad_step}
        return state, {"sums": sums, **scalars}

    return step


def make_statistics_step(loss_fn: LossFn, accumulate: int = 1) -> Callable[..., Any]:
    """(params, stats, number, key, frozen, batch) -> batch statistics.

    `stats` are the mean over `number` batches of what a net of these parameters has in training, and what comes out is
    that over one batch more. What no batch changes is left as it is. Of microbatches it is their mean.
    """

    def step(params: Any, stats: Any, number: jax.Array, key: jax.Array, frozen: Any, batch: Batch) -> Any:
        key = jax.random.fold_in(key, number)

        def of(part: tuple[jax.Array, Batch]) -> Any:
            with of_this_batch():
                return loss_fn(params, stats, frozen, part[1], jax.random.fold_in(key, part[0]))[1][0]

        micro = jax.tree.map(lambda x: rearrange(x, "(n micro) ... -> micro n ...", micro=accumulate), batch)
        new = jax.tree.map(lambda x: x.mean(0), jax.lax.map(of, (jnp.arange(accumulate), micro)))
        blend = lambda old, new: jnp.where((number == 0) | (new == old), new, old + (new - old) / (number + 1))  # noqa: E731
        return jax.tree.map(blend, stats, new)

    return step


def _gradients(
    loss_fn: LossFn,
    params: Any,
    stats: Any,
    frozen: Any,
    batch: Batch,
    key: jax.Array,
    accumulate: int,
    normalizer: Callable[[Batch], jax.Array],
):
    """Gradient, new statistics, metric sums and loss of a batch that is run as `accumulate` microbatches."""
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
    if accumulate == 1:
        (loss, (stats, sums)), grads = value_and_grad(params, stats, frozen, batch, key)
        return grads, stats, sums, loss

    # Microbatch j is every accumulate-th example from j on: the split is the same on any number of devices, and each
    # device keeps its own examples.
    micro = jax.tree.map(lambda x: rearrange(x, "(n micro) ... -> micro n ...", micro=accumulate), batch)

    # The mean of the whole batch is that of the microbatches' means, weighted by what each was divided by. Over their
    # mean, so that equal weights are exactly 1; all are 0 if nothing counts, and so are the losses.
    counts = jax.lax.map(normalizer, micro)
    weights = counts / jnp.where(counts.sum() > 0, counts.mean(), 1)

    def body(carry, part):
        stats, total = carry
        index, microbatch, weight = part
        (loss, (stats, sums)), grads = value_and_grad(params, stats, frozen, microbatch, jax.random.fold_in(key, index))
        loss, grads = jax.tree.map(lambda x: x * weight.astype(x.dtype), (loss, grads))
        return (stats, jax.tree.map(jnp.add, total, (grads, sums, loss))), None

    first = jax.tree.map(lambda x: x[0], micro)
    (_, (_, sums)), grads = jax.eval_shape(value_and_grad, params, stats, frozen, first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, sums))
    (stats, (grads, sums, loss)), _ = jax.lax.scan(
        body, (stats, (*zeros, jnp.float32(0))), (jnp.arange(accumulate), micro, weights)
    )
    return jax.tree.map(lambda g: g / accumulate, grads), stats, sums, loss / accumulate
