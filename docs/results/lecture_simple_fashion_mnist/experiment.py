"""The lectures' Simple-CNN (S5, 20,666 parameters) on Fashion-MNIST.

Data: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017; prepare it once with `jaxcnn data prepare fashion_mnist`.
Command: python -m jaxcnn.launch experiments/lecture_simple_fashion_mnist.py
Expected: no published figure; measured in docs/results.md.
"""

from jaxcnn import create_model
from jaxcnn.data.tfds import Tfds
from jaxcnn.data.transforms import Normalize
from jaxcnn.experiment import Data, Experiment
from jaxcnn.train.duration import epochs, steps
from jaxcnn.train.optimizers import Adam
from jaxcnn.train.schedules import Cosine


def experiment() -> Experiment:
    return Experiment(
        model=create_model("lecture_simple", classes=10),
        data=Data(
            source=Tfds("fashion_mnist"),
            image_shape=(28, 28, 1),
            normalize=Normalize(mean=(72.94,), std=(90.02,)),  # of the training set
            batch_size=128,
        ),
        optimizer=Adam(learning_rate=2e-3),
        schedule=Cosine(warmup=steps(200)),
        duration=epochs(10),
        log_every=steps(100),
    )
