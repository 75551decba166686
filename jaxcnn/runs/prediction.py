"""Prediction: what a saved run says about image files, and folders of them."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxcnn.data import imagenet
from jaxcnn.data.examples import Example
from jaxcnn.data.fields import Field
from jaxcnn.data.folder import EXTENSIONS
from jaxcnn.data.preparation import NOTHING, placed, transformed
from jaxcnn.data.proposals import WithProposals, image_id
from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.experiment import Data, Experiment
from jaxcnn.files import read_bytes
from jaxcnn.runs.batch_shapes import batch_fields
from jaxcnn.runs.evaluation import nets_of
from jaxcnn.runs.restore import load_run
from jaxcnn.runs.views import Name, with_named_views
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.task import Answer, Placing, inputs_of


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a net says about one image."""

    image: str
    answer: Answer

    @property
    def classes(self) -> list[tuple[str, float]]:
        """Of a classifier: the most probable classes with their probabilities, the most probable first."""
        return self.answer.values["classes"]


@dataclasses.dataclass(frozen=True)
class Failure:
    """An image file that the net could not be asked about."""

    image: str
    cause: str
    """A sentence that names the file."""


@dataclasses.dataclass(frozen=True)
class Net:
    """A saved net that answers for images as its run's evaluation prepares them."""

    experiment: Experiment
    classes: tuple[str, ...]
    variables: Any
    step: int

    @property
    def data(self) -> Data:
        return self.experiment.data

    def predict(self, images: np.ndarray, **inputs: np.ndarray) -> Any:
        """Prepared images, uint8 [B, H, W, C], and what the task reads beside (`inputs_of`) -> what it predicts, arrays
        [B, ...]."""
        with jax.default_matmul_precision(self.experiment.precision):
            return jax.device_get(self._predict(self.variables, images, inputs))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Prepared images, uint8 [B, H, W, C] -> [B, classes]. Raises UserError if the net is no classifier."""
        task = self.experiment.task
        if not isinstance(task, Classification):
            raise UserError(f"this needs a net that classifies, and the run's task is {type(task).__name__}")
        return self.predict(images)

    def answer(self, image: np.ndarray, top: int = 5, **inputs: np.ndarray) -> Answer:
        """What the net says about one prepared image, uint8 [H, W, C], and its part of what the task reads beside."""
        predicted = self._one(image, inputs)
        return self.experiment.task.answer(predicted, image, self.classes, top)

    def answer_for(self, image: np.ndarray, path: pathlib.Path, top: int = 5) -> Answer:
        """What the net says about an image that is not prepared yet, uint8 [H, W, C]. A task that answers with places
        tells them in this image, the others in the prepared one.

        Raises UserError, which names `path`, as `prepare`.
        """
        task = self.experiment.task
        if not isinstance(task, Placing):
            return self.answer(prepare(image, self.data, path), top)
        names = inputs_of(task)
        example = _prepared(image, self.data, path, placing=True, inputs=self._inputs(names, image, path))
        fields = batch_fields(self.experiment, evaluated=True)
        predicted = self._one(example["image"], {name: _filled(example[name], fields[name]) for name in names})
        there = task.to_original(predicted, example["placement"], image.shape[:2])
        return task.answer(there, image, self.classes, top)

    @functools.cached_property
    def _predict(self) -> Callable[..., Any]:
        task, model, normalize = self.experiment.task, self.experiment.model, self.data.normalize
        return jax.jit(lambda variables, images, inputs: task.predict(model, variables, normalize(images), **inputs))

    def _one(self, image: np.ndarray, inputs: Mapping[str, np.ndarray]) -> Any:
        return jax.tree.map(lambda x: x[0], self.predict(image[None], **{name: x[None] for name, x in inputs.items()}))

    def _inputs(self, names: tuple[str, ...], image: np.ndarray, path: pathlib.Path) -> dict[str, np.ndarray]:
        """What the task reads beside a photo. Raises UserError if the run's source cannot tell."""
        if not names:
            return {}
        source = self.data.source
        if names != ("proposals",) or not isinstance(source, WithProposals):
            raise UserError(
                f"{path}: this run's net reads {' and '.join(names)} beside a photo, and its source, a "
                f"{type(source).__name__}, has them of its own images alone; WithProposals finds proposals in any photo"
            )
        try:
            return {"proposals": source.propose(image, image_id(str(path)))}
        except ValueError as error:
            raise UserError(
                f"{path}: this run looks at proposals, and {error}; put this photo's into that file by "
                "jc.write_proposals"
            ) from error

    def index(self, name: str) -> int:
        """The class of this name or index; for ImageNet also any of the words that WordNet has for it, as "tabby".

        Raises:
          UserError: there is none, or the word means several; the message names the nearest.
        """
        if name in self.classes:
            return self.classes.index(name)
        if name.isdigit() and int(name) < len(self.classes):
            return int(name)
        words = {}
        for index, known in enumerate(self.classes):
            for word in {known, *imagenet.names().get(known, "").split(", ")} - {""}:
                words.setdefault(word.lower(), []).append(index)
        found = words.get(name.lower(), [])
        if len(found) > 1:
            raise UserError(
                f"{name!r} is {' and '.join(imagenet.described(self.classes[i]) for i in found)}; give its id"
            )
        if not found:
            hint = "" if name.isdigit() else did_you_mean(name.lower(), words)
            hint = hint or f"; it has {len(self.classes)} classes, from 0"
            raise UserError(f"the net has no class {name!r}{hint}")
        return found[0]


def load_net(
    path: str | pathlib.Path,
    checkpoint: str = "latest",
    *,
    averaged: bool = False,
    experiment: Experiment | None = None,
) -> Net:
    """The net of a run's checkpoint, or with `averaged` the average of its weights.

    `experiment` is the run's, if it is known; else it is read from config.json.

    Raises:
      UserError: as load_run; no average is kept.
    """
    restored = load_run(path, checkpoint, experiment)
    nets = nets_of(restored.state)
    if averaged and "_ema" not in nets:
        raise UserError(f"{path} keeps no average of its weights (its ema is off)")
    params, stats = nets["_ema" if averaged else ""]
    return Net(restored.experiment, restored.classes, {"params": params, **stats}, restored.step)


def predict_run(
    path: pathlib.Path,
    images: list[pathlib.Path],
    checkpoint: str = "latest",
    *,
    averaged: bool = False,
    top: int = 5,
    views: Name | None = None,
    sides: str | None = None,
) -> list[Prediction | Failure]:
    """What the net says about each image file, prepared as the run's evaluation images were.

    `top` is how many of the most probable classes a classifier names; with `views` each image is looked at several
    times, at these `sides` (runs/views.py).

    A folder stands for its images, as in `listed`. An image that cannot be read, or does not get the size that the net
    takes, is a Failure and costs the others nothing.

    Raises:
      UserError: as load_run and `listed`; no average is kept.
    """
    files = listed(images)
    net = load_net(path, checkpoint, averaged=averaged)
    if views is not None:
        net = dataclasses.replace(net, experiment=with_named_views(net.experiment, views, sides))
    predictions: list[Prediction | Failure] = []
    for file in files:
        try:
            found = net.answer_for(decode_file(file, net.data.image_shape[2]), file, top)
        except UserError as error:
            predictions.append(Failure(str(file), str(error)))
            continue
        predictions.append(Prediction(str(file), found))
    return predictions


def listed(images: list[pathlib.Path]) -> list[pathlib.Path]:
    """The image files among these paths: a folder stands for all images in it and in the folders inside of it, known by
    their extension, sorted by path. Hidden ones are left out, and links to folders are not followed.

    Raises:
      UserError: a folder has no images or cannot be read.
    """
    found = []
    for path in images:
        if os.path.isdir(path):
            found += _images_inside(path)
        else:
            found.append(path)
    return found


def _images_inside(path: pathlib.Path) -> list[pathlib.Path]:
    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error

    found = []
    for folder, folders, names in os.walk(path, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in names if not name.startswith(".") and name.lower().endswith(EXTENSIONS)]
        found += [pathlib.Path(folder, name) for name in images]
    if not found:
        raise UserError(f"{path} has no images: no file in it ends in one of {' '.join(EXTENSIONS)}")
    return sorted(found)


def decode_file(path: pathlib.Path, channels: int) -> np.ndarray:
    """An image file as uint8 [H, W, channels]. Raises UserError where it cannot be read."""
    from jaxcnn.data.images import decode

    try:
        return decode(read_bytes(path), channels)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from error


def prepare(image: np.ndarray, data: Data, path: pathlib.Path) -> np.ndarray:
    """An image after the evaluation transforms, uint8 of evaluation's shape. Raises UserError if it gets another."""
    return _prepared(image, data, path, placing=False)["image"]


def _filled(rows: np.ndarray, field: Field) -> np.ndarray:
    """The first rows that a batch has room for, and padding behind them."""
    filled = field.empty(1)[0]
    filled[: len(rows)] = rows[: len(filled)]
    return filled


def _prepared(
    image: np.ndarray, data: Data, path: pathlib.Path, *, placing: bool, inputs: Mapping[str, np.ndarray] = NOTHING
) -> Example:
    """The same as an example, if `placing` with its "placement" and the inputs moved with it."""
    rng = np.random.default_rng(0)  # evaluation transforms draw nothing
    size, shape = image.shape, data.shape(evaluated=True)
    try:
        if placing:
            example = placed(image, data.preprocess, rng, inputs)
        else:
            example = transformed({"image": image}, data.preprocess, rng)
    except UserError as error:
        raise UserError(f"{path}, of {size[0]}x{size[1]}: {error}") from error
    found = example["image"].shape
    if found != shape:
        raise UserError(
            f"{path} is {size[0]}x{size[1]} and this run's evaluation makes it {found[0]}x{found[1]}, but "
            f"it takes {shape[0]}x{shape[1]}; resize or crop the image first"
        )
    return example
