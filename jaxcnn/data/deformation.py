"""Deformation: a picture turned, mirrored, scaled and bent by a smooth random field, with its transparency.

The field is that of U-Net's augmentation (Ronneberger, Fischer & Brox 2015, section 3.1): normal displacements at the
points of a coarse 3 x 3 grid, bicubic in between. Departure: their deviation is a part of the picture's longer side,
and not 10 pixels.
"""

import dataclasses
import math

import cv2
import numpy as np

GRID = 3
LARGEST = 3.0
"""Deviations at which a displacement is cut off, so that the picture stays in its frame."""


@dataclasses.dataclass(frozen=True)
class Deformation:
    """What becomes of one picture: numbers alone, drawn once."""

    size: float
    """Pixels of the longer side."""
    angle: float = 0.0
    """Radians, counterclockwise."""
    mirrored: bool = False
    """Left and right change places, before it is turned."""
    field: np.ndarray | None = None
    """[GRID, GRID, 2], (x, y) displacements in parts of the longer side; None: none."""


def draw(
    rng: np.random.Generator, size: tuple[float, float], rotation: float, mirror: bool, deviation: float
) -> Deformation:
    """A deformation at random.

    Args:
      rng: draws the same numbers whatever the other arguments are, so that one can be changed alone.
      size: least and most pixels of the longer side.
      rotation: degrees, at most, to either side.
      mirror: whether half of them are.
      deviation: of the displacements, in parts of the longer side.
    """
    length, angle, side = rng.uniform(size=3)
    field = np.clip(rng.standard_normal((GRID, GRID, 2)), -LARGEST, LARGEST) * deviation
    return Deformation(
        size[0] + length * (size[1] - size[0]),
        math.radians(rotation) * (2 * angle - 1),
        bool(mirror and side < 0.5),
        field.astype(np.float32) if deviation else None,
    )


def deform(picture: np.ndarray, by: Deformation) -> np.ndarray:
    """A picture with transparency after a deformation, cut to what is seen of it.

    Args:
      picture: uint8 [H, W, 4], red, green, blue and opacity.
      by: the deformation.

    Returns:
      uint8 [H', W', 4] with at least one pixel. Colors are those before the transparency was multiplied in.
    """
    scale = by.size / max(picture.shape[:2])
    width, height = (max(1, round(scale * side)) for side in (picture.shape[1], picture.shape[0]))
    # Weighted by the opacity, so that what is behind the cut does not bleed in; averaged first, against aliasing.
    weighted = picture.astype(np.float32)
    weighted[..., :3] *= weighted[..., 3:] / 255
    small = cv2.resize(weighted, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    bend = 0.0 if by.field is None else float(np.abs(by.field).max())
    inner = math.ceil(math.hypot(width, height)) + 2
    margin = math.ceil(1.5 * bend * by.size)  # bicubic values lie beyond those of the grid
    # Odd or even as the picture is, so that a pixel that is only moved stays one.
    columns, rows = (inner + 2 * margin + (inner - length) % 2 for length in (width, height))
    x, y = np.meshgrid(*(np.arange(length, dtype=np.float32) - (length - 1) / 2 for length in (columns, rows)))
    if by.field is not None:
        inside = (columns - 2 * margin, rows - 2 * margin)
        field = cv2.resize(by.field * by.size, inside, interpolation=cv2.INTER_CUBIC)
        field = np.pad(field, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
        x, y = x + field[..., 0], y + field[..., 1]
    cosine, sine = math.cos(by.angle), math.sin(by.angle)
    across, down = x * cosine - y * sine, x * sine + y * cosine
    across = -across if by.mirrored else across
    places = (across + (width - 1) / 2, down + (height - 1) / 2)
    found = cv2.remap(small, *(each.astype(np.float32) for each in places), interpolation=cv2.INTER_LINEAR)
    found[..., :3] *= 255 / np.maximum(found[..., 3:], 1e-3)
    return cropped(np.clip(np.rint(found), 0, 255).astype(np.uint8))


def cropped(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 4] cut to its `visible` pixels; one pixel if there is none."""
    rows, columns = (np.flatnonzero(visible(picture).any(axis)) for axis in (1, 0))
    if not len(rows):
        return picture[:1, :1]
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def visible(picture: np.ndarray) -> np.ndarray:
    """bool [H, W]: where a picture [H, W, 4] is more opaque than not; of one that is faint everywhere, the most
    opaque."""
    opacity = picture[..., 3]
    return opacity >= max(1, min(128, int(opacity.max())))
