"""Segmentation: a class for each pixel (Long, Shelhamer & Darrell 2015)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn import parts
from jaxcnn.data.examples import Examples
from jaxcnn.data.fields import Field, Fields
from jaxcnn.errors import UserError
from jaxcnn.metrics.confusion import count, from_words, to_words
from jaxcnn.metrics.mean_iou import frequency_weighted_iou, iou, mean_accuracy, mean_iou, pixel_accuracy
from jaxcnn.tasks.class_map import color, overlay_classes
from jaxcnn.tasks.distillation import Distillation
from jaxcnn.tasks.losses import CrossEntropy, Loss, check_weights
from jaxcnn.tasks.task import Answer, Batch, Direction, Records, Sums, Variables, apply_training, check_classes

UNLABELED = 255
"""What fills a mask outside its image. Never a class, so that it counts nowhere, whatever `ignore` is."""


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """The most probable class of each pixel, by a net whose outputs are logits [B, H, W, classes] at the image's size.

    Metrics are those of one confusion matrix over all pixels of a split (metrics/mean_iou.py), in the size in which the
    masks enter the batch. The protocol of VOC and of the papers is the size of the original images: let
    `data.preprocess` only pad them to one size, which fills masks with ignored pixels, and never resize or crop
    (docs/segmentation.md).

    Example:
        Experiment(model=create_model("fcn8s_vgg16", classes=21), task=Segmentation(), data=...)
    """

    criterion: Loss = CrossEntropy()
    """Of a pixel's logits and its class. Evaluation reports the plain cross-entropy."""
    reduction: Literal["mean", "sum"] = "mean"
    """What training minimises: "mean", over all pixels of the batch that count; "sum", over the pixels of an image,
    and the mean of that over the images, as the FCN's own solver has it (`normalize: false`). On images of H x W
    pixels that all count, "sum" with a rate r and a weight decay d takes the steps of "mean" with r H W and d / (H W).
    """
    class_weights: tuple[float, ...] | None = None
    """Multiplies the loss of each class's pixels; a "mean" is then over the weights (PyTorch's weighted mean)."""
    ignore: int = 255
    """Pixels whose truth is this value count nowhere. 255, which fills what is padded, never counts."""
    auxiliary_weight: float = 0.5
    """Of each auxiliary head's loss (0.5 in torchvision's references/segmentation/train.py); without effect if the
    model has none."""
    classes: tuple[str, ...] = ()
    """Names in the order of the labels, whose IoUs are metrics too, such as "iou_car"; (): means alone."""
    distillation: Distillation | None = None
    """A teacher whose answers are learned beside the masks, at the pixels that count."""

    def __post_init__(self):
        parts.check_part("task.criterion", self.criterion, parts.LOSS)
        if self.reduction not in ("mean", "sum"):
            raise UserError(f'task.reduction is {self.reduction!r}; it must be "mean" or "sum"')
        if not 0 <= self.auxiliary_weight < float("inf"):
            raise UserError(f"task.auxiliary_weight is {self.auxiliary_weight}; it must be at least 0, and finite")
        check_weights("task.class_weights", self.class_weights)
        if not 0 <= self.ignore <= 255:
            raise UserError(f"task.ignore is {self.ignore}; a mask has values from 0 to 255")

    @property
    def shares(self) -> tuple[str, ...]:
        return ()

    @property
    def directions(self) -> Mapping[str, Direction]:
        """The mean IoU, by which it is judged, and the others."""
        means: dict[str, Direction] = {
            "mean_iou": "higher",
            "pixel_accuracy": "higher",
            "mean_accuracy": "higher",
            "frequency_weighted_iou": "higher",
            "loss": "lower",
        }
        classes: dict[str, Direction] = {f"iou_{name}": "higher" for name in self.classes}
        taught: dict[str, Direction] = {} if self.distillation is None else {"soft_loss": "lower"}
        return means | classes | taught

    def fields(self, image_shape: tuple[int, int, int]) -> Fields:
        """A mask of the image's height and width; what is padded is ignored."""
        return {"mask": Field(image_shape[:2], "uint8", fill=UNLABELED)}

    def check(self, model: nn.Module, examples: Examples) -> None:
        """Raises UserError if the model, the weights or the names of classes do not fit the examples' classes."""
        there = examples.classes
        where = f"{examples.name}/{examples.split} has {len(there)}"
        if len(there) > 255:
            raise UserError(f"{where} classes; a mask is uint8 and 255 is no class, so there can be 255 at most")
        check_classes(model, examples)
        for field in ("class_weights", "classes"):
            given = getattr(self, field)
            if given and len(given) != len(there):
                raise UserError(f"task.{field} has {len(given)} entries, but {where} classes")
        # Made-up data (--debug) has other names altogether; of the same names another order or spelling is a mistake.
        if set(self.classes) & set(there) and self.classes != there:
            label = next(i for i, (ours, theirs) in enumerate(zip(self.classes, there, strict=True)) if ours != theirs)
            raise UserError(
                f"task.classes has {self.classes[label]!r} for label {label}, which is {there[label]!r} in "
                f"{examples.name}/{examples.split}; its classes are {', '.join(there)}"
            )

    def loss(
        self, model: nn.Module, variables: Variables, batch: Batch, *, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[jax.Array, Variables, Sums]:
        """The criterion of all pixels that count, reduced, with the auxiliary heads' and the teacher's added.

        The same with and without `accumulate`, whose microbatches are weighted by `normalizer`.
        """
        outputs, updated = apply_training(model, variables, batch["image"], train=train, rngs=rngs)
        truth = batch["mask"]
        losses, weights = self._weighted(outputs.logits, truth)
        sums = self._sums(outputs.logits, truth, losses, weights, jnp.int32(len(truth)))
        total, aux = self._reduced(losses, weights), outputs.aux
        if self.distillation is not None:
            taught = self.distillation.teach(variables, batch["image"], outputs, train=train)
            soft = jnp.where(weights > 0, weights * taught.losses, 0.0)
            total, aux = taught.added_to(total, self._reduced(soft, weights)), taught.aux
            sums["soft_loss"] = soft.sum()
        for logits in aux.values():
            total += self.auxiliary_weight * self._reduced(*self._weighted(logits, truth))
        return total, updated, sums

    def normalizer(self, model: nn.Module, batch: Batch) -> jax.Array:
        """The sum of the weights of the pixels that count; the number of images if the reduction is "sum"."""
        if self.reduction == "sum":
            return jnp.float32(len(batch["mask"]))
        return self._weights(batch["mask"], model.classes)[1].sum()

    def outputs(self, model: nn.Module, variables: Variables, batch: Batch) -> tuple[Sums, Records]:
        """Sums by the plain cross-entropy, without class weights, label smoothing or auxiliary heads."""
        logits = cast(jax.Array, model.apply(variables, batch["image"], train=False))
        truth = jnp.where(batch["valid"][:, None, None], batch["mask"], UNLABELED)
        plain = dataclasses.replace(self, criterion=CrossEntropy(), class_weights=None)
        losses, weights = plain._weighted(logits, truth)
        return self._sums(logits, truth, losses, weights, batch["valid"].sum(dtype=jnp.int32)), {}

    def metrics(self, sums: Mapping[str, np.ndarray], records: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Mean IoU, pixel accuracy, mean accuracy, frequency-weighted IoU, the mean loss of a pixel, the IoU of each
        class that has a name, and the count of images."""
        counts = from_words(sums["confusion"])
        weight = np.float64(sums["weight"])
        mean = {
            name: float(sums[name] / weight) if weight else float("nan")
            for name in ("loss", "soft_loss")
            if name in sums
        }
        return {
            "mean_iou": mean_iou(counts),
            "pixel_accuracy": pixel_accuracy(counts),
            "mean_accuracy": mean_accuracy(counts),
            "frequency_weighted_iou": frequency_weighted_iou(counts),
            **mean,
            **{f"iou_{name}": float(value) for name, value in zip(self.classes, iou(counts), strict=False)},
            "count": int(sums["count"]),
        }

    def predict(self, model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
        """The class of each pixel, uint8 [B, H, W]."""
        return cast(jax.Array, model.apply(variables, images, train=False)).argmax(-1).astype(jnp.uint8)

    def answer(self, predicted: Any, image: np.ndarray, classes: tuple[str, ...], top: int = 5) -> Answer:
        """The `top` classes that cover most of the image, and three pictures: "overlay", the classes over the image
        and a legend beneath it; "classes", the same colors alone; "mask", the label of each pixel as its grey level,
        which is a mask that Pascal VOC's layout takes."""
        labels = np.asarray(predicted)
        pixels = np.bincount(labels.reshape(-1), minlength=len(classes))
        order = [i for i in np.argsort(-pixels, kind="stable") if pixels[i]]
        coverage = {classes[i]: float(pixels[i] / labels.size) for i in order}
        rows = [(name, f"{share:.1%}") for name, share in list(coverage.items())[:top]]
        pictures = {
            "overlay": overlay_classes(image, labels, classes),
            "classes": color(labels),
            "mask": labels,
        }
        return Answer(("class", "share of the pixels"), rows, {"coverage": coverage}, pictures)

    def draw_truth(self, truth: Mapping[str, np.ndarray], image: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
        """The true classes over the image, with a legend beneath; what does not count shows the image alone."""
        mask = truth["mask"]
        return overlay_classes(image, np.where(mask < len(classes), mask, UNLABELED).astype(np.uint8), classes)

    def _weighted(self, logits: jax.Array, truth: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Weighted losses and weights, float32 [B, H, W]; both are 0 where a pixel does not count.

        Raises:
          UserError: the logits are not of the masks' size.
        """
        if logits.shape[:-1] != truth.shape:
            raise UserError(
                f"the model's logits are {list(logits.shape)}, but for masks {list(truth.shape)} they must be "
                f"{[*truth.shape, 'classes']}: a net for segmentation answers in the size of its images"
            )
        labels, weights = self._weights(truth, logits.shape[-1])
        # The loss of a pixel that does not count may be anything, so it is selected away and not multiplied by zero.
        return jnp.where(weights > 0, weights * self.criterion(logits, labels), 0.0), weights

    def _weights(self, truth: jax.Array, classes: int) -> tuple[jax.Array, jax.Array]:
        """Labels, int32, and weights, float32, of pixels, uint8 [B, H, W]; both are 0 where a pixel does not count."""
        counted = (truth != self.ignore) & (truth < classes)
        labels = jnp.where(counted, truth, 0).astype(jnp.int32)
        weights = counted.astype(jnp.float32)
        if self.class_weights is not None:
            weights *= jnp.asarray(self.class_weights, jnp.float32)[labels]
        return labels, weights

    def _reduced(self, losses: jax.Array, weights: jax.Array) -> jax.Array:
        """[B, H, W] and [B, H, W] -> a scalar; 0 if no pixel counts."""
        if self.reduction == "sum":
            return losses.sum() / len(losses)
        total = weights.sum()
        return losses.sum() / jnp.where(total > 0, total, 1.0)

    def _sums(
        self, logits: jax.Array, truth: jax.Array, losses: jax.Array, weights: jax.Array, images: jax.Array
    ) -> Sums:
        confusion = count(truth, logits.argmax(-1), logits.shape[-1], self.ignore)
        return {"confusion": to_words(confusion), "loss": losses.sum(), "weight": weights.sum(), "count": images}
