"""Over two hundred small image files, odd or damaged, with what a right reader answers: pixels, or a refusal.

Pixels come from the arrays that were written, or for lossy formats from Pillow's reading of the file before it was
changed; orientations are turned by numpy, transparency is laid over white by numpy. Nothing here calls jaxcnn.
"""

import numpy as np

from tests.data.mutants.deep import deep
from tests.data.mutants.exif import oriented
from tests.data.mutants.jpeg import jpegs
from tests.data.mutants.modes import modes
from tests.data.mutants.mutant import Mutant
from tests.data.mutants.png import chunked


def mutants(seed: int = 0) -> list[Mutant]:
    rng = np.random.default_rng(seed)
    return [*jpegs(rng), *oriented(rng), *chunked(rng), *deep(rng), *modes(rng)]
