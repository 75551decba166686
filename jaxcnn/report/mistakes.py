"""Mistakes: photos in which a net of boxes is most wrong, for a page."""

import dataclasses

import numpy as np

PICTURES = 8
"""Photos of one kind of mistake."""


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A photo with one thing that is wrong in it."""

    picture: np.ndarray
    """uint8 [H, W, 3]."""
    told: str
    where: str
