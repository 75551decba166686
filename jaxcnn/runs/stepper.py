"""Stepper: how the loop computes. One net, or the nets of several seeds as one program; the loop is the same for both.

A state here is that of all nets; `member` gives one's, as a run of its own has it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxcnn.experiment import Experiment
from jaxcnn.runs.batch_shapes import abstract_batch, batch_fields
from jaxcnn.runs.compilation import Compiled, compile_for, lower_for
from jaxcnn.runs.evaluation import evaluation_step, lower_evaluation_step, placed
from jaxcnn.runs.initial_state import abstract_state, frozen_shapes
from jaxcnn.runs.program import (
    compile_initial_state,
    compile_statistics_step,
    lower_train_step,
    statistics_step,
    train_step,
    within_memory,
)
from jaxcnn.runs.sender import Sender
from jaxcnn.runs.setup import Plan
from jaxcnn.runs.several_steps import either, in_steps, several, stacked
from jaxcnn.runs.sizes import for_each, last
from jaxcnn.train import mesh as meshes
from jaxcnn.train.state import TrainState, all_finite

Batch = dict[str, np.ndarray]


class Stepper(Protocol):
    """What is computed for the loop."""

    abstract: Any
    """One net's state, as shapes with shardings."""
    sender: Sender
    """Of training batches."""

    def lower_train(self) -> Callable[[], Compiled]:
        """(state, frozen, placed batches) -> (state, metrics); the state is donated. It is traced; what comes back
        compiles it, and raises UserError on memory."""
        ...

    def lower_evaluation(self) -> Callable[[], Compiled]:
        """(params, stats, frozen, placed batch) -> (sums, records). It is traced; what comes back compiles it."""
        ...

    def compile_statistics(self) -> Compiled:
        """(params, stats, number, key, frozen, placed batches) -> stats with those batches: make_statistics_step."""
        ...

    def compile_initial(self) -> Callable[[np.uint32], TrainState]:
        """The initial state of one net by its seed: what `create` calls. It is traced and compiled in a thread."""
        ...

    def create(self) -> list[TrainState]:
        """The initial state of each net."""
        ...

    def joined(self, states: Sequence[TrainState]) -> TrainState:
        """The state of all nets, from theirs."""
        ...

    def member(self, tree: Any, number: int) -> Any:
        """One net's part of a tree of arrays, of the device or the host."""
        ...

    def put(self, batches: Sequence[Batch]) -> Any:
        """A batch of each net, on the devices."""
        ...

    def put_steps(self, steps: Sequence[Sequence[Batch]]) -> Any:
        """The batches of one step, as `put` has them, or of several, for one call: what the train step takes."""
        ...

    def put_evaluation(self, batch: Batch) -> Any:
        """An evaluation batch, which all nets share, on the devices."""
        ...

    def put_frozen(self, frozen: Any) -> Any:
        """What no step changes, a teacher's variables, on the devices."""
        ...

    def finite(self, state: TrainState, number: int) -> bool:
        """Whether all that one net computes with is finite, as all processes know."""
        ...

    def with_plateaus(self, state: TrainState, plateaus: Sequence[Any]) -> TrainState:
        """The state with these states of the plateau schedule."""
        ...


class Single:
    """One net, on the mesh of its plan."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.abstract = abstract_state(plan.experiment, plan.mesh)
        self.sender = Sender(batch_fields(plan.experiment), meshes.replicated(plan.mesh))

    def lower_train(self) -> Callable[[], Compiled]:
        return self.plan.once.lowered("train", lambda: lower_train_step(self.plan))

    def lower_evaluation(self) -> Callable[[], Compiled]:
        plan = self.plan
        return plan.once.lowered("evaluation", lambda: lower_evaluation_step(plan.experiment, plan.mesh))

    def compile_statistics(self) -> Compiled:
        return self.plan.once.get("statistics", lambda: compile_statistics_step(self.plan))

    def create(self) -> list[TrainState]:
        return [self.compile_initial()(np.uint32(self.plan.experiment.seed))]

    def compile_initial(self) -> Callable[[np.uint32], TrainState]:
        shardings = meshes.shardings(self.abstract)
        return self.plan.once.get("initial state", lambda: compile_initial_state(self.plan, shardings))

    def joined(self, states: Sequence[TrainState]) -> TrainState:
        return states[0]

    def member(self, tree: Any, number: int) -> Any:
        return tree

    def put(self, batches: Sequence[Batch]) -> Any:
        return self.sender.put(batches[0], meshes.split(self.plan.mesh))

    def put_steps(self, steps: Sequence[Sequence[Batch]]) -> Any:
        if len(steps) == 1:
            return self.put(steps[0])
        return (self.sender.put(stacked([batch for (batch,) in steps]), meshes.split_steps(self.plan.mesh)),)

    def put_evaluation(self, batch: Batch) -> Any:
        return placed(batch, self.plan.experiment, self.plan.mesh, evaluated=True)

    def put_frozen(self, frozen: Any) -> Any:
        return jax.device_put(frozen, meshes.shardings(frozen_shapes(self.plan.experiment, self.plan.mesh)))

    def finite(self, state: TrainState, number: int) -> bool:
        return all_finite(state, self.plan.mesh)

    def with_plateaus(self, state: TrainState, plateaus: Sequence[Any]) -> TrainState:
        return dataclasses.replace(state, plateau=jax.device_put(plateaus[0], meshes.replicated(self.plan.mesh)))


class Stacked:
    """The nets of several seeds of one experiment: arrays with the seeds in front, vmap over them.

    For nets that leave a device idle. If there are several devices whose number divides that of the seeds, the seeds
    are shared out over them. Results agree with those of single runs to rounding: vmap makes other convolutions of the
    same sums. One process only.
    """

    def __init__(self, plans: Sequence[Plan]):
        self.plans, self.plan = plans, plans[0]
        devices = jax.device_count() if len(plans) % jax.device_count() == 0 else 1
        mesh = jax.make_mesh((devices,), ("seed",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
        self.over_seeds = NamedSharding(mesh, PartitionSpec("seed"))
        self.over_steps = NamedSharding(mesh, PartitionSpec(None, "seed"))
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self.abstract = abstract_state(self.plan.experiment, self.plan.mesh)
        self.sender = Sender(batch_fields(self.plan.experiment), self.everywhere)

    def lower_train(self) -> Callable[[], Compiled]:
        plan = self.plan
        one = train_step(plan.experiment, plan.optimizer, plan.rate, plan.log_every)
        step = jax.vmap(one, in_axes=(0, None, 0))
        jitted = jax.jit(step, donate_argnums=0, out_shardings=self.over_seeds)
        state, frozen = self._stacked(self.abstract), self._shared(frozen_shapes(plan.experiment, plan.mesh))

        def lower_one(sized: Experiment) -> Callable[[], Compiled]:
            batch = abstract_batch(sized, plan.mesh, plan.experiment.data.batch_size, evaluated=False)
            one = lower_for(plan.experiment, jitted, state, frozen, self._stacked(batch))
            if plan.experiment.steps_per_call == 1:
                return one
            jitted_many = jax.jit(several(step), donate_argnums=0, out_shardings=(self.over_seeds, None))
            batches = in_steps(self._stacked(batch), plan.experiment.steps_per_call, self.over_steps)
            many = lower_for(plan.experiment, jitted_many, state, frozen, batches)
            return lambda: either(one(), many())

        lowered = for_each(plan.experiment, lower_one)
        return lambda: within_memory(plan, lowered)

    def lower_evaluation(self) -> Callable[[], Compiled]:
        experiment = self.plan.experiment
        step = jax.vmap(evaluation_step(experiment), in_axes=(0, 0, None, None))
        batch = abstract_batch(experiment, self.plan.mesh, experiment.data.evaluation_batch_size, evaluated=True)
        state = self._stacked(self.abstract)
        return lower_for(experiment, jax.jit(step), state.params, state.stats, {}, self._shared(batch))

    def compile_statistics(self) -> Compiled:
        plan, state = self.plan, self._stacked(self.abstract)
        step = jax.vmap(statistics_step(plan.experiment), in_axes=(0, 0, None, 0, None, 0))
        batch = abstract_batch(last(plan.experiment), plan.mesh, plan.experiment.data.batch_size, evaluated=False)
        frozen = self._shared(frozen_shapes(plan.experiment, plan.mesh))
        number = self._shared(jax.ShapeDtypeStruct((), np.int32))
        jitted = jax.jit(step, out_shardings=self.over_seeds)
        shapes = (state.params, state.stats, number, state.key, frozen, self._stacked(batch))
        return compile_for(plan.experiment, jitted, *shapes)

    def create(self) -> list[TrainState]:
        return [self.compile_initial()(np.uint32(plan.experiment.seed)) for plan in self.plans]

    def compile_initial(self) -> Callable[[np.uint32], TrainState]:
        return self.plan.once.get("initial state of seeds", lambda: compile_initial_state(self.plan, None))

    def joined(self, states: Sequence[TrainState]) -> TrainState:
        local = [jax.device_put(state, jax.devices()[0]) for state in states]
        return jax.device_put(jax.tree.map(lambda *seeds: jnp.stack(seeds), *local), self.over_seeds)

    def member(self, tree: Any, number: int) -> Any:
        return jax.tree.map(lambda x: x[number], tree)

    def put(self, batches: Sequence[Batch]) -> Any:
        return self.sender.put(stacked(batches), self.over_seeds)

    def put_steps(self, steps: Sequence[Sequence[Batch]]) -> Any:
        if len(steps) == 1:
            return self.put(steps[0])
        return (self.sender.put(stacked([stacked(batches) for batches in steps]), self.over_steps),)

    def put_evaluation(self, batch: Batch) -> Any:
        names = (*batch_fields(self.plan.experiment), "valid")
        return jax.device_put({name: batch[name] for name in names}, self.everywhere)

    def put_frozen(self, frozen: Any) -> Any:
        return jax.device_put(frozen, self.everywhere)

    def finite(self, state: TrainState, number: int) -> bool:
        return all_finite(self.member(state, number))

    def with_plateaus(self, state: TrainState, plateaus: Sequence[Any]) -> TrainState:
        stacked = jax.tree.map(lambda *seeds: jnp.stack(seeds), *plateaus)
        return dataclasses.replace(state, plateau=jax.device_put(stacked, self.over_seeds))

    def _shared(self, tree: Any) -> Any:
        """Shapes of what all nets read -> the same on the devices."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.everywhere), tree)

    def _stacked(self, tree: Any) -> Any:
        """Shapes of one net -> those of all."""
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((len(self.plans), *x.shape), x.dtype, sharding=self.over_seeds), tree
        )


def stepper_for(plans: Sequence[Plan]) -> Stepper:
    """One net as it is; several stacked."""
    return Single(plans[0]) if len(plans) == 1 else Stacked(plans)
