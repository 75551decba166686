"""Views of a saved run: evaluation and prediction that look at an image several times, though the run's own do not."""

import dataclasses
from typing import Literal

from jaxcnn.data.transforms import CenterCrop, Resize
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.views import Dense, Flips, TenCrop, Views

Name = Literal["flips", "ten-crop", "dense"]


def with_views(experiment: Experiment, views: Views, side: int | None = None) -> Experiment:
    """The experiment with these views in evaluation, of images of `side` x `side` if it is given.

    With `side` the shorter side is brought to it and the middle is cut out, in the place of every Resize and
    CenterCrop of the run's own `preprocess`; by the run's method of resampling, if it resizes.

    Raises UserError if the run does not classify.
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
    return dataclasses.replace(experiment, task=dataclasses.replace(task, views=views), data=data)


def with_named_views(experiment: Experiment, name: Name, sides: str | None) -> Experiment:
    """The same by the words of the command line: sides "256", or for "dense" several, "256,384,512".

    The crops of "ten-crop" have the size of training.

    Raises UserError: the sides are no numbers, or several for views that have one.
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
    return with_views(experiment, views, max(numbers, default=None))
