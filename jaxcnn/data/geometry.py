"""Geometry: one draw of a geometric transform, and what it does to each part of an example.

A transform draws once; the image, its mask, its boxes and its points are then moved by the same numbers. Coordinates
are those of edges: an image of W pixels reaches from x = 0 to x = W, and its pixel i from i to i + 1.
"""

import math
from typing import NamedTuple

import numpy as np

from jaxcnn.data.checks import FLAGS, IGNORED
from jaxcnn.data.encoded import Encoded
from jaxcnn.data.examples import Example
from jaxcnn.data.images import Method, flip, resize

OF_BOXES = ("classes", *FLAGS, "area")
"""Parts that say something of each box, and go when it goes."""
MOVED = frozenset(("mask", "boxes", *OF_BOXES, "points", "placement", "proposals"))
"""The parts that lie in the image and move with it; all others stay as they are."""
THINNEST = 1e-3
"""Pixels: a box of which less is left inside of the image is gone."""


class Geometry(NamedTuple):
    """What happens to the pixels, in the order of these fields; None leaves them where they are.

    Example: Geometry(window=(8, 0, 32, 32), size=(64, 64)) cuts a window out and doubles it.
    """

    window: tuple[int, int, int, int] | None = None
    """(top, left, height, width): what of the image is kept. It may reach over every edge: there the image shows
    `value`, and the mask is ignored."""
    size: tuple[int, int] | None = None
    """(height, width) to which that is resized; masks by the nearest pixel."""
    mirror: int | None = None
    """The axis along which it is mirrored: 0 top and bottom, 1 left and right."""
    angle: float | None = None
    """Degrees by which it is turned about its middle, counter-clockwise, in the same size: images bilinear, masks by
    the nearest pixel. What comes in at the corners is as beyond an edge."""
    value: int | tuple[int, ...] = 0
    """Level of what lies outside of the image, one or one per channel."""
    method: Method = "bilinear"
    """How the image is resized."""
    pairs: tuple[tuple[int, int], ...] = ()
    """Points that change places when the image is mirrored: the left and the right eye."""
    antialias: bool = True
    """Whether all pixels that a shrunken one covers count, or only the nearest four (bilinear) or sixteen (bicubic)."""
    shrink_on_load: bool = False
    """Whether a JPEG that is not decoded yet may be decoded at 1/2, 1/4 or 1/8 of its size first."""


UNMOVED = Geometry()


def move(example: Example, geometry: Geometry) -> Example:
    """The example with all its parts moved. Boxes are clipped to what is seen and dropped, with what is said of them,
    if nothing is, and so are proposals; points that are not seen any more become NaN, since a point is known by its
    number.

    Args:
      example: checked parts (data/checks.py).
      geometry: one draw.
    """
    if geometry is UNMOVED and not isinstance(example["image"], Encoded):
        return example
    size = example["image"].shape[:2]
    moved = example | {"image": move_image(example["image"], geometry)}
    if "mask" in example:
        moved["mask"] = move_mask(example["mask"], geometry)
    if "boxes" in example:
        boxes = move_boxes(example["boxes"], geometry, size)
        seen = (boxes[:, 2:] - boxes[:, :2] > THINNEST).all(1)
        moved["boxes"] = boxes[seen]
        moved |= {name: example[name][seen] for name in OF_BOXES if name in example}
    if "proposals" in example:
        proposals = move_boxes(example["proposals"], geometry, size)
        moved["proposals"] = proposals[(proposals[:, 2:] - proposals[:, :2] > THINNEST).all(1)]
    if "points" in example:
        moved["points"] = move_points(example["points"], geometry, size)
    if "placement" in example:
        moved["placement"] = move_placement(example["placement"], geometry, size)
    return moved


def move_image(image: np.ndarray | Encoded, geometry: Geometry) -> np.ndarray:
    """uint8 [H, W, C] -> uint8 [H', W', C], which may be a view of it. Of an encoded image only the window is decoded,
    if there is one; UserError if that cannot be done.
    """
    window, size = geometry.window, geometry.size
    if isinstance(image, Encoded):
        if window is None or not _inside(window, image.shape):
            image = image.decoded()
        elif size is not None and geometry.shrink_on_load:
            image, window, size = image.reduced(window, size, geometry.method, geometry.antialias), None, None
        else:
            image, window = image.window(window), None
    if geometry is UNMOVED:
        return image
    if window is not None:
        image = _window(image, window, geometry.value)
    if size is not None:
        image = resize(image, size, geometry.method, geometry.antialias)
    if geometry.mirror is not None:
        image = flip(image, geometry.mirror)
    if geometry.angle is not None:
        image = _turned(image, geometry.angle, geometry.value, smooth=True)
    return image


def move_mask(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """uint8 [H, W] -> uint8 [H', W']: each pixel takes the value of the nearest, and IGNORED outside of the image."""
    nearest = geometry._replace(value=IGNORED, method="nearest", antialias=True, angle=None)
    moved = move_image(mask[..., None], nearest)
    if geometry.angle is not None:
        moved = _turned(moved, geometry.angle, IGNORED, smooth=False)
    return moved[..., 0]


def move_boxes(boxes: np.ndarray, geometry: Geometry, size: tuple[int, int]) -> np.ndarray:
    """Boxes float32 [N, 4] of an image of this size, each around what is seen of it; without width or height if nothing
    is. A turned box becomes the smallest upright one around the part of it that is seen.
    """
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    if geometry.window is not None:
        top, left, height, width = geometry.window
        size = (height, width)
        low, high = (np.clip(edge - (left, top), 0, (width, height)) for edge in (low, high))
    if geometry.size is not None:
        scale = np.array(geometry.size[::-1]) / size[::-1]
        size, low, high = geometry.size, low * scale, high * scale
    if geometry.mirror is not None:
        x = 1 - geometry.mirror  # axis 1 of an array is the first coordinate
        low[:, x], high[:, x] = size[1 - x] - high[:, x], size[1 - x] - low[:, x]
    if geometry.angle is not None:
        boxes = np.concatenate([low, high], 1).tolist()
        turned = [_around_turned(x1, y1, x2, y2, geometry.angle, size) for x1, y1, x2, y2 in boxes]
        low, high = np.split(np.array(turned, np.float64).reshape(-1, 4), 2, axis=1)
    return np.concatenate([low, high], 1).astype(np.float32)


def move_points(points: np.ndarray, geometry: Geometry, size: tuple[int, int]) -> np.ndarray:
    """Points float32 [N, 2] of an image of this size; NaN if the image does not show them any more."""
    moved = points.astype(np.float64)
    if geometry.window is not None:
        top, left, height, width = geometry.window
        size = (height, width)
        moved = _seen(moved - (left, top), size)
    if geometry.size is not None:
        moved, size = moved * (np.array(geometry.size[::-1]) / size[::-1]), geometry.size
    if geometry.mirror is not None:
        x = 1 - geometry.mirror
        moved[:, x] = size[1 - x] - moved[:, x]
        order = np.arange(len(moved))
        for one, other in geometry.pairs:
            order[[one, other]] = other, one
        moved = moved[order]
    if geometry.angle is not None:
        moved = _seen(_turn(moved, geometry.angle, size), size)
    return moved.astype(np.float32)


def move_placement(placement: np.ndarray, geometry: Geometry, size: tuple[int, int]) -> np.ndarray:
    """Where an image of this size lies in what came of it, float32 [4]: (x scale, y scale, x offset, y offset), so that
    x there = x scale * x + x offset. NaN if it is turned: no box has a box again then.
    """
    scale, offset = placement[:2].astype(np.float64), placement[2:].astype(np.float64)
    if geometry.window is not None:
        top, left, height, width = geometry.window
        size = (height, width)
        offset -= (left, top)
    if geometry.size is not None:
        ratio = np.array(geometry.size[::-1]) / size[::-1]
        size, scale, offset = geometry.size, scale * ratio, offset * ratio
    if geometry.mirror is not None:
        x = 1 - geometry.mirror
        scale[x], offset[x] = -scale[x], size[1 - x] - offset[x]
    if geometry.angle is not None:
        scale[:] = np.nan
    return np.concatenate([scale, offset]).astype(np.float32)


def to_original(boxes: np.ndarray, placement: np.ndarray, size: np.ndarray | None = None) -> np.ndarray:
    """Boxes of what a net saw, in pixels of the image as its source gave it: float64 [..., N, 4].

    Args:
      boxes: [..., N, 4], (xmin, ymin, xmax, ymax).
      placement: [..., 4], the batch's "placement" (data/fields.py).
      size: [..., 2], the batch's "original_size", to which boxes are clipped; None: they are not.

    Example:
        to_original(records["boxes"], records["placement"], records["original_size"])
    """
    placement = np.asarray(placement, np.float64)[..., None, :]
    scale, offset = placement[..., :2], placement[..., 2:]
    one, other = ((np.asarray(half, np.float64) - offset) / scale for half in (boxes[..., :2], boxes[..., 2:]))
    low, high = np.minimum(one, other), np.maximum(one, other)  # a mirrored image changes them
    if size is not None:
        most = np.asarray(size)[..., None, ::-1]
        low, high = np.clip(low, 0, most), np.clip(high, 0, most)
    return np.concatenate([low, high], -1)


def _inside(window: tuple[int, int, int, int], shape: tuple[int, ...]) -> bool:
    """Whether a window reaches over no edge of an image of this shape."""
    top, left, height, width = window
    return top >= 0 and left >= 0 and top + height <= shape[0] and left + width <= shape[1]


def _window(image: np.ndarray, window: tuple[int, int, int, int], value: int | tuple[int, ...]) -> np.ndarray:
    """The window at (top, left), which may reach over every edge of the image, where it shows the value."""
    top, left, height, width = window
    rows, columns, channels = image.shape
    if _inside(window, image.shape):
        return image[top : top + height, left : left + width]
    shown = np.empty((height, width, channels), np.uint8)
    if isinstance(value, int):
        shown.fill(value)  # a tenth of the time that it takes to spread a tuple over the channels
    else:
        shown[:] = value
    # Conditions in place of max and min, which take half a microsecond: as long as the copy of a small image.
    above, before = -top if top < 0 else 0, -left if left < 0 else 0
    below = height if top + height <= rows else rows - top
    behind = width if left + width <= columns else columns - left
    if below > above and behind > before:
        shown[above:below, before:behind] = image[top + above : top + below, left + before : left + behind]
    return shown


def _turned(image: np.ndarray, angle: float, value: int | tuple[int, ...], smooth: bool) -> np.ndarray:
    import cv2

    height, width, channels = image.shape
    # Spreading one level by NumPy takes as long as turning a small image.
    levels = (value,) * channels if isinstance(value, int) else np.broadcast_to(value, channels).tolist()
    turned = cv2.warpAffine(
        np.ascontiguousarray(image),
        cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0),
        (width, height),
        flags=cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=levels,
    )
    return turned.reshape(image.shape)


def _turn(points: np.ndarray, angle: float, size: tuple[int, int]) -> np.ndarray:
    """Points [N, 2] turned about the middle, counter-clockwise as one sees it: y grows downwards."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    middle = np.array(size[::-1]) / 2
    return (points - middle) @ np.array([[cosine, -sine], [sine, cosine]]) + middle


def _around_turned(
    left: float, top: float, right: float, bottom: float, angle: float, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The upright box around what an image of this size shows of a turned one (Sutherland and Hodgman 1974)."""
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    seen = _turn(corners, angle, size).tolist()
    for axis, edge, sign in ((0, 0, 1), (1, 0, 1), (0, size[1], -1), (1, size[0], -1)):
        cut = []
        for one, other in zip(seen, seen[1:] + seen[:1], strict=True):
            here, there = sign * (one[axis] - edge), sign * (other[axis] - edge)
            if here >= 0:
                cut.append(one)
            if here * there < 0:
                share = here / (here - there)
                cut.append([one[k] + share * (other[k] - one[k]) for k in (0, 1)])
        seen = cut
    if not seen:
        return (0, 0, 0, 0)
    x, y = zip(*seen, strict=True)
    return (max(min(x), 0), max(min(y), 0), min(max(x), size[1]), min(max(y), size[0]))


def _seen(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The points with NaN in place of those outside of an image of this size."""
    inside = ((points >= 0) & (points <= size[::-1])).all(1, keepdims=True)
    return np.where(inside, points, np.nan)
