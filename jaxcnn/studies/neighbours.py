"""Neighbours: k-nearest neighbours as an arm of a study, with the time and the memory that it takes."""

import dataclasses

import jax
import numpy as np

from jaxcnn.data.draws import EVALUATION, Draws
from jaxcnn.data.examples import Examples
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.preparation import read
from jaxcnn.data.splits import open_split
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models.knn import KNN, Distance
from jaxcnn.studies.probes import SCORE, fastest


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """Memorises the training split of a net's experiment, without augmentation, and classifies its test split.

    Nothing is drawn, so that every seed measures the same. Metrics: "SPLIT SCORE", "SPLIT count",
    "milliseconds per test image" (the fastest of three passes over one batch) and "megabytes kept", the images.
    """

    like: Experiment
    """The run to compare with: its data is taken."""
    k: int = 1
    distance: Distance = "l2"

    @property
    def metrics(self) -> tuple[str, ...]:
        split = self.like.data.test_splits[0]
        return (f"{split} {SCORE}", f"{split} count", "milliseconds per test image", "megabytes kept")

    def measure(self, seed: int) -> dict[str, float]:
        data, split = self.like.data, self.like.data.test_splits[0]
        train = open_split(data.source, data.train_split, data.data_dir)
        images, labels = _read(train, data)
        queries, truth = _read(open_split(data.source, split, data.data_dir), data)
        knn = KNN(classes=len(train.classes), k=self.k, distance=self.distance)
        # On the device, as a net's parameters are: the time is that of the queries alone, transfers of them included.
        variables = jax.device_put(knn.memorize(images, labels))
        classify = jax.jit(lambda variables, images: knn.apply(variables, images, train=False))
        batch = min(250, len(queries))
        right = 0
        for start in range(0, len(queries), batch):
            part = slice(start, start + batch)
            right += int((np.asarray(classify(variables, queries[part])).argmax(-1) == truth[part]).sum())
        seconds = fastest(classify, variables, queries[:batch], repeats=3)
        return {
            f"{split} {SCORE}": right / len(queries),
            f"{split} count": len(queries),
            "milliseconds per test image": 1000 * seconds / batch,
            "megabytes kept": images.nbytes / 1e6,
        }


def _read(examples: Examples, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, H, W, C] after the evaluation's transforms, and labels [n]."""
    draws, fields = Draws(EVALUATION), with_image(data.shape(evaluated=True), LABEL)
    found = [read(examples, i, data.preprocess, draws.at(i), fields) for i in range(len(examples))]
    return np.stack([one["image"] for one in found]), np.array([one["label"] for one in found])
