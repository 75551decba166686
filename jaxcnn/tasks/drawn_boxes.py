"""Boxes over photos, each in the color of its class, with names and scores."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLORS = ((230, 25, 75), (0, 130, 200), (60, 180, 75), (245, 130, 48), (145, 30, 180), (0, 128, 128), (128, 64, 0))
"""Of the classes, over and over: those of one image should differ, not those of a thousand."""
READABLE = 320
"""Pixels of width under which a photo is enlarged by a whole factor, so that names can be read."""


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, classes: Sequence[int], texts: Sequence[str], dashed: bool = False
) -> np.ndarray:
    """A photo with boxes, uint8 [H', W', 3].

    Args:
      image: uint8 [H, W, C]; a small one is enlarged by a whole factor.
      boxes: [N, 4], (xmin, ymin, xmax, ymax) in its pixels.
      classes: the class of each, for its color.
      texts: what to write at each.
      dashed: dotted lines, for what is true beside what was found.
    """
    factor = max(1, round(READABLE / image.shape[1]))
    large = np.broadcast_to(image, (*image.shape[:2], 3)).repeat(factor, axis=0).repeat(factor, axis=1)
    picture = Image.fromarray(np.ascontiguousarray(large))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    for box, label, text in zip(boxes, classes, texts, strict=True):
        left, top, right, bottom = (float(side) * factor for side in box)
        color = COLORS[label % len(COLORS)]
        if dashed:
            _dashes(draw, (left, top, right, bottom), color)
        else:
            draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=2)
        if text:
            size = draw.textbbox((0, 0), text, font=font)
            width, height = size[2] + 3, size[3] + 2
            x = max(0.0, min(left, picture.width - width))
            y = top - height if top >= height else top
            draw.rectangle((x, y, x + width, y + height), fill=color)
            draw.text((x + 2, y), text, fill="white", font=font)
    return np.asarray(picture)


def draw_true_boxes(
    image: np.ndarray, truth: Mapping[str, np.ndarray], classes: Sequence[str], named: bool = True
) -> np.ndarray:
    """A photo with its true boxes, dashed, uint8 [H', W', 3].

    Args:
      image: uint8 [H, W, C].
      truth: an example's arrays of boxes (data/fields.py), in its pixels; classes below 0 are padding.
      classes: the names; behind those of boxes that nobody is asked to find stands "?".
      named: whether the names are written.
    """
    rows = np.flatnonzero(truth["classes"] >= 0)
    labels = [int(label) for label in truth["classes"][rows]]
    free = (truth["difficult"] | truth["crowd"])[rows]
    texts = [(classes[label] + "?" * bool(odd)) * named for label, odd in zip(labels, free, strict=True)]
    return draw_boxes(image, truth["boxes"][rows], labels, texts, dashed=True)


def corners(box: Sequence[float]) -> str:
    """A box in words, to the pixel: "(3, 4, 30, 20)"."""
    return "({:.0f}, {:.0f}, {:.0f}, {:.0f})".format(*box)


def _dashes(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], color: tuple[int, int, int]) -> None:
    left, top, right, bottom = box
    for start in np.arange(left, right, 8):
        for y in (top, bottom - 1):
            draw.line((start, y, min(start + 4, right), y), fill=color, width=2)
    for start in np.arange(top, bottom, 8):
        for x in (left, right - 1):
            draw.line((x, start, x, min(start + 4, bottom)), fill=color, width=2)


def draw_points(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A picture with landmarks as numbered dots, uint8 [H, W, 3].

    Args:
      image: uint8 [H, W, 3].
      points: [N, 2], (x, y) in its pixels; those that are NaN are left out.
    """
    picture = Image.fromarray(np.ascontiguousarray(image))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=10)
    for number, (x, y) in enumerate(np.asarray(points, float).tolist()):
        if x == x and y == y:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=COLORS[number % len(COLORS)], outline="white")
            draw.text((x + 3, y - 5), str(number), fill="white", font=font)
    return np.asarray(picture)
