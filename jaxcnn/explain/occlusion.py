"""Occlusion (Zeiler & Fergus 2014, section 4.2): where a grey square lowers the probability of the class."""

import numpy as np

from jaxcnn.explain.deletion import Probability, probabilities_of


def occlusion(
    probability: Probability, image: np.ndarray, patch: int | None = None, stride: int | None = None
) -> np.ndarray:
    """How much the probability falls when a square around a pixel is hidden.

    Args:
      probability: of the class.
      image: [H, W, C] float, as `probability` reads it.
      patch: side of the square, in pixels; default a sixth of the shorter side.
      stride: between neighbouring squares; default half of `patch`. The last square of a row ends at the border.

    Returns:
      [H, W]: the mean fall over the squares that cover a pixel; negative where hiding it raises the probability. The
      square has the image's mean colour.
    """
    height, width, _ = image.shape
    patch = patch or max(1, min(height, width) // 6)
    stride = stride or max(1, patch // 2)
    corners = [(top, left) for top in starts(height, patch, stride) for left in starts(width, patch, stride)]
    colour = image.mean((0, 1))

    def hidden():
        yield image
        for top, left in corners:
            changed = image.copy()
            changed[top : top + patch, left : left + patch] = colour
            yield changed

    whole, *others = probabilities_of(probability, hidden())
    falls, covers = np.zeros((height, width)), np.zeros((height, width))
    for (top, left), other in zip(corners, others, strict=True):
        falls[top : top + patch, left : left + patch] += whole - other
        covers[top : top + patch, left : left + patch] += 1
    return falls / covers


def starts(side: int, patch: int, stride: int) -> list[int]:
    """Where squares begin along a side: every `stride` pixels, and one that ends at the border."""
    last = max(side - patch, 0)
    return sorted({*range(0, last, stride), last})
