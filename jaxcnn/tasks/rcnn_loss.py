"""RPNLoss, FastRCNNLoss and FasterRCNNLoss: what nets with regions minimise (Girshick 2015; Ren et al. 2015)."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.models.box_head import RegionOutputs
from jaxcnn.models.rcnn import RegionDetector
from jaxcnn.models.rpn import RPN, AnchorOutputs, Proposals
from jaxcnn.ops import boxes as box_ops
from jaxcnn.ops.box_coding import BoxCoder
from jaxcnn.ops.matching import Matcher, sample
from jaxcnn.tasks.losses import smooth_l1
from jaxcnn.tasks.task import Batch, Variables, apply_training

Size = tuple[int, int]


class Truth(NamedTuple):
    """The objects of each image: boxes [B, M, 4], zeros if not valid, classes [B, M] and valid [B, M]."""

    boxes: jax.Array
    classes: jax.Array
    valid: jax.Array


class Regions(NamedTuple):
    """A random minibatch of S regions of each image, and what the head has to say of them.

    Attributes:
      boxes: float32 [B, S, 4]; zeros if not valid.
      labels: int32 [B, S]: 0 for no object, else 1 + its class.
      offsets: float32 [B, S, 4] of the object from the region, as the head's coder encodes them.
      valid: bool [B, S].
    """

    boxes: jax.Array
    labels: jax.Array
    offsets: jax.Array
    valid: jax.Array


@dataclasses.dataclass(frozen=True)
class FastRCNNLoss:
    """Class and box of a random minibatch of proposals (Girshick 2015, section 2.3); defaults of the released code.

    Proposals are batch["proposals"], float32 [B, P, 4] in pixels, rows without an area being padding; without them, the
    RPN's of a net that has one, and else the windows of `RegionDetector`. True boxes are among the proposals. The
    losses of an image are divided by the regions that were drawn of it, fewer than `regions` if it has not so many.

    No gradient flows to the RPN, nor to a backbone of its own: freeze them (`Group`), or weight decay moves them, as in
    the second and the fourth step of training Faster R-CNN (Ren et al. 2015, section 3.2).

    Departure: `regions` of each image, where the paper draws 128 of every two images.

    Example: Detection(criterion=FastRCNNLoss())
    """

    matcher: Matcher = Matcher(0.5, (0.1, 0.5))
    """Proposals of an object from an IoU of 0.5 on, of none from 0.1 to 0.5."""
    regions: int = 64
    """Drawn of each image."""
    positive: float = 0.25
    """The share of those of an object, at most."""
    beta: float = 1.0
    """Of the smooth L1 loss of offsets: half the square over beta below it, linear above; 0: L1."""

    def __post_init__(self):
        _check(self, counts=("regions",), shares=("positive",), betas=("beta",))

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the losses that add up to the whole."""
        return ("class_loss", "box_loss")

    def losses(
        self, model: nn.Module, variables: Variables, batch: Batch, *, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[dict[str, jax.Array], Variables]:
        """{part: losses [B]} of a batch with boxes [B, M, 4] and classes [B, M], -1 for rows that are no object, and
        the updated collections. The minibatch is drawn by rngs["dropout"], and always the same without it."""
        truth, keys = truth_of(batch), _image_keys(rngs, len(batch["image"]), 0)

        def run(model: RegionDetector, images: jax.Array, train: bool) -> dict[str, jax.Array]:
            ends = model.features(images, train=train)
            if "proposals" in batch:
                given = given_proposals(batch["proposals"])
            else:
                size, anchors = (images.shape[1], images.shape[2]), None
                if model.rpn is not None:
                    anchors = model.score_anchors(model.rpn_features(images, ends, train=False), size)
                given = model.propose(anchors, len(images), size, train=True)
            regions = draw_regions(
                given, truth, keys, model.head.coder, self.matcher, size=self.regions, positive=self.positive
            )
            return region_losses(model.classify(ends, regions.boxes, train=train), regions, self.beta)

        _check_model(model, "FastRCNNLoss")
        return apply_training(model, variables, batch["image"], train=train, rngs=rngs, method=run)


@dataclasses.dataclass(frozen=True)
class RPNLoss:
    """Objectness and box of a random minibatch of anchors, of the RPN alone (Ren et al. 2015, section 3.1): the first
    and the third step of its training (section 3.2). Defaults of the released code.

    No gradient flows to the head, nor to a backbone that the RPN does not read: freeze them (`Group`).

    Departure from the paper: as in its released code, the box loss is divided by the minibatch and not weighed by 10
    and divided by the positions.

    Example: Detection(criterion=RPNLoss())
    """

    matcher: Matcher = Matcher(0.7, (0.0, 0.3), best=True)
    """Anchors of an object from an IoU of 0.7 on, or if they overlap one most; of none below 0.3."""
    inside: bool = True
    """Whether only anchors within the image are learned (section 3.3)."""
    anchors: int = 256
    """Drawn of each image."""
    positive: float = 0.5
    """The share of those of an object, at most."""
    beta: float = 1 / 9
    """Of the smooth L1 loss of their offsets: half the square over beta below it, linear above; 0: L1."""

    def __post_init__(self):
        _check(self, counts=("anchors",), shares=("positive",), betas=("beta",))

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the losses that add up to the whole."""
        return ("rpn_class_loss", "rpn_box_loss")

    def losses(
        self, model: nn.Module, variables: Variables, batch: Batch, *, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[dict[str, jax.Array], Variables]:
        """As FasterRCNNLoss.losses, of the RPN."""
        truth, keys = truth_of(batch), _image_keys(rngs, len(batch["image"]), 0)

        def run(model: RegionDetector, images: jax.Array, train: bool) -> dict[str, jax.Array]:
            size = (images.shape[1], images.shape[2])
            ends = model.features(images, train=train) if model.rpn_backbone is None else {}
            anchors = model.score_anchors(model.rpn_features(images, ends, train=train), size)
            assert anchors is not None  # _check_model
            return self.anchor_losses(anchors, truth, size, cast(RPN, model.rpn).coder, keys)

        _check_model(model, "RPNLoss")
        return apply_training(model, variables, batch["image"], train=train, rngs=rngs, method=run)

    def anchor_losses(
        self, outputs: AnchorOutputs, truth: Truth, size: Size, coder: BoxCoder, keys: jax.Array
    ) -> dict[str, jax.Array]:
        """{part: losses [B]} on images of (height, width); keys [B]."""
        anchors = outputs.anchors
        inside = box_ops.inside(anchors, size) if self.inside else jnp.ones(len(anchors), bool)

        def one(logits: jax.Array, offsets: jax.Array, truth: Truth, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            overlaps = jnp.where(inside[:, None], box_ops.iou(anchors, truth.boxes), 0.0)
            matches = self.matcher(overlaps, truth.valid)
            chosen = sample(jnp.where(inside, matches.labels, -1), key, self.anchors, self.positive)
            index = jnp.maximum(chosen.indices, 0)
            wanted = coder.encode(truth.boxes[matches.truths[index]], anchors[index])
            count = jnp.maximum(chosen.valid.sum(), 1)
            of_class = optax.sigmoid_binary_cross_entropy(logits[index], chosen.positive.astype(jnp.float32))
            of_box = smooth_l1(offsets[index] - wanted, self.beta).sum(-1)
            return (
                jnp.where(chosen.valid, of_class, 0.0).sum() / count,
                jnp.where(chosen.positive, of_box, 0.0).sum() / count,
            )

        of_class, of_box = jax.vmap(one)(outputs.logits, outputs.offsets, truth, keys)
        return {"rpn_class_loss": of_class, "rpn_box_loss": of_box}


@dataclasses.dataclass(frozen=True)
class FasterRCNNLoss:
    """The losses of the RPN and of the head on its proposals, added: approximate joint training (Ren et al. 2015,
    section 3.2), with the released code's settings (py-faster-rcnn, end to end).

    Both are taken over random minibatches of each image, as many as they have; proposals are given, as in section 3.2:
    no gradient flows through their coordinates. `FasterRCNNLoss.torchvision()` has torchvision's settings.

    Departures from the paper: as in its released code, the box loss of the RPN is divided by the minibatch and not
    weighed by 10 and divided by the positions. From torchvision: an image's losses are divided by its own minibatch,
    not by all of the batch, which is the same if all are full.

    Example: Detection(criterion=FasterRCNNLoss())
    """

    anchor_matcher: Matcher = Matcher(0.7, (0.0, 0.3), best=True)
    """Anchors of an object from an IoU of 0.7 on, or if they overlap one most; of none below 0.3."""
    inside: bool = True
    """Whether only anchors within the image are learned (section 3.3)."""
    anchors: int = 256
    """Drawn of each image."""
    positive_anchors: float = 0.5
    """The share of those of an object, at most."""
    anchor_beta: float = 1 / 9
    """Of the smooth L1 loss of their offsets: half the square over beta below it, linear above; 0: L1."""
    matcher: Matcher = Matcher(0.5, (0.0, 0.5))
    """Proposals of an object from an IoU of 0.5 on, others of none."""
    regions: int = 128
    """Drawn of each image's proposals and true boxes."""
    positive: float = 0.25
    """The share of those of an object, at most."""
    beta: float = 1.0
    """As `anchor_beta`, of the head's offsets."""

    def __post_init__(self):
        _check(self, ("anchors", "regions"), ("positive_anchors", "positive"), ("anchor_beta", "beta"))

    @classmethod
    def torchvision(cls) -> "FasterRCNNLoss":
        """Of torchvision's fasterrcnn_resnet50_fpn: all anchors, 512 regions, a beta of 1/9 in the head too."""
        return cls(inside=False, regions=512, beta=1 / 9)

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the losses that add up to the whole."""
        return ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss")

    def losses(
        self, model: nn.Module, variables: Variables, batch: Batch, *, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[dict[str, jax.Array], Variables]:
        """{part: losses [B]} of a batch with boxes [B, M, 4] and classes [B, M], -1 for rows that are no object, and
        the updated collections. Minibatches are drawn by rngs["dropout"], and always the same without it; there are as
        many proposals as in training in both, so that the two losses compare."""
        truth, count = truth_of(batch), len(batch["image"])

        def run(model: RegionDetector, images: jax.Array, train: bool) -> dict[str, jax.Array]:
            size = (images.shape[1], images.shape[2])
            ends = model.features(images, train=train)
            anchors = model.score_anchors(model.rpn_features(images, ends, train=train), size)
            assert anchors is not None  # _check_model
            coder = cast(RPN, model.rpn).coder
            of_anchors = self.rpn.anchor_losses(anchors, truth, size, coder, _image_keys(rngs, count, 0))
            regions = draw_regions(
                model.propose(anchors, count, size, train=True),
                *(truth, _image_keys(rngs, count, 1), model.head.coder, self.matcher),
                size=self.regions,
                positive=self.positive,
            )
            of_regions = region_losses(model.classify(ends, regions.boxes, train=train), regions, self.beta)
            return of_anchors | of_regions

        _check_model(model, "FasterRCNNLoss")
        return apply_training(model, variables, batch["image"], train=train, rngs=rngs, method=run)

    @property
    def rpn(self) -> RPNLoss:
        """The part of it that is the RPN's."""
        return RPNLoss(self.anchor_matcher, self.inside, self.anchors, self.positive_anchors, self.anchor_beta)


def truth_of(batch: Mapping[str, jax.Array]) -> Truth:
    """The objects of a batch: rows with a class of at least 0 and a box that has an area."""
    valid = (batch["classes"] >= 0) & ~box_ops.is_empty(batch["boxes"])
    boxes = jnp.where(valid[..., None], batch["boxes"], 0.0)
    return Truth(boxes, jnp.where(valid, batch["classes"], 0), valid)


def given_proposals(boxes: jax.Array) -> Proposals:
    """A batch's "proposals" [B, P, 4] for a net without an RPN; rows without area are none."""
    valid = ~box_ops.is_empty(boxes)
    return Proposals(jnp.where(valid[..., None], boxes, 0.0), valid.astype(jnp.float32), valid)


def draw_regions(
    proposals: Proposals,
    truth: Truth,
    keys: jax.Array,
    coder: BoxCoder,
    matcher: Matcher,
    *,
    size: int,
    positive: float,
) -> Regions:
    """At most `size` of each image's proposals and true boxes, at most a share `positive` of them with an object."""

    def one(proposals: Proposals, truth: Truth, key: jax.Array) -> Regions:
        boxes = jnp.concatenate([proposals.boxes, truth.boxes])
        there = jnp.concatenate([proposals.valid, truth.valid])
        matches = matcher(box_ops.iou(boxes, truth.boxes), truth.valid)
        chosen = sample(jnp.where(there, matches.labels, -1), key, size, positive)
        index = jnp.maximum(chosen.indices, 0)
        whose = matches.truths[index]
        regions = jnp.where(chosen.valid[:, None], boxes[index], 0.0)
        return Regions(
            boxes=regions,
            labels=jnp.where(chosen.positive, truth.classes[whose] + 1, 0),
            offsets=coder.encode(truth.boxes[whose], regions),
            valid=chosen.valid,
        )

    return jax.lax.stop_gradient(jax.vmap(one)(proposals, truth, keys))


def region_losses(outputs: RegionOutputs, regions: Regions, beta: float) -> dict[str, jax.Array]:
    """{part: losses [B]}: cross entropy of all regions, and the smooth L1 loss of the offsets for an object's class,
    both divided by the number of regions."""
    of_class = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, regions.labels)
    offsets = jnp.take_along_axis(outputs.offsets, regions.labels[..., None, None], 2)[..., 0, :]
    of_box = smooth_l1(offsets - regions.offsets, beta).sum(-1)
    objects = regions.valid & (regions.labels > 0)
    count = jnp.maximum(regions.valid.sum(1), 1)
    return {
        "class_loss": jnp.where(regions.valid, of_class, 0.0).sum(1) / count,
        "box_loss": jnp.where(objects, of_box, 0.0).sum(1) / count,
    }


def _image_keys(rngs: Mapping[str, jax.Array], count: int, number: int) -> jax.Array:
    """A key for each image, [count]; `number` tells the draws of a step apart."""
    key = rngs["dropout"] if "dropout" in rngs else jax.random.key(0)
    return jax.random.split(jax.random.fold_in(key, number), count)


def _check_model(model: nn.Module, name: str) -> None:
    fast = name == "FastRCNNLoss"
    if not isinstance(model, RegionDetector) or (model.rpn is None and not fast):
        other = ", such as fast_rcnn_vgg16" if fast else " with an RPN, such as faster_rcnn_vgg16"
        raise UserError(f"task.criterion: {name} is the loss of a RegionDetector{other}, not of this model")


def _check(loss: object, counts: tuple[str, ...], shares: tuple[str, ...], betas: tuple[str, ...]) -> None:
    kind, rules = type(loss).__name__, ((counts, 1, float("inf")), (shares, 0, 1), (betas, 0, float("inf")))
    for fields, least, most in rules:
        for field in fields:
            value = getattr(loss, field)
            if not least <= value <= most or value == float("inf"):
                raise UserError(f"{kind}: {field} is {value}; it must be from {least} to {most}, and finite")
