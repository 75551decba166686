"""tests/experiments/tiny.py with data that takes its time, so that there is a run to interrupt, and can hang."""

import dataclasses
import pathlib
import time

import jax
import numpy as np

from jaxcnn.experiment import Experiment
from tests.experiments.tiny import experiment as tiny


@dataclasses.dataclass(frozen=True)
class Wait:
    """Waits before an image goes on; for ever in one process, once the file `hang` exists."""

    seconds: float = 0.0
    hang: str = ""
    process: int = -1

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        time.sleep(self.seconds)
        while jax.process_index() == self.process and pathlib.Path(self.hang).exists():
            time.sleep(0.1)
        return image


def experiment(seconds: float = 0.002, hang: str = "", hang_process: int = -1) -> Experiment:
    made = tiny()
    data = dataclasses.replace(made.data, augment=(*made.data.augment, Wait(seconds, hang, hang_process)))
    return dataclasses.replace(made, data=data)
