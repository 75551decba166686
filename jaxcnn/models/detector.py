"""Detections: what every detector answers, and GridDetector, the form of YOLO: boxes for each cell of a grid."""

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from jaxcnn.models.classifier import extract_features
from jaxcnn.models.layers import check_choices
from jaxcnn.ops.nms import class_nms


@flax.struct.dataclass
class Detections:
    """The objects found in each image, the most certain first, in arrays of one size.

    Attributes:
      boxes: float32 [B, N, 4], (xmin, ymin, xmax, ymax) in pixels of the image that the net saw, clipped to it.
      scores: float32 [B, N]; 0 behind the last.
      classes: int32 [B, N]; -1 behind the last.
      count: int32 [B], how many there are.
    """

    boxes: jax.Array
    scores: jax.Array
    classes: jax.Array
    count: jax.Array


@flax.struct.dataclass
class GridOutputs:
    """What a net says of every cell of a grid over the image, linear and unbounded (Redmon et al. 2016, section 2).

    Attributes:
      boxes: float32 [B, Y, X, P, 4]: the box's middle (x, y) within the cell in 0..1, and the square roots of its
        width and height as parts of the image's. The paper's equation 3 has the roots in the loss; as outputs, which is
        what its released code has, they cannot be taken of a negative number.
      confidence: float32 [B, Y, X, P], the IoU that the box will have with an object, 0 if there is none.
      classes: float32 [B, Y, X, C], the probability of each class if the cell has an object.
    """

    boxes: jax.Array
    confidence: jax.Array
    classes: jax.Array


def pixel_boxes(outputs: GridOutputs, size: tuple[int, int]) -> jax.Array:
    """Boxes [B, Y, X, P, 4] as (xmin, ymin, xmax, ymax) in pixels of images of (height, width), not clipped."""
    _, rows, columns, _, _ = outputs.boxes.shape
    height, width = size
    x = (outputs.boxes[..., 0] + jnp.arange(columns)[:, None]) * (width / columns)
    y = (outputs.boxes[..., 1] + jnp.arange(rows)[:, None, None]) * (height / rows)
    half_width = jnp.square(outputs.boxes[..., 2]) * (width / 2)
    half_height = jnp.square(outputs.boxes[..., 3]) * (height / 2)
    return jnp.stack([x - half_width, y - half_height, x + half_width, y + half_height], -1)


class GridDetector(nn.Module):
    """A backbone and a head that says for each cell of a grid what lies in it: boxes, their confidence, a class.

        model = create_model("yolo_v1", classes=20)
        variables = model.init(key, images, train=False)
        found = model.apply(variables, images, train=False)  # Detections
        found.boxes[0, : found.count[0]]

    Raises UserError for a field of its parts that is none of the choices that the field's type lists.

    Attributes:
      backbone: images [B, H, W, C] -> {"stage1": ..., "final": ...}, maps [B, H', W', C'].
      head: the final map -> GridOutputs.
      aux: of no use to it; every model has the field.
      score_threshold: a box whose score for a class, confidence times probability, is below is no detection of it
        (0.001 in the released code's evaluation; a person wants 0.2 or so).
      iou_threshold: of non-maximum suppression within a class.
      detections: N, how many are kept of an image.
    """

    backbone: nn.Module
    head: nn.Module
    aux: Mapping[str, nn.Module] = FrozenDict()
    score_threshold: float = 0.001
    iou_threshold: float = 0.5
    detections: int = 100

    def __post_init__(self):
        # Frozen, because modules are hashed.
        object.__setattr__(self, "aux", FrozenDict(self.aux))
        super().__post_init__()
        for part in (self.backbone, self.head):
            check_choices(part)

    @property
    def classes(self) -> int:
        return self.head.classes

    def __call__(self, images: jax.Array, *, train: bool) -> Detections:
        """Images [B, H, W, C] -> what is in them."""
        return self.detect(self.outputs(images, train=train), (images.shape[1], images.shape[2]))

    def features(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """The backbone's maps by name, "final" among them.

        Raises:
          UserError: as Classifier.features.
        """
        return extract_features(self, images, train=train)

    def grid(self, final: jax.Array, *, train: bool) -> GridOutputs:
        """The final map -> what the head says of each cell."""
        return self.head(final, train=train)

    def outputs(self, images: jax.Array, *, train: bool) -> GridOutputs:
        """Images [B, H, W, C] -> what the head says of each cell: what a loss reads."""
        return self.grid(self.features(images, train=train)["final"], train=train)

    def detect(self, outputs: GridOutputs, size: tuple[int, int]) -> Detections:
        """Every box as a candidate for every class, thinned out class by class (section 2.3).

        The score is confidence times probability of the class; both are unbounded, and it is clipped to 0..1.
        """
        height, width = size
        limits = jnp.array([width, height, width, height], jnp.float32)
        boxes = jnp.clip(pixel_boxes(outputs, size), 0, limits)
        scores = jnp.clip(outputs.confidence[..., None] * outputs.classes[..., None, :], 0, 1)
        count, classes = len(boxes), scores.shape[-1]
        boxes = boxes.reshape(count, -1, 1, 4)
        scores = scores.reshape(count, -1, classes)
        boxes = jnp.broadcast_to(boxes, (*scores.shape, 4)).reshape(count, -1, 4)
        labels = jnp.broadcast_to(jnp.arange(classes), scores.shape).reshape(count, -1)
        return select_detections(
            boxes,
            scores.reshape(count, -1),
            labels,
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            size=self.detections,
        )


def select_detections(
    boxes: jax.Array,
    scores: jax.Array,
    classes: jax.Array,
    *,
    score_threshold: float,
    iou_threshold: float,
    size: int,
) -> Detections:
    """Candidates [B, K, ...] -> the `size` best that survive non-maximum suppression within their class.

    A candidate counts if its score is at least the threshold and its box has an area.
    """

    def one(boxes: jax.Array, scores: jax.Array, classes: jax.Array) -> Detections:
        counts = (scores >= score_threshold) & (boxes[:, 2:] > boxes[:, :2]).all(-1)
        chosen = class_nms(boxes, scores, classes, iou_threshold, size, valid=counts)
        there = chosen >= 0
        return Detections(
            boxes=jnp.where(there[:, None], boxes[chosen], 0.0),
            scores=jnp.where(there, scores[chosen], 0.0),
            classes=jnp.where(there, classes[chosen], -1).astype(jnp.int32),
            count=there.sum(dtype=jnp.int32),
        )

    return jax.vmap(one)(boxes, scores, classes)
