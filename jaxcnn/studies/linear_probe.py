"""Linear probe: a linear classifier of a frozen net's features, fitted exactly, in seconds for hundreds of photos.

Logistic regression with an L2 penalty (Alain & Bengio 2017; the protocol of Kornblith et al. 2019, section 3: L-BFGS,
the penalty chosen on validation images). Departures: features are standardized by the training images; after
the choice the classifier is not fitted again with the validation images.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcnn.data.few import Few
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs.features import Features, FrozenNet
from jaxcnn.studies.probes import SCORE
from jaxcnn.studies.statistics import share_interval
from jaxcnn.tasks.classification import Classification

PENALTIES = tuple(10.0 ** (power / 2) for power in range(2, -11, -1))
"""10, 3.2, 1, ..., 1e-5: what is tried."""
ITERATIONS = 1000


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A linear classifier and how right it is: the shares of the images of each split."""

    l2: float
    """The penalty: the loss is the mean cross-entropy plus l2 / 2 times the sum of the squared weights."""
    train: float
    validation: float
    test: float
    interval: tuple[float, float]
    """Of the test's share, 95% (Wilson's): what other test images of the same kind might give."""
    counts: tuple[int, int, int]
    """Of the images."""
    size: int
    """How many features an image has."""


def fit(train: Features, validation: Features, test: Features) -> Fitted:
    """The classifier with the penalty that puts most validation images right; of equal ones, that with the lower loss.

    Raises:
      UserError: a split is empty, or the training images are of one class.
    """
    from sklearn.linear_model import LogisticRegression

    splits = {"training": train, "validation": validation, "test": test}
    for name, split in splits.items():
        if not len(split.labels):
            raise UserError(f"a linear probe needs {name} images, and there are none")
    if len(np.unique(train.labels)) < 2:
        raise UserError("a linear probe needs training images of two classes at least")
    mean, deviation = train.values.mean(0, np.float64), train.values.std(0, np.float64)
    scaled = [(split.values - mean) / np.where(deviation > 0, deviation, 1) for split in splits.values()]
    if train.values.shape[0] < train.values.shape[1]:
        # The weights lie in the span of the training images, whose coordinates there are fewer: the same classifier.
        basis = np.linalg.svd(scaled[0], full_matrices=False)[2]
        scaled = [values @ basis.T for values in scaled]
    machine: Any = LogisticRegression(max_iter=ITERATIONS, tol=1e-5, warm_start=True)
    best: tuple[float, float] | None = None
    found = (0.0, [0.0, 0.0, 0.0])
    for l2 in PENALTIES:  # the strongest first: each is where the next begins
        machine.C = 1 / (l2 * len(train.labels))
        machine.fit(scaled[0], train.labels)
        pairs = zip(scaled, splits.values(), strict=True)
        shares = [float((machine.predict(values) == split.labels).mean()) for values, split in pairs]
        rank = (shares[1], -_loss(machine, scaled[1], validation.labels))
        if best is None or rank > best:
            best, found = rank, (l2, shares)
    l2, (of_train, of_validation, of_test) = found
    interval = share_interval(round(of_test * len(test.labels)), len(test.labels))
    counts = (len(train.labels), len(validation.labels), len(test.labels))
    return Fitted(l2, of_train, of_validation, of_test, interval, counts, train.values.shape[1])


def _loss(machine: Any, values: np.ndarray, labels: np.ndarray) -> float:
    """The mean cross-entropy. A class that no training image has gets what a probability can be at least."""
    probabilities = np.zeros((len(labels), max(labels.max(), machine.classes_.max()) + 1))
    probabilities[:, machine.classes_] = machine.predict_proba(values)
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean())


def probe(
    experiment: Experiment,
    endpoint: str = "final",
    folder: pathlib.Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Fitted:
    """A linear probe of the net with which an experiment would begin, on the experiment's data.

    Its training split is fitted, its first evaluation split chooses the penalty, its first test split measures.

    Args:
      experiment: a classification; with `init_from` the features are those of trained weights, without random ones.
      endpoint: which map, averaged over its positions; "final" is what the head reads.
      folder: in which features are kept; they are computed once for the same weights and images.
      say: is given what was loaded, and warnings.

    Raises:
      UserError: as FrozenNet and `fit`; the task is another one, or there is no evaluation or test split.

    Example: probe(experiment, folder=pathlib.Path("features")).test
    """
    data = experiment.data
    if not isinstance(experiment.task, Classification):
        raise UserError(f"a linear probe is of a classification, and this task is {type(experiment.task).__name__}")
    for field, splits in (("evaluation_splits", data.evaluation_splits), ("test_splits", data.tested)):
        if not splits:
            raise UserError(f"a linear probe needs data.{field}: validation images choose the penalty, others test")
    net = FrozenNet(experiment, endpoint, folder, say)
    return fit(*(net.features(split) for split in (data.train_split, data.evaluation_splits[0], data.tested[0])))


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """An arm of a study: the linear probe of the net with which the run `like` would begin.

    The seed draws the weights, if `like` starts from none; of a source `Few`, other images for each seed are taken.
    Metrics: "SPLIT SCORE", "SPLIT count" and "L2".
    """

    like: Experiment
    endpoint: str = "final"

    @property
    def metrics(self) -> tuple[str, ...]:
        split = self.like.data.test_splits[0]
        return (f"{split} {SCORE}", f"{split} count", "L2")

    def measure(self, seed: int) -> dict[str, float]:
        data, split = self.like.data, self.like.data.test_splits[0]
        if isinstance(data.source, Few):
            data = dataclasses.replace(
                data, source=dataclasses.replace(data.source, first=data.source.first + seed * data.source.each)
            )
        found = probe(dataclasses.replace(self.like, seed=seed, data=data), self.endpoint)
        return {f"{split} {SCORE}": found.test, f"{split} count": found.counts[2], "L2": found.l2}
