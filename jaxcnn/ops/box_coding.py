"""Boxes as offsets from anchors or proposals, what a detector regresses: R-CNN's parameterization.

Girshick et al. 2014, appendix C, equations 6 to 9, and Ren et al. 2015, equation 2: a shift of the center in widths and
heights of the anchor, and the logarithm of the ratio of widths and of heights.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcnn.ops import boxes as box

SMALLEST_SIDE = 1e-6
"""In pixels: what a side of 0 or less counts as, so that offsets of padding are finite."""


@dataclasses.dataclass(frozen=True)
class BoxCoder:
    """(offsets - means) * weights, as a net predicts them, and back.

    torchvision's and detectron2's form. Fast and Faster R-CNN as released (py-faster-rcnn): `clip=None`,
    `inclusive=True`, and for the head weights (10, 10, 5, 5), which are 1 / (0.1, 0.1, 0.2, 0.2), its standard
    deviations of the offsets.

    Departure: a side of 0 or less counts as a millionth of a pixel; torchvision gives infinite or NaN offsets.

    Attributes:
      weights: of the four offsets; torchvision has (1, 1, 1, 1) in the RPN and (10, 10, 5, 5) in the head.
      means: what is taken from the offsets before, 0 but for Fast R-CNN's normalization by the training set.
      clip: what `decode` takes the offsets of width and height for if they are larger, before their exponential, or
        None: torchvision's log(1000 / 16), so that an anchor of 16 pixels becomes at most 1,000 wide.
      inclusive: the last pixel belongs to the boxes that go in, as in py-faster-rcnn. Those that `decode` returns are
        edges all the same, as there: it adds half a width on both sides of the center and does not take 1 away, so
        that decode(encode(box)) is (xmin, ymin, xmax + 1, ymax + 1).

    Example: BoxCoder((10, 10, 5, 5)).encode([2.0, 0, 6, 4], [0.0, 0, 4, 4]) is (5, 0, 0, 0).
    """

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    means: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    clip: float | None = math.log(1000 / 16)
    inclusive: bool = False

    def encode(self, boxes: ArrayLike, anchors: ArrayLike) -> jax.Array:
        """Offsets (dx, dy, dw, dh) of boxes [..., 4] from anchors [..., 4], which broadcast: [..., 4]."""
        center, sides = self._center_and_sides(boxes)
        from_center, from_sides = self._center_and_sides(anchors)
        shift, growth = jnp.broadcast_arrays((center - from_center) / from_sides, jnp.log(sides / from_sides))
        offsets = jnp.concatenate([shift, growth], -1)
        return (offsets - jnp.array(self.means)) * jnp.array(self.weights)

    def decode(self, offsets: ArrayLike, anchors: ArrayLike) -> jax.Array:
        """Boxes [..., 4] from offsets [..., 4] and anchors [..., 4], which broadcast; not clipped to an image.

        Offsets of each class [R, K, 4] take anchors [R, 1, 4].
        """
        offsets = jnp.asarray(offsets)
        offsets = offsets.astype(jnp.promote_types(offsets.dtype, jnp.float32))
        offsets = offsets / jnp.array(self.weights) + jnp.array(self.means)
        from_center, from_sides = self._center_and_sides(anchors)
        growth = offsets[..., 2:] if self.clip is None else jnp.minimum(offsets[..., 2:], self.clip)
        half = jnp.exp(growth) * from_sides / 2
        center = offsets[..., :2] * from_sides + from_center
        return jnp.concatenate([center - half, center + half], -1)

    def _center_and_sides(self, boxes: ArrayLike) -> tuple[jax.Array, jax.Array]:
        boxes = box.from_inclusive(boxes) if self.inclusive else boxes
        first, sides = jnp.split(box.to_xywh(boxes), 2, -1)
        # The order of torchvision's and the released code's sums: a center far from 0 is rounded as theirs.
        return first + sides / 2, jnp.maximum(sides, SMALLEST_SIDE)
