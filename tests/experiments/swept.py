"""A sweep of seconds: a linear classifier at three rates, one of them wild, with and without momentum."""

import jaxcnn as jc
from tests.experiments.tuned import study


def sweep() -> jc.Sweep:
    return jc.Sweep(
        study().arms["plain"],
        {"optimizer.learning_rate": (0.01, 0.2, 1e38), "optimizer.momentum": (0.0, 0.9)},
        metric="validation loss",
    )
