"""Class maps as pictures: Pascal VOC's colors, maps over their photos, and legends."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

UNLABELED_COLOR = (224, 224, 192)
"""Of 255, as in VOC's own files."""


def palette() -> np.ndarray:
    """Pascal VOC's colors of the labels 0 to 255, uint8 [256, 3]: background black, aeroplane (128, 0, 0), ...

    The bits of a label, from the lowest, go in turn to red, green and blue, from the highest of each (VOC development
    kit, VOClabelcolormap.m); 255 has the color of VOC's borders.
    """
    labels = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        channel, shift = bit % 3, 7 - bit // 3
        colors[:, channel] |= ((labels >> bit & 1) << shift).astype(np.uint8)
    colors[255] = UNLABELED_COLOR
    return colors


def color(labels: np.ndarray) -> np.ndarray:
    """Labels, uint8 [H, W] -> uint8 [H, W, 3] in VOC's colors."""
    return palette()[labels]


def overlay_classes(
    image: np.ndarray, labels: np.ndarray, classes: tuple[str, ...] = (), opacity: float = 0.6
) -> np.ndarray:
    """A photo, uint8 [H, W, C], under the colors of its labels, uint8 [H, W]; with `classes` a legend beneath.

    Small images are enlarged by a whole factor, so that the legend can be read. Pixels of 255 show the photo alone.
    """
    weight = np.where(labels == 255, 0, opacity)[..., None]
    photo = np.broadcast_to(image, (*labels.shape, 3))  # gray ones have one channel
    blended = (photo * (1 - weight) + color(labels) * weight).round().astype(np.uint8)
    if not classes:
        return blended
    factor = max(1, round(320 / blended.shape[1]))
    blended = blended.repeat(factor, axis=0).repeat(factor, axis=1)
    present = {int(label): classes[label] for label in np.unique(labels) if label < len(classes)}
    return np.concatenate([blended, legend(present, blended.shape[1])])


def legend(names: dict[int, str], width: int) -> np.ndarray:
    """Colors and names of labels in rows, uint8 [h, width, 3], black on white; a name longer than a row is cut off."""
    font, colors = ImageFont.load_default(size=12), palette()
    row, swatch, gap = 18, 12, 6
    corners, left, top = {}, gap, 0
    for label, name in names.items():
        length = swatch + gap + round(font.getlength(name)) + 2 * gap
        if left > gap and left + length > width:
            left, top = gap, top + row
        corners[label] = (left, top)
        left += length
    picture = Image.new("RGB", (width, top + row if names else 0), "white")
    draw = ImageDraw.Draw(picture)
    for label, (x, y) in corners.items():
        box = (x, y + 3, x + swatch - 1, y + 2 + swatch)
        draw.rectangle(box, fill=tuple(colors[label].tolist()), outline="black")
        draw.text((x + swatch + gap, y + 1), names[label], fill="black", font=font)
    return np.asarray(picture)
