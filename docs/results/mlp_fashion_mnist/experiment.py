"""The lecture's MLP, 784-2048-1024-10 (S3, 3,716,106 parameters), on Fashion-MNIST.

Data: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017; prepare it once with `jaxcnn data prepare fashion_mnist`.
Command: python -m jaxcnn.launch experiments/mlp_fashion_mnist.py
Expected: the paper's Table 3 has 0.871 for its best MLP (100 hidden units, ReLU); measured in docs/results.md.
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
        model=create_model("mlp", classes=10),
        data=Data(
            source=Tfds("fashion_mnist"),
            image_shape=(28, 28, 1),
            normalize=Normalize(mean=(72.94,), std=(90.02,)),  # of the training set
            batch_size=128,
        ),
        optimizer=Adam(learning_rate=1e-3),
        schedule=Cosine(warmup=steps(200)),
        duration=epochs(10),
        log_every=steps(100),
    )
