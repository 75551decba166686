"""Target: the class that a map of a net is about, and how much the net sees of it in an image."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.data import imagenet
from jaxcnn.errors import UserError
from jaxcnn.explain.deletion import Probability
from jaxcnn.runs.prediction import Net
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.segmentation import Segmentation


@dataclasses.dataclass(frozen=True)
class Target:
    """A class of one image."""

    index: int
    label: str
    line: str
    """What the net says of it, for a person."""
    probability: Probability
    """Of the class, in changed versions of the image."""


def target_of(net: Net, image: np.ndarray, chosen: int | None) -> Target:
    """The chosen class of a prepared image, uint8 [H, W, C], or else the predicted one.

    A segmenter predicts many: of these the one with most pixels is taken. Its probability is the mean over the pixels
    at which the unchanged image has the class, and over all pixels if there are none.

    Raises:
      UserError: the run's task has no classes of images or of pixels.
    """
    task = net.experiment.task
    if isinstance(task, Classification):
        return _of_classifier(net, image, chosen)
    if isinstance(task, Segmentation):
        return _of_segmenter(net, image, chosen)
    raise UserError(
        f"a map of a class needs a net that classifies or segments, and the run's task is {type(task).__name__}; what "
        "it answers is shown by --method prediction, what its layers see by features, receptive-field and filters"
    )


def _of_classifier(net: Net, image: np.ndarray, chosen: int | None) -> Target:
    scores = net.probabilities(image[None])[0]
    index = int(scores.argmax()) if chosen is None else chosen
    label = imagenet.described(net.classes[index])
    line = f"{label}, probability {scores[index]:.4f}{' (predicted)' if chosen is None else ''}"
    return Target(index, label, line, lambda images: net.probabilities(images)[:, index])


def _of_segmenter(net: Net, image: np.ndarray, chosen: int | None) -> Target:
    labels = net.predict(image[None])[0]
    covered = np.bincount(labels.reshape(-1), minlength=len(net.classes))
    index = int(covered.argmax()) if chosen is None else chosen
    label = net.classes[index]
    line = f"{label}, {covered[index] / labels.size:.1%} of the pixels{' (most of all)' if chosen is None else ''}"
    if not covered[index]:
        line += ": predicted nowhere, so that the map is of all pixels"
    weights = np.where(covered[index], labels == index, True).astype(np.float32)
    model, normalize, variables = net.experiment.model, net.data.normalize, net.variables

    def one(variables: Any, image: jax.Array) -> jax.Array:
        logits = model.apply(variables, normalize(image[None]), train=False)
        return (jax.nn.softmax(jnp.asarray(logits)[0])[..., index] * weights).sum() / weights.sum()

    # One image after another: the probabilities of all pixels of many would not fit.
    all_images = jax.jit(lambda variables, images: jax.lax.map(lambda image: one(variables, image), images))

    def probability(images: np.ndarray) -> np.ndarray:
        with jax.default_matmul_precision(net.experiment.precision):
            return np.asarray(all_images(variables, images))

    return Target(index, label, line, probability)
