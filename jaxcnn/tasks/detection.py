"""Detection: boxes around the objects of an image, and their classes."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn import parts
from jaxcnn.data.boxed import first_truths
from jaxcnn.data.examples import Examples
from jaxcnn.data.fields import PLACEMENT, Field, Fields, box_fields
from jaxcnn.data.geometry import to_original
from jaxcnn.data.proposals import ProposedExamples
from jaxcnn.errors import UserError
from jaxcnn.metrics import average_precision
from jaxcnn.metrics.average_precision import METRICS
from jaxcnn.metrics.hits import ImageHits, hits_of_images
from jaxcnn.metrics.proposal_recall import THRESHOLDS, recall_name
from jaxcnn.models.detector import Detections
from jaxcnn.models.rcnn import RegionDetector
from jaxcnn.models.rpn import Proposals
from jaxcnn.ops import boxes as box_ops
from jaxcnn.tasks.drawn_boxes import corners, draw_boxes, draw_true_boxes
from jaxcnn.tasks.rcnn_loss import FasterRCNNLoss, FastRCNNLoss, RPNLoss, given_proposals
from jaxcnn.tasks.task import Answer, Batch, Direction, Records, Sums, Variables, check_classes
from jaxcnn.tasks.yolo_loss import YOLOLoss

CERTAIN = 0.2
"""Score from which a detection is shown to a person; metrics count them all."""
FOUND = ("boxes", "scores", "classes")
PROBED = 64
"""Images whose true boxes are scored as if a net had found them, before anything is compiled."""


class DetectionLoss(Protocol):
    """What a detector minimises: a frozen dataclass."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the losses that add up to the whole."""
        ...

    def losses(
        self, model: nn.Module, variables: Variables, batch: Batch, *, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[dict[str, jax.Array], Variables]:
        """{part: losses [B]} of a batch of normalised images, "boxes" [B, M, 4] in their pixels and "classes" [B, M],
        -1 for a row that is to be ignored; and the updated collections."""
        ...


@dataclasses.dataclass(frozen=True)
class Detection:
    """Boxes and classes of objects, by a net that answers Detections.

    Metrics are average precisions by one named protocol, whose name is part of theirs: "voc07", the mean of the largest
    precision at eleven recalls; "voc10", the area under the curve (both at an IoU above 0.5); "coco", the mean over ten
    IoUs, with COCO's eleven other numbers (metrics/average_precision.py). Boxes are compared in pixels of the images as
    the source gives them: resizing, padding and mirroring are undone. What `data.preprocess` crops away is nowhere.

    The loss of an image is the sum of the criterion's parts; that of a batch is the mean over its images.

    Example:
        Experiment(model=create_model("yolo_v1_small", classes=3), task=Detection(protocol="voc07"), data=...)
    """

    criterion: DetectionLoss = YOLOLoss()
    protocol: average_precision.Protocol = "voc10"
    max_boxes: int = 100
    """Room for the objects of an image; an image with more is a broken example."""
    max_proposals: int = 0
    """Room for the proposals of an image, which a source such as WithProposals gives to a net without an RPN; 0: none
    are read, and Fast R-CNN looks at dense windows."""
    learn_difficult: bool = False
    """Whether boxes marked as difficult are learned; evaluation leaves them out. Boxes around crowds never are."""
    classes: tuple[str, ...] = ()
    """Names in the order of the labels, whose average precisions are metrics too, such as "voc07_ap_car"; (): means
    alone."""

    def __post_init__(self):
        parts.check_part("task.criterion", self.criterion, parts.DETECTION_LOSS)
        average_precision.check_protocol(self.protocol, "task.protocol")
        for field, least in (("max_boxes", 1), ("max_proposals", 0)):
            if getattr(self, field) < least:
                raise UserError(f"task.{field} is {getattr(self, field)}; it must be at least {least}")

    @property
    def shares(self) -> tuple[str, ...]:
        return ()

    @property
    def directions(self) -> Mapping[str, Direction]:
        """The mean average precision, by which it is judged, the protocol's other numbers, the losses, and the recall
        of what a net looks at, if it is one of regions."""
        scores: dict[str, Direction] = dict.fromkeys(METRICS[self.protocol], "higher")
        losses: dict[str, Direction] = dict.fromkeys(("loss", *self.criterion.parts), "lower")
        classes: dict[str, Direction] = dict.fromkeys(map(self._of_class, self.classes), "higher")
        looks = isinstance(self.criterion, FastRCNNLoss | FasterRCNNLoss | RPNLoss)
        recalls: dict[str, Direction] = dict.fromkeys(map(recall_name, THRESHOLDS if looks else ()), "higher")
        return scores | losses | classes | recalls

    @property
    def inputs(self) -> tuple[str, ...]:
        """What `predict` reads beside the images."""
        return ("proposals",) if self.max_proposals else ()

    def _of_class(self, name: str) -> str:
        return f"{self.protocol}_ap_{name}"

    def fields(self, image_shape: tuple[int, int, int]) -> Fields:
        """Boxes and what is said of each, where the image comes from, and proposals if there is room for some."""
        proposals = {"proposals": Field((self.max_proposals, 4), "float32")} if self.max_proposals else {}
        return box_fields(self.max_boxes) | PLACEMENT | proposals

    def check(self, model: nn.Module, examples: Examples) -> None:
        """Raises UserError if the model or the names do not fit the examples' classes, or the true boxes of the first
        images, given as detections, do not score 1 by the protocol; or proposals are given that nobody reads."""
        check_classes(model, examples, " (what is no object is not among them)")
        self._check_proposals(model, examples)
        there, where = examples.classes, f"{examples.name}/{examples.split}"
        if self.classes and set(self.classes) & set(there) and self.classes != there:
            raise UserError(f"task.classes are {', '.join(self.classes)}, but those of {where} {', '.join(there)}")
        truths = first_truths(examples, PROBED, "detection")
        if any(len(truth["boxes"]) for truth in truths):
            average_precision.check_truth(self.protocol, truths, len(there), where)

    def loss(
        self, model: nn.Module, variables: Variables, batch: Batch, *, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[jax.Array, Variables, Sums]:
        """The mean over the images of the sum of the criterion's parts."""
        losses, updated = self.criterion.losses(model, variables, self._learned(batch), train=train, rngs=rngs)
        whole = functools.reduce(jnp.add, losses.values())
        return whole.mean(), updated, self._sums(whole, losses, jnp.ones(whole.shape, bool))

    def outputs(self, model: nn.Module, variables: Variables, batch: Batch) -> tuple[Sums, Records]:
        """Sums of the losses, as in training but without dropout; the detections and the truth of each image."""
        # The net runs twice as it is written; XLA finds what is the same in both and computes it once.
        losses, _ = self.criterion.losses(model, variables, self._learned(batch), train=False, rngs={})
        whole = functools.reduce(jnp.add, losses.values())
        found, proposals = self._look(model, variables, batch["image"], batch.get("proposals"))
        sums = self._sums(whole, losses, batch["valid"])
        if proposals is not None:
            sums |= covered(proposals, batch)
        return sums, self.records(found, batch)

    def metrics(self, sums: Mapping[str, np.ndarray], records: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The protocol's metrics if there are records, the mean losses of an image, and the count of images."""
        count = int(sums["count"])
        names = ("loss", *self.criterion.parts)
        losses = {name: float(sums[name] / count) if count else float("nan") for name in names}
        if "objects_to_propose" in sums:
            objects = int(sums["objects_to_propose"])
            names = map(recall_name, THRESHOLDS)
            losses |= {name: float(sums[name] / objects) if objects else float("nan") for name in names}
        if not records:
            return losses | {"count": count}
        measured = self.measure(records)
        each = {self._of_class(name): float(v) for name, v in zip(self.classes, measured.classes, strict=False)}
        return measured.metrics | losses | each | {"count": count}

    def records(self, predicted: Any, batch: Mapping[str, Any]) -> Records:
        """The detections of each image, under "found_boxes" and so on, and its truth and placement."""
        found = {f"found_{name}": getattr(predicted, name) for name in FOUND}
        return found | {name: batch[name] for name in (*box_fields(1), *PLACEMENT)}

    def measure(self, records: Mapping[str, np.ndarray]) -> average_precision.AveragePrecision:
        """What the protocol says of the records of an evaluation, curves among it, in pixels of the original images."""
        return average_precision.measure(self.protocol, *self._sides(records))

    def hits(self, records: Mapping[str, np.ndarray]) -> list[ImageHits]:
        """What became of each detection with a score of 0.2 at least, and of each object, at an IoU above 0.5 in pixels
        of the original images; a detection with a lower score is as none."""
        found, truth, classes = self._sides(records)
        shown = {**found, "classes": np.where(found["scores"] >= CERTAIN, found["classes"], -1)}
        return hits_of_images(shown, truth, classes)

    def _sides(self, records: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, Any], int]:
        """Detections and truths, in pixels of the original images, and the number of classes."""
        origin = (records["placement"], records["original_size"])
        found = {name: records[f"found_{name}"] for name in FOUND}
        truth = {name: records[name] for name in box_fields(1)}
        for side in (found, truth):
            side["boxes"] = to_original(side["boxes"], *origin)
        classes = len(self.classes) or 1 + max(int(side["classes"].max(initial=0)) for side in (found, truth))
        return found, truth, classes

    def predict(
        self, model: nn.Module, variables: Variables, images: jax.Array, proposals: jax.Array | None = None
    ) -> Detections:
        """The detections of each image, in pixels of the images that the net sees; of a net that is given proposals,
        [B, P, 4], in these."""
        return self._look(model, variables, images, proposals)[0]

    def to_original(self, predicted: Any, placement: np.ndarray, size: tuple[int, int]) -> Detections:
        """The detections of one image, in pixels of the original one, whose (height, width) is `size`."""
        return predicted.replace(boxes=to_original(predicted.boxes, placement, np.array(size)))

    def answer(self, predicted: Any, image: np.ndarray, classes: tuple[str, ...], top: int = 5) -> Answer:
        """The `top` detections with a score of 0.2 at least, or a row that says that there is none; all detections as
        values; the picture "boxes" of the former."""
        every = [
            {"class": classes[label], "score": float(score), "box": [round(float(side), 2) for side in box]}
            for box, score, label in zip(predicted.boxes, predicted.scores, predicted.classes, strict=True)
            if label >= 0
        ]
        shown = sum(found["score"] >= CERTAIN for found in every)
        rows = [(f["class"], f"{f['score']:.3f} at {corners(f['box'])}") for f in every[:shown][:top]]
        if not shown:
            best = f"; the highest is {every[0]['score']:.3f}" if every else ""
            rows = [("none", f"no score of at least {CERTAIN}{best}")]
        if shown > top:
            rows.append(("...", f"{shown - top} more with a score of at least {CERTAIN}"))
        texts = [f"{found['class']} {found['score']:.2f}" for found in every[:shown]]
        labels = [int(label) for label in predicted.classes[:shown]]
        picture = draw_boxes(image, np.asarray(predicted.boxes)[:shown], labels, texts)
        return Answer(("class", "score and box"), rows, {"detections": every}, {"boxes": picture})

    def draw_truth(self, truth: Mapping[str, np.ndarray], image: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
        """The true boxes, dashed, with their names; "?" behind those that nobody is asked to find."""
        return draw_true_boxes(image, truth, classes)

    def _look(
        self, model: nn.Module, variables: Variables, images: jax.Array, boxes: jax.Array | None
    ) -> tuple[Detections, Proposals | None]:
        """The detections, and the proposals among which a net of regions has looked for them."""
        if not isinstance(model, RegionDetector):
            return cast(Detections, model.apply(variables, images, train=False)), None

        def run(model: RegionDetector, images: jax.Array) -> tuple[Detections, Proposals]:
            outputs = model.outputs(images, None if boxes is None else given_proposals(boxes), train=False)
            return model.detect(outputs, (images.shape[1], images.shape[2])), outputs.proposals

        return cast(tuple[Detections, Proposals], model.apply(variables, images, method=run))

    def _check_proposals(self, model: nn.Module, examples: Examples) -> None:
        takes = isinstance(model, RegionDetector) and model.rpn is None
        if self.max_proposals and not takes:
            raise UserError(
                f"task.max_proposals is {self.max_proposals}, but this model finds its regions itself; it is for a "
                "RegionDetector without an RPN, such as fast_rcnn_vgg16"
            )
        given = any(isinstance(part, ProposedExamples) for part in getattr(examples, "parts", [examples]))
        if given and takes and not self.max_proposals:
            raise UserError(
                f"{examples.name}/{examples.split} has proposals, and the task reads none: give it room for them, such "
                "as Detection(..., max_proposals=2000)"
            )

    def _learned(self, batch: Batch) -> Batch:
        """The batch with class -1 for boxes that are not to be learned."""
        left_out = batch["crowd"] if self.learn_difficult else batch["crowd"] | batch["difficult"]
        return batch | {"classes": jnp.where(left_out, -1, batch["classes"])}

    def _sums(self, whole: jax.Array, losses: Mapping[str, jax.Array], valid: jax.Array) -> Sums:
        # The loss of an example that is not valid may be anything, so it is selected away and not multiplied by zero.
        sums = {name: jnp.where(valid, loss, 0.0).sum() for name, loss in {"loss": whole, **losses}.items()}
        return sums | {"count": valid.sum(dtype=jnp.int32)}


def covered(proposals: Proposals, batch: Batch) -> Sums:
    """How many objects the valid images have, difficult ones and crowds left out, and how many of them some proposal
    covers with an IoU of at least 0.5 and 0.7: "objects_to_propose", "recall_50" and "recall_70"."""
    wanted = (batch["classes"] >= 0) & ~batch["difficult"] & ~batch["crowd"] & batch["valid"][:, None]
    overlaps = jax.vmap(box_ops.iou)(batch["boxes"], proposals.boxes)
    best = jnp.where(proposals.valid[:, None], overlaps, 0.0).max(-1)
    found = {recall_name(each): (wanted & (best >= each)).sum(dtype=jnp.int32) for each in THRESHOLDS}
    return {"objects_to_propose": wanted.sum(dtype=jnp.int32), **found}
