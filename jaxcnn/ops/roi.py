"""Features of regions: RoIPool (Girshick 2015, section 2.1), RoIAlign (He et al. 2017, section 3), levels of a pyramid.

Both read every bin's pixels with gathers of all channels at once, one pixel of all bins after the other. So RoIAlign of
128 boxes in 38 x 50 x 512 features, 7 x 7 bins of 2 x 2 samples, takes 5 ms on two shared CPU cores. Products with
matrices of weights take 48 ms there and torchvision 42 ms (docs/detection.md has more). On a GPU gradients are sums in
an order that varies, unless the experiment is `deterministic`.

Boxes are padded to a fixed number for each image. The features of padding are finite if its boxes are, and change
nothing in the others.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxcnn.errors import UserError
from jaxcnn.ops import boxes as box

Bins = int | tuple[int, int]
"""(rows, columns), or one number for both."""


@functools.partial(jax.jit, static_argnames=("bins", "scale", "samples", "aligned"))
def roi_align(
    features: jax.Array,
    boxes: jax.Array,
    bins: Bins,
    scale: float,
    samples: int,
    aligned: bool,
) -> jax.Array:
    """The mean of bilinear samples in each bin of each box.

    Samples lie at equal distances in a bin. Between pixel centers they are bilinear, up to one pixel outside the map
    they are those of its edge, and farther out 0. No gradient flows to the boxes, as in torchvision.

    Args:
      features: [B, H, W, C].
      boxes: [B, R, 4] in pixels of the image: each image has its own R.
      bins: of each box.
      scale: of the map: features of stride 16 have 1 / 16.
      samples: in each direction of a bin; 0: adaptive, as many as the bin has pixels of the map, rounded up (the code
        of Mask R-CNN; Detectron2's default). torchvision's detectors have 2. Torch code also writes -1 for adaptive.
      aligned: pixel i of the map has its center at i + 0.5 in the image times `scale`, which is right for boxes that
        are edges. False is the older rule, half a pixel off, which torchvision's detectors were trained with; a box is
        then at least one pixel of the map wide and high.

    Returns:
      [B, R, rows, columns, C] in the type of `features`; positions and sums are float32 at least.

    Raises:
      UserError: the shapes do not fit together.

    Example: roi_align(features, proposals, 7, 1 / 16, samples=2, aligned=False).
    """
    levels = jnp.zeros(boxes.shape[:-1], jnp.int32)
    return pyramid_roi_align((features,), boxes, levels, bins, (scale,), samples, aligned)


@functools.partial(jax.jit, static_argnames=("bins", "scales", "samples", "aligned"))
def pyramid_roi_align(
    features: Sequence[jax.Array],
    boxes: jax.Array,
    levels: jax.Array,
    bins: Bins,
    scales: tuple[float, ...],
    samples: int,
    aligned: bool,
) -> jax.Array:
    """`roi_align` of each box in one of several maps: `levels` int32 [B, R] numbers them as `features` and `scales`.

    As torchvision's MultiScaleRoIAlign; each box is pooled once, not on each level.
    """
    _check(features, boxes)
    rows, columns = (bins, bins) if isinstance(bins, int) else bins
    kind = jnp.promote_types(boxes.dtype, jnp.float32)
    boxes, stop = jax.lax.stop_gradient(boxes.astype(kind)), 0.5 if aligned else 0.0
    factor = jnp.array(scales, kind)[levels][..., None]
    first, last = boxes[..., :2] * factor - stop, boxes[..., 2:] * factor - stop
    sides = last - first if aligned else jnp.maximum(last - first, 1)
    heights, widths = (np.array([each.shape[axis] for each in features]) for axis in (1, 2))
    starts = np.cumsum([0, *(heights * widths)[:-1]])
    taps = functools.partial(_fixed_taps, samples=samples) if samples > 0 else _adaptive_taps
    down = taps(first[..., 1], sides[..., 1], rows, jnp.array(heights)[levels], longest=int(heights.max()))
    across = taps(first[..., 0], sides[..., 0], columns, jnp.array(widths)[levels], longest=int(widths.max()))
    down_index = down[0] * jnp.array(widths)[levels][..., None, None] + jnp.array(starts)[levels][..., None, None]
    flat = jnp.concatenate([each.reshape(each.shape[0], -1, each.shape[-1]) for each in features], 1)
    unrolled = 0 < samples <= 2
    return _weighted(unrolled, flat, (down_index, down[1]), across[:2], (down[2], across[2]))


def pyramid_levels(boxes: jax.Array, lowest: int, highest: int, size: float = 224, level: int = 4) -> jax.Array:
    """[..., 4] -> int32 [...]: the level of a feature pyramid that a box is pooled from, `lowest` to `highest`.

    floor(level + log2(sqrt(area) / size)), (Lin et al. 2017, equation 1); 1e-6 is added to the ratio, as torchvision
    and Detectron2 do. Less `lowest`, it is what `pyramid_roi_align` takes.
    """
    ratio = jnp.sqrt(box.area(boxes)) / size
    return jnp.clip(jnp.floor(level + jnp.log2(ratio + 1e-6)), lowest, highest).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("bins", "scale"))
def roi_pool(features: jax.Array, boxes: jax.Array, bins: Bins, scale: float) -> jax.Array:
    """The largest value in each bin of each box, with the rounding of the paper's code (roi_pooling_layer).

    A box's corners are rounded to positions of the map, halves away from 0, **both of which belong to it**, so that it
    has at least one; bins reach from the rounded-down start of their share to its rounded-up end, so that they may
    overlap. A bin outside the map is 0. The gradient goes to the largest position, the first of several in reading
    order. No gradient flows to the boxes.

    Bins are counted in float32 as that code and torchvision do, which at some sizes, such as 57 positions in 7 bins,
    gives the last bin one position more than its share.

    Args:
      features: [B, H, W, C].
      boxes: [B, R, 4] in pixels of the image.
      bins: of each box, 7 in VGG-16.
      scale: of the map: features of stride 16 have 1 / 16.

    Returns:
      [B, R, rows, columns, C].

    Raises:
      UserError: the shapes do not fit together.

    Example: roi_pool(features, proposals, 7, 1 / 16).
    """
    _check([features], boxes)
    _, height, width, _ = features.shape
    corners = _rounded(boxes.astype(jnp.promote_types(boxes.dtype, jnp.float32)) * scale)
    rows, columns = (bins, bins) if isinstance(bins, int) else bins
    down, across = (
        _bins(corners[..., axis], corners[..., axis + 2], count, length)
        for axis, count, length in ((1, rows, height), (0, columns, width))
    )
    return _largest(features, down, across)


def _rounded(positions: jax.Array) -> jax.Array:
    """To whole numbers, halves away from 0, as C does; jnp.round takes them to even ones."""
    positions = jnp.clip(positions, -(2**24), 2**24)  # so that sizes and their multiples are int32
    whole = jnp.trunc(positions)
    return (whole + jnp.where(jnp.abs(positions - whole) >= 0.5, jnp.sign(positions), 0)).astype(jnp.int32)


def _bins(first: jax.Array, last: jax.Array, bins: int, length: int) -> tuple[jax.Array, jax.Array]:
    """Where the bins of boxes start and end, [B, R, bins] each, cut at the map's edges.

    Up to four lengths of the map the table holds what float32 gives, without what XLA makes of a division by a
    constant; a longer box has its exact shares.
    """
    number, sizes = np.arange(bins), np.arange(4 * length + 2)
    share = sizes[:, None].astype(np.float32) / np.float32(bins)
    starts = np.floor(number.astype(np.float32) * share).astype(np.int32)
    ends = np.ceil((number + 1).astype(np.float32) * share).astype(np.int32)
    size = jnp.maximum(last - first + 1, 1)
    known = (size < len(sizes))[..., None]
    row = jnp.minimum(size, len(sizes) - 1)
    start = jnp.where(known, jnp.array(starts)[row], number * size[..., None] // bins)
    end = jnp.where(known, jnp.array(ends)[row], -(-(number + 1) * size[..., None] // bins))
    return jnp.clip(first[..., None] + start, 0, length), jnp.clip(first[..., None] + end, 0, length)


TILE = (2, 8)
"""Rows and columns of a bin that are read at once. XLA makes one loop of a tile; most bins are a few of them."""


def _over_bins(down: tuple, across: tuple, width: int, look: Callable, start: jax.Array) -> jax.Array:
    """state = look(state, positions [B, R, rows, columns]) for every position of every bin, in any order.

    A bin that is smaller than others gives some of its positions several times. Whatever the boxes, there are as many
    steps as the largest bin needs.
    """
    (top, bottom), (left, right) = down, across
    tall, wide = ((last - first).max(initial=0) for first, last in (down, across))
    tiles = -(-wide // TILE[1])

    def tile(number: jax.Array, state: jax.Array) -> jax.Array:
        for i, j in np.ndindex(*TILE):
            y = jnp.maximum(jnp.minimum(top + number // tiles * TILE[0] + i, bottom - 1), 0)
            x = jnp.maximum(jnp.minimum(left + number % tiles * TILE[1] + j, right - 1), 0)
            state = look(state, y[..., :, None] * width + x[..., None, :])
        return state

    return jax.lax.fori_loop(0, -(-tall // TILE[0]) * tiles, tile, start)


def _there(down: tuple, across: tuple) -> jax.Array:
    """bool [B, R, rows, columns, 1]: the bin has a position in the map."""
    return ((down[1] > down[0])[..., :, None] & (across[1] > across[0])[..., None, :])[..., None]


@jax.custom_vjp
def _largest(features: jax.Array, down: tuple, across: tuple) -> jax.Array:
    """[B, H, W, C] -> the largest value of every bin, [B, R, rows, columns, C]."""
    batch, _, width, channels = features.shape
    flat = features.reshape(batch, -1, channels)
    start = jnp.full((*down[0].shape, across[0].shape[-1], channels), -jnp.inf, features.dtype)
    most = _over_bins(down, across, width, lambda most, at: jnp.maximum(most, _rows(flat, at)), start)
    return jnp.where(_there(down, across), most, 0)


def _largest_forward(features: jax.Array, down: tuple, across: tuple) -> tuple:
    most = _largest(features, down, across)
    # Nothing equals NaN, so that an empty bin finds no place.
    return most, (jnp.where(_there(down, across), most, jnp.nan), features, down, across)


def _largest_backward(kept: tuple, gradient: jax.Array) -> tuple:
    most, features, down, across = kept
    batch, height, width, channels = features.shape
    flat, none = features.reshape(batch, -1, channels), height * width
    position = _over_bins(
        down,
        across,
        width,
        lambda position, at: jnp.minimum(position, jnp.where(_rows(flat, at) == most, at[..., None], none)),
        jnp.full(most.shape, none, jnp.int32),
    )
    counts = position < none
    kind = jnp.promote_types(features.dtype, jnp.float32)
    # One index for each number: XLA's scatter on a CPU takes a fifth of the time that it takes with two.
    number = jnp.where(counts, position, 0) * channels + jnp.arange(channels)
    sums = _each_image(
        lambda at, values: jnp.zeros(none * channels, kind).at[at].add(values, mode="promise_in_bounds"),
        number.reshape(batch, -1),
        jnp.where(counts, gradient, 0).astype(kind).reshape(batch, -1),
    )
    return sums.reshape(features.shape).astype(features.dtype), None, None


_largest.defvjp(_largest_forward, _largest_backward)


Taps = tuple[jax.Array, jax.Array, jax.Array | int]
"""Along one axis: pixels int32 [B, R, bins, n] and their weights, and how many of the n any bin needs."""


def _positions(first: jax.Array, sides: jax.Array, bins: int, sample: jax.Array, count: ArrayLike) -> jax.Array:
    """The place of one sample of each bin, pixels of the map; `sample` and `count` broadcast with [B, R, bins, ...]."""
    bin_side = (sides / bins).reshape(*sides.shape, *[1] * (sample.ndim - 2))
    number = jnp.arange(bins).reshape(-1, *[1] * (sample.ndim - 3))
    return first.reshape(bin_side.shape) + number * bin_side + (sample + 0.5) * bin_side / count


def _fixed_taps(
    first: jax.Array, sides: jax.Array, bins: int, length: jax.Array, *, longest: int, samples: int
) -> Taps:
    """Two pixels for every sample."""
    del longest
    length = length[..., None, None]
    positions = _positions(first, sides, bins, jnp.arange(samples).reshape(1, 1, 1, -1), samples)
    inside = (positions >= -1) & (positions <= length)
    positions = jnp.clip(positions, 0, length - 1)
    low = jnp.floor(positions).astype(jnp.int32)
    part = positions - low
    pixels = jnp.concatenate([low, jnp.minimum(low + 1, length - 1)], -1)
    weights = jnp.concatenate([jnp.where(inside, 1 - part, 0), jnp.where(inside, part, 0)], -1) / samples
    return pixels, weights, 2 * samples


def _adaptive_taps(first: jax.Array, sides: jax.Array, bins: int, length: jax.Array, *, longest: int) -> Taps:
    """The weight of every pixel of a bin, summed over as many samples as the bin is long."""
    pixel = jnp.arange(longest)
    # No more than the map is long, or a box of padding might ask for millions; exact for boxes `bins` times as long.
    count = jnp.where(sides > 0, jnp.minimum(jnp.ceil(sides / bins), longest), 0)[..., None]  # [B, R, 1]
    limit = length[..., None]

    def add(sample: jax.Array, weights: jax.Array) -> jax.Array:
        position = _positions(first, sides, bins, jnp.full((1, 1, 1), sample), jnp.maximum(count, 1))
        inside = (position >= -1) & (position <= limit) & (sample < count)
        position = jnp.clip(position, 0, limit - 1)[..., None]
        return weights + jnp.where(inside[..., None], jnp.maximum(0, 1 - jnp.abs(position - pixel)), 0)

    start = jnp.zeros((*sides.shape, bins, longest), sides.dtype)
    weights = (
        jax.lax.fori_loop(0, count.max(initial=0).astype(jnp.int32), add, start) / jnp.maximum(count, 1)[..., None]
    )
    there = weights > 0
    low = jnp.where(there.any(-1), there.argmax(-1), 0)[..., None]
    pixels = jnp.minimum(low + pixel, longest - 1)
    weights = jnp.where(low + pixel < longest, jnp.take_along_axis(weights, pixels, -1), 0)
    needed = jnp.where(weights > 0, pixel + 1, 0).max(initial=0)
    return jnp.minimum(pixels, limit[..., None] - 1).astype(jnp.int32), weights, needed


def _rows(flat: jax.Array, index: jax.Array) -> jax.Array:
    """[B, N, C] at [B, ...] -> [B, ..., C]. A batch of gathers: split over devices with the batch."""
    return jax.vmap(lambda pixels, at: pixels.at[at].get(mode="promise_in_bounds"))(flat, index)


def _tap(down: tuple, across: tuple, i: ArrayLike, j: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The pixel and the weight of tap (i, j) of every bin, [B, R, rows, columns]."""
    y, wy = (jax.lax.dynamic_index_in_dim(each, i, -1, keepdims=False) for each in down)
    x, wx = (jax.lax.dynamic_index_in_dim(each, j, -1, keepdims=False) for each in across)
    return y[..., :, None] + x[..., None, :], wy[..., :, None] * wx[..., None, :]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weighted(unrolled: bool, flat: jax.Array, down: tuple, across: tuple, counts: tuple) -> jax.Array:
    """The sum over the taps of both axes of weight times pixel: [B, R, rows, columns, C]."""

    def add(i: ArrayLike, j: ArrayLike, sums: jax.Array) -> jax.Array:
        at, weight = _tap(down, across, i, j)
        return sums + weight[..., None] * _rows(flat, at).astype(weight.dtype)

    n, m = down[0].shape[-1], across[0].shape[-1]
    sums = jnp.zeros((*down[0].shape[:-1], across[0].shape[-2], flat.shape[-1]), down[1].dtype)
    if unrolled:  # XLA makes one loop over bins and channels of them
        for i, j in np.ndindex(n, m):
            sums = add(i, j, sums)
    else:
        sums = jax.lax.fori_loop(
            0, counts[0] * counts[1], lambda k, sums: add(k // counts[1], k % counts[1], sums), sums
        )
    return sums.astype(flat.dtype)


def _weighted_forward(unrolled: bool, flat: jax.Array, down: tuple, across: tuple, counts: tuple) -> tuple:
    return _weighted(unrolled, flat, down, across, counts), (flat, down, across, counts)


def _weighted_backward(unrolled: bool, kept: tuple, gradient: jax.Array) -> tuple:
    del unrolled
    flat, down, across, counts = kept

    def image(down: tuple, across: tuple, gradient: jax.Array) -> jax.Array:
        def add(number: jax.Array, sums: jax.Array) -> jax.Array:
            at, weight = _tap(down, across, number // counts[1], number % counts[1])
            return sums.at[at].add(weight[..., None] * gradient.astype(weight.dtype), mode="promise_in_bounds")

        return jax.lax.fori_loop(0, counts[0] * counts[1], add, jnp.zeros(flat.shape[1:], down[1].dtype))

    return _each_image(image, down, across, gradient).astype(flat.dtype), None, None, None


def _each_image(function: Callable[..., jax.Array], *batched: Any) -> jax.Array:
    """jax.vmap(function), and on a CPU one image after the other: its scatter takes twice to ten times as long in a
    batch. Elsewhere a batch, which is split over devices."""
    return jax.lax.platform_dependent(
        *batched, cpu=lambda *images: jax.lax.map(lambda each: function(*each), images), default=jax.vmap(function)
    )


_weighted.defvjp(_weighted_forward, _weighted_backward)


def _check(features: Sequence[jax.Array], boxes: jax.Array) -> None:
    fits = (
        boxes.ndim == 3
        and boxes.shape[-1] == 4
        and all(
            each.ndim == 4 and each.shape[0] == boxes.shape[0] and each.shape[-1] == features[0].shape[-1]
            for each in features
        )
    )
    if not fits:
        shapes = ", ".join(str(each.shape) for each in features)
        raise UserError(
            f"regions {boxes.shape} of features {shapes}: they must be [B, R, 4] and [B, H, W, C], the boxes of each "
            "image beside its features"
        )
