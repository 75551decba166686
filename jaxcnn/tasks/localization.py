"""Localisation: the class of an image's one object and the box around it (ILSVRC's task between both others)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn import parts
from jaxcnn.data.boxed import first_truths
from jaxcnn.data.examples import Examples
from jaxcnn.data.fields import PLACEMENT, Field, Fields, box_fields
from jaxcnn.data.geometry import to_original
from jaxcnn.errors import UserError
from jaxcnn.metrics.localization import baselines, localization_accuracy, normalized_mean_error
from jaxcnn.models.localizer import Localizer, LocalizerOutputs
from jaxcnn.ops import boxes as box_ops
from jaxcnn.tasks.classification import most_probable
from jaxcnn.tasks.drawn_boxes import corners, draw_boxes, draw_points, draw_true_boxes
from jaxcnn.tasks.losses import CrossEntropy, Loss, smooth_l1
from jaxcnn.tasks.task import Answer, Batch, Direction, Records, Sums, Variables, apply_training, check_classes

RIGHT = 0.5
"""The IoU from which a box is right (ILSVRC, Russakovsky et al. 2015, section 4.2)."""


@dataclasses.dataclass(frozen=True)
class BoxRegression:
    """How far four numbers are from the true ones: (x of the middle, y of the middle, width, height), as parts of the
    image's sides.

    The default is VGG's "Euclidean loss" (Simonyan & Zisserman 2015, appendix A.1), of which a half is taken, as in
    Caffe's layer of that name: half the sum of the four squares. Departures: the papers name no weight beside the
    classes' loss, since they train the heads one after another.
    """

    distance: Literal["euclidean", "smooth_l1"] = "euclidean"
    """"smooth_l1" is Fast R-CNN's (Girshick 2015, equation 3), the sum over the four: linear from `beta` on."""
    beta: float = 1.0
    """The difference at which "smooth_l1" becomes linear, in parts of the image's side: 1 is beyond almost all, so that
    a smaller one, such as 0.1, is what tells it from the other."""
    coordinates: Literal["center", "edges"] = "center"
    """What is compared: the numbers themselves, or the box's (left, top, right, bottom) (OverFeat, section 4.1)."""

    def __post_init__(self):
        for field, choices in (("distance", ("euclidean", "smooth_l1")), ("coordinates", ("center", "edges"))):
            if getattr(self, field) not in choices:
                raise UserError(
                    f"BoxRegression: {field} is {getattr(self, field)!r}; it must be {' or '.join(choices)}"
                )
        if not 0 < self.beta < float("inf"):
            raise UserError(f"BoxRegression: beta is {self.beta}; it must be above 0, and finite")

    def __call__(self, predicted: jax.Array, true: jax.Array) -> jax.Array:
        """Boxes [..., 4], (x, y, width, height) in parts of the sides -> losses [...], float32."""
        if self.coordinates == "edges":
            predicted, true = box_ops.from_center(predicted), box_ops.from_center(true)
        return self.of(predicted - true).sum(-1)

    def of(self, difference: jax.Array) -> jax.Array:
        """The loss of each number."""
        if self.distance == "euclidean":
            return jnp.square(difference) / 2
        return smooth_l1(difference, self.beta)


@flax.struct.dataclass
class Located:
    """What a net says of each image.

    Attributes:
      probabilities: float32 [B, classes].
      boxes: float32 [B, 4], the box of the most probable class, (xmin, ymin, xmax, ymax) in pixels, clipped.
      points: float32 [B, N, 2], (x, y) of the landmarks.
    """

    probabilities: jax.Array
    boxes: jax.Array
    points: jax.Array


@dataclasses.dataclass(frozen=True)
class Localization:
    """The class of the one object of an image, its box, and its landmarks, by a Localizer.

    The object of an image is its largest box that is neither difficult nor a crowd, and its class is the image's. Any
    box of that class is right in evaluation. An image without such a box, such as one that a crop has lost, is not
    learned and not counted but as an image.

    Metrics: "top1_localization", class and box are right (an IoU of 0.5); "gt_known_localization", the box is right,
    if each class has a box of its own that of the true class; "mean_box_iou"; "accuracy" of the class. Beside them
    what a net would score that always gave the whole image as the box, or a box of the mean size in the middle: these
    say what the box head is worth. Boxes are compared in pixels of the images as the source gives them.

    Landmarks are the part "points" of an example, [N, 2]; those that are NaN are not visible and not learned.
    "normalized_mean_error" is their mean distance over the root of the box's area.

    Example:
        net = create_model("vgg11_bn", classes=20)
        Experiment(model=Localizer(net.backbone, net.head), task=Localization(), data=...)
    """

    criterion: Loss = CrossEntropy()
    """Of the logits and the class. Evaluation reports the plain cross-entropy."""
    box: BoxRegression = BoxRegression()
    box_weight: float = 1.0
    """Multiplies the box's loss. Parts of an image's sides are small numbers: 10 or so brings it to the classes'."""
    points: int = 0
    """How many landmarks are learned; the model's points_head gives as many pairs."""
    points_weight: float = 1.0
    max_boxes: int = 20
    """Room for the boxes of an image; an image with more is a broken example."""

    def __post_init__(self):
        parts.check_part("task.criterion", self.criterion, parts.LOSS)
        if not isinstance(self.box, BoxRegression):
            raise UserError(f"task.box is {self.box!r}; it must be a BoxRegression")
        for name in ("box_weight", "points_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"task.{name} is {getattr(self, name)}; it must be at least 0, and finite")
        if self.max_boxes < 1 or self.points < 0:
            raise UserError(
                f"task.max_boxes is {self.max_boxes} and task.points {self.points}; they are at least 1 and 0"
            )

    @property
    def shares(self) -> tuple[str, ...]:
        return ("top1_localization", "gt_known_localization", "accuracy")

    @property
    def directions(self) -> Mapping[str, Direction]:
        higher = (
            "top1_localization",
            "gt_known_localization",
            "mean_box_iou",
            "accuracy",
            "whole_image_localization",
            "center_box_localization",
        )
        errors = ("normalized_mean_error",) if self.points else ()
        scores: dict[str, Direction] = dict.fromkeys(higher, "higher")
        lower: dict[str, Direction] = dict.fromkeys((*errors, "loss", *self._losses), "lower")
        return scores | lower

    @property
    def _losses(self) -> tuple[str, ...]:
        return ("class_loss", "box_loss", *(("points_loss",) if self.points else ()))

    def fields(self, image_shape: tuple[int, int, int]) -> Fields:
        """Boxes, landmarks, and where the image comes from."""
        points: Fields = {"points": Field((self.points, 2), "float32", fill=float("nan"))} if self.points else {}
        return box_fields(self.max_boxes) | points | PLACEMENT

    def check(self, model: nn.Module, examples: Examples) -> None:
        """Raises UserError if the model is no Localizer of the examples' classes and the task's landmarks, or the
        examples have no boxes."""
        where = f"{examples.name}/{examples.split}"
        if not isinstance(model, Localizer):
            raise UserError(
                f"localisation needs jc.Localizer(net.backbone, net.head), of any net, and not {type(model).__name__}"
            )
        check_classes(model, examples)
        if model.points != self.points:
            raise UserError(
                f"task.points is {self.points}, but the model gives {model.points} landmarks; "
                f"points_head=jc.RegressionHead({2 * self.points}) gives as many"
                if self.points
                else f"the model gives {model.points} landmarks; the task learns them with points={model.points}"
            )
        first_truths(examples, 1, "localisation")
        # Made-up data (--debug) shows no landmark: nothing is learned of them there.
        if self.points and examples.name != "synthetic" and "points" not in examples[0]:
            raise UserError(f'{where} has no landmarks: its examples lack "points" (docs/own_parts.md)')

    def loss(
        self, model: nn.Module, variables: Variables, batch: Batch, *, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[jax.Array, Variables, Sums]:
        """The mean over the images that have an object of the sum of the parts; 0 if none has one."""
        outputs, updated = apply_training(model, variables, batch["image"], train=train, rngs=rngs)
        losses, counted = self._of(outputs, batch, self.criterion)
        sums = self._sums(losses, counted, jnp.ones(counted.shape, bool))
        return sums["loss"] / jnp.maximum(sums["objects"], 1), updated, sums

    def normalizer(self, model: nn.Module, batch: Batch) -> jax.Array:
        """How many images have an object, by which microbatches are weighted."""
        return self._object(batch)[2].sum(dtype=jnp.float32)

    def outputs(self, model: nn.Module, variables: Variables, batch: Batch) -> tuple[Sums, Records]:
        """Sums by the plain cross-entropy; the box, the class and the truth of each image."""
        outputs = cast(LocalizerOutputs, model.apply(variables, batch["image"], train=False, method="outputs"))
        losses, counted = self._of(outputs, batch, CrossEntropy())
        return self._sums(losses, counted, batch["valid"]), self.records(outputs, batch)

    def records(self, outputs: LocalizerOutputs, batch: Batch) -> Records:
        """The box of each image's true class, the class, the landmarks, and the truth: what is measured."""
        size, (row, label, counted) = self._size(batch["image"]), self._object(batch)
        records = {
            "found_box": _pixels(_chosen(outputs.boxes, label), size),
            "found_class": outputs.logits.argmax(-1),
            "object": jnp.where(counted, row, -1),
            "found_points": outputs.points * jnp.array(size[::-1], jnp.float32),
        }
        return records | {name: batch[name] for name in self.fields((*size, 3))}

    def metrics(self, sums: Mapping[str, np.ndarray], records: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The mean losses, and with records the accuracies and what always the same box scores; NaN of no object."""
        objects = int(sums["objects"])
        means = {name: float(sums[name] / objects) if objects else float("nan") for name in ("loss", *self._losses)}
        count = {"count": int(sums["count"])}
        return (self.measure(records) if records else {}) | means | count

    def measure(self, records: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The accuracies of these records, and what always the same box scores; NaN of no object."""
        rows = np.flatnonzero(records["object"] >= 0)
        found, truths, labels = self.compared(records)
        origin = records["placement"][rows], records["original_size"][rows]
        predicted = records["found_class"][rows]
        measured = localization_accuracy(found, truths, labels, predicted, RIGHT)
        measured["accuracy"] = float((labels == predicted).mean()) if len(rows) else float("nan")
        always = baselines(truths, origin[1], labels, (RIGHT,)) if len(rows) else {}
        for name in ("whole_image", "center_box"):
            measured[f"{name}_localization"] = always[name][RIGHT] if always else float("nan")
        if self.points:
            true = [truth["boxes"][row] for truth, row in zip(truths, records["object"][rows], strict=True)]
            measured["normalized_mean_error"] = normalized_mean_error(
                _points_there(records["found_points"][rows], *origin),
                _points_there(records["points"][rows], *origin),
                np.reshape(true, (-1, 4)),
            )
        return measured

    def compared(
        self, records: Mapping[str, np.ndarray], box: str = "found_box"
    ) -> tuple[np.ndarray, list[dict[str, np.ndarray]], np.ndarray]:
        """Boxes [N, 4] of the images that have an object, their truths and their objects' classes [N], in pixels of the
        images as the source gives them. `box` is the record that is compared."""
        rows = np.flatnonzero(records["object"] >= 0)
        origin = records["placement"][rows], records["original_size"][rows]
        boxes = to_original(records["boxes"][rows], *origin)
        left_out = records["difficult"][rows] | records["crowd"][rows]
        kinds = np.where(left_out, -1, records["classes"][rows])
        truths = [{"boxes": each, "classes": kind} for each, kind in zip(boxes, kinds, strict=True)]
        found = to_original(records[box][rows][:, None], *origin)[:, 0]
        return found, truths, records["classes"][rows, records["object"][rows]]

    def predict(self, model: nn.Module, variables: Variables, images: jax.Array) -> Located:
        """Probabilities, the box of the most probable class and the landmarks, in pixels of the images given."""
        outputs = cast(LocalizerOutputs, model.apply(variables, images, train=False, method="outputs"))
        size = self._size(images)
        return Located(
            jax.nn.softmax(outputs.logits),
            _pixels(_chosen(outputs.boxes, outputs.logits.argmax(-1)), size),
            outputs.points * jnp.array(size[::-1], jnp.float32),
        )

    def to_original(self, predicted: Any, placement: np.ndarray, size: tuple[int, int]) -> Located:
        """What was predicted of one image, in pixels of the original one, whose (height, width) is `size`."""
        return predicted.replace(
            boxes=to_original(predicted.boxes[None], placement, np.array(size))[0],
            points=_points_there(predicted.points, placement, np.array(size)),
        )

    def answer(self, predicted: Any, image: np.ndarray, classes: tuple[str, ...], top: int = 5) -> Answer:
        """The `top` most probable classes, the first with its box; the picture "box"."""
        found = most_probable(np.asarray(predicted.probabilities), classes, top)
        box = [round(float(side), 2) for side in predicted.boxes]
        at = f" at {corners(box)}"
        rows = [(name, f"{score:.4f}{'' if number else at}") for number, (name, score) in enumerate(found)]
        values: dict[str, Any] = {"classes": found, "box": box}
        label = int(np.argmax(predicted.probabilities))
        name, score = found[0]
        picture = draw_boxes(image, np.asarray(predicted.boxes)[None], [label], [f"{name} {score:.2f}"])
        if self.points:
            values["points"] = [[round(float(each), 2) for each in point] for point in predicted.points]
            picture = draw_points(picture, np.asarray(predicted.points) * (picture.shape[1] / image.shape[1]))
        return Answer(("class", "probability and box"), rows, values, {"box": picture})

    def draw_truth(self, truth: Mapping[str, np.ndarray], image: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
        """The true boxes, dashed, with their names, and the landmarks; "?" behind boxes that are not learned."""
        picture = draw_true_boxes(image, truth, classes)
        if self.points:
            picture = draw_points(picture, truth["points"] * (picture.shape[1] / image.shape[1]))
        return picture

    def _of(self, outputs: LocalizerOutputs, batch: Batch, criterion: Loss) -> tuple[dict[str, jax.Array], jax.Array]:
        """{part: losses [B]}, each with its weight, and which images count, bool [B]."""
        row, label, counted = self._object(batch)
        size = self._size(batch["image"])
        sides = jnp.array(size[::-1], jnp.float32)
        true = jnp.take_along_axis(batch["boxes"], row[:, None, None], 1)[:, 0]
        true = box_ops.to_center(true) / jnp.concatenate([sides, sides])
        losses = {
            "class_loss": criterion(outputs.logits, label),
            "box_loss": self.box_weight * self.box(_chosen(outputs.boxes, label), true),
        }
        if self.points:
            points = batch["points"] / sides
            seen = ~jnp.isnan(points)
            # Selected before the loss, whose gradient at NaN would be NaN even if it were multiplied by zero.
            difference = jnp.where(seen, outputs.points - points, 0.0)
            losses["points_loss"] = self.points_weight * self.box.of(difference).sum((1, 2))
        return losses, counted

    def _object(self, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The row of the object of each image, its class (0 without one), and whether there is one, each [B]."""
        there = (batch["classes"] >= 0) & ~batch["difficult"] & ~batch["crowd"]
        sides = batch["boxes"][..., 2:] - batch["boxes"][..., :2]
        there &= (sides > 0).all(-1)
        row = jnp.where(there, sides.prod(-1), -1.0).argmax(-1)
        counted = there.any(-1)
        label = jnp.take_along_axis(batch["classes"], row[:, None], 1)[:, 0]
        return row, jnp.where(counted, label, 0), counted

    def _size(self, images: jax.Array) -> tuple[int, int]:
        return images.shape[1], images.shape[2]

    def _sums(self, losses: Mapping[str, jax.Array], counted: jax.Array, valid: jax.Array) -> Sums:
        # The loss of an image that does not count may be anything, so it is selected away and not multiplied by zero.
        sums = {name: jnp.where(valid & counted, loss, 0.0).sum() for name, loss in losses.items()}
        whole = jnp.stack([*sums.values()]).sum()
        numbers = {"objects": (valid & counted).sum(dtype=jnp.int32), "count": valid.sum(dtype=jnp.int32)}
        return {"loss": whole} | sums | numbers


def _chosen(boxes: jax.Array, classes: jax.Array) -> jax.Array:
    """Boxes [B, K, 4] of each class, or one of all if K is 1 -> those of `classes` [B]: [B, 4]."""
    if boxes.shape[1] == 1:
        return boxes[:, 0]
    return jnp.take_along_axis(boxes, classes[:, None, None], 1)[:, 0]


def _pixels(boxes: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Boxes [B, 4] in parts of the sides -> (xmin, ymin, xmax, ymax) in pixels, clipped; a negative side is none."""
    height, width = size
    middle, sides = boxes[:, :2], jnp.maximum(boxes[:, 2:], 0.0)
    edges = jnp.concatenate([middle - sides / 2, middle + sides / 2], -1)
    return jnp.clip(edges, 0, 1) * jnp.array([width, height, width, height], jnp.float32)


def _points_there(points: np.ndarray, placement: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Points [..., N, 2] of what a net saw, in pixels of the image as its source gave it; NaN stays."""
    return to_original(np.concatenate([points, points], -1), placement, size)[..., :2]
