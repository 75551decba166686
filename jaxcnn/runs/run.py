"""Run: a trained model in Python, and training from Python, as in a notebook (docs/python.md).

A run that is started here is an ordinary run directory: every command reads it, and the same call goes on with it.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import linen as nn
from rich.console import Console

from jaxcnn import config, files
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs import checkpoint, restore
from jaxcnn.runs.display import Display
from jaxcnn.runs.evaluation import Metrics, evaluate_restored
from jaxcnn.runs.loop import run
from jaxcnn.runs.prediction import Net, Prediction, decode_file, load_net, prepare
from jaxcnn.runs.restore import check_init_from, prepared_as_source
from jaxcnn.runs.run_directory import open_run
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.start import start_run
from jaxcnn.runs.teacher import check_teacher
from jaxcnn.runs.views import with_views
from jaxcnn.tasks.views import Views

Image = str | pathlib.Path | np.ndarray


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory with the net of one of its checkpoints."""

    path: pathlib.Path
    net: Net
    result: dict[str, dict[str, Any]]
    """What result.json has, {"test": {"accuracy": ..., "count": ...}, ...}; {} before the run is done."""

    @property
    def experiment(self) -> Experiment:
        return self.net.experiment

    @property
    def model(self) -> nn.Module:
        return self.experiment.model

    @property
    def variables(self) -> Any:
        """{"params": ..., "batch_stats": ...}, for model.apply."""
        return self.net.variables

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in label order."""
        return self.net.classes

    @property
    def step(self) -> int:
        """Of the checkpoint."""
        return self.net.step

    def with_views(self, views: Views, side: int | None = None) -> "Run":
        """The run as it evaluates and predicts with these views of each image, jc.TenCrop(224) say, cut out of images
        of `side` x `side` pixels; None: of the size that it has.

        Raises UserError if the run does not classify.

        Example: jc.evaluate(run.with_views(jc.TenCrop(224), side=256), "test")
        """
        experiment = with_views(self.experiment, views, side)
        return dataclasses.replace(self, net=dataclasses.replace(self.net, experiment=experiment))

    def probabilities(self, images: Image | Sequence[Image]) -> np.ndarray:
        """One image or several -> [B, classes].

        An image is a file's path or an array, uint8 [H, W, C]; an array [B, H, W, C] is several. All are prepared as
        the run prepares its evaluation images.

        Raises:
          UserError: an image cannot be read, is not uint8, or does not get the size that the net takes; there is none.
        """
        prepared = [prepare(image, self.net.data, path) for image, path in map(self._read, _several(images))]
        return self.net.probabilities(np.stack(prepared))

    def predict(self, images: Image | Sequence[Image], top: int = 5) -> list[Prediction]:
        """What the net says about each image; a classifier names the `top` most probable classes.

        Raises UserError as `probabilities`.
        """
        return [
            Prediction(
                str(image) if isinstance(image, str | pathlib.Path) else f"image {number}",
                self.net.answer_for(*self._read(image), top),
            )
            for number, image in enumerate(_several(images))
        ]

    def _read(self, image: Image) -> tuple[np.ndarray, pathlib.Path]:
        """An image and what messages call it."""
        channels = self.net.data.image_shape[2]
        if isinstance(image, str | pathlib.Path):
            path = pathlib.Path(image)
            return decode_file(path, channels), path
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
            raise UserError(
                f"the image is {image.dtype} {list(image.shape)}, but an image is uint8 [H, W, {channels}], in 0..255"
            )
        return image, pathlib.Path("the image")


def _several(images: Image | Sequence[Image]) -> list[Image]:
    """The images, one or several: an array [B, H, W, C] is several. Raises UserError if there is none."""
    if isinstance(images, str | pathlib.Path) or (isinstance(images, np.ndarray) and images.ndim != 4):
        return [images]
    if not len(images):
        raise UserError("the list of images is empty: give at least one path or array")
    return list(images)


def load_run(path: str | pathlib.Path, checkpoint: str = "latest", *, averaged: bool = False) -> Run:
    """A run directory, or what import-weights wrote, with its net.

    Args:
      path: the run directory.
      checkpoint: "latest", "best" or a step.
      averaged: the average of the weights (`ema`) in their place.

    Raises:
      UserError: this is no run, or it has no such checkpoint or average.
    """
    path = files.expanded(pathlib.Path(path))
    return Run(path, load_net(path, checkpoint, averaged=averaged), open_run(path).result())


def train(experiment: Experiment, workdir: str | pathlib.Path, *, quiet: bool = False) -> Run:
    """Trains an experiment into a run directory, and returns it; the same call goes on if it was interrupted.

    Classes of your own should stand in a module that can be imported: of a run with classes from a notebook's cells the
    net is known here and now, but `load_run` and the commands cannot rebuild it later.

    Raises:
      UserError: as `python -m jaxcnn.launch` refuses it; or the loss was not finite.
    """
    path = files.expanded(pathlib.Path(workdir)).absolute()
    experiment = prepared_as_source(experiment)
    plan = make_plan(experiment)
    if not checkpoint.steps(path / "checkpoints"):
        check_init_from(experiment, plan.mesh)
    check_teacher(plan)
    with (
        start_run(path, config.encode(experiment), None, plan.dataset()) as directory,
        Display(Console(quiet=quiet)) as display,
    ):
        outcome = run(plan, directory, display)
    if outcome.state != "done":
        raise UserError(outcome.message)
    return Run(path, load_net(path, experiment=experiment), outcome.result)


def evaluate(run: Run | str | pathlib.Path, split: str | None = None) -> Metrics:
    """Metrics of a run, every example counted once: {"test": {"loss": ..., "accuracy": ..., "count": ...}, ...}.

    On the run's own splits they are the training's own, exactly. With an average of the weights (`ema`) the split
    "test_ema" stands beside "test".

    Args:
      run: what `train` or `load_run` returned, whose checkpoint is evaluated; or a run directory, at its newest one.
      split: of the run's data, or a part of one, "train[:1000]"; default its test and evaluation splits.

    Raises:
      UserError: this is no run, the split does not exist, or its images are not where they were.

    Example: jc.evaluate("runs/lenet_digits", "train[:100]")["train[:100]"]["accuracy"]
    """
    loaded = _as_run(run)
    data = loaded.experiment.data
    restored = restore.load_run(loaded.path, str(loaded.step), loaded.experiment)
    splits = (*data.tested, *data.evaluation_splits) if split is None else (split,)
    return evaluate_restored(restored, loaded.experiment, splits)


def predict(run: Run | str | pathlib.Path, images: Image | Sequence[Image], top: int = 5) -> list[Prediction]:
    """The `top` most probable classes of each image, by name, the most probable first.

    Args:
      run: what `train` or `load_run` returned, or a run directory. To ask often, load it once.
      images: one or several: paths of image files, or arrays uint8 [H, W, C]; an array [B, H, W, C] is several.
      top: how many classes.

    Raises:
      UserError: this is no run; or an image cannot be read, is not uint8, or does not get the size that the net takes.

    Example: jc.predict("runs/lenet_digits", "digit.png")[0].classes
    """
    return _as_run(run).predict(images, top)


def _as_run(run: Run | str | pathlib.Path) -> Run:
    if isinstance(run, Run):
        return run
    if not isinstance(run, str | pathlib.Path):
        raise UserError(f"a run is what load_run returns or the path of its directory, not {type(run).__name__}")
    return load_run(run)
