"""Experiment: one run, as a tree of frozen dataclasses that hold real objects. Defaults live here and in its parts.

Nothing runs here, and no part imports this module.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, Literal, cast

import optax
from flax import linen as nn

from jaxcnn import parts
from jaxcnn.data.digits import Digits
from jaxcnn.data.examples import Source
from jaxcnn.data.sampling import Balanced
from jaxcnn.data.transforms import UNIT, Normalize, Transform
from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.task import Task, better, score_of
from jaxcnn.train.averages import EMA, Averaging
from jaxcnn.train.batch_norm import NormGroup
from jaxcnn.train.duration import Duration, check_length, epochs, steps
from jaxcnn.train.early_stopping import EarlyStopping
from jaxcnn.train.groups import Group
from jaxcnn.train.init_from import InitFrom
from jaxcnn.train.mesh import Parallel
from jaxcnn.train.optimizers import SGD, Optax, Optimizer
from jaxcnn.train.schedules import Constant, Plateau, Schedule
from jaxcnn.train.xla_flags import check_flags


@dataclasses.dataclass(frozen=True)
class Data:
    """From a data source to what the model reads.

    A field that came later stands by its neighbors and is given by name only, so that positions stay what they were.
    """

    image_shape: tuple[int, int, int]
    """Height, width and channels of the model's input in training, after the transforms."""
    source: Source = Digits()
    train_split: str = "train[:90%]"
    """A split or a part of one (data/splits.py): "train", "train[:80%]", "train[:1000]", "train+extra"."""
    evaluation_splits: tuple[str, ...] = ("train[90%:]",)
    """Evaluated during training; the first one drives the best checkpoint and the plateau schedule."""
    test_splits: tuple[str, ...] = ("test",)
    """Evaluated once, when training is over: nothing is chosen by them. One that is evaluated in training as well, at
    the user's own wish, is no test split any more."""
    sizes: tuple[tuple[Duration, int], ...] = dataclasses.field(default=(), kw_only=True)
    """Progressive resizing: sides of the square training images, each from this place in training on, such as
    ((epochs(0), 128), (epochs(6), 160)); (): image_shape throughout. Transforms of `augment` whose size is that of
    image_shape get this one; evaluation stays as it is."""
    sampling: Balanced | None = dataclasses.field(default=None, kw_only=True)
    """Balanced() trains on each class equally often, Balanced(weights) in these shares; None: on each image equally."""
    augment: tuple[Transform, ...] = ()
    """Transforms of each training image, in order, on the host; image_shape comes out."""
    preprocess: tuple[Transform, ...] = ()
    """Transforms of each evaluation image; image_shape comes out, or evaluation_shape."""
    normalize: Normalize = UNIT
    """From uint8 to what the model reads; runs on the device, inside the step."""
    batch_size: int = 128
    """Examples per optimizer step, over all devices."""
    repeats: int = dataclasses.field(default=0, kw_only=True)
    """How often each image is in its batch, augmented anew each time (repeated augmentation, Hoffer et al. 2020; 3 in
    ResNet strikes back); 0 and 1: once. An epoch is as many steps as ever, so that it sees one image of so many."""
    evaluation_batch_size: int = 512
    """Over all devices; influences speed, memory and rounding only."""
    evaluation_shape: tuple[int, int, int] | None = None
    """Height, width and channels in evaluation and prediction, if not those of training: training on crops of images
    that are evaluated whole. The model must take both sizes."""
    data_dir: str | None = None
    """Where prepared TFDS data lies; else the variable TFDS_DATA_DIR, else TFDS's own default."""
    memory_limit: int = 2**30
    """A split whose decoded images take at most this many bytes is decoded once, into memory."""
    device_limit: int = dataclasses.field(default=2**28, kw_only=True)
    """A training split in memory that needs no transforms any more, or crops and flips alone (data/crops.py), and takes
    at most this many bytes, with the margins of its crops, lies on each device too, where batches are taken from it; 0:
    batches are sent. Influences speed and memory only."""
    workers: int = 0
    """Processes that read and augment each split; 0 uses threads. Each holds its own copy of what is in memory. They
    start once, and not at all for a split that is in memory and needs no transform any more or lies on the devices."""
    tolerate_broken: int = 0
    """How many images may be passed over that cannot be read or that a transform cannot take, over all processes, each
    one recorded in quarantine.jsonl; 0 stops at the first."""

    def __post_init__(self):
        parts.check_part("data.source", self.source, parts.SOURCE)
        parts.check_parts("data.augment", self.augment, parts.TRANSFORM)
        parts.check_parts("data.preprocess", self.preprocess, parts.TRANSFORM)
        parts.check_part("data.normalize", self.normalize, parts.NORMALIZE)
        if self.sampling is not None:
            parts.check_part("data.sampling", self.sampling, parts.SAMPLING)
        for field in ("image_shape", "evaluation_shape"):
            shape = getattr(self, field)
            if shape is not None and (len(shape) != 3 or min(shape) < 1):
                raise UserError(f"data.{field} is (height, width, channels), not {shape}")
        if self.evaluation_shape is not None and self.evaluation_shape[2] != self.image_shape[2]:
            raise UserError(
                f"data.evaluation_shape is {self.evaluation_shape}: it needs the channels of data.image_shape"
            )
        self._check_sizes()
        for field in ("batch_size", "evaluation_batch_size"):
            if getattr(self, field) < 1:
                raise UserError(f"data.{field} is {getattr(self, field)}; it must be at least 1")
        for field in ("workers", "tolerate_broken", "memory_limit", "device_limit", "repeats"):
            if getattr(self, field) < 0:
                raise UserError(f"data.{field} is {getattr(self, field)}; it must not be negative")
        if self.repeats > 1 and self.repeats >= self.batch_size:
            raise UserError(
                f"data.repeats is {self.repeats} and data.batch_size {self.batch_size}: each batch would be one image "
                "again and again; let there be fewer repeats than images in a batch"
            )
        for field in ("evaluation_splits", "test_splits"):
            names = getattr(self, field)
            if isinstance(names, str):
                raise UserError(f"data.{field} is {names!r}; it is a tuple: ({names!r},)")
            if len(set(names)) != len(names):
                raise UserError(f"data.{field} names a split twice: {names}")
            if "selection" in names:
                raise UserError(f"data.{field}: a split cannot be called 'selection', a key of result.json; rename it")
        if self.data_dir is not None and "://" not in self.data_dir:  # a stored run finds its data from anywhere
            object.__setattr__(self, "data_dir", os.path.abspath(os.path.expanduser(self.data_dir)))

    def shape(self, *, evaluated: bool) -> tuple[int, int, int]:
        """Of the images of a training batch, or of one that is evaluated."""
        return (self.evaluation_shape or self.image_shape) if evaluated else self.image_shape

    def _check_sizes(self) -> None:
        if not self.sizes:
            return
        fits = (
            isinstance(each, tuple | list)
            and len(each) == 2
            and isinstance(each[0], Duration)
            and type(each[1]) is int
            and each[1] >= 1
            for each in self.sizes
        )
        if not all(fits):
            raise UserError(f"data.sizes are pairs of a duration and a side, ((epochs(0), 128), ...), not {self.sizes}")
        if self.sizes[0][0].amount != 0:
            raise UserError(f"data.sizes begin at 0, with (epochs(0), {self.sizes[0][1]}), and not {self.sizes[0][0]}")
        if self.image_shape[0] != self.image_shape[1]:
            raise UserError(f"data.sizes are for square images, and data.image_shape is {self.image_shape}")
        if self.leading == len(self.augment):
            raise UserError(
                f"data.sizes need a transform of data.augment that makes the images of data.image_shape, such as "
                f"RandomResizedCrop({self.image_shape[0]}): its size is what changes"
            )

    @property
    def leading(self) -> int:
        """How many transforms of `augment` come before the first whose size `sizes` changes: all without `sizes`."""
        sized = (number for number, each in enumerate(self.augment) if self._makes_image_shape(each))
        return next(sized, len(self.augment)) if self.sizes else len(self.augment)

    def _makes_image_shape(self, transform: Transform) -> bool:
        size = getattr(transform, "size", None)
        return size == self.image_shape[0] == self.image_shape[1] or size == self.image_shape[:2]

    def at_size(self, side: int) -> "Data":
        """The same with training images of side x side, and no other sizes."""
        augment = tuple(
            dataclasses.replace(cast(Any, each), size=side) if self._makes_image_shape(each) else each
            for each in self.augment
        )
        evaluated = self.shape(evaluated=True)
        shape = (side, side, self.image_shape[2])
        return dataclasses.replace(self, image_shape=shape, evaluation_shape=evaluated, augment=augment, sizes=())

    @property
    def tested(self) -> tuple[str, ...]:
        """The splits that are evaluated at the end only."""
        return tuple(name for name in self.test_splits if name not in self.evaluation_splits)


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """Which checkpoints a run keeps. One is also saved at the end, and when the run is told to stop."""

    every: Duration = epochs(1)
    latest: int = 2
    """How many of the newest are kept; at least 2, so that one can be damaged."""
    best: int = 1
    """How many of the best by `metric` are kept as well."""
    metric: str | None = None
    """A metric of the task, by the raw net on the first evaluation split; None: the task's score, such as accuracy."""

    def __post_init__(self):
        if self.latest < 2 or self.best < 0:
            raise UserError("checkpoints.latest must be at least 2 and checkpoints.best at least 0")


class _Score(str):
    """The score of a task, filled in where no metric was given: of another task, which a flag or dataclasses.replace
    puts in the place of that one, it is another."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A model, its data and how it is trained. Batch sizes are global; durations are epochs, steps or examples."""

    model: nn.Module
    """A Classifier, or any module with its methods (docs/design.md)."""
    data: Data
    optimizer: Optimizer = SGD()
    """Or any optax transformation, such as optax.adam(1e-3): the schedule then multiplies its updates."""
    schedule: Schedule = Constant()
    task: Task = Classification()
    """What a batch means: the loss, the metrics, and what is shown."""
    duration: Duration = epochs(5)
    """The length of the whole run."""
    parallel: Parallel = Parallel()
    accumulate: int = 1
    """Microbatches per optimizer step, cut before anything else: batch norm sees one of them at a time."""
    bn_group: NormGroup = "global"
    """Examples of the global batch, in a row, over which batch norm takes its statistics; "global": the microbatch."""
    steps_per_call: int = dataclasses.field(default=1, kw_only=True)
    """Optimizer steps that the device takes in one call, between what is due (a log interval, an evaluation, a save):
    for nets whose step is shorter than a call, such as LeNet on a GPU. Influences speed and rounding only."""
    rematerialize: bool = False
    """Keep only what enters each block or stage for the backward pass and compute the rest anew."""
    clip_norm: float | None = None
    """Largest global norm of the gradient; None: no clipping."""
    groups: tuple[Group, ...] = ()
    """Parameters by path that are frozen, or have a learning rate or a weight decay of their own."""
    layer_decay: float | None = dataclasses.field(default=None, kw_only=True)
    """The rate of each layer as a part of that of the one behind it, such as 0.75; the head has the whole rate. For
    fine-tuning (train/layer_decay.py says what a layer is); None: one rate for all. It multiplies those of `groups`."""
    ema: Averaging = EMA()
    """Of the weights, evaluated beside the raw net: exponential, EMA(0.999), or equal, SWA(start=epochs(75)); off by
    default."""
    init_from: InitFrom = InitFrom()
    """Another run's weights to start from, for fine-tuning."""
    seed: int = 0
    """Of the weights, the data order, the augmentation and dropout."""
    early_stopping: EarlyStopping = dataclasses.field(default=EarlyStopping(), kw_only=True)
    """Ends training when evaluations do not get better; off by default."""
    evaluate_every: Duration = epochs(1)
    """Evaluation also happens at the end."""
    log_every: Duration = steps(50)
    """Length of the intervals whose mean figures are logged."""
    checkpoints: Checkpoints = Checkpoints()
    precision: Literal["default", "float32"] = "default"
    """Of float32 products: "default" allows TF32 and bfloat16 passes on GPU and TPU, "float32" does not."""
    deterministic: bool = False
    """The same bits at every start on a GPU too, where XLA is faster without; a CPU and a TPU have them anyway."""
    xla_flags: str = "none"
    """A named set of XLA options, such as gpu-latency-v1 (jaxcnn/train/xla_flags.py lists them)."""
    skip_bad_steps: int = 0
    """Steps in a row with a loss or gradient that is not finite whose updates are skipped; 0 stops at the first."""
    tensorboard: bool = False
    """Write TensorBoard events as well (needs the extra: pip install 'jaxcnn[tensorboard]')."""

    def __post_init__(self):
        if isinstance(self.optimizer, optax.GradientTransformation):
            object.__setattr__(self, "optimizer", Optax.of(self.optimizer))
        parts.check_part("model", self.model, parts.MODEL)
        parts.check_part("optimizer", self.optimizer, parts.OPTIMIZER)
        parts.check_part("schedule", self.schedule, parts.SCHEDULE)
        parts.check_part("ema", self.ema, parts.AVERAGE)
        parts.check_part("task", self.task, parts.TASK)
        parts.check_part("early_stopping", self.early_stopping, parts.EARLY_STOPPING)
        parts.check_parts("groups", self.groups, parts.GROUP)
        parts.check_whole_numbers(self)
        self._fill_metric("checkpoints")
        if isinstance(self.schedule, Plateau):
            self._fill_metric("schedule")
        if self.early_stopping.on:
            self._fill_metric("early_stopping")
        if self.accumulate < 1:
            raise UserError(f"accumulate is {self.accumulate}; it must be at least 1")
        if self.steps_per_call < 1:
            raise UserError(f"steps_per_call is {self.steps_per_call}; it must be at least 1")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed is {self.seed}; it must be in [0, 2**32)")
        if self.skip_bad_steps < 0:
            raise UserError(f"skip_bad_steps is {self.skip_bad_steps}; it must not be negative")
        if self.layer_decay is not None and not (
            isinstance(self.layer_decay, int | float) and 0 < self.layer_decay <= 1
        ):
            raise UserError(f"layer_decay is {self.layer_decay!r}; it must be above 0 and at most 1, or None")
        check_flags(self.xla_flags)
        for field in ("duration", "evaluate_every", "log_every"):
            check_length(field, getattr(self, field))

    def _fill_metric(self, field: str) -> None:
        """Fills in the metric that a part watches, or refuses one that the task does not have."""
        part, known, score = getattr(self, field), self.task.directions, score_of(self.task)
        if part.metric is None or isinstance(part.metric, _Score):
            if part.metric != score:
                object.__setattr__(self, field, dataclasses.replace(part, metric=_Score(score)))
        elif part.metric not in known:
            hint = did_you_mean(part.metric, known) or f"; there is {', '.join(known)}"
            raise UserError(f"{field}.metric: {type(self.task).__name__} has no metric {part.metric!r}{hint}")

    def score(self, metrics: Mapping[str, float]) -> float:
        """By checkpoints.metric; higher is better."""
        metric = self.checkpoints.metric
        assert metric is not None  # __post_init__ has filled it in
        return better(self.task.directions[metric], metrics[metric])
