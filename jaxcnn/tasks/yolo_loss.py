"""YOLOLoss: what version 1 minimises (Redmon et al. 2016, equation 3)."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.models.detector import GridOutputs, pixel_boxes
from jaxcnn.ops import boxes as box_ops
from jaxcnn.tasks.task import Batch, Variables, apply_training


class CellTargets(NamedTuple):
    """What the cells of a grid have to say.

    Attributes:
      has: bool [B, Y, X], whether an object's middle lies in the cell.
      boxes: float32 [B, Y, X, 4], the object's (xmin, ymin, xmax, ymax) in pixels.
      classes: int32 [B, Y, X], its class.
    """

    has: jax.Array
    boxes: jax.Array
    classes: jax.Array


@dataclasses.dataclass(frozen=True)
class YOLOLoss:
    """Sums of squared errors over the cells of an image, averaged over the images of a batch.

    Of the boxes of a cell that has an object, one is responsible for it: its place and size, weighed by `coordinate`,
    and its confidence, whose target is the IoU that it has now, without a gradient through it. All other boxes have the
    confidence target 0, weighed by `no_object`. Errors of classes count in cells with an object. Sizes are compared by
    their square roots. If several objects have their middle in one cell, the first of the image's list is the cell's.

    Departures: equation 3 gives the confidence target only as "C"; section 2 and the released code say IoU.

    Example: Detection(criterion=YOLOLoss())
    """

    coordinate: float = 5.0
    """lambda_coord."""
    no_object: float = 0.5
    """lambda_noobj."""
    responsible: Literal["iou", "iou_or_rmse"] = "iou"
    """Which box is responsible: the one with the highest IoU, the first of equal ones; or, as in the released code, if
    no box overlaps the object at all, the one whose (x, y, width, height) is nearest to it."""
    confidence_target: Literal["iou", "one"] = "iou"
    """Of the responsible box: its IoU, or 1 (`rescore=0` in the released code)."""

    def __post_init__(self):
        for field in ("coordinate", "no_object"):
            if not 0 <= getattr(self, field) < float("inf"):
                raise UserError(f"YOLOLoss: {field} is {getattr(self, field)}; it must be at least 0, and finite")
        for field, choices in (("responsible", ("iou", "iou_or_rmse")), ("confidence_target", ("iou", "one"))):
            if getattr(self, field) not in choices:
                raise UserError(f"YOLOLoss: {field} is {getattr(self, field)!r}; it must be {' or '.join(choices)}")

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the losses that add up to the whole."""
        return ("box_loss", "confidence_loss", "class_loss")

    def losses(
        self, model: nn.Module, variables: Variables, batch: Batch, *, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[dict[str, jax.Array], Variables]:
        """{part: losses [B]} of a batch with boxes [B, M, 4] and classes [B, M], -1 for rows that are no object, and
        the updated collections."""
        outputs, updated = apply_training(model, variables, batch["image"], train=train, rngs=rngs)
        size = (batch["image"].shape[1], batch["image"].shape[2])
        return self.of_outputs(outputs, batch["boxes"], batch["classes"], size), updated

    def of_outputs(
        self, outputs: GridOutputs, boxes: jax.Array, classes: jax.Array, size: tuple[int, int]
    ) -> dict[str, jax.Array]:
        """{part: losses [B]} of what a net said, for objects in pixels of images of (height, width)."""
        _, rows, columns, _ = outputs.confidence.shape
        targets = assign_cells(boxes, classes, (rows, columns), size)
        wanted = cell_coordinates(targets.boxes, size)  # [B, Y, X, 4]
        # Overlaps are compared and have no gradient; those of cells without an object are never used.
        overlaps = jax.lax.stop_gradient(box_ops.paired_iou(pixel_boxes(outputs, size), targets.boxes[..., None, :]))
        chosen = jnp.argmax(overlaps, -1)
        if self.responsible == "iou_or_rmse":
            middle_error = jnp.square(outputs.boxes[..., :2] - wanted[..., None, :2]) / jnp.array([columns, rows]) ** 2
            size_error = jnp.square(jnp.square(outputs.boxes[..., 2:]) - jnp.square(wanted[..., None, 2:]))
            nearest = jnp.argmin(jax.lax.stop_gradient(middle_error.sum(-1) + size_error.sum(-1)), -1)
            chosen = jnp.where(overlaps.max(-1) > 0, chosen, nearest)
        responsible = targets.has[..., None] & (jnp.arange(outputs.confidence.shape[-1]) == chosen[..., None])

        box = jnp.square(outputs.boxes - wanted[..., None, :]).sum(-1)
        confidence = jnp.square(outputs.confidence - (overlaps if self.confidence_target == "iou" else 1.0))
        nothing = self.no_object * jnp.square(outputs.confidence)
        one_hot = jax.nn.one_hot(targets.classes, outputs.classes.shape[-1])
        of_classes = jnp.square(outputs.classes - one_hot).sum(-1)
        cells = (1, 2, 3)
        return {
            "box_loss": self.coordinate * jnp.where(responsible, box, 0.0).sum(cells),
            "confidence_loss": jnp.where(responsible, confidence, nothing).sum(cells),
            "class_loss": jnp.where(targets.has, of_classes, 0.0).sum((1, 2)),
        }


def assign_cells(boxes: jax.Array, classes: jax.Array, grid: tuple[int, int], size: tuple[int, int]) -> CellTargets:
    """Each object to the cell in which its middle lies; the first of those that share one.

    Args:
      boxes: [B, M, 4] in pixels of images of `size`.
      classes: [B, M]; rows with -1, and boxes without an area, are no objects.
      grid: (rows, columns).
      size: (height, width).
    """
    (rows, columns), (height, width) = grid, size
    objects = (classes >= 0) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    middle = jnp.where(objects[..., None], (boxes[..., :2] + boxes[..., 2:]) / 2, 0.0)
    column = jnp.clip(jnp.floor(middle[..., 0] * (columns / width)).astype(jnp.int32), 0, columns - 1)
    row = jnp.clip(jnp.floor(middle[..., 1] * (rows / height)).astype(jnp.int32), 0, rows - 1)
    count = boxes.shape[1]
    cell = jnp.where(objects, row * columns + column, rows * columns)  # one cell more, for what is no object

    def first(cell: jax.Array) -> jax.Array:
        return jax.ops.segment_min(jnp.arange(count), cell, rows * columns + 1)[:-1]

    owner = jax.vmap(first)(cell).reshape(-1, rows, columns)
    has = owner < count
    index = jnp.where(has, owner, 0)
    take = jax.vmap(lambda values, index: values[index])
    # A cell without an object gets a box that has an area, so that what is computed of it is finite.
    whole = jnp.array([0, 0, width, height], boxes.dtype)
    return CellTargets(
        has=has,
        boxes=jnp.where(has[..., None], take(boxes, index), whole),
        classes=jnp.where(has, take(classes, index), -1),
    )


def cell_coordinates(boxes: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Boxes [B, Y, X, 4] in pixels, one per cell -> (x, y) within the cell and the roots of the relative sizes."""
    _, rows, columns, _ = boxes.shape
    height, width = size
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    x = middle[..., 0] * (columns / width) - jnp.arange(columns)
    y = middle[..., 1] * (rows / height) - jnp.arange(rows)[:, None]
    size_error = (boxes[..., 2:] - boxes[..., :2]) / jnp.array([width, height], boxes.dtype)
    return jnp.stack([x, y, *jnp.moveaxis(jnp.sqrt(size_error), -1, 0)], -1)
