"""A run of a few seconds that has every kind of state: batch norm, dropout, momentum, EMA, plateau, augmentation."""

from jaxcnn.data.synthetic import Synthetic
from jaxcnn.data.transforms import HorizontalFlip, PadAndCrop
from jaxcnn.experiment import Checkpoints, Data, Experiment
from jaxcnn.train.averages import EMA
from jaxcnn.train.duration import steps
from jaxcnn.train.optimizers import SGD
from jaxcnn.train.schedules import Plateau
from tests.nets import TinyNet


def experiment(dropout: float = 0.1) -> Experiment:
    """120 steps in epochs of 12.5 batches, logged, evaluated and saved at intervals that do not divide each other."""
    return Experiment(
        model=TinyNet(dropout=dropout),
        data=Data(
            source=Synthetic(image_shape=(9, 9, 3), classes=4, train=200, test=50),
            train_split="train",
            evaluation_splits=("validation",),
            image_shape=(9, 9, 3),
            augment=(PadAndCrop(1), HorizontalFlip()),
            batch_size=16,
            evaluation_batch_size=16,
        ),
        optimizer=SGD(learning_rate=0.05, momentum=0.9, weight_decay=1e-3),
        schedule=Plateau(metric="loss", factor=0.5, patience=1),
        ema=EMA(decay=0.9),
        accumulate=2,
        duration=steps(120),
        evaluate_every=steps(10),
        log_every=steps(7),
        checkpoints=Checkpoints(every=steps(15)),
    )
