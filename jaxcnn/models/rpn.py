"""Region proposal network (Ren et al. 2015, section 3.1): what a small net says of every anchor, and its proposals."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.models.layers import Dtype, Init, conv
from jaxcnn.ops import anchors as anchor_ops
from jaxcnn.ops import boxes as box_ops
from jaxcnn.ops.box_coding import BoxCoder
from jaxcnn.ops.nms import class_nms


@flax.struct.dataclass
class AnchorOutputs:
    """What the net says of every anchor, map by map, row by row.

    Attributes:
      logits: float32 [B, A], of there being an object.
      offsets: float32 [B, A, 4], of the object's box from the anchor, as `coder` encodes them.
      anchors: float32 [A, 4] in pixels of the image; they may reach beyond it.
      counts: of the anchors of each map.
    """

    logits: jax.Array
    offsets: jax.Array
    anchors: jax.Array
    counts: tuple[int, ...] = flax.struct.field(pytree_node=False)


@flax.struct.dataclass
class Proposals:
    """Boxes that may hold an object, whatever its class, the likeliest first, in arrays of one size.

    Attributes:
      boxes: float32 [B, R, 4] in pixels of the image, within it; zeros behind the last.
      scores: float32 [B, R], the probability of an object; 0 behind the last.
      valid: bool [B, R].
    """

    boxes: jax.Array
    scores: jax.Array
    valid: jax.Array


class RPN(nn.Module):
    """A 3x3 convolution as wide as the map, ReLU, and two 1x1 convolutions, shared by all maps.

    The defaults are the paper's as released (py-faster-rcnn): three sizes and shapes of anchors on one map of stride
    16, two logits per anchor. Departures from that code: decoded boxes are edges, (xmin, ymin, xmax, ymax) of
    [0, W] x [0, H], which theirs, pixels that belong to the box, are one pixel short of.

    Attributes:
      endpoints: names of the maps.
      sizes: for each map, the square roots of the areas of its anchors, in pixels.
      ratios: height / width of the anchors.
      anchors: which table: "released", of py-faster-rcnn, or "centered", of torchvision (ops/anchors.py).
      logits: "softmax": one of no object and one of an object, whose difference AnchorOutputs has; "sigmoid": one.
      coder: of offsets.
      before_nms: the best of each map that NMS sees, (in training, in detection).
      after_nms: how many it leaves of all maps together, (in training, in detection).
      nms_threshold: of the IoU, in NMS, within a map.
      min_size: a box with a shorter side, once clipped, is no proposal; pixels.
      drop_small: whether those are left out "before" the best are taken, as released, or "after", as in torchvision.
    """

    endpoints: tuple[str, ...] = ("stage5",)
    sizes: tuple[tuple[float, ...], ...] = ((128, 256, 512),)
    ratios: tuple[float, ...] = (0.5, 1, 2)
    anchors: Literal["released", "centered"] = "released"
    logits: Literal["softmax", "sigmoid"] = "softmax"
    coder: BoxCoder = BoxCoder(clip=None)
    before_nms: tuple[int, int] = (12000, 6000)
    after_nms: tuple[int, int] = (2000, 300)
    nms_threshold: float = 0.7
    min_size: float = 16
    drop_small: Literal["before", "after"] = "before"
    kernel_init: Init = "normal_0.01"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, ends: Mapping[str, jax.Array], size: tuple[int, int]) -> AnchorOutputs:
        """Maps [B, H', W', C] by name, of images of (height, width) -> AnchorOutputs.

        Raises:
          UserError: a map is missing, the maps differ in width, or there are not as many groups of sizes as maps.
        """
        maps = self._maps(ends)
        channels = maps[0].shape[-1]
        each = len(self.sizes[0]) * len(self.ratios)
        fields: dict[str, Any] = {"kernel_init": self.kernel_init, "dtype": self.dtype}
        hidden = conv(channels, 3, padding=1, name="conv", **fields)
        of_class = conv(each * (2 if self.logits == "softmax" else 1), 1, name="cls_logits", **fields)
        of_box = conv(each * 4, 1, name="bbox_pred", **fields)
        logits, offsets = [], []
        for x in maps:
            x = jax.nn.relu(hidden(x))
            scores = of_class(x).astype(jnp.float32)
            if self.logits == "softmax":  # all "no object" first, then all "object"
                scores = scores[..., each:] - scores[..., :each]
            logits.append(scores.reshape(len(x), -1))
            offsets.append(of_box(x).astype(jnp.float32).reshape(len(x), -1, 4))
        shapes = [(x.shape[1], x.shape[2]) for x in maps]
        return AnchorOutputs(
            logits=jnp.concatenate(logits, 1),
            offsets=jnp.concatenate(offsets, 1),
            anchors=self._anchors(shapes, size),
            counts=tuple(each * math.prod(shape) for shape in shapes),
        )

    @nn.nowrap
    def propose(self, outputs: AnchorOutputs, size: tuple[int, int], *, train: bool) -> Proposals:
        """The best boxes in images of (height, width); no gradient flows through them (section 3.2)."""
        before, after = (pair[0 if train else 1] for pair in (self.before_nms, self.after_nms))
        logits, offsets = map(jax.lax.stop_gradient, (outputs.logits, outputs.offsets))
        boxes = box_ops.clip(self.coder.decode(offsets, outputs.anchors), size)
        large = box_ops.is_large(boxes, self.min_size)
        ranks = jnp.where(large, logits, -jnp.inf) if self.drop_small == "before" else logits
        starts = np.cumsum([0, *outputs.counts])
        best = [
            start + jax.lax.top_k(ranks[:, start:end], min(before, end - start))[1]
            for start, end in itertools.pairwise(starts)
        ]
        level = jnp.concatenate([jnp.full(each.shape[1], number) for number, each in enumerate(best)])
        best = jnp.concatenate(best, 1)

        def one(boxes: jax.Array, logits: jax.Array, large: jax.Array, best: jax.Array) -> Proposals:
            boxes, logits, large = boxes[best], logits[best], large[best]
            chosen = class_nms(boxes, logits, level, self.nms_threshold, min(after, len(best)), valid=large)
            valid = chosen >= 0
            return Proposals(
                boxes=jnp.where(valid[:, None], boxes[chosen], 0.0),
                scores=jnp.where(valid, jax.nn.sigmoid(logits[chosen]), 0.0),
                valid=valid,
            )

        return jax.vmap(one)(boxes, logits, large, best)

    @nn.nowrap
    def _maps(self, ends: Mapping[str, jax.Array]) -> list[jax.Array]:
        missing = [name for name in self.endpoints if name not in ends]
        if missing:
            raise UserError(f"RPN: the backbone makes no endpoint {missing[0]!r}; there is {', '.join(ends)}")
        if len(self.sizes) != len(self.endpoints) or len({len(each) for each in self.sizes}) != 1:
            raise UserError(f"RPN: sizes {self.sizes} must be as many for each of the {len(self.endpoints)} maps")
        return [ends[name] for name in self.endpoints]

    @nn.nowrap
    def _anchors(self, shapes: list[tuple[int, int]], size: tuple[int, int]) -> jax.Array:
        """As torchvision, a map's stride is the image's side over the map's, rounded down."""
        strides = [(size[0] // rows, size[1] // columns) for rows, columns in shapes]
        if self.anchors == "centered":
            cells = [anchor_ops.cell(each, self.ratios) for each in self.sizes]
        else:
            bases = [down for down, _ in strides]
            cells = [
                anchor_ops.faster_rcnn_cell([side / base for side in each], self.ratios, base)
                for each, base in zip(self.sizes, bases, strict=True)
            ]
        return anchor_ops.pyramid(cells, shapes, strides)
