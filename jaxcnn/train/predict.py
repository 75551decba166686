"""Prediction: the most probable classes of image files, by a saved run."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.data import imagenet
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.train.evaluate import nets_of
from jaxcnn.train.saved import load_run


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, the most probable first, by name."""

    image: str
    classes: list[tuple[str, float]]

    def spoken(self) -> list[tuple[str, float]]:
        """The same with WordNet ids followed by what they mean: "n02123045 tabby, tabby cat"."""
        return [(" ".join(filter(None, (name, imagenet.names().get(name)))), score) for name, score in self.classes]


def predict_run(
    path: pathlib.Path, images: list[pathlib.Path], which: str = "latest", *, averaged: bool = False, top: int = 5
) -> list[Prediction]:
    """The `top` most probable classes of each image file, prepared as the run's evaluation images were.

    Raises:
      UserError: as load_run; an image cannot be read or does not have the size that the net takes; no average is kept.
    """
    saved = load_run(path, which)
    nets = nets_of(saved.state)
    if averaged and "_ema" not in nets:
        raise UserError(f"{path} keeps no average of its weights (its ema.decay is 0)")
    params, stats = nets["_ema" if averaged else ""]
    data, model = saved.experiment.data, saved.experiment.model

    @jax.jit
    def probabilities(params: Any, stats: Any, image: jax.Array) -> jax.Array:
        return jax.nn.softmax(model.apply({"params": params, **stats}, data.normalize(image), train=False)[0])

    predictions = []
    for image in images:
        pixels = _prepare(image, saved.experiment)
        with jax.default_matmul_precision(saved.experiment.precision):
            scores = np.asarray(probabilities(params, stats, jnp.asarray(pixels[None])))
        order = np.argsort(-scores, kind="stable")[:top]
        predictions.append(Prediction(str(image), [(saved.classes[i], float(scores[i])) for i in order]))
    return predictions


def _prepare(path: pathlib.Path, experiment: Experiment) -> np.ndarray:
    from jaxcnn.data.images import decode

    shape = experiment.data.image_shape
    try:
        image = decode(path.read_bytes(), shape[2])
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from error
    rng = np.random.default_rng(0)  # evaluation transforms draw nothing
    size = image.shape
    for transform in experiment.data.preprocess:
        image = transform(image, rng)
    if image.shape != shape:
        raise UserError(
            f"{path} is {size[0]}x{size[1]} and this run's evaluation makes it {image.shape[0]}x{image.shape[1]}, but "
            f"the net was trained on {shape[0]}x{shape[1]}; resize or crop the image first"
        )
    return image
