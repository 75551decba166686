"""Debug: an experiment shrunk to seconds, for `--debug`: the same path through the code on made-up data."""

import dataclasses
import functools
import math
from typing import Any, cast

import jax
import numpy as np
from flax.errors import FlaxError

from jaxcnn.data.preparation import transformed
from jaxcnn.data.sampling import Balanced
from jaxcnn.data.synthetic import Synthetic, parts_of
from jaxcnn.data.transforms import Transform
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.tasks.distillation import distillation_of
from jaxcnn.tasks.views import Dense, Flips, TenCrop, views_of
from jaxcnn.train.duration import Duration, in_steps, steps
from jaxcnn.train.optimizers import with_learning_rate
from jaxcnn.train.schedules import OneCycle, StepDecay

LONGEST, SMALL = 256, 128
"""Pixels: an image with a longer side shrinks in --debug, until its longest has so many, if the net takes any size."""


def debug(experiment: Experiment) -> Experiment:
    """The same experiment shrunk to seconds: six steps on synthetic images of the right shape, in small batches.

    The learning rate shrinks with the batch, in proportion (Goyal et al. 2017): the rate of a large batch is too much
    for the noisy gradient of a small one. Sharding and groups of batch norm shrink to what the devices here and those
    batches allow. A teacher is random. Images of more than 256 pixels a side shrink to 128 if the net takes any size;
    large ones are evaluated and saved once, at the end.

    Raises:
      UserError: no size of source image comes out of the transforms as data.image_shape.
    """
    # By what they are without --debug: nets for large images are large themselves.
    large = experiment.data.image_shape[0] * experiment.data.image_shape[1] > 128 * 128
    data = _small(experiment)
    unit = experiment.accumulate * jax.device_count()
    batch = unit * -(-(1 if large else 8) // unit)
    fields = experiment.task.fields(data.image_shape)
    source = Synthetic(
        image_shape=_source_shape(data),
        classes=experiment.model.classes,
        train=6 * batch,
        test=(1 if large else 2) * batch + 1,
        # Boxes that the task does not read may be what a study measures the run by.
        parts=parts_of(fields) or (("boxes",) if getattr(data.source, "objects", None) else None),
    )
    data = dataclasses.replace(
        data,
        source=source,
        train_split="train",
        evaluation_splits=("validation",) if data.evaluation_splits else (),
        test_splits=("test",) if data.test_splits else (),
        batch_size=batch,
        repeats=data.repeats if data.repeats < batch else 0,
        evaluation_batch_size=jax.device_count() * -(-batch // jax.device_count()),
        workers=0,
        sizes=_few_sizes(experiment.data, data),
        sampling=None if data.sampling is None else Balanced(),  # a class may have no image
    )
    schedule: Any = experiment.schedule
    if isinstance(schedule, StepDecay):
        schedule = dataclasses.replace(schedule, milestones=(steps(3), steps(5)))
    if isinstance(schedule, OneCycle):  # of six steps a smaller part is none
        schedule = dataclasses.replace(schedule, warm_fraction=max(schedule.warm_fraction, 0.3))
    if getattr(schedule, "warmup", steps(0)).amount:
        schedule = dataclasses.replace(schedule, warmup=steps(2))
    task: Any = experiment.task
    if (taught := distillation_of(task)) is not None:  # a teacher's weights know nothing of made-up images
        task = dataclasses.replace(task, distillation=dataclasses.replace(taught, run=None))
    views = views_of(task)
    if views is not None and data.image_shape != experiment.data.image_shape:
        # Those of the user's own may not fit.
        smaller = views.smaller(data.image_shape[:2]) if isinstance(views, Dense | Flips | TenCrop) else None
        task = dataclasses.replace(task, views=smaller)
    group = experiment.bn_group
    rate = experiment.optimizer.learning_rate * min(1.0, batch / experiment.data.batch_size)
    every = steps(6 if large else 3)
    return dataclasses.replace(
        experiment,
        optimizer=with_learning_rate(experiment.optimizer, rate),
        parallel=dataclasses.replace(
            experiment.parallel, data=-1, fsdp=math.gcd(experiment.parallel.fsdp, jax.device_count())
        ),
        bn_group=group if group == "global" else math.gcd(group, batch // experiment.accumulate),
        data=data,
        task=task,
        schedule=schedule,
        ema=in_steps(experiment.ema, lambda _: 3),
        groups=in_steps(experiment.groups, lambda _: 3),
        duration=steps(6),
        evaluate_every=every,
        log_every=steps(2),
        checkpoints=dataclasses.replace(experiment.checkpoints, every=every),
    )


def _small(experiment: Experiment) -> Data:
    """The data with images of at most SMALL pixels a side, if they have more than LONGEST, the net has the same
    parameters for them, and the transforms can make them; the sides are multiples of 32, as most nets like them."""
    data = experiment.data
    shapes = {data.image_shape, data.shape(evaluated=True)}
    longest = max(side for shape in shapes for side in shape[:2])
    if longest <= LONGEST:
        return data

    def smaller(shape: tuple[int, int, int]) -> tuple[int, int, int]:
        height, width = (max(32, 32 * round(side * SMALL / longest / 32)) for side in shape[:2])
        return height, width, shape[2]

    sizes = {shape[:2]: smaller(shape)[:2] for shape in shapes}

    def resized(transforms: tuple[Transform, ...]) -> tuple[Transform, ...]:
        sides = [getattr(each, "size", None) for each in transforms]
        pairs = [(side, side) if isinstance(side, int) else side for side in sides]
        return tuple(
            dataclasses.replace(cast(Any, each), size=sizes[pair]) if pair in sizes else each
            for each, pair in zip(transforms, pairs, strict=True)
        )

    small = dataclasses.replace(
        data,
        image_shape=smaller(data.image_shape),
        evaluation_shape=None if data.evaluation_shape is None else smaller(data.evaluation_shape),
        augment=resized(data.augment),
        preprocess=resized(data.preprocess),
    )
    try:
        _source_shape(small)
        before, after = (_parameters(experiment, each.image_shape) for each in (data, small))
    except (UserError, FlaxError, TypeError, ValueError):  # a net of one size, or transforms that make no other
        return data
    return small if before == after else data


def _few_sizes(before: Data, after: Data) -> tuple[tuple[Duration, int], ...]:
    """Of progressive resizing the first and the last size, the second from the third step on; smaller in the measure in
    which the images are, in multiples of 32."""
    share = after.image_shape[0] / before.image_shape[0]
    sides = list(dict.fromkeys(side for _, side in (*before.sizes[:1], *before.sizes[-1:])))
    if share < 1:
        sides = [max(32, 32 * round(side * share / 32)) for side in sides]
    return tuple((steps(2 * number), side) for number, side in enumerate(sides))


def _parameters(experiment: Experiment, shape: tuple[int, int, int]) -> Any:
    """Shapes of the net's variables for images of this shape."""
    images = jax.ShapeDtypeStruct((1, *shape), np.float32)
    init = functools.partial(experiment.model.init, train=False, method="outputs")
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(init, jax.random.key(0), images))


def _source_shape(data: Data) -> tuple[int, int, int]:
    """The shape of a source image that transforms bring to those of batches: evaluation's, or less what they add."""
    shapes = [data.image_shape, data.shape(evaluated=True)]
    height, width, channels = wanted = shapes[1]
    for _ in range(2):
        out = [_transformed_shape(transforms, wanted) for transforms in (data.augment, data.preprocess)]
        if out == shapes:
            return wanted
        wanted = (height - (out[1][0] - height), width - (out[1][1] - width), channels)
        if min(wanted) < 1:
            break
    raise UserError(
        "--debug found no image size that data.augment and data.preprocess "
        f"bring to {' and '.join(map(str, dict.fromkeys(shapes)))}"
    )


def _transformed_shape(transforms: tuple[Transform, ...], shape: tuple[int, int, int]) -> tuple[int, ...]:
    return transformed({"image": np.zeros(shape, np.uint8)}, transforms, np.random.default_rng(0))["image"].shape
