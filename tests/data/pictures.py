"""Pictures that tests of transforms share: noise of odd sizes and a smooth one."""

import numpy as np

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (37, 53, 3), dtype=np.uint8)  # odd sizes, taller and wider differ
SMOOTH = np.rint(
    np.stack(
        [127 + 100 * np.sin(np.add.outer(np.arange(61) / a, np.arange(81) / b)) for a, b in ((9, 7), (8, 15), (20, 6))],
        -1,
    )
).astype(np.uint8)


def rng(seed=0):
    return np.random.default_rng(seed)
