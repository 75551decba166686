"""Debug: an experiment shrunk to seconds, for `--debug`: the same path through the code on made-up data."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from jaxcnn.data.preparation import transformed
from jaxcnn.data.synthetic import Synthetic, parts_of
from jaxcnn.data.transforms import Transform
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.tasks.distillation import distillation_of
from jaxcnn.train.duration import steps
from jaxcnn.train.schedules import OneCycle, StepDecay


def debug(experiment: Experiment) -> Experiment:
    """The same experiment shrunk to seconds: six steps on synthetic images of the right shape, in small batches.

    The learning rate shrinks with the batch, in proportion (Goyal et al. 2017): the rate of a large batch is too much
    for the noisy gradient of a small one. Sharding and groups of batch norm shrink to what the devices here and those
    batches allow. A teacher is random. Large images are evaluated and saved once, at the end.

    Raises:
      UserError: no size of source image comes out of the transforms as data.image_shape.
    """
    data = experiment.data
    unit = experiment.accumulate * jax.device_count()
    large = data.image_shape[0] * data.image_shape[1] > 128 * 128
    batch = unit * -(-(2 if large else 8) // unit)
    fields = experiment.task.fields(data.image_shape)
    source = Synthetic(
        image_shape=_source_shape(data),
        classes=experiment.model.classes,
        train=6 * batch,
        test=2 * batch + 1,
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
        evaluation_batch_size=jax.device_count() * -(-batch // jax.device_count()),
        workers=0,
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
    group = experiment.bn_group
    optimizer: Any = experiment.optimizer
    rate = optimizer.learning_rate * min(1.0, batch / experiment.data.batch_size)
    every = steps(6 if large else 3)
    return dataclasses.replace(
        experiment,
        optimizer=dataclasses.replace(optimizer, learning_rate=rate),
        parallel=dataclasses.replace(
            experiment.parallel, data=-1, fsdp=math.gcd(experiment.parallel.fsdp, jax.device_count())
        ),
        bn_group=group if group == "global" else math.gcd(group, batch // experiment.accumulate),
        data=data,
        task=task,
        schedule=schedule,
        duration=steps(6),
        evaluate_every=every,
        log_every=steps(2),
        checkpoints=dataclasses.replace(experiment.checkpoints, every=every),
    )


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
