"""Optimizers as frozen dataclasses that build optax transformations, and the role of each parameter.

The learning rate in each is the peak; a schedule (schedules.py) multiplies it.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import unflatten_dict

from jaxcnn.errors import UserError
from jaxcnn.train.groups import Group, members
from jaxcnn.train.layer_decay import scale_by_layer

Decay = Literal["kernels", "all"]
Rate = optax.Schedule
LIBRARIES = {"optax", "jax", "jaxlib", "flax", "chex", "numpy", "jaxcnn"}
"""Functions of these are told by their names, all others by what they do as well."""
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def role(path: tuple[Any, ...]) -> str:
    """The role of a parameter by the last part of its path: 'kernel', 'bias', 'scale', 'coefficient', ..."""
    return str(getattr(path[-1], "key", path[-1]))


def decay_mask(params: Any, decay: Decay) -> Any:
    """A tree of bools, true where weight decay applies: every parameter, or convolution and dense kernels only."""
    return jax.tree_util.tree_map_with_path(lambda path, _: decay == "all" or role(path) == "kernel", params)


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum: v <- m v + g + wd w; w <- w - lr v (Sutskever et al. 2013).

    Weight decay is coupled: an L2 term added to the gradient before the momentum, as in the papers up to ResNet.
    AlexNet's own form multiplies the gradient by the rate before the momentum: equal while the rate is constant.
    """

    learning_rate: float = 0.1
    """Peak learning rate, for the whole (global) batch."""
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    """Coupled L2, added to the gradient before the momentum."""
    decay: Decay = "kernels"
    """What weight decay touches: kernels only (no biases, no normalisation), or all parameters."""

    def build(self, rate: Rate) -> optax.GradientTransformation:
        return optax.chain(
            _coupled_decay(self.weight_decay, self.decay),
            optax.sgd(rate, momentum=self.momentum or None, nesterov=self.nesterov),
        )


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015, Algorithm 1); with `weight_decay` AdamW (Loshchilov & Hutter 2019): decay decoupled."""

    learning_rate: float = 1e-3
    """Peak learning rate."""
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    """Decoupled (AdamW), multiplied by the learning rate."""
    decay: Decay = "kernels"

    def build(self, rate: Rate) -> optax.GradientTransformation:
        mask = lambda params: decay_mask(params, self.decay)  # noqa: E731
        return optax.adamw(rate, self.b1, self.b2, self.epsilon, weight_decay=self.weight_decay, mask=mask)


@dataclasses.dataclass(frozen=True)
class RMSProp:
    """RMSProp (Tieleman & Hinton 2012) with momentum, in TensorFlow's form or PyTorch's.

    "tensorflow": the epsilon inside the root, the mean square starts at 1 (what Inception and EfficientNet were
    trained with). "torch": the epsilon outside the root, the mean square starts at 0. In both, momentum gathers
    rate * gradient, which is TensorFlow's order; PyTorch's differs from it only while the rate changes.
    """

    learning_rate: float = 1e-2
    """Peak learning rate."""
    rho: float = 0.9
    """Decay of the mean square."""
    momentum: float = 0.9
    epsilon: float = 1e-3
    form: Literal["tensorflow", "torch"] = "tensorflow"
    weight_decay: float = 0.0
    """Coupled L2."""
    decay: Decay = "kernels"

    def build(self, rate: Rate) -> optax.GradientTransformation:
        tensorflow = self.form == "tensorflow"
        rms = optax.rmsprop(
            rate,
            decay=self.rho,
            eps=self.epsilon,
            initial_scale=1.0 if tensorflow else 0.0,
            eps_in_sqrt=tensorflow,
            momentum=self.momentum or None,
        )
        return optax.chain(_coupled_decay(self.weight_decay, self.decay), rms)


@dataclasses.dataclass(frozen=True)
class LARS:
    """Layer-wise adaptive rates for large batches (You, Gitman & Ginsburg 2017, Algorithm 1).

    local rate = trust |w| / (|g| + wd |w|); v <- m v + lr * local rate * (g + wd w); w <- w - v.

    Departures: only kernels have a local rate and decay, as in most trainings with LARS; biases and normalisation move
    by v <- m v + lr g. `decay="all"` is the paper's. A layer whose weights or gradients are all 0 has the local rate 1.
    """

    learning_rate: float = 1.0
    """Peak learning rate."""
    momentum: float = 0.9
    nesterov: bool = False
    trust_coefficient: float = 1e-3
    weight_decay: float = 1e-4
    decay: Decay = "kernels"
    """What weight decay and the local rate touch."""

    def build(self, rate: Rate) -> optax.GradientTransformation:
        mask = lambda params: decay_mask(params, self.decay)  # noqa: E731
        return optax.chain(  # in as many parts as optax.lars, so that checkpoints of runs with it can be read
            optax.masked(optax.identity(), mask),
            optax.masked(_local_rates(self.trust_coefficient, self.weight_decay), mask),
            optax.scale_by_learning_rate(rate),
            optax.trace(self.momentum, self.nesterov),
        )


@dataclasses.dataclass(frozen=True)
class LAMB:
    """Adam with layer-wise adaptive rates (You et al. 2020, Algorithm 2, with phi the identity).

    u = m / (sqrt(v) + epsilon) + wd w, with Adam's corrected m and v; w <- w - lr |w| / |u| u.

    Departures: only kernels have the ratio |w| / |u| and decay, as in the authors' code for BERT and in timm; biases
    and normalisation move as by Adam. `decay="all"` is the paper's. A layer whose weights or updates are all 0 has the
    ratio 1. timm clips the gradient's global norm to 1 by default: here that is `clip_norm`.
    """

    learning_rate: float = 1e-3
    """Peak learning rate."""
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-6
    weight_decay: float = 1e-2
    decay: Decay = "kernels"
    """What weight decay and the ratio touch."""

    def build(self, rate: Rate) -> optax.GradientTransformation:
        mask = lambda params: decay_mask(params, self.decay)  # noqa: E731
        return optax.chain(
            optax.scale_by_adam(self.b1, self.b2, self.epsilon),
            optax.add_decayed_weights(self.weight_decay, mask),
            _trust_ratios(mask),
            optax.scale_by_learning_rate(rate),
        )


@dataclasses.dataclass(frozen=True)
class Optax:
    """Any optax transformation, as it is: `Experiment(optimizer=optax.adam(1e-3))` makes one of it.

    It has its learning rate within; the schedule multiplies its updates. config.json holds what it was made of, in
    words (`described`), by which a changed one is seen when a run goes on. A run that is read back, for evaluate or
    predict, has these words alone.
    """

    described: str
    """The transformation's functions and what they hold, such as adam's b1=0.9."""
    learning_rate: float = 1.0
    """What the updates are multiplied by, with the schedule; 1 leaves them as they are."""
    transformation: optax.GradientTransformation | None = dataclasses.field(
        default=None, compare=False, repr=False, metadata={"stored": False}
    )

    @classmethod
    def of(cls, transformation: optax.GradientTransformation) -> "Optax":
        return cls(describe(transformation), transformation=transformation)

    def build(self, rate: Rate) -> optax.GradientTransformation:
        """The transformation, then the rate. Without the transformation one that can neither start nor update."""
        if self.transformation is None:
            return _absent(self.described)
        return optax.chain(self.transformation, optax.scale_by_schedule(rate))


@dataclasses.dataclass(frozen=True)
class SAM:
    """Sharpness-aware minimization (Foret et al. 2021, Algorithm 1): an optimizer that is given the gradient at
    w + rho g / |g|, g being the gradient at w. Two gradients a step, so that a step takes twice the time.

    Both are of the whole (global) batch, with the same dropout, so that devices and microbatches change nothing. The
    paper's Algorithm 1 is that as well; its experiments take one g for what each device holds ("m-sharpness", section
    4.1). Running statistics, loss and metrics are those of the first pass, at w. What a group freezes is not moved to
    look around, and the norm that is clipped and logged is of the second gradient. A gradient of 0 looks nowhere.

    Example: Experiment(..., optimizer=SAM(SGD(0.1, weight_decay=5e-4), rho=0.05))
    """

    optimizer: "Optimizer" = SGD()
    """What moves the weights, or any optax transformation."""
    rho: float = 0.05
    """The radius of the neighborhood, in units of the weights; the paper has 0.05 for CIFAR-10 and ImageNet."""

    def __post_init__(self):
        if isinstance(self.optimizer, optax.GradientTransformation):
            object.__setattr__(self, "optimizer", Optax.of(self.optimizer))
        if not 0 < self.rho <= LARGEST:
            raise UserError(f"optimizer.rho is {self.rho}; it must be positive, and finite")
        if isinstance(self.optimizer, type) or not isinstance(self.optimizer, Optimizer):
            raise UserError(f"optimizer: SAM holds an optimizer, such as SAM(jc.SGD(0.1)), and not {self.optimizer!r}")
        if isinstance(self.optimizer, SAM):
            raise UserError("optimizer: SAM holds another SAM; give it jc.SGD() or jc.Adam()")

    @property
    def learning_rate(self) -> float:
        return self.optimizer.learning_rate

    def build(self, rate: Rate) -> optax.GradientTransformation:
        """What moves the weights; the step computes its gradient (step.py)."""
        return self.optimizer.build(rate)


def mover_of(optimizer: "Optimizer") -> "Optimizer":
    """What moves the weights: within SAM its own optimizer."""
    return optimizer.optimizer if isinstance(optimizer, SAM) else optimizer


def with_learning_rate(optimizer: "Optimizer", rate: float) -> "Optimizer":
    """The optimizer with another peak rate."""
    if isinstance(optimizer, SAM):
        return dataclasses.replace(optimizer, optimizer=with_learning_rate(optimizer.optimizer, rate))
    return dataclasses.replace(cast(Any, optimizer), learning_rate=rate)


def _meaning(code: CodeType) -> tuple[Any, ...]:
    """What a function does, without its lines and its file."""
    constants = [_meaning(value) if isinstance(value, CodeType) else repr(value) for value in code.co_consts]
    return code.co_code, code.co_names, constants


def describe(part: Any) -> str:
    """In words, the same at each start: a function by its name with the values that it closes over."""
    if isinstance(part, optax.GradientTransformation):
        return describe(part.update)
    if isinstance(part, functools.partial):
        return f"{describe(part.func)}({describe(part.args)}, {describe(part.keywords)})"
    if callable(part) and hasattr(part, "__code__"):
        name = part.__qualname__.partition(".<locals>")[0]
        cells = zip(part.__code__.co_freevars, part.__closure__ or (), strict=True)
        held = [f"{name}={describe(cell.cell_contents)}" for name, cell in cells if cell.cell_contents is not part]
        if part.__module__.partition(".")[0] not in LIBRARIES:
            held.append(f"code {hashlib.sha256(repr(_meaning(part.__code__)).encode()).hexdigest()[:12]}")
        return f"{name}({', '.join(held)})"
    if isinstance(part, tuple | list):
        return f"[{', '.join(map(describe, part))}]"
    if isinstance(part, dict):
        return f"{{{', '.join(f'{key}: {describe(value)}' for key, value in part.items())}}}"
    if part is None or isinstance(part, bool | int | float | str):
        return repr(part)
    if isinstance(part, jax.Array | np.ndarray | np.generic):
        return repr(np.asarray(part).tolist())
    return getattr(part, "__qualname__", type(part).__qualname__)


def _absent(described: str) -> optax.GradientTransformation:
    def update(*_: Any) -> Any:
        raise UserError(
            "the run's optimizer is an optax transformation, of which config.json has words alone; only its experiment "
            f"file goes on with it: python -m jaxcnn.launch FILE.py --workdir RUN ({described[:200]})"
        )

    return optax.GradientTransformation(lambda params: optax.EmptyState(), cast(Any, update))


@runtime_checkable
class Optimizer(Protocol):
    """A frozen dataclass with `learning_rate`, the peak, that builds an optax transformation, as SGD and Adam do."""

    if TYPE_CHECKING:  # the command line can tell what a value is by the methods of a protocol only

        @property
        def learning_rate(self) -> float: ...

    def build(self, rate: Rate) -> optax.GradientTransformation:
        """From step -> learning rate."""
        ...


LIMITS: dict[str, tuple[Callable[[float], bool], str]] = {
    "learning_rate": (lambda x: SMALLEST <= x <= LARGEST, "positive, and a float32"),
    "weight_decay": (lambda x: 0 <= x <= LARGEST, "at least 0, and finite"),
    "momentum": (lambda x: 0 <= x < 1, "at least 0 and below 1"),
    "b1": (lambda x: 0 <= x < 1, "at least 0 and below 1"),
    "b2": (lambda x: 0 <= x < 1, "at least 0 and below 1"),
    "rho": (lambda x: 0 <= x < 1, "at least 0 and below 1"),
    "epsilon": (lambda x: 0 <= x <= LARGEST, "at least 0, and finite"),
    "trust_coefficient": (lambda x: 0 < x <= LARGEST, "positive, and finite"),
}
"""Which values an optimizer's field may have. A NaN satisfies none of them."""


def build_optimizer(
    optimizer: Optimizer,
    rate: Rate,
    clip_norm: float | None,
    groups: Sequence[Group] = (),
    layer_rates: Mapping[str, float] = {},
) -> optax.GradientTransformationExtraArgs:
    """The optax transformation, with the gradient's global norm clipped first if `clip_norm` is given.

    It is of the parameters that no group freezes (groups.py), and each group has its own rate and weight decay; beside
    that, `layer_rates` multiply the rates (layer_decay.py). Its `update` takes the run's step as `step`, by which a
    group that is frozen until a step begins.

    Raises:
      UserError: a field has a value that cannot be meant (LIMITS), the clip norm is not positive and finite, or a group
        has a weight decay and the optimizer has none.
    """
    optimizer = mover_of(optimizer)
    for field, (meant, must) in LIMITS.items():
        value = getattr(optimizer, field, None)
        if isinstance(value, int | float) and not meant(value):  # a user's own class may have other things of this name
            raise UserError(f"optimizer.{field} is {value}; it must be {must}")
    if clip_norm is not None and not 0 < clip_norm <= LARGEST:
        raise UserError(f"clip_norm is {clip_norm}; it must be positive and finite, or None for no clipping")
    built = optimizer.build(rate) if all(g.freeze for g in groups) else _of_groups(optimizer, rate, groups)
    parts = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    parts += [built, scale_by_layer(layer_rates)] if layer_rates else [built]
    return optax.with_extra_args_support(built if len(parts) == 1 else optax.chain(*parts))


def _of_groups(optimizer: Optimizer, rate: Rate, groups: Sequence[Group]) -> optax.GradientTransformation:
    """A transformation for each group that is trained and one for what belongs to none, "rest"."""

    def of_group(group: Group) -> optax.GradientTransformation:
        changed = optimizer
        if group.weight_decay is not None:
            if not hasattr(optimizer, "weight_decay"):
                raise UserError(
                    f"groups: {group.match!r} has a weight decay, but {type(optimizer).__name__} has none to replace"
                )
            changed = dataclasses.replace(cast(Any, optimizer), weight_decay=group.weight_decay)
        built = changed.build(lambda step: group.rate * rate(step))
        return built if group.freeze_until is None else _new_until_released(built, group)

    def labels(params: Any) -> Any:
        numbers = members(params, groups)
        flat = {path.removeprefix("params/"): "rest" if i is None else str(i) for path, i in numbers.items()}
        return unflatten_dict(flat, sep="/")

    transformations = {str(i): of_group(group) for i, group in enumerate(groups) if not group.freeze}
    return optax.partition({"rest": optimizer.build(rate), **transformations}, labels)


def _new_until_released(
    transformation: optax.GradientTransformation, group: Group
) -> optax.GradientTransformationExtraArgs:
    """The transformation, whose state stays as at the start while the group is frozen."""
    built = optax.with_extra_args_support(transformation)

    def update(updates: Any, state: Any, params: Any = None, *, step: jax.Array, **more: Any) -> tuple[Any, Any]:
        updates, after = built.update(updates, state, params, step=step, **more)
        return updates, jax.tree.map(lambda new, old: jnp.where(step < group.release, old, new), after, state)

    return optax.GradientTransformationExtraArgs(built.init, cast(Any, update))


def at_step(opt_state: Any, step: jax.Array) -> Any:
    """An optimizer's state with its learning rate at this step of the run.

    optax's own schedules count updates. Left to that, a run that skipped some would apply other rates than those of its
    steps, which are logged and of which the last is the schedule's end.
    """
    is_schedule = lambda part: isinstance(part, optax.ScaleByScheduleState)  # noqa: E731
    return jax.tree.map(
        lambda part: part._replace(count=step) if is_schedule(part) else part, opt_state, is_leaf=is_schedule
    )


def _local_rates(trust: float, weight_decay: float) -> optax.GradientTransformation:
    """LARS's decay and local rate of each parameter."""

    def scale(gradient: jax.Array, weight: jax.Array) -> jax.Array:
        weights, gradients = _norm(weight), _norm(gradient)
        local = trust * weights / (gradients + weight_decay * weights)
        return jnp.where((weights > 0) & (gradients > 0), local, 1.0) * (gradient + weight_decay * weight)

    return optax.stateless(lambda updates, params: jax.tree.map(scale, updates, params))


def _trust_ratios(mask: Callable[[Any], Any]) -> optax.GradientTransformation:
    """LAMB's ratio for the parameters at which the mask is true."""

    def scale(update: jax.Array, weight: jax.Array, touched: bool) -> jax.Array:
        weights, updates = _norm(weight), _norm(update)
        return jnp.where((weights > 0) & (updates > 0), weights / updates, 1.0) * update if touched else update

    return optax.stateless(lambda updates, params: jax.tree.map(scale, updates, params, mask(params)))


def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(x)))


def _coupled_decay(weight_decay: float, decay: Decay) -> optax.GradientTransformation:
    if weight_decay == 0:
        return optax.identity()
    return optax.add_decayed_weights(weight_decay, mask=lambda params: decay_mask(params, decay))
