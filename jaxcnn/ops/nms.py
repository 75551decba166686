"""Greedy non-maximum suppression with fixed shapes: boxes by falling score, each dropped if a kept one overlaps it.

How: boxes are sorted and taken in blocks of 256. A block is compared with those that are kept so far, then with itself:
"kept, unless an earlier kept one overlaps it" is applied to the whole block until nothing changes. Each sweep makes at
least one more box final, usually most of them, so that a block takes a few sweeps and in the worst case 256; what it
settles on is what one box after the other gives, since only earlier boxes count. It ends when `size` are kept.

Why: a loop over single boxes was many times slower on a CPU, and one matrix of all pairs takes too much memory, 576 MB
for 12,000 boxes. benchmarks/detection_ops.py measures this form beside torchvision's.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcnn.errors import UserError
from jaxcnn.ops import boxes as box

BLOCK = 256


def nms(
    boxes: ArrayLike, scores: ArrayLike, threshold: ArrayLike, size: int, valid: ArrayLike | None = None
) -> jax.Array:
    """Indices of the boxes that are kept, by falling score.

    A box is dropped if its IoU with a kept one of a higher score is above `threshold`; an IoU equal to it survives. Of
    equal scores the lower index counts as the higher. As torchvision's on a CPU, which keeps no such order on a GPU;
    theirs compares with the threshold in float64, so that an IoU of 3/10, which float32 rounds up, is above 0.3 there
    and equal to it here.

    Args:
      boxes: [N, 4], in float32 at least.
      scores: [N]. Boxes whose score is -inf or NaN are never kept.
      threshold: of the IoU; may be traced.
      size: how many are returned.
      valid: bool [N], False for padding, whatever it holds.

    Returns:
      int32 [size], padded with -1 behind the last.

    Raises:
      UserError: the shapes do not fit together.

    Example: nms(jnp.array([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 0, 29, 9]]), jnp.array([0.5, 0.9, 0.7]), 0.5, 4) is
    [1, 2, -1, -1]. A batch: jax.vmap(nms, (0, 0, None, None))(boxes, scores, 0.5, 100).
    """
    return class_nms(boxes, scores, jnp.zeros(jnp.shape(scores), jnp.int32), threshold, size, valid)


def class_nms(
    boxes: ArrayLike,
    scores: ArrayLike,
    classes: ArrayLike,
    threshold: ArrayLike,
    size: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """`nms` in which only boxes of the same class drop each other, `classes` [N]: the best `size` of all classes.

    Classes are compared, where torchvision's batched_nms moves each class to a place of its own by adding to the
    coordinates, which rounds large ones. `classes` may as well be levels of a pyramid, or images.
    """
    boxes, scores, classes = jnp.asarray(boxes), jnp.asarray(scores), jnp.asarray(classes)
    if boxes.shape != (*scores.shape, 4) or classes.shape != scores.shape or scores.ndim != 1:
        raise UserError(
            f"NMS of boxes {boxes.shape}, scores {scores.shape} and classes {classes.shape}: they must be [N, 4], [N] "
            "and [N]; jax.vmap takes a batch"
        )
    alive = scores > -jnp.inf
    if valid is not None:
        alive &= jnp.asarray(valid)
    if not scores.size:
        return jnp.full(size, -1, jnp.int32)
    return _nms(boxes.astype(jnp.promote_types(boxes.dtype, jnp.float32)), scores, classes, alive, threshold, size)


@functools.partial(jax.jit, static_argnames="size")
def _nms(
    boxes: jax.Array, scores: jax.Array, classes: jax.Array, alive: jax.Array, threshold: ArrayLike, size: int
) -> jax.Array:
    count = alive.sum()
    order = jnp.argsort(jnp.where(alive, scores, -jnp.inf), descending=True, stable=True).astype(jnp.int32)
    block = min(BLOCK, len(order))
    order = jnp.pad(order, (0, -len(order) % block))
    ranked = (boxes[order], classes[order], order)
    room = (size // block + 2) * block  # the kept ones, and the block that goes beyond `size`
    positions = jnp.arange(block)
    earlier = positions[:, None] < positions

    def part(arrays: tuple[jax.Array, ...], number: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(jax.lax.dynamic_slice_in_dim(array, number * block, block) for array in arrays)

    def drops(first: tuple[jax.Array, ...], then: tuple[jax.Array, ...]) -> jax.Array:
        """[block, block]: the box of the row, if it is kept, drops that of the column."""
        return (box.iou(first[0], then[0]) > threshold) & (first[1][:, None] == then[1])

    def take(state: tuple) -> tuple:
        number, many, kept = state
        these = part(ranked, number)

        def against(other: jax.Array, left: jax.Array) -> jax.Array:
            there = other * block + positions < many
            return left & ~(drops(part(kept, other), these) & there[:, None]).any(0)

        left = jax.lax.fori_loop(0, -(-many // block), against, number * block + positions < count)
        inner = drops(these, these) & earlier

        def sweep(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            keep = left & ~(inner & state[0][:, None]).any(0)
            return keep, (keep != state[0]).any()

        keep, _ = jax.lax.while_loop(lambda state: state[1], sweep, (left, left.any()))
        slot = jnp.where(keep, many + jnp.cumsum(keep) - 1, room)
        kept = tuple(array.at[slot].set(new, mode="drop") for array, new in zip(kept, these, strict=True))
        return number + 1, many + keep.sum(), kept

    start = (
        jnp.zeros((), jnp.int32),
        jnp.zeros((), count.dtype),
        (jnp.zeros((room, 4), boxes.dtype), jnp.zeros(room, classes.dtype), jnp.full(room, -1, jnp.int32)),
    )
    _, _, kept = jax.lax.while_loop(lambda state: (state[0] * block < count) & (state[1] < size), take, start)
    return kept[2][:size]
