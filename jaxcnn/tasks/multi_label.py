"""Multi-label classification: several classes may be in one image, each a yes or no of its own."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxcnn.data import imagenet
from jaxcnn.data.examples import Examples
from jaxcnn.data.fields import Field, Fields
from jaxcnn.errors import UserError
from jaxcnn.metrics.ranking import average_precisions
from jaxcnn.tasks.captions import captioned
from jaxcnn.tasks.losses import check_weights
from jaxcnn.tasks.task import Answer, Batch, Direction, Records, Sums, Variables, apply_training, check_classes, means

POINTS = {"plain": "mean_ap", "voc07": "mean_ap_voc07", "voc10": "mean_ap_voc10"}
"""The name of the mean by each way to measure average precision (metrics/ranking.py)."""


@dataclasses.dataclass(frozen=True)
class MultiLabel:
    """Which classes are in an image, by a net whose outputs are logits [B, classes]: the sigmoid of each is its
    probability, and above `threshold` the answer is yes.

    The loss of an image is the mean over the classes of the binary cross-entropy, PyTorch's BCEWithLogitsLoss; a class
    of which an example does not tell ("unsure") counts nowhere, and the mean is over all classes all the same. Images
    have "labels", as `ImageLabels` and `LabelTable` make them.

    Example:
        Experiment(
            model=create_model("resnet50", classes=20),
            data=Data((224, 224, 3), ImageLabels(VOCDetection("VOCdevkit/VOC2007")), "train", ("val",), ("test",), ...),
            task=MultiLabel(),
        )
    """

    threshold: float = 0.5
    """Of the probability, for the answer, F1 and the exact match; average precision has none."""
    positive_weights: tuple[float, ...] | None = None
    """Of each class: multiplies the loss of the images that have it (PyTorch's pos_weight)."""
    auxiliary_weight: float = 0.3
    """Weight of each auxiliary head's loss; without effect if the model has none."""
    max_labels: int = 100
    """Of an image; one with more is a broken one."""
    classes: tuple[str, ...] = ()
    """Names in the order of the labels, whose average precisions are metrics too, such as "ap_car"; (): means alone."""

    def __post_init__(self):
        if not 0 < self.threshold < 1:
            raise UserError(f"task.threshold is {self.threshold}; it must be above 0 and below 1")
        if self.max_labels < 1:
            raise UserError(f"task.max_labels is {self.max_labels}; it must be at least 1")
        if not 0 <= self.auxiliary_weight < float("inf"):
            raise UserError(f"task.auxiliary_weight is {self.auxiliary_weight}; it must be at least 0, and finite")
        check_weights("task.positive_weights", self.positive_weights)

    @property
    def directions(self) -> Mapping[str, Direction]:
        """The mean average precision, by which it is judged, and the others."""
        names = (*POINTS.values(), "f1", "macro_f1", "exact_match")
        classes: dict[str, Direction] = {f"ap_{name}": "higher" for name in self.classes}
        return {**dict.fromkeys(names, "higher"), "loss": "lower", **classes}

    @property
    def shares(self) -> tuple[str, ...]:
        return ("exact_match",)

    def fields(self, image_shape: tuple[int, int, int]) -> Fields:
        """The classes that are in the image, and those of which it is not told, padded with -1."""
        return {name: Field((self.max_labels,), "int32", fill=-1) for name in ("labels", "unsure")}

    def check(self, model: nn.Module, examples: Examples) -> None:
        """Raises UserError if the model, the weights or the names are for other classes than the examples'."""
        check_classes(model, examples)
        there = len(examples.classes)
        for field in ("positive_weights", "classes"):
            given = getattr(self, field)
            if given and len(given) != there:
                raise UserError(
                    f"task.{field} has {len(given)} entries, but {examples.name}/{examples.split} has {there} classes"
                )

    def loss(
        self, model: nn.Module, variables: Variables, batch: Batch, *, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[jax.Array, Variables, Sums]:
        """The mean over the images, with the weighted means of the auxiliary heads' added."""
        outputs, updated = apply_training(model, variables, batch["image"], train=train, rngs=rngs)
        truth = truth_of(batch, model.classes)
        losses = self._losses(outputs.logits, truth)
        sums = self._sums(outputs.logits, truth, losses, jnp.ones(len(losses), bool))
        total = losses.mean()
        for logits in outputs.aux.values():
            total += self.auxiliary_weight * self._losses(logits, truth).mean()
        return total, updated, sums

    def outputs(self, model: nn.Module, variables: Variables, batch: Batch) -> tuple[Sums, Records]:
        """Sums by the cross-entropy without weights, and the probabilities and the truth of each image."""
        logits = cast(jax.Array, model.apply(variables, batch["image"], train=False))
        truth = truth_of(batch, model.classes)
        losses = dataclasses.replace(self, positive_weights=None)._losses(logits, truth)
        records = {"probabilities": jax.nn.sigmoid(logits.astype(jnp.float32)), "truth": truth}
        return self._sums(logits, truth, losses, batch["valid"]), records

    def metrics(self, sums: Mapping[str, np.ndarray], records: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Mean average precisions over the classes that are in some image (in evaluation; their order needs all
        images), F1 over all answers, the mean of the F1 of the classes that are in some image or were answered, the
        share of images all of whose answers are right, the mean loss, and the count."""
        right, wrong, missed = (np.asarray(sums[name], np.float64) for name in ("right", "wrong", "missed"))
        found = means({name: sums[name] for name in ("exact_match", "loss", "count")})
        each = _ratio(2 * right, 2 * right + wrong + missed)
        found["f1"] = float(_ratio(2 * right.sum(), 2 * right.sum() + wrong.sum() + missed.sum()))
        found["macro_f1"] = _mean(each)
        if records:
            measured = average_precisions(records["probabilities"], records["truth"])
            found |= {name: _mean(measured[way]) for way, name in POINTS.items()}
            found |= {f"ap_{name}": float(value) for name, value in zip(self.classes, measured["plain"], strict=False)}
        return found

    def predict(self, model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
        """The probability of each class, [B, classes]."""
        logits = cast(jax.Array, model.apply(variables, images, train=False))
        return jax.nn.sigmoid(logits.astype(jnp.float32))

    def answer(self, predicted: Any, image: np.ndarray, classes: tuple[str, ...], top: int = 5) -> Answer:
        """All classes above the threshold, the most probable first, however many; or the nearest, said to be none."""
        probabilities = np.asarray(predicted)
        order = np.argsort(-probabilities, kind="stable")
        labels = [(classes[k], float(probabilities[k])) for k in order if probabilities[k] > self.threshold]
        rows = [(imagenet.described(name), f"{value:.4f}") for name, value in labels]
        if not rows:
            nearest = imagenet.described(classes[order[0]])
            rows = [(f"none above {self.threshold:g}; nearest: {nearest}", f"{probabilities[order[0]]:.4f}")]
        values = {"labels": labels, "probabilities": dict(zip(classes, probabilities.tolist(), strict=True))}
        return Answer(("label", "probability"), rows, values)

    def draw_truth(self, truth: Mapping[str, np.ndarray], image: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
        """The image with the names of its labels beneath, a "?" behind those of which it is not told."""
        names = [classes[label] for label in truth["labels"] if label >= 0]
        names += [f"{classes[label]}?" for label in truth["unsure"] if label >= 0]
        return captioned(image, ", ".join(names) or "(no label)")

    def _losses(self, logits: jax.Array, truth: jax.Array) -> jax.Array:
        """Of each image, float32 [B]."""
        losses = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), (truth == 1).astype(jnp.float32))
        if self.positive_weights is not None:
            losses *= jnp.where(truth == 1, jnp.asarray(self.positive_weights, jnp.float32), 1.0)
        return jnp.where(truth >= 0, losses, 0.0).mean(-1)

    def _sums(self, logits: jax.Array, truth: jax.Array, losses: jax.Array, valid: jax.Array) -> Sums:
        yes = jax.nn.sigmoid(logits.astype(jnp.float32)) > self.threshold
        told = (truth >= 0) & valid[:, None]
        true = truth == 1
        count = lambda which, *axes: jnp.sum(which, *axes, dtype=jnp.int32)  # noqa: E731
        return {
            # The loss of an image that is not valid may be anything, so it is selected away.
            "loss": jnp.sum(jnp.where(valid, losses, 0.0)),
            "exact_match": count(valid & ~((yes != true) & told).any(-1)),
            "right": count(told & yes & true, 0),
            "wrong": count(told & yes & ~true, 0),
            "missed": count(told & ~yes & true, 0),
            "count": count(valid),
        }


def truth_of(batch: Batch, classes: int) -> jax.Array:
    """int8 [B, classes] of a batch with "labels" and "unsure": 1 in the image, 0 not, -1 not told."""
    numbers = jnp.arange(classes)
    there, unsure = ((batch[name][..., None] == numbers).any(1) for name in ("labels", "unsure"))
    return jnp.where(there, 1, jnp.where(unsure, -1, 0)).astype(jnp.int8)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _mean(values: np.ndarray) -> float:
    """Of those that are there; NaN if none is."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
