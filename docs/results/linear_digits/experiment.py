"""A linear classifier on scikit-learn's embedded digits: one template per class (lecture S2).

Command: python -m jaxcnn.launch experiments/linear_digits.py
Expected: well under the LeNet's accuracy on the same images; measured in docs/results.md.
"""

from jaxcnn import create_model
from jaxcnn.data.digits import Digits
from jaxcnn.experiment import Data, Experiment
from jaxcnn.train.duration import epochs, steps
from jaxcnn.train.optimizers import SGD
from jaxcnn.train.schedules import Cosine


def experiment() -> Experiment:
    return Experiment(
        model=create_model("linear", classes=10),
        data=Data(source=Digits(), image_shape=(8, 8, 1), batch_size=64),
        optimizer=SGD(learning_rate=0.1, momentum=0.9),
        schedule=Cosine(),
        duration=epochs(30),
        evaluate_every=epochs(5),
        log_every=steps(100),
    )
