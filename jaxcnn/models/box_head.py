"""BoxHead: features of regions, two hidden layers, and a class and a box for each region (Girshick 2015, section 2)."""

import math
from collections.abc import Mapping
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.models.layers import INITIALIZERS, Dtype, Init
from jaxcnn.ops import boxes as box_ops
from jaxcnn.ops.box_coding import BoxCoder
from jaxcnn.ops.roi import pyramid_levels, pyramid_roi_align, roi_pool


@flax.struct.dataclass
class RegionOutputs:
    """What the head says of every region.

    Attributes:
      logits: float32 [B, R, 1 + classes]; the first is "no object".
      offsets: float32 [B, R, 1 + classes, 4]: the object's box from the region, for each class that it may be of.
    """

    logits: jax.Array
    offsets: jax.Array


class BoxHead(nn.Module):
    """Pools a fixed grid from each region; two fully connected layers; logits and offsets.

    The defaults are those of Fast R-CNN on VGG-16 as released: RoIPool on one map, fc6 and fc7 of VGG-16 with dropout.
    Its boxes name the last pixel, so that is where a region is pooled to. The layers' paths are those of VGG-16's
    head, whose fc6 and fc7 may be loaded (`InitFrom`).

    Attributes:
      classes: of objects. "No object" is no class of the data; it is logit 0.
      maps: (name of the endpoint, its stride), from fine to coarse; a region of an image is pooled from one of them,
        by its size (Lin et al. 2017, equation 1: 224 pixels from the stride 16).
      roi: "pool", RoIPool, or "align", RoIAlign with `samples` by `samples` points in a bin and, as in torchvision's
        detectors, not `aligned`.
      bins: rows and columns of the grid.
      widths: of fc6 and fc7.
      dropout: behind each.
      coder: of the offsets. Weights (10, 10, 5, 5) divide them by their standard deviations (0.1, 0.1, 0.2, 0.2).
      kernel_init: of fc6 and fc7.
      score_init, box_init: of cls_score and bbox_pred.
    """

    classes: int = 20
    maps: tuple[tuple[str, int], ...] = (("stage5", 16),)
    roi: Literal["pool", "align"] = "pool"
    bins: int = 7
    samples: int = 2
    aligned: bool = False
    widths: tuple[int, ...] = (4096, 4096)
    dropout: float = 0.5
    coder: BoxCoder = BoxCoder((10.0, 10.0, 5.0, 5.0), clip=None)
    kernel_init: Init = "glorot_uniform"
    score_init: Init = "normal_0.01"
    box_init: Init = "normal_0.001"
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, pooled: jax.Array, *, train: bool) -> RegionOutputs:
        """What `pool` made of R regions, [B, R, bins, bins, C] -> RegionOutputs."""
        x = pooled.reshape(*pooled.shape[:2], -1)
        for number, width in enumerate(self.widths, 6):
            x = jax.nn.relu(self._dense(width, f"fc{number}", self.kernel_init)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = self._dense(1 + self.classes, "cls_score", self.score_init)(x)
        offsets = self._dense(4 * (1 + self.classes), "bbox_pred", self.box_init)(x)
        return RegionOutputs(
            logits=logits.astype(jnp.float32),
            offsets=offsets.astype(jnp.float32).reshape(*offsets.shape[:2], 1 + self.classes, 4),
        )

    @nn.nowrap
    def pool(self, ends: Mapping[str, jax.Array], boxes: jax.Array) -> jax.Array:
        """Maps by name and regions [B, R, 4] in pixels of the image -> [B, R, bins, bins, C].

        No gradient flows to the regions.

        Raises:
          UserError: a map is missing, or RoIPool is to read several.
        """
        for name, _ in self.maps:
            if name not in ends:
                raise UserError(f"BoxHead: the backbone makes no endpoint {name!r}; there is {', '.join(ends)}")
        maps, strides = [ends[name] for name, _ in self.maps], [stride for _, stride in self.maps]
        if self.roi == "pool":
            if len(maps) > 1:
                raise UserError("BoxHead: regions of several maps are pooled with roi='align'")
            return roi_pool(maps[0], box_ops.to_inclusive(boxes), self.bins, 1 / strides[0])
        lowest, highest = (round(math.log2(strides[i])) for i in (0, -1))
        levels = pyramid_levels(boxes, lowest, highest) - lowest
        scales = tuple(1 / stride for stride in strides)
        return pyramid_roi_align(maps, boxes, levels, self.bins, scales, self.samples, self.aligned)

    def _dense(self, width: int, name: str, init: Init) -> nn.Dense:
        return nn.Dense(width, dtype=self.dtype, kernel_init=INITIALIZERS[init], name=name)
