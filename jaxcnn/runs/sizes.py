"""Sizes: progressive resizing, `Data.sizes`, as steps, and as the experiments and the batches of each size."""

import dataclasses
import itertools
from collections.abc import Callable

from jaxcnn.data.fields import with_image
from jaxcnn.data.pipeline import Stage
from jaxcnn.data.transforms import Transform
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.runs.compilation import Compiled, by_image


def begins(data: Data, images: int) -> list[tuple[int, int]]:
    """(first step, side) of each size in an epoch of so many images, in order; [] if the size does not change."""
    return [(each.in_steps(images, data.batch_size), side) for each, side in data.sizes]


def check_begins(data: Data, images: int, total: int) -> None:
    """Raises UserError unless the sizes begin one after the other, within a run of `total` steps."""
    found = begins(data, images)
    for (first, side), (after, other) in itertools.pairwise(found):
        if after <= first:
            raise UserError(
                f"data.sizes: {other} begins at step {after}, and {side}, which stands before it, at step {first}"
            )
    if found and found[-1][0] >= total:
        raise UserError(f"data.sizes: {found[-1][1]} begins at step {found[-1][0]}, and the run ends at step {total}")


def change_at(data: Data, images: int, step: int) -> str | None:
    """What to tell if training images have another size from this step on, 0 the first."""
    side = dict(begins(data, images)).get(step)
    return f"step {step:,}: training images are {side}x{side}" if side else None


def experiments(experiment: Experiment) -> list[Experiment]:
    """One for each size of training images, the smallest first; the experiment alone if the size does not change."""
    data = experiment.data
    if not data.sizes:
        return [experiment]
    return [
        dataclasses.replace(experiment, data=data.at_size(side)) for side in sorted({side for _, side in data.sizes})
    ]


def last(experiment: Experiment) -> Experiment:
    """The experiment with the size of training images with which it ends."""
    data = experiment.data
    return dataclasses.replace(experiment, data=data.at_size(data.sizes[-1][1])) if data.sizes else experiment


def for_each(
    experiment: Experiment, lower_one: Callable[[Experiment], Callable[[], Compiled]]
) -> Callable[[], Compiled]:
    """The train step, traced for each size of images; what comes back compiles it. A call takes that of its batch."""
    made = experiments(experiment)
    lowered = [lower_one(each) for each in made]
    if not experiment.data.sizes:
        return lowered[0]
    return lambda: by_image([each.data.image_shape for each in made], [compile_one() for compile_one in lowered])


def stages(experiment: Experiment, images: int, transforms: tuple[Transform, ...]) -> tuple[Stage, ...]:
    """How the images of each part of training are made, in epochs of so many; () if their size does not change.

    `transforms` are what is still to be applied of the leading ones, whose size does not change (`Data.leading`).
    """
    whole, found = experiment.data, []
    for first, side in begins(whole, images):
        data = whole.at_size(side)
        fields = with_image(data.image_shape, experiment.task.fields(data.image_shape))
        found.append(Stage(first, (*transforms, *data.augment[whole.leading :]), fields))
    return tuple(found)
