"""Captions: words beneath an image."""

import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxcnn.tasks.drawn_boxes import READABLE

LINE = 18
"""Pixels of height."""


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    """A photo, uint8 [H, W, C], with black words on white beneath, uint8 [H', W', 3]; a small one is enlarged by a
    whole factor, so that they can be read."""
    factor = max(1, round(READABLE / image.shape[1]))
    large = np.broadcast_to(image, (*image.shape[:2], 3)).repeat(factor, axis=0).repeat(factor, axis=1)
    font = ImageFont.load_default(size=12)
    letters = max(1, int(large.shape[1] / font.getlength("n")))
    lines = textwrap.wrap(text, letters) or [""]
    words = Image.new("RGB", (large.shape[1], LINE * len(lines)), "white")
    draw = ImageDraw.Draw(words)
    for number, line in enumerate(lines):
        draw.text((2, LINE * number + 1), line, fill="black", font=font)
    return np.concatenate([large, np.asarray(words)])
