"""Distillation: a student learns what a teacher says of each image, beside the labels (Hinton, Vinyals & Dean 2015)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.models.classifier import Outputs
from jaxcnn.parts import check_pairs
from jaxcnn.tasks.task import TEACHER, Variables


@dataclasses.dataclass(frozen=True)
class Distillation:
    """A teacher, and how much of what it says is learned; a field of tasks whose nets have logits.

    The loss is `weight` T^2 KL(teacher || student), both softened by the temperature T, and 1 - `weight` of the task's
    own. T^2 keeps the gradient's size the same for all large T (section 2.1); the divergence is summed over classes and
    the mean is the task's, over images or pixels. It differs from the paper's cross-entropy by the teacher's entropy,
    which has no gradient. The teacher sees the student's view of each image, as it is augmented, in evaluation mode. It
    is no part of checkpoints, and evaluation and prediction do without.

    Example:
        Classification(distillation=Distillation(load_run("runs/teacher").model, "runs/teacher", temperature=4.0))
    """

    teacher: nn.Module
    """A net with the student's classes."""
    run: str | None = None
    """Directory of the run that has the teacher's weights (or of what import-weights wrote); None: random ones, as a
    control and for --debug."""
    checkpoint: str = "latest"
    """"latest", "best" or a step."""
    averaged: bool = False
    """Take the run's averaged weights."""
    temperature: float = 4.0
    weight: float = 0.9
    """Of the soft targets, in [0, 1]; the labels have the rest."""
    hints: tuple[tuple[str, str], ...] = ()
    """FitNets (Romero et al. 2015, section 2.2): pairs of an auxiliary head of the student that is a `HintRegressor`,
    and the endpoint of the teacher whose map it learns to give. The paper trains by hints alone first (weight 0 and a
    large hint_weight), and starts a second run from that."""
    hint_weight: float = 1.0
    """Of half the mean squared distance of each pair's maps."""

    def __post_init__(self):
        if not 0 < self.temperature < math.inf:
            raise UserError(f"distillation.temperature is {self.temperature}; it must be positive, and finite")
        if not 0 <= self.weight <= 1:
            raise UserError(f"distillation.weight is {self.weight}; it must be in [0, 1]")
        check_pairs("distillation.hints", self.hints, "(head of the student, endpoint of the teacher)")
        if not 0 <= self.hint_weight < math.inf:
            raise UserError(f"distillation.hint_weight is {self.hint_weight}; it must be at least 0, and finite")

    def init(self, image_shape: tuple[int, int, int]) -> Variables:
        """Variables of the teacher, random, for images of (height, width, channels)."""
        images = jnp.zeros((1, *image_shape), jnp.float32)
        return self.teacher.init(jax.random.key(0), images, train=False)

    def teach(self, variables: Variables, images: jax.Array, student: Outputs, *, train: bool) -> "Taught":
        """What the student has to learn of normalised images [B, H, W, C] for which it gave these outputs; the
        teacher's variables are among `variables`. Hints are for training: auxiliary heads answer there alone.

        Raises UserError if the teacher gives other logits than the student, or hints do not fit.
        """
        # An argument of the step that is not differentiated has no gradient anyway; this says so.
        variables = jax.lax.stop_gradient(variables[TEACHER])
        logits = cast(jax.Array, self.teacher.apply(variables, images, train=False))
        if logits.shape != student.logits.shape:
            raise UserError(
                f"distillation: the teacher's logits are {list(logits.shape)}, the student's "
                f"{list(student.logits.shape)}; both need the same classes"
            )
        hints = jnp.float32(0)
        if self.hints and train:
            ends: Any = self.teacher.apply(variables, images, train=False, method="features")
            for ours, theirs in self.hints:
                hints += self.hint_weight * self._hint_loss(ours, theirs, student.aux, ends)
        used = {ours for ours, _ in self.hints}
        aux = {name: out for name, out in student.aux.items() if name not in used}
        return Taught(self.weight, self.soft_losses(student.logits, logits), hints, aux)

    def soft_losses(self, student: jax.Array, teacher: jax.Array) -> jax.Array:
        """Logits [..., K] of both -> T^2 KL(teacher || student) [...], float32."""
        t = self.temperature
        log_student, log_teacher = (jax.nn.log_softmax(x.astype(jnp.float32) / t) for x in (student, teacher))
        return t**2 * jnp.sum(jnp.exp(log_teacher) * (log_teacher - log_student), axis=-1)

    def _hint_loss(
        self, ours: str, theirs: str, maps: Mapping[str, jax.Array], ends: Mapping[str, jax.Array]
    ) -> jax.Array:
        """Half the mean squared distance of the map of a student's auxiliary head from the teacher's."""
        for name, there, whose in (
            (ours, maps, "the student has no auxiliary head"),
            (theirs, ends, "the teacher has no endpoint"),
        ):
            if name not in there:
                raise UserError(f"distillation.hints: {whose} {name!r}; there is {', '.join(there) or 'none'}")
        own, hint = maps[ours].astype(jnp.float32), ends[theirs].astype(jnp.float32)
        if own.shape != hint.shape:
            raise UserError(
                f"distillation.hints: {ours!r} of the student is {list(own.shape)}, {theirs!r} of the teacher "
                f"{list(hint.shape)}; they must be of one size (HintRegressor(channels) sets the last)"
            )
        return 0.5 * jnp.square(own - hint).mean()


@dataclasses.dataclass(frozen=True)
class Taught:
    """Of one batch."""

    weight: float
    losses: jax.Array
    """Of the soft targets, float32 [B] or [B, H, W]."""
    hints: jax.Array
    """The weighted loss of the hints, a scalar."""
    aux: Mapping[str, jax.Array]
    """The student's auxiliary logits: what learns no hint."""

    def added_to(self, hard: jax.Array, soft: jax.Array) -> jax.Array:
        """The loss, from the reduced losses of the labels and of the soft targets."""
        return (1 - self.weight) * hard + self.weight * soft + self.hints


def distillation_of(task: Any) -> Distillation | None:
    """What the task learns from a teacher, if it does."""
    return getattr(task, "distillation", None)
