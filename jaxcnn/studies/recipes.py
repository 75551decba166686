"""Recipes: the experiments that the studies change one thing of. Quick ones on real data, full ones for a cluster.

Nothing is selected in a study: the figures are those of the last step on the test split, which is read once. What is
evaluated during training, for the curves, is never a test image.

Each takes a model and returns an Experiment; a study replaces what is different with dataclasses.replace.
"""

import dataclasses
from typing import Any

from flax import linen as nn

from jaxcnn.data.digits import Digits
from jaxcnn.data.tfds import Tfds
from jaxcnn.data.transforms import (
    IMAGENET,
    CenterCrop,
    HorizontalFlip,
    Normalize,
    PadAndCrop,
    RandomResizedCrop,
    Resize,
)
from jaxcnn.experiment import Data, Experiment
from jaxcnn.train.duration import epochs, steps
from jaxcnn.train.optimizers import SGD
from jaxcnn.train.schedules import Cosine, StepDecay

ALL = {"train_split": "train[:90%]", "evaluation_splits": ("train[90%:]",), "test_splits": ("test",)}
"""For `changed`: all images of a set, as Data has them by default."""


def digits(model: nn.Module, size: int = 8, train: str = "train") -> Experiment:
    """scikit-learn's 1,797 digits, without any download, enlarged to size x size; ten epochs on a cosine.

    Where all 1,442 training digits are trained on, none is left to be evaluated during training.
    """
    resize = () if size == 8 else (Resize((size, size)),)
    return Experiment(
        model=model,
        data=Data(
            image_shape=(size, size, 1),
            source=Digits(),
            train_split=train,
            evaluation_splits=() if train == "train" else ("train[1200:]",),
            augment=resize,
            preprocess=resize,
            normalize=Normalize(mean=(78.0,), std=(96.0,)),
            batch_size=64,
        ),
        optimizer=SGD(learning_rate=0.05, momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(),
        duration=epochs(10),
        log_every=steps(5),
    )


def fashion_mnist(model: nn.Module, size: int = 28, train: int = 2000, test: int | None = 2000) -> Experiment:
    """The first images of Fashion-MNIST's two splits, resized to size x size; ten epochs on a cosine.

    The test figures are named after their slice: "test[:2000] accuracy"; without `test` all 10,000 test images count.
    """
    resize = () if size == 28 else (Resize((size, size)),)
    return Experiment(
        model=model,
        data=Data(
            image_shape=(size, size, 1),
            source=Tfds("fashion_mnist"),
            train_split=f"train[:{train}]",
            evaluation_splits=("train[50000:51000]",),
            test_splits=("test" if test is None else f"test[:{test}]",),
            augment=resize,
            preprocess=resize,
            normalize=Normalize(mean=(72.9,), std=(90.0,)),
            batch_size=50,
        ),
        optimizer=SGD(learning_rate=0.05, momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(),
        duration=epochs(10),
        log_every=steps(10),
    )


def cifar10(model: nn.Module) -> Experiment:
    """CIFAR-10 with the augmentation of He et al. 2016, section 4.2: pad by 4, crop, flip; 100 epochs on a cosine."""
    return Experiment(
        model=model,
        data=Data(
            image_shape=(32, 32, 3),
            source=Tfds("cifar10"),
            augment=(PadAndCrop(4), HorizontalFlip()),
            normalize=Normalize(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7)),
            batch_size=128,
        ),
        optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(),
        duration=epochs(100),
        log_every=steps(100),
    )


def cifar10_jpeg(
    model: nn.Module, size: int = 32, train: int = 45_000, validation: int = 5000, batch: int = 128
) -> Experiment:
    """The first images of CIFAR-10 as JPEG files of about quality 75, which are not quite its own, resized to size x
    size, without augmentation; fifteen epochs on a cosine. All 10,000 test images count.

    Evaluated on the last of the 50,000 training images, never the ones that it trains on.
    """
    resize = () if size == 32 else (Resize((size, size)),)
    return Experiment(
        model=model,
        data=Data(
            image_shape=(size, size, 3),
            source=Tfds("cifar10_jpeg"),
            train_split=f"train[:{train}]",
            evaluation_splits=(f"train[{50_000 - validation}:]",),
            augment=resize,
            preprocess=resize,
            normalize=Normalize(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7)),
            batch_size=batch,
        ),
        optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(),
        duration=epochs(15),
        evaluate_every=epochs(5),
        log_every=steps(50),
    )


def imagenet(model: nn.Module, size: int = 224, rate: float = 0.1) -> Experiment:
    """ImageNet in 90 epochs, the rate divided by ten at 30, 60 and 80, with GoogLeNet's crops; one central crop."""
    return Experiment(
        model=model,
        data=Data(
            image_shape=(size, size, 3),
            source=Tfds("imagenet2012"),
            # The labels of "test" are hidden, so "validation" is the test split, as in the papers.
            train_split="train[:99%]",
            evaluation_splits=("train[99%:]",),
            test_splits=("validation",),
            augment=(RandomResizedCrop(size), HorizontalFlip()),
            preprocess=(Resize(size * 8 // 7), CenterCrop(size)),
            normalize=IMAGENET,
            batch_size=256,
            workers=16,
        ),
        optimizer=SGD(learning_rate=rate, momentum=0.9, weight_decay=1e-4),
        schedule=StepDecay(),
        duration=epochs(90),
        log_every=steps(500),
    )


def changed(experiment: Experiment, **fields: Any) -> Experiment:
    """The experiment with other fields; those of its data and its optimizer are named without their prefix."""
    parts: dict[str, Any] = {}
    for name in ("data", "optimizer"):
        part = getattr(experiment, name)
        if name in fields:
            continue
        own = {field.name for field in dataclasses.fields(part)} & fields.keys()
        parts[name] = dataclasses.replace(part, **{field: fields.pop(field) for field in own})
    return dataclasses.replace(experiment, **parts, **fields)
