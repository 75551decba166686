"""Views of a saved run: evaluation and prediction that look at an image several times, though the run's own do not."""

import dataclasses
import logging
from typing import Literal

import jax
import jax.numpy as jnp
from flax.errors import FlaxError

from jaxcnn.data.transforms import CenterCrop, Resize
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.views import Dense, Flips, TenCrop, Views, evaluated_with

log = logging.getLogger("jaxcnn")

Name = Literal["flips", "ten-crop", "dense"]


def with_views(experiment: Experiment, views: Views, side: int | None = None) -> Experiment:
    """The experiment with these views in evaluation, of images of `side` x `side` if it is given.

    With `side` the shorter side is brought to it and the middle is cut out, in the place of every Resize and
    CenterCrop of the run's own `preprocess`; by the run's method of resampling, if it resizes.

    Raises UserError if the run does not classify. Warns of crops that are all the same.
    """
    task, data = experiment.task, experiment.data
    if not isinstance(task, Classification):
        raise UserError(f"views are for a run that classifies, and this run's task is {type(task).__name__}")
    if side is not None:
        own = [number for number, each in enumerate(data.preprocess) if isinstance(each, Resize | CenterCrop)]
        resize = next((each for each in data.preprocess if isinstance(each, Resize)), Resize(side))
        first = own[0] if own else len(data.preprocess)
        before, after = data.preprocess[:first], data.preprocess[first:]
        data = dataclasses.replace(
            data,
            preprocess=(
                *before,
                Resize(side, method=resize.method),
                CenterCrop(side),
                *(each for each in after if not isinstance(each, Resize | CenterCrop)),
            ),
            evaluation_shape=(side, side, data.image_shape[2]),
        )
    if isinstance(views, TenCrop) and (doubt := views.doubt(data.shape(evaluated=True))):
        larger = round(data.shape(evaluated=True)[0] * 256 / 224)
        log.warning("%s; give larger images: --sides %d, or side=%d", doubt, larger, larger)
    return dataclasses.replace(experiment, task=dataclasses.replace(task, views=views), data=data)


def with_named_views(experiment: Experiment, name: Name, sides: str | None) -> Experiment:
    """The same by the words of the command line: sides "256", or for "dense" several, "256,384,512".

    The crops of "ten-crop" have the size of training.

    Raises UserError: the sides are no numbers, several for views that have one, or the net or the views do not take
    images of these sides.
    """
    try:
        numbers = tuple(int(side) for side in sides.split(",")) if sides else ()
    except ValueError:
        numbers = (0,)
    if any(number < 1 for number in numbers):
        raise UserError(f"--sides {sides}: give sides in pixels, such as 256, or 256,384,512 with --views dense")
    if len(numbers) > 1 and name != "dense":
        raise UserError(f"--sides {sides}: --views {name} looks at one size, such as --sides {max(numbers)}")
    if name == "dense":
        views: Views = Dense(numbers)
    else:
        views = Flips() if name == "flips" else TenCrop(experiment.data.image_shape[:2])
    made = with_views(experiment, views, max(numbers, default=None))
    _check_fit(made, f"--views {name}" + (f" --sides {sides}" if sides else ""))
    return made


def _check_fit(experiment: Experiment, asked: str) -> None:
    """Takes the net, on shapes, through its views. Raises UserError, which names what was asked for."""
    model, data = experiment.model, experiment.data
    images = jnp.zeros((1, *data.image_shape), jnp.float32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False, method="outputs"))
    seen = jax.ShapeDtypeStruct((1, *data.shape(evaluated=True)), jnp.float32)
    try:
        jax.eval_shape(evaluated_with(experiment.task, model), variables, seen)
    except (UserError, TypeError, ValueError, FlaxError) as error:
        height, width, _ = data.image_shape
        raise UserError(f"{asked}: this net, which was trained on {height}x{width}, cannot look so: {error}") from error
