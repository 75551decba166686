"""Task: what a batch means. Its loss, metrics, predictions and drawings; the loop knows none of them by name.

A task of your own is one file (docs/own_parts.md has one): a frozen dataclass with the members of `Task`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn.data.examples import Examples
from jaxcnn.data.fields import Fields
from jaxcnn.errors import UserError
from jaxcnn.metrics.average_precision import AveragePrecision
from jaxcnn.metrics.hits import ImageHits

Batch = dict[str, jax.Array]
Sums = dict[str, jax.Array]
"""Scalars and small arrays that add up over microbatches, batches and devices; "count", the examples, is among them."""
Records = dict[str, jax.Array]
"""Arrays [B, ...] of single examples, for metrics that do not add up."""
Variables = Mapping[str, Any]
"""{"params": ..., "batch_stats": ...}; frozen variables are among them."""
TEACHER = "teacher"
"""The collection that holds a teacher's variables (tasks/distillation.py); no model reads it."""
Direction = Literal["higher", "lower"]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a net says about one image: rows of two columns for a person, values for --json, and pictures by name."""

    columns: tuple[str, str]
    """What the rows hold, such as ("class", "probability")."""
    rows: list[tuple[str, str]]
    values: dict[str, Any]
    pictures: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """uint8 [H, W, 3] or [H, W], at the size of the image that was asked about, unless a legend stands beneath."""


@runtime_checkable
class Task(Protocol):
    """A frozen dataclass. Everything that runs on devices is a pure function, traced by jit."""

    if TYPE_CHECKING:  # the command line can tell what a value is by the methods of a protocol only

        @property
        def directions(self) -> Mapping[str, Direction]:
            """Every metric that it can have, in the order in which they are shown, and which way is better.

            The first is its score: what best checkpoints and plateau schedules watch unless they name another.
            """
            ...

        @property
        def shares(self) -> tuple[str, ...]:
            """Metrics that are shares of images, each counted or not: studies bound these over images too."""
            ...

    def fields(self, image_shape: tuple[int, int, int]) -> Fields:
        """What a batch holds beside "image": {"label": Field((), "int32")}."""
        ...

    def check(self, model: nn.Module, examples: Examples) -> None:
        """Raises UserError if the model does not fit the examples; called before anything is compiled."""
        ...

    def loss(
        self, model: nn.Module, variables: Variables, batch: Batch, *, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[jax.Array, Variables, Sums]:
        """The loss to minimise, the new non-trainable collections, and sums for the logged interval.

        `batch["image"]` is normalised. The loss is a mean over the examples of `batch`, whose number does not depend
        on the devices; sums are sums over them. A task whose loss is a mean over something else, such as pixels, has
        `normalizer(model, batch)` as well, see `normalizer_of`.
        """
        ...

    def outputs(self, model: nn.Module, variables: Variables, batch: Batch) -> tuple[Sums, Records]:
        """Evaluation of a batch whose examples count only if `batch["valid"]` [B] is true."""
        ...

    def metrics(self, sums: Mapping[str, np.ndarray], records: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metrics on the host, from added-up sums of `loss` or of `outputs` and the records of all valid examples.

        "count" is always among them. A metric of nothing is NaN.
        """
        ...

    def predict(self, model: nn.Module, variables: Variables, images: jax.Array) -> Any:
        """Normalised images [B, H, W, C] -> arrays [B, ...], which `answer` reads."""
        ...

    def answer(self, predicted: Any, image: np.ndarray, classes: tuple[str, ...], top: int = 5) -> Answer:
        """What to show of one image: its part of `predicted`, and the image as the net saw it, uint8 [H, W, C]."""
        ...


def score_of(task: Task) -> str:
    """The metric by which the task is judged."""
    return next(iter(task.directions))


def inputs_of(task: Task) -> tuple[str, ...]:
    """The fields of a batch that `predict` reads beside the images, by keyword: the task's `inputs`, or none."""
    return getattr(task, "inputs", ())


@runtime_checkable
class Placing(Task, Protocol):
    """A task that answers with places in the image, such as boxes, and can tell them in the original one."""

    def to_original(self, predicted: Any, placement: np.ndarray, size: tuple[int, int]) -> Any:
        """What was predicted of one image, in pixels of the original, (height, width) `size`. `placement` is float32
        [4] (data/fields.py)."""
        ...


@runtime_checkable
class Drawing(Task, Protocol):
    """A task that can draw what is true of an image, for pages that have it beside the answer."""

    def draw_truth(self, truth: Mapping[str, np.ndarray], image: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
        """What the task's fields `truth` say of an image, as the net saw it, uint8 [H, W, C]: uint8 [H', W', 3]."""
        ...


@runtime_checkable
class Detecting(Task, Protocol):
    """A task whose answers are boxes with scores: pages show its curves and its mistakes, and the protocol of its
    metrics can be chosen anew."""

    if TYPE_CHECKING:

        @property
        def protocol(self) -> str:
            """The name of that by which boxes are measured (metrics/average_precision.py)."""
            ...

    def records(self, predicted: Any, batch: Mapping[str, Any]) -> Records:
        """What was predicted of a batch and what is true of it, arrays [B, ...]; batches are joined."""
        ...

    def measure(self, records: Mapping[str, np.ndarray]) -> AveragePrecision:
        """What the protocol says of these images."""
        ...

    def hits(self, records: Mapping[str, np.ndarray]) -> list[ImageHits]:
        """Of each image: which detections are right, of those that a person is shown, and which objects were missed."""
        ...


def check_classes(model: nn.Module, examples: Examples, note: str = "") -> None:
    """Raises UserError, with the note behind it, if the model has another number of classes than the examples."""
    if model.classes != (there := len(examples.classes)):
        raise UserError(
            f"the model has {model.classes} classes, but {examples.name}/{examples.split} has {there}; create the "
            f"model with classes={there}{note}"
        )


def normalizer_of(task: Task, model: nn.Module, batch: Batch) -> jax.Array:
    """What the mean in the loss of a batch is divided by, float32: `task.normalizer(model, batch)`, or its examples.

    The microbatches of a step are weighted by it, so that its loss is the mean over the whole batch. It is a function
    of the batch alone: all microbatches are known before the first is run.
    """
    own = getattr(task, "normalizer", None)
    return jnp.float32(len(batch["image"])) if own is None else own(model, batch)


def better(direction: Direction, value: float) -> float:
    """A metric as a score: higher is better."""
    return value if direction == "higher" else -value


def means(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Each sum over the count, and the count; NaN if it is 0."""
    count = int(sums["count"])
    found = {name: float(np.float64(value) / count) if count else float("nan") for name, value in sums.items()}
    return found | {"count": count}


def apply_training(
    model: nn.Module,
    variables: Variables,
    images: jax.Array,
    *,
    train: bool,
    rngs: dict[str, jax.Array],
    method: str | Callable[..., Any] = "outputs",
) -> tuple[Any, Variables]:
    """The model's outputs, and its non-trainable collections after them: updated when `train`, else as they were."""
    own = {name: value for name, value in variables.items() if name != TEACHER}
    collections = {name: value for name, value in own.items() if name != "params"}
    if not train:
        return model.apply(own, images, train=False, method=method), collections
    return model.apply(own, images, train=True, rngs=rngs, mutable=list(collections), method=method)
