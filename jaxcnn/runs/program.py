"""Program: the train step of an experiment, compiled ahead of time for its mesh, with the memory that it needs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs.batch_shapes import abstract_batch
from jaxcnn.runs.compilation import Compiled, beside, compile_for, lower_ahead, lower_for
from jaxcnn.runs.initial_state import abstract_state, frozen_shapes, initial_state
from jaxcnn.runs.joined_draws import joined_draws
from jaxcnn.runs.memory import advice, check_memory, is_out_of_memory
from jaxcnn.runs.setup import Plan
from jaxcnn.runs.several_steps import either, in_steps, several
from jaxcnn.runs.sizes import for_each, last
from jaxcnn.tasks.objective import make_loss
from jaxcnn.tasks.task import normalizer_of
from jaxcnn.train import mesh as meshes
from jaxcnn.train.optimizers import SAM
from jaxcnn.train.rematerialize import rematerialized
from jaxcnn.train.state import TrainState
from jaxcnn.train.step import TrainStep, make_statistics_step, make_train_step


def train_step(
    experiment: Experiment,
    optimizer: optax.GradientTransformationExtraArgs,
    rate: optax.Schedule,
    log_every: int,
) -> TrainStep:
    """The pure train step of an experiment."""
    loss = make_loss(experiment.task, experiment.model, experiment.data.normalize, experiment.bn_group)
    return make_train_step(
        rematerialized(loss) if experiment.rematerialize else loss,
        optimizer,
        rate,
        accumulate=experiment.accumulate,
        normalizer=functools.partial(normalizer_of, experiment.task, experiment.model),
        ema=experiment.ema,
        log_every=log_every,
        skip=experiment.skip_bad_steps,
        groups=experiment.groups,
        rho=experiment.optimizer.rho if isinstance(experiment.optimizer, SAM) else 0.0,
    )


def statistics_step(experiment: Experiment) -> Callable[..., Any]:
    """The pure step that takes batch statistics anew (make_statistics_step)."""
    loss = make_loss(experiment.task, experiment.model, experiment.data.normalize, experiment.bn_group)
    return make_statistics_step(loss, experiment.accumulate)


def compile_statistics_step(plan: Plan) -> Compiled:
    """The same for this plan's mesh and training batch."""
    experiment, mesh = plan.experiment, plan.mesh
    state = abstract_state(experiment, mesh)
    jitted = jax.jit(statistics_step(experiment), out_shardings=meshes.shardings(state.stats))
    number = jax.ShapeDtypeStruct((), "int32", sharding=meshes.replicated(mesh))
    batch = abstract_batch(last(experiment), mesh, experiment.data.batch_size, evaluated=False)
    frozen = frozen_shapes(experiment, mesh)
    return compile_for(experiment, jitted, state.params, state.stats, number, state.key, frozen, batch)


def compile_initial_state(plan: Plan, shardings: Any) -> Callable[[np.uint32], TrainState]:
    """The initial state by its seed, an argument and no constant: one program serves all seeds. Traced and compiled
    beside what follows; calling it waits for that.

    On a CPU with fewer of LLVM's optimizations: they take longer than they save in one call.
    """
    options = {"xla_backend_optimization_level": 1} if meshes.on_cpu(plan.mesh) else None
    seed = jax.ShapeDtypeStruct((), np.uint32)
    compiled = beside(lambda: lower_ahead(jit_initial_state(plan, shardings), seed, options=options)())
    return lambda seed: compiled.result().call(seed)


def jit_initial_state(plan: Plan, shardings: Any) -> Any:
    """The same, to be compiled. Of what is split over devices, each draws its own part."""

    def initial(seed: jax.Array) -> TrainState:
        return initial_state(plan.experiment, plan.optimizer, seed)

    parallel = plan.experiment.parallel
    joined = joined_draws(initial, below=parallel.shard_above) if parallel.fsdp > 1 else joined_draws(initial)
    return jax.jit(joined, out_shardings=shardings)


def compile_train_step(plan: Plan) -> Compiled:
    """The train step for this plan's mesh and batch; the state is donated.

    Raises:
      UserError: the devices do not have the memory that it needs.
    """
    return lower_train_step(plan)()


def lower_train_step(plan: Plan) -> Callable[[], Compiled]:
    """The same, traced; what comes back compiles it."""
    lowered = lower_step(plan.experiment, plan.mesh, plan.optimizer, plan.rate, plan.log_every)
    return lambda: within_memory(plan, lowered)


def within_memory(plan: Plan, compile_train: Callable[[], Compiled]) -> Compiled:
    """What `compile_train` compiles. Raises UserError if the devices do not have the memory that it needs."""
    try:
        compiled = compile_train()
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(advice(plan.experiment, plan.mesh, None)) from error
        raise
    check_memory(plan.experiment, plan.mesh, compiled.memory)
    return compiled


def compile_step(
    experiment: Experiment,
    mesh: Mesh,
    optimizer: optax.GradientTransformationExtraArgs,
    rate: optax.Schedule,
    log_every: int,
) -> Compiled:
    """The train step of an experiment on a mesh, compiled from shapes alone."""
    return lower_step(experiment, mesh, optimizer, rate, log_every)()


def lower_step(
    experiment: Experiment,
    mesh: Mesh,
    optimizer: optax.GradientTransformationExtraArgs,
    rate: optax.Schedule,
    log_every: int,
) -> Callable[[], Compiled]:
    """The same, traced; what comes back compiles it."""
    state = abstract_state(experiment, mesh)
    step = train_step(experiment, optimizer, rate, log_every)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(meshes.shardings(state), meshes.replicated(mesh)))
    frozen = frozen_shapes(experiment, mesh)

    def lower_one(sized: Experiment) -> Callable[[], Compiled]:
        batch = abstract_batch(sized, mesh, experiment.data.batch_size, evaluated=False)
        one = lower_for(experiment, jitted, state, frozen, batch)
        if experiment.steps_per_call == 1:
            return one
        jitted_many = jax.jit(
            several(step), donate_argnums=0, out_shardings=(meshes.shardings(state), meshes.replicated(mesh))
        )
        batches = in_steps(batch, experiment.steps_per_call, meshes.split_steps(mesh))
        many = lower_for(experiment, jitted_many, state, frozen, batches)
        return lambda: either(one(), many())

    return for_each(experiment, lower_one)
