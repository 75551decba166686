"""Initial state: of an experiment, as a pure function of its seed; and the shapes of the state and of what it needs."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from jaxcnn.experiment import Experiment
from jaxcnn.runs.batch_shapes import batch_fields
from jaxcnn.runs.compilation import no_garbage_collection
from jaxcnn.tasks.distillation import distillation_of
from jaxcnn.tasks.objective import make_loss
from jaxcnn.tasks.task import TEACHER
from jaxcnn.train import mesh as meshes
from jaxcnn.train.layer_decay import layer_rates
from jaxcnn.train.optimizers import build_optimizer
from jaxcnn.train.schedules import Plateau
from jaxcnn.train.state import TrainState, create_state


def initial_state(
    experiment: Experiment, optimizer: optax.GradientTransformation, seed: jax.Array | None = None
) -> TrainState:
    """The state before the first step: a pure function of the experiment's model, parts and seed.

    `seed` is a uint32 in place of the experiment's, for a program that serves all seeds.
    """
    weights, dropout = jax.random.split(jax.random.key(experiment.seed if seed is None else seed))
    variables = _init(experiment, weights)
    return _state(experiment, optimizer, variables, zero_sums(experiment), dropout)


def zero_sums(experiment: Experiment) -> Any:
    """The task's sums over no example."""
    sums = _shapes(_ButForSeed(experiment))[1]
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), sums)


def _state(experiment: Experiment, optimizer: Any, variables: Any, sums: Any, dropout: jax.Array) -> TrainState:
    plateau = experiment.schedule.initial_state() if isinstance(experiment.schedule, Plateau) else None
    return create_state(variables, optimizer, experiment.ema.on, plateau, sums, dropout, experiment.groups)


def _init(experiment: Experiment, key: jax.Array) -> Any:
    images = jnp.zeros((1, *experiment.data.image_shape), jnp.float32)
    return experiment.model.init(key, images, train=False, method="outputs")  # auxiliary heads too


def same_but_for_seed(one: Experiment, other: Experiment) -> bool:
    """Whether they have the same objects in all other fields, as dataclasses.replace(seed=...) leaves them."""
    return _ButForSeed(one) == _ButForSeed(other)


def abstract_state(experiment: Experiment, mesh: Mesh) -> Any:
    """Shapes, types and shardings of the state, without computing anything and without any data.

    An experiment is traced once for all seeds: deep nets take seconds, and a start asks several times.
    """
    return _abstract_state(_ButForSeed(experiment), mesh)


@dataclasses.dataclass(frozen=True, eq=False)
class _ButForSeed:
    """An experiment as a key: the same objects in all fields but the seed. Parts of a user's own may not be hashable,
    nor may two that are equal be of one kind."""

    experiment: Experiment

    @property
    def parts(self) -> list[int]:
        values = vars(self.experiment)
        return [id(values[field.name]) for field in dataclasses.fields(Experiment) if field.name != "seed"]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ButForSeed) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash((id(self.experiment.model), id(self.experiment.data)))


@functools.lru_cache(maxsize=4)
def _abstract_state(key: _ButForSeed, mesh: Mesh) -> Any:
    experiment = key.experiment
    optimizer = optimizer_of(experiment, lambda step: jnp.float32(0))
    variables, sums, _ = _shapes(key)
    dropout = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(functools.partial(_state, experiment, optimizer), variables, sums, dropout)
    return meshes.with_shardings(shapes, mesh, experiment.parallel.shard_above)


@functools.lru_cache(maxsize=4)
@no_garbage_collection()
def _shapes(key: _ButForSeed) -> tuple[Any, Any, list[str]]:
    """Shapes of the variables and of the task's sums, and the paths of the parameters in the order in which the model
    makes them; traced once for an experiment."""
    experiment = key.experiment
    data, random_key = experiment.data, jax.eval_shape(lambda: jax.random.key(0))
    order: list[str] = []

    def init(key: jax.Array) -> Any:
        made = _init(experiment, key)
        order.extend(flatten_dict(made["params"], sep="/"))  # what comes out is in alphabetical order
        return made

    variables = jax.eval_shape(init, random_key)
    loss = make_loss(experiment.task, experiment.model, data.normalize, experiment.bn_group)
    size = data.batch_size // experiment.accumulate
    batch = {name: jax.ShapeDtypeStruct((size, *f.shape), f.dtype) for name, f in batch_fields(experiment).items()}
    stats = {name: value for name, value in variables.items() if name != "params"}
    _, (_, sums) = jax.eval_shape(loss, variables["params"], stats, _frozen(experiment), batch, random_key)
    return variables, sums, order


def params_in_order(experiment: Experiment) -> Any:
    """Shapes of the parameters, in the order in which the model makes them."""
    variables, _, order = _shapes(_ButForSeed(experiment))
    flat = flatten_dict(variables["params"], sep="/")
    return unflatten_dict({path: flat[path] for path in order}, sep="/")


def optimizer_of(experiment: Experiment, rate: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """The experiment's optimizer, with its groups and the decay of rates over its layers."""
    decay = experiment.layer_decay
    rates = {} if decay is None else layer_rates(params_in_order(experiment), decay)
    return build_optimizer(experiment.optimizer, rate, experiment.clip_norm, experiment.groups, rates)


def frozen_shapes(experiment: Experiment, mesh: Mesh) -> dict[str, Any]:
    """What the train step takes as `frozen`, as shapes with shardings: a teacher's variables, {} for most.

    Evaluation does without.
    """
    return meshes.with_shardings(_frozen(experiment), mesh, experiment.parallel.shard_above)


def _frozen(experiment: Experiment) -> dict[str, Any]:
    given = distillation_of(experiment.task)
    if given is None:
        return {}
    return {TEACHER: jax.eval_shape(lambda: given.init(experiment.data.image_shape))}
