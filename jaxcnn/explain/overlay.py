"""Maps, boxes and weights drawn as uint8 images [H, W, 3]."""

import math

import matplotlib
import numpy as np

# Red, green and blue of the boxes: the map's own, and the one to compare it with.
FOUND, GIVEN = (255, 255, 255), (60, 220, 90)
GAP, LINE = 2, 150
"""Pixels between the tiles of a grid, and their grey: weights of 0 are white."""


def rgb(image: np.ndarray) -> np.ndarray:
    """A uint8 image [H, W, 1] or [H, W, 3] as [H, W, 3]."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def zoom(side: int, least: int = 224) -> int:
    """The whole factor by which a small picture is enlarged, so that its `side` is not much below `least`."""
    return max(1, round(least / side))


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """Each pixel [H, W, ...] as a square of factor x factor."""
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def overlay(image: np.ndarray, heat: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """A map [H, W] over an image [H, W, C] uint8, blue to red; the larger its value, the less is left of the image.

    The scale ends at the map's largest value; what is not above 0 is not drawn, so a map of zeros leaves the image.
    """
    heat = np.maximum(heat, 0)
    scaled = heat / heat.max() if heat.max() > 0 else heat
    colours = 255 * matplotlib.colormaps["turbo"](scaled)[..., :3]
    weight = opacity * np.sqrt(scaled)[..., None]
    return (rgb(image) * (1 - weight) + colours * weight).round().astype(np.uint8)


def draw_box(image: np.ndarray, box: np.ndarray, colour: tuple[int, int, int], width: int = 2) -> np.ndarray:
    """The outline of a box (left, top, right, bottom), inside of it and of the image."""
    image = image.copy()
    height, length = image.shape[:2]
    left, top, right, bottom = (round(float(edge)) for edge in box)
    left, right = max(left, 0), min(right, length)
    top, bottom = max(top, 0), min(bottom, height)
    inside = image[top:bottom, left:right].copy()
    image[top:bottom, left:right] = colour
    inner = (slice(width, max(bottom - top - width, width)), slice(width, max(right - left - width, width)))
    image[top:bottom, left:right][inner] = inside[inner]
    return image


def weights_image(weights: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Weights [h, w, C] as a picture: one channel from blue (negative) over white (0) to red, three as a colour around
    grey; the scale is symmetric and ends at `largest`, default their own."""
    largest = largest or float(np.abs(weights).max()) or 1.0
    if weights.shape[2] == 1:
        colours = matplotlib.colormaps["RdBu_r"](0.5 + weights[..., 0] / (2 * largest))[..., :3]
        return (255 * colours).round().astype(np.uint8)
    return signed_image(weights, largest)


def signed_image(values: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Numbers [H, W, C] as a picture in which 0 is middle gray; the scale is symmetric and ends at `largest`, default
    their own."""
    largest = largest or float(np.abs(values).max()) or 1.0
    return (127.5 + 127.5 * values / largest).clip(0, 255).round().astype(np.uint8)


def map_image(values: np.ndarray) -> np.ndarray:
    """A feature map [H, W] from dark (its least value) to bright (its largest)."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros(values.shape)
    return (255 * matplotlib.colormaps["viridis"](scaled)[..., :3]).round().astype(np.uint8)


def grid(tiles: list[np.ndarray], columns: int | None = None) -> np.ndarray:
    """Pictures [h, w, 3] of one size, row by row, with grey lines between them; default about as wide as high."""
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    picture = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), LINE, np.uint8)
    blank = np.full_like(tiles[0], 255)
    for number, tile in enumerate([*tiles, *[blank] * (rows * columns - len(tiles))]):
        top, left = number // columns * (height + GAP), number % columns * (width + GAP)
        picture[top : top + height, left : left + width] = tile
    return picture
