"""Boxes as rows (xmin, ymin, xmax, ymax) in pixels, edges in [0, W] x [0, H]: areas, overlaps, clipping, other forms.

A box that has no area, as padding of zeros is one, overlaps nothing: its IoU is 0 and never NaN, and so are gradients
through it. Every box has its own result, so that padded rows change nothing in the others.

Sources of other conventions: Pascal VOC's code and py-faster-rcnn count the last pixel as a part of the box, so that a
width is xmax - xmin + 1. `from_inclusive` adds the pixel; areas, overlaps and NMS of what it returns are theirs.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcnn.errors import UserError

Size = tuple[ArrayLike, ArrayLike]
"""(height, width) in pixels: numbers, or arrays that broadcast with the boxes' shape without its last axis."""


def area(boxes: ArrayLike) -> jax.Array:
    """[..., 4] -> [...] in square pixels; 0 if xmax < xmin or ymax < ymin.

    Example: area(jnp.array([10.0, 20.0, 14.0, 23.0])) is 12.
    """
    _, sides = _corner_and_sides(boxes)
    return sides.prod(-1)


def paired_iou(boxes: ArrayLike, others: ArrayLike) -> jax.Array:
    """Intersection over union of each box with its partner: [..., 4] and [..., 4], broadcast -> [...].

    0 if the union is empty, for which torchvision gives NaN.
    """
    overlap, union = _overlap_and_union(boxes, others)
    return _ratio(overlap, union)


def iou(boxes: ArrayLike, others: ArrayLike) -> jax.Array:
    """Intersection over union of every pair: [..., N, 4] and [..., M, 4] -> [..., N, M] in [0, 1].

    0 if the union is empty, for which torchvision's box_iou gives NaN.

    Example: iou(jnp.array([[0.0, 0, 2, 2]]), jnp.array([[1.0, 0, 3, 2], [5, 5, 6, 6]])) is [[1 / 3, 0]].
    """
    return paired_iou(*_pairs(boxes, others))


def intersection_over_first(boxes: ArrayLike, others: ArrayLike) -> jax.Array:
    """The share of each box that lies in each other one: [..., N, 4] and [..., M, 4] -> [..., N, M] in [0, 1].

    COCO's overlap of detections with a crowd (pycocotools, iscrowd=1). 0 if the first box has no area.
    """
    boxes, others = _pairs(boxes, others)
    overlap, _ = _overlap_and_union(boxes, others)
    return _ratio(overlap, jnp.broadcast_to(area(boxes), overlap.shape))


def paired_giou(boxes: ArrayLike, others: ArrayLike) -> jax.Array:
    """Generalized IoU of each box with its partner, in (-1, 1] (Rezatofighi et al. 2019, algorithm 1): [...]."""
    overlap, union = _overlap_and_union(boxes, others)
    hull = _hull(boxes, others).prod(-1)
    return _ratio(overlap, union) - _ratio(hull - union, hull)


def giou(boxes: ArrayLike, others: ArrayLike) -> jax.Array:
    """`paired_giou` of every pair: [..., N, 4] and [..., M, 4] -> [..., N, M]."""
    return paired_giou(*_pairs(boxes, others))


def paired_diou(boxes: ArrayLike, others: ArrayLike) -> jax.Array:
    """Distance IoU of each box with its partner, in (-1, 1] (Zheng et al. 2020, equation 7): [...].

    The IoU minus the squared distance of the centers, as a share of the squared diagonal of the box around both.
    """
    boxes, others = _floats(boxes), _floats(others)
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2 - (others[..., :2] + others[..., 2:]) / 2
    diagonal = (_hull(boxes, others) ** 2).sum(-1)
    return paired_iou(boxes, others) - _ratio((centers**2).sum(-1), diagonal)


def diou(boxes: ArrayLike, others: ArrayLike) -> jax.Array:
    """`paired_diou` of every pair: [..., N, 4] and [..., M, 4] -> [..., N, M]."""
    return paired_diou(*_pairs(boxes, others))


def paired_ciou(boxes: ArrayLike, others: ArrayLike) -> jax.Array:
    """Complete IoU of each box with its partner (Zheng et al. 2020, equations 8 to 11): [...].

    `paired_diou` minus alpha * v for the difference v of the shapes. No gradient flows through alpha, as in the
    authors' code and in torchvision.
    """
    angles = []
    for each in (boxes, others):
        _, sides = _corner_and_sides(each)
        width, height = sides[..., 0], sides[..., 1]
        there = (width > 0) & (height > 0)
        angles.append(jnp.where(there, jnp.arctan(width / jnp.where(there, height, 1)), 0))
    v = 4 / jnp.pi**2 * (angles[0] - angles[1]) ** 2
    alpha = jax.lax.stop_gradient(_ratio(v, 1 - paired_iou(boxes, others) + v))
    return paired_diou(boxes, others) - alpha * v


def ciou(boxes: ArrayLike, others: ArrayLike) -> jax.Array:
    """`paired_ciou` of every pair: [..., N, 4] and [..., M, 4] -> [..., N, M]."""
    return paired_ciou(*_pairs(boxes, others))


def clip(boxes: ArrayLike, size: Size) -> jax.Array:
    """Boxes [..., 4] cut at the edges of images of `size` (height, width); one outside becomes empty.

    Example: clip(boxes, (480, 640)), or for a batch [B, N, 4]: clip(boxes, (heights[:, None], widths[:, None])).
    """
    boxes = _floats(boxes)
    return jnp.clip(boxes, 0, _limits(boxes, size))


def inside(boxes: ArrayLike, size: Size) -> jax.Array:
    """[..., 4] -> bool [...]: the box lies within an image of `size` (height, width), edges included.

    The anchors that a region proposal network learns from (Ren et al. 2015, section 3.3).
    """
    boxes = _floats(boxes)
    return ((boxes >= 0) & (boxes <= _limits(boxes, size))).all(-1)


def is_large(boxes: ArrayLike, side: ArrayLike) -> jax.Array:
    """[..., 4] -> bool [...]: both sides have at least `side` pixels; False for boxes with a NaN.

    torchvision's remove_small_boxes as a mask. With a side of 0 empty boxes count; `is_empty` tells them.
    """
    boxes = _floats(boxes)
    return (boxes[..., 2:] - boxes[..., :2] >= side).all(-1)


def is_empty(boxes: ArrayLike) -> jax.Array:
    """[..., 4] -> bool [...]: the box has no area, xmax <= xmin or ymax <= ymin, or is not a number."""
    boxes = _floats(boxes)
    return ~(boxes[..., 2:] > boxes[..., :2]).all(-1)


def scale(boxes: ArrayLike, factors: Size) -> jax.Array:
    """Boxes [..., 4] of an image that is resized by `factors` (of its height, of its width)."""
    boxes = _floats(boxes)
    return boxes * _limits(boxes, factors)


def flip(boxes: ArrayLike, width: ArrayLike) -> jax.Array:
    """Boxes [..., 4] of an image of that width that is mirrored left to right; twice changes nothing."""
    xmin, ymin, xmax, ymax = jnp.moveaxis(_floats(boxes), -1, 0)
    return jnp.stack([width - xmax, ymin, width - xmin, ymax], -1)


def to_center(boxes: ArrayLike) -> jax.Array:
    """(xmin, ymin, xmax, ymax) -> (center x, center y, width, height), [..., 4]."""
    boxes = _floats(boxes)
    return jnp.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


def from_center(boxes: ArrayLike) -> jax.Array:
    """(center x, center y, width, height) -> (xmin, ymin, xmax, ymax), [..., 4]."""
    boxes = _floats(boxes)
    return jnp.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def to_xywh(boxes: ArrayLike) -> jax.Array:
    """(xmin, ymin, xmax, ymax) -> COCO's (xmin, ymin, width, height), [..., 4]."""
    boxes = _floats(boxes)
    return jnp.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], -1)


def from_xywh(boxes: ArrayLike) -> jax.Array:
    """COCO's (xmin, ymin, width, height) -> (xmin, ymin, xmax, ymax), [..., 4]."""
    boxes = _floats(boxes)
    return jnp.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)


def to_normalized_yxyx(boxes: ArrayLike, size: Size) -> jax.Array:
    """(xmin, ymin, xmax, ymax) in pixels -> TFDS's (ymin, xmin, ymax, xmax) as shares of `size` (height, width)."""
    boxes = _floats(boxes)
    return (boxes / _limits(boxes, size))[..., jnp.array([1, 0, 3, 2])]


def from_normalized_yxyx(boxes: ArrayLike, size: Size) -> jax.Array:
    """TFDS's (ymin, xmin, ymax, xmax) in [0, 1] -> (xmin, ymin, xmax, ymax) in pixels of `size` (height, width)."""
    boxes = _floats(boxes)[..., jnp.array([1, 0, 3, 2])]
    return boxes * _limits(boxes, size)


def from_inclusive(boxes: ArrayLike) -> jax.Array:
    """Boxes whose last pixel belongs to them (Pascal VOC's code, py-faster-rcnn) -> edges: 1 is added to xmax, ymax."""
    return _floats(boxes) + jnp.array([0.0, 0, 1, 1])


def to_inclusive(boxes: ArrayLike) -> jax.Array:
    """Edges -> boxes whose last pixel belongs to them: 1 is taken from xmax, ymax."""
    return _floats(boxes) - jnp.array([0.0, 0, 1, 1])


def _floats(boxes: ArrayLike) -> jax.Array:
    """[..., 4] in float32 at least."""
    boxes = jnp.asarray(boxes)
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise UserError(f"boxes are an array {boxes.shape}; they must be [..., 4]: xmin, ymin, xmax, ymax")
    return boxes.astype(jnp.promote_types(boxes.dtype, jnp.float32))


def _limits(boxes: jax.Array, size: Size) -> jax.Array:
    """(width, height, width, height) for each box, to multiply with or to compare to [..., 4]."""
    height, width = (jnp.asarray(each, boxes.dtype) for each in size)
    return jnp.stack(jnp.broadcast_arrays(width, height, width, height), -1)


def _pairs(boxes: ArrayLike, others: ArrayLike) -> tuple[jax.Array, jax.Array]:
    boxes, others = _floats(boxes), _floats(others)
    if boxes.ndim < 2 or others.ndim < 2:
        raise UserError(
            f"overlaps of every pair take [..., N, 4] and [..., M, 4], not {boxes.shape} and {others.shape}; "
            "paired_iou takes each box with its partner"
        )
    return boxes[..., :, None, :], others[..., None, :, :]


def _corner_and_sides(boxes: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """(xmin, ymin) and (width, height), which are not below 0: [..., 2] each."""
    boxes = _floats(boxes)
    return boxes[..., :2], jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)


def _overlap_and_union(boxes: ArrayLike, others: ArrayLike) -> tuple[jax.Array, jax.Array]:
    boxes, others = _floats(boxes), _floats(others)
    first = jnp.maximum(boxes[..., :2], others[..., :2])
    last = jnp.minimum(boxes[..., 2:], others[..., 2:])
    overlap = jnp.maximum(last - first, 0).prod(-1)
    return overlap, area(boxes) + area(others) - overlap


def _hull(boxes: ArrayLike, others: ArrayLike) -> jax.Array:
    """Width and height of the smallest box around both, [..., 2]."""
    boxes, others = _floats(boxes), _floats(others)
    first = jnp.minimum(boxes[..., :2], others[..., :2])
    return jnp.maximum(jnp.maximum(boxes[..., 2:], others[..., 2:]) - first, 0)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """part / whole, and 0 with gradients of 0 if the whole is not above 0."""
    there = whole > 0
    return jnp.where(there, part / jnp.where(there, whole, 1), 0)
