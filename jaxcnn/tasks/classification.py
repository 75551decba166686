"""Classification: one label for an image."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn import parts
from jaxcnn.data import imagenet
from jaxcnn.data.examples import Examples
from jaxcnn.data.fields import Field, Fields
from jaxcnn.errors import UserError
from jaxcnn.tasks.distillation import Distillation
from jaxcnn.tasks.losses import CrossEntropy, Loss, check_weights
from jaxcnn.tasks.mixing import Mixing, mixed
from jaxcnn.tasks.task import Answer, Batch, Direction, Records, Sums, Variables, apply_training, check_classes, means
from jaxcnn.tasks.views import Views

MIX = 0x6D6978
"""Keeps what mixing draws apart from dropout's."""


@dataclasses.dataclass(frozen=True)
class Classification:
    """The most probable class of an image, by a net whose outputs are logits [B, classes]."""

    criterion: Loss = CrossEntropy()
    """Of the logits and the labels: what training minimises the mean of. Evaluation reports the plain cross-entropy."""
    auxiliary_weight: float = 0.3
    """Weight of each auxiliary head's loss (GoogLeNet, section 5); without effect if the model has none."""
    distillation: Distillation | None = None
    """A teacher whose answers are learned beside the labels."""
    mix: tuple[Mixing, ...] = ()
    """Mixup(), CutMix(): each training image is mixed by one of them at random."""
    class_weights: tuple[float, ...] | None = None
    """Multiplies the loss of each class's images in training; the mean is then over the weights, as in PyTorch's
    CrossEntropyLoss(weight=...). Smoothed labels and mixed images count by the image's own label."""
    views: Views | None = None
    """TenCrop(224), Flips(), Dense(): evaluation and prediction average the probabilities of several views of an image;
    None: one view, the image."""

    @property
    def directions(self) -> Mapping[str, Direction]:
        names: dict[str, Direction] = {"accuracy": "higher", "top5": "higher", "loss": "lower"}
        return names if self.distillation is None else {**names, "soft_loss": "lower"}

    @property
    def shares(self) -> tuple[str, ...]:
        return ("accuracy", "top5")

    def __post_init__(self):
        parts.check_part("task.criterion", self.criterion, parts.LOSS)
        parts.check_parts("task.mix", self.mix, parts.MIXING)
        if self.views is not None:
            parts.check_part("task.views", self.views, parts.VIEWS)
        if not 0 <= self.auxiliary_weight < float("inf"):
            raise UserError(f"task.auxiliary_weight is {self.auxiliary_weight}; it must be at least 0, and finite")
        check_weights("task.class_weights", self.class_weights)

    def fields(self, image_shape: tuple[int, int, int]) -> Fields:
        return {"label": Field((), "int32")}

    def check(self, model: nn.Module, examples: Examples) -> None:
        """Raises UserError if the model or the weights are for another number of classes than the examples'."""
        check_classes(model, examples)
        if self.class_weights is not None and len(self.class_weights) != (there := len(examples.classes)):
            raise UserError(
                f"task.class_weights has {len(self.class_weights)} entries, but {examples.name}/{examples.split} has "
                f"{there} classes"
            )

    def loss(
        self, model: nn.Module, variables: Variables, batch: Batch, *, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[jax.Array, Variables, Sums]:
        """The mean of the criterion, with the weighted means of the auxiliary heads' and the teacher's added.

        Of a mixed image it is the criterion of both labels in their shares, which is that of a label in parts; accuracy
        counts the label of the larger one. With `class_weights` the mean is weighted, and so is the loss that is shown:
        the same with and without `accumulate`, whose microbatches are weighted by `normalizer`.
        """
        images, label = batch["image"], batch["label"]
        criterion = lambda logits: self.criterion(logits, batch["label"])  # noqa: E731
        if self.mix and train:
            images, other, share = mixed(self.mix, images, label, jax.random.fold_in(rngs["dropout"], MIX))
            label = jnp.where(share >= 0.5, label, other)
            criterion = lambda logits: (  # noqa: E731
                share * self.criterion(logits, batch["label"]) + (1 - share) * self.criterion(logits, other)
            )
        outputs, updated = apply_training(model, variables, images, train=train, rngs=rngs)
        weights = self._weights(batch)
        losses = criterion(outputs.logits)
        sums = classification_sums(outputs.logits, label, weights * losses, jnp.ones(losses.shape, bool))
        total, aux = mean(losses, weights), outputs.aux
        if self.distillation is not None:
            taught = self.distillation.teach(variables, images, outputs, train=train)
            total, aux = taught.added_to(total, mean(taught.losses, weights)), taught.aux
            sums["soft_loss"] = (weights * taught.losses).sum()
        if self.class_weights is not None:
            sums["weight"] = weights.sum()
        for logits in aux.values():
            total += self.auxiliary_weight * mean(criterion(logits), weights)
        return total, updated, sums

    def normalizer(self, model: nn.Module, batch: Batch) -> jax.Array:
        """The sum of the weights of the images: their number, without weights."""
        return self._weights(batch).sum()

    def _weights(self, batch: Batch) -> jax.Array:
        """Of each image, float32 [B]."""
        if self.class_weights is None:
            return jnp.ones(len(batch["label"]), jnp.float32)
        return jnp.asarray(self.class_weights, jnp.float32)[batch["label"]]

    def outputs(self, model: nn.Module, variables: Variables, batch: Batch) -> tuple[Sums, Records]:
        """Sums by the plain cross-entropy, without weights, label smoothing or auxiliary heads; of the mean probability
        if there are `views`. Records say which images are "right", bool [B]."""
        logits = self._scores(model, variables, batch["image"])
        losses = CrossEntropy()(logits, batch["label"])
        sums = classification_sums(logits, batch["label"], losses, batch["valid"])
        return sums, {"right": ranks(logits, batch["label"]) < 1}

    def metrics(self, sums: Mapping[str, np.ndarray], records: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Mean loss, accuracy (and top5, from six classes on) and the count."""
        found = means({name: value for name, value in sums.items() if name != "weight"})
        if "weight" in sums:
            weight = np.float64(sums["weight"])
            of = lambda name: float(sums[name] / weight) if weight else float("nan")  # noqa: E731
            found |= {name: of(name) for name in ("loss", "soft_loss") if name in sums}
        return found

    def predict(self, model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
        """Probabilities [B, classes]."""
        return jax.nn.softmax(self._scores(model, variables, images))

    def _scores(self, model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
        """[B, classes], of which the softmax is what counts: logits, or with `views` logarithms of probabilities."""
        if self.views is not None:
            return self.views.log_probabilities(model, variables, images)
        return cast(jax.Array, model.apply(variables, images, train=False))

    def answer(self, predicted: Any, image: np.ndarray, classes: tuple[str, ...], top: int = 5) -> Answer:
        """The `top` most probable classes, the most probable first; WordNet ids with what they mean."""
        found = most_probable(predicted, classes, top)
        rows = [(imagenet.described(name), f"{score:.4f}") for name, score in found]
        return Answer(("class", "probability"), rows, {"classes": found})


def mean(losses: jax.Array, weights: jax.Array) -> jax.Array:
    """The weighted mean, [B] of both; of nothing but images without weight, as a microbatch may be, 0."""
    total = weights.sum()
    return (weights * losses).sum() / jnp.where(total > 0, total, 1)


def most_probable(scores: np.ndarray, classes: tuple[str, ...], top: int) -> list[tuple[str, float]]:
    """The names of the `top` largest of one image's scores [classes], with these, the largest first."""
    order = np.argsort(-scores, kind="stable")[:top]
    return [(classes[i], float(scores[i])) for i in order]


def ranks(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """How many classes come before the label's, int [B]: those with a larger logit, or the same and a lower index, so
    that a net whose logits are all equal does not score 100%."""
    logits = logits.astype(jnp.float32)
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    before = jnp.arange(logits.shape[-1]) < labels[:, None]
    return jnp.sum((logits > own) | ((logits == own) & before) | jnp.isnan(logits), axis=-1)


def classification_sums(logits: jax.Array, labels: jax.Array, losses: jax.Array, valid: jax.Array) -> Sums:
    """Sums over the examples whose `valid` [B] is true: loss, accuracy (top-1), top5 (from six classes on), count.

    An example is right in the top k if fewer than k classes come before the label's, see `ranks`.
    """
    rank = ranks(logits, labels)
    # The loss of an example that is not valid may be anything, so it is selected away and not multiplied by zero.
    sums = {
        "loss": jnp.sum(jnp.where(valid, losses, 0.0)),
        "accuracy": jnp.sum(valid & (rank < 1)).astype(jnp.int32),
    }
    if logits.shape[-1] > 5:
        sums["top5"] = jnp.sum(valid & (rank < 5)).astype(jnp.int32)
    return sums | {"count": jnp.sum(valid).astype(jnp.int32)}
