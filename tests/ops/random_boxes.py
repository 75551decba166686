"""Boxes for tests of operators."""

import numpy as np


def random_boxes(rng: np.random.Generator, shape: tuple[int, ...], image: int = 100, smallest: float = 1) -> np.ndarray:
    """[*shape, 4] float32 within an image of image x image pixels, sides from `smallest` to about two thirds of it."""
    sides = rng.uniform(smallest, image * 2 / 3, (*shape, 2))
    first = rng.uniform(0, 1, (*shape, 2)) * (image - sides)
    return np.concatenate([first, first + sides], -1).astype(np.float32)
