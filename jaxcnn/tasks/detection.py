"""Detection: boxes around the objects of an image, and their classes."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn import parts
from jaxcnn.data.examples import BrokenExample, Examples
from jaxcnn.data.fields import Field, Fields
from jaxcnn.errors import UserError
from jaxcnn.metrics import average_precision
from jaxcnn.models.detector import Detections
from jaxcnn.tasks.drawn_boxes import draw_boxes
from jaxcnn.tasks.task import Answer, Batch, Direction, Records, Sums, Variables
from jaxcnn.tasks.yolo_loss import YOLOLoss

Protocols = Literal["voc07", "voc10", "coco"]
CERTAIN = 0.2
"""Score from which a detection is shown to a person; metrics count them all."""
PROBED = 16
"""Images whose truth is scored as if a net had found it, before anything is compiled."""


@runtime_checkable
class DetectionLoss(Protocol):
    """What a detector minimises: a frozen dataclass."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the losses that add up to the whole."""
        ...

    def losses(
        self, model: nn.Module, variables: Variables, batch: Batch, *, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[dict[str, jax.Array], Variables]:
        """{part: losses [B]} and the updated collections."""
        ...


@dataclasses.dataclass(frozen=True)
class Detection:
    """Boxes and classes of objects, by a net that answers Detections.

    Metrics are average precisions by one named protocol, whose name is part of theirs: "voc07", the mean of the
    precision at eleven recalls; "voc10", the area under the curve (both at an IoU above 0.5); "coco", the mean over ten
    IoUs, with COCO's eleven other numbers (metrics/average_precision.py). Boxes are compared in the size in which images
    enter the batch.

    Example:
        Experiment(model=create_model("yolo_v1_small", classes=3), task=Detection(protocol="voc07"), data=...)
    """

    criterion: DetectionLoss = YOLOLoss()
    protocol: Protocols = "voc10"
    max_boxes: int = 100
    """Room for the objects of an image; an example with more is refused."""
    learn_difficult: bool = False
    """Whether boxes marked as difficult are learned; evaluation leaves them out. Boxes around crowds never are."""
    classes: tuple[str, ...] = ()
    """Names in the order of the labels, whose average precisions are metrics too, such as "ap_voc07_car"; (): means
    alone."""

    def __post_init__(self):
        parts.check_part("task.criterion", self.criterion, parts.DETECTION_LOSS)
        if self.protocol not in ("voc07", "voc10", "coco"):
            raise UserError(f"task.protocol is {self.protocol!r}; there is voc07, voc10, coco")
        if self.max_boxes < 1:
            raise UserError(f"task.max_boxes is {self.max_boxes}; it must be at least 1")

    @property
    def shares(self) -> tuple[str, ...]:
        return ()

    @property
    def directions(self) -> Mapping[str, Direction]:
        """The mean average precision, by which it is judged, and the others."""
        names = [f"ap_{self.protocol}"]
        if self.protocol == "coco":
            names += [name for name in COCO_NAMES.values() if name not in names]
        scores: dict[str, Direction] = dict.fromkeys(names, "higher")
        losses: dict[str, Direction] = dict.fromkeys(("loss", *self.criterion.parts), "lower")
        classes: dict[str, Direction] = {f"ap_{self.protocol}_{name}": "higher" for name in self.classes}
        return scores | losses | classes

    def fields(self, image_shape: tuple[int, int, int]) -> Fields:
        """Boxes and what is said of each, padded at their end; a row of class -1 is none."""
        return {
            "boxes": Field((self.max_boxes, 4), "float32"),
            "classes": Field((self.max_boxes,), "int32", fill=-1),
            "difficult": Field((self.max_boxes,), "bool"),
            "crowd": Field((self.max_boxes,), "bool"),
        }
