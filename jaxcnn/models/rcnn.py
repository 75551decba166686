"""Fast R-CNN (Girshick 2015) and Faster R-CNN (Ren, He, Girshick & Sun 2015): a class and a box for each region.

On VGG-16 as the papers and their released code (py-faster-rcnn) have them: regions are pooled from conv5_3, before the
fifth pooling, and go through VGG-16's fc6 and fc7 (`RPN` and `BoxHead` say where they differ).
`fasterrcnn_resnet50_fpn` is torchvision's: a ResNet-50 with a feature pyramid, anchors of one size per map, RoIAlign
and two new layers. `faster_rcnn_small` is ours, for two CPU cores.

Departures: images of one size, so that all shapes are fixed; a net whose strides do not divide the sides rounds maps
down (Caffe rounds up). Without weights from ImageNet fc6, fc7 and the trunk start as VGG here.
"""

import re
from collections.abc import Mapping
from typing import cast

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from jaxcnn.models.box_head import BoxHead, RegionOutputs
from jaxcnn.models.classifier import extract_features
from jaxcnn.models.detector import Detections, select_detections
from jaxcnn.models.fpn import LEVELS
from jaxcnn.models.layers import check_choices
from jaxcnn.models.resnet import torchvision_name as resnet_name
from jaxcnn.models.rpn import RPN, AnchorOutputs, Proposals
from jaxcnn.ops import anchors as anchor_ops
from jaxcnn.ops import boxes as box_ops
from jaxcnn.ops.box_coding import BoxCoder

SMALLEST = 0.01
"""Pixels: a detection with a shorter side is left out, as in torchvision."""


@flax.struct.dataclass
class RCNNOutputs:
    """What a net says of the anchors (None without an RPN), which regions it looked at, and what it says of them."""

    anchors: AnchorOutputs | None
    proposals: Proposals
    regions: RegionOutputs


class RegionDetector(nn.Module):
    """A backbone, a network that proposes regions, and a head that says what each holds and where exactly.

        model = create_model("faster_rcnn_vgg16", classes=20)
        variables = model.init(key, images, train=False)
        found = model.apply(variables, images, train=False)  # Detections
        found.boxes[0, : found.count[0]]

    Without an RPN, as Fast R-CNN, proposals are an argument: `model.apply(variables, images, proposals, train=False)`.
    Without them it looks at dense windows of three sizes and shapes everywhere, which is much work and finds less
    (Girshick 2015, section 5.5).

    Raises UserError for a field of its parts that is none of the choices that the field's type lists.

    Attributes:
      backbone: images [B, H, W, C] -> {"stage1": ..., "final": ...}, maps [B, H', W', C'].
      head: features of regions, which it pools from the maps -> RegionOutputs.
      aux: of no use to it; every model has the field.
      rpn: (maps, size) -> AnchorOutputs, or None.
      rpn_backbone: whose maps the RPN reads, as `backbone`; None: the head's. With one of its own nothing is shared, as
        after the second of the four steps of Ren et al. 2015, section 3.2.
      score_threshold: a region whose probability of a class is below is no detection of it.
      iou_threshold: of non-maximum suppression within a class.
      detections: N, how many are kept of an image.
      window_stride: of dense windows, pixels.
    """

    backbone: nn.Module
    head: nn.Module
    aux: Mapping[str, nn.Module] = FrozenDict()
    rpn: nn.Module | None = None
    rpn_backbone: nn.Module | None = None
    score_threshold: float = 0.05
    iou_threshold: float = 0.3
    detections: int = 100
    window_stride: int = 64

    def __post_init__(self):
        # Frozen, because modules are hashed.
        object.__setattr__(self, "aux", FrozenDict(self.aux))
        super().__post_init__()
        for part in (self.backbone, self.head, self.rpn, self.rpn_backbone):
            if part is not None:
                check_choices(part)

    @property
    def classes(self) -> int:
        return self.head.classes

    def __call__(self, images: jax.Array, proposals: Proposals | None = None, *, train: bool) -> Detections:
        """Images [B, H, W, C], and proposals for a net without an RPN -> what is in them."""
        outputs = self.outputs(images, proposals, train=train)
        return self.detect(outputs, (images.shape[1], images.shape[2]))

    def features(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """The backbone's maps by name, "final" among them.

        Raises:
          UserError: as Classifier.features.
        """
        return extract_features(self, images, train=train)

    def rpn_features(self, images: jax.Array, ends: Mapping[str, jax.Array], *, train: bool) -> Mapping[str, jax.Array]:
        """The maps that the RPN reads: `ends`, the backbone's, or those of its own backbone."""
        return ends if self.rpn_backbone is None else self.rpn_backbone(images, train=train)

    def score_anchors(self, ends: Mapping[str, jax.Array], size: tuple[int, int]) -> AnchorOutputs | None:
        """What the RPN says of the anchors of images of (height, width), from the maps that it reads; None without
        one."""
        return None if self.rpn is None else self.rpn(ends, size)

    def propose(self, anchors: AnchorOutputs | None, batch: int, size: tuple[int, int], *, train: bool) -> Proposals:
        """The RPN's proposals in images of (height, width), as many as in training or in detection; without an RPN
        windows everywhere."""
        if self.rpn is None:
            return windows(batch, size, self.window_stride)
        return cast(RPN, self.rpn).propose(cast(AnchorOutputs, anchors), size, train=train)

    def classify(self, ends: Mapping[str, jax.Array], boxes: jax.Array, *, train: bool) -> RegionOutputs:
        """What the head says of regions [B, R, 4], in pixels of the images that the maps are of."""
        return self.score_regions(cast(BoxHead, self.head).pool(ends, boxes), train=train)

    def score_regions(self, pooled: jax.Array, *, train: bool) -> RegionOutputs:
        """What the head says of regions' features [B, R, bins, bins, C]."""
        return self.head(pooled, train=train)

    def outputs(self, images: jax.Array, proposals: Proposals | None = None, *, train: bool) -> RCNNOutputs:
        """Images [B, H, W, C], and proposals for a net without an RPN -> all that leads to detections."""
        size = (images.shape[1], images.shape[2])
        ends = self.features(images, train=train)
        anchors = self.score_anchors(self.rpn_features(images, ends, train=train), size)
        if self.is_initializing():  # parameters do not depend on regions, and finding them would take seconds
            whole = jnp.broadcast_to(jnp.array([0, 0, size[1], size[0]], jnp.float32), (len(images), 1, 4))
            proposals = Proposals(whole, jnp.ones(whole.shape[:2]), jnp.ones(whole.shape[:2], bool))
        elif proposals is None:
            proposals = self.propose(anchors, len(images), size, train=train)
        return RCNNOutputs(anchors, proposals, self.classify(ends, proposals.boxes, train=train))

    def detect(self, outputs: RCNNOutputs, size: tuple[int, int]) -> Detections:
        """Every region as a candidate for every class, thinned out class by class."""
        proposals, classes = outputs.proposals, self.classes
        probabilities = jax.nn.softmax(outputs.regions.logits)[..., 1:]
        head = cast(BoxHead, self.head)
        boxes = head.coder.decode(outputs.regions.offsets[..., 1:, :], proposals.boxes[..., None, :])
        boxes = box_ops.clip(boxes, size)
        counts = proposals.valid[..., None] & box_ops.is_large(boxes, SMALLEST)
        labels = jnp.broadcast_to(jnp.arange(classes), probabilities.shape)
        batch = len(boxes)
        return select_detections(
            boxes.reshape(batch, -1, 4),
            jnp.where(counts, probabilities, -jnp.inf).reshape(batch, -1),
            labels.reshape(batch, -1),
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            size=self.detections,
        )


def windows(batch: int, size: tuple[int, int], stride: int) -> Proposals:
    """Boxes of three shapes and sizes, an eighth, a quarter and a half of the shorter side, around places that are
    `stride` pixels apart, cut at the edges of images of (height, width)."""
    shape = (-(-size[0] // stride), -(-size[1] // stride))
    cell = anchor_ops.cell([min(size) / 8, min(size) / 4, min(size) / 2])
    boxes = box_ops.clip(anchor_ops.grid(cell, shape, (stride, stride), offset=0.5), size)
    count = len(boxes)
    return Proposals(
        boxes=jnp.broadcast_to(boxes, (batch, count, 4)),
        scores=jnp.ones((batch, count), jnp.float32),
        valid=jnp.ones((batch, count), bool),
    )


FASTER_RPN = RPN()
FASTER_HEAD = BoxHead()
FPN_RPN = RPN(
    endpoints=(*LEVELS, "p6"),
    sizes=((32,), (64,), (128,), (256,), (512,)),
    anchors="centered",
    logits="sigmoid",
    coder=BoxCoder(),
    before_nms=(2000, 1000),
    after_nms=(2000, 1000),
    min_size=1e-3,
    drop_small="after",
)
FPN_HEAD = BoxHead(
    classes=90,
    maps=tuple(zip(LEVELS, (4, 8, 16, 32), strict=True)),
    roi="align",
    widths=(1024, 1024),
    dropout=0.0,
    coder=BoxCoder((10.0, 10.0, 5.0, 5.0)),
    kernel_init="torch_uniform",
    score_init="torch_uniform",
    box_init="torch_uniform",
)
SMALL_RPN = RPN(endpoints=("final",), sizes=((16, 32, 64),), before_nms=(600, 600), after_nms=(200, 100), min_size=4)
SMALL_HEAD = BoxHead(
    classes=20,
    maps=(("final", 16),),
    roi="align",
    aligned=True,
    bins=4,
    widths=(256,),
    dropout=0.0,
    kernel_init="he_fan_in",
)


def torchvision_name(model: RegionDetector, path: str) -> str:
    """torchvision's name of a layer: "backbone/layer1_0/bn1" -> "backbone.body.layer1.0.bn1", "backbone/inner_0" ->
    "backbone.fpn.inner_blocks.0.0", "rpn/conv" -> "rpn.head.conv.0.0", "head/fc6" -> "roi_heads.box_head.fc6".
    """
    part, layer = path.split("/", 1)
    if part == "rpn":
        return "rpn.head.conv.0.0" if layer == "conv" else f"rpn.head.{layer}"
    if part == "head":
        return f"roi_heads.{'box_head' if layer.startswith('fc') else 'box_predictor'}.{layer}"
    kind, _, number = layer.rpartition("_")
    if kind in ("inner", "layer"):
        return f"backbone.fpn.{kind}_blocks.{number}.0"
    return f"backbone.body.{resnet_name(model, path)}"  # type: ignore[arg-type]


def torchvision_file_name(model: RegionDetector, path: str) -> str:
    """The name in the files that torchvision publishes, which it renames when it loads them: no ".0" for a convolution
    in a block of its own."""
    name = torchvision_name(model, path)
    return "rpn.head.conv" if name == "rpn.head.conv.0.0" else re.sub(r"(_blocks\.\d+)\.0$", r"\1", name)
