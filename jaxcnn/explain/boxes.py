"""The localisation box of a map, as (left, top, right, bottom)."""

from typing import cast

import numpy as np
from scipy import ndimage


def box_of(heat: np.ndarray, threshold: float = 0.2) -> np.ndarray | None:
    """The localisation box of a map [H, W] (Zhou et al. 2016, section 3.2), [4]; None where no value is above 0.

    It encloses the largest connected part of what reaches `threshold` times the largest value; right and bottom lie
    behind the last pixel.
    """
    if not heat.max() > 0:
        return None
    parts, count = cast(tuple[np.ndarray, int], ndimage.label(heat >= threshold * heat.max()))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    rows, columns = ndimage.find_objects(parts)[int(sizes.argmax())]
    return np.array([columns.start, rows.start, columns.stop, rows.stop], np.float64)
