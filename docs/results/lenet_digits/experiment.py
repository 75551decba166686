"""LeNet-5 on scikit-learn's embedded digits: the first run, on any laptop, without any download.

Paper: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998 (the net, in its
modern form: full C3, average pooling, softmax). The 8x8 digits are enlarged to 32x32, and rotated and shifted a little
in training.
Command: python -m jaxcnn.launch experiments/lenet_digits.py
Expected: test accuracy of at least 0.985 (355 images), the project's own bound, measured in docs/results.md.
"""

from jaxcnn import create_model
from jaxcnn.data.digits import Digits
from jaxcnn.data.transforms import PadAndCrop, Resize, Rotate
from jaxcnn.experiment import Data, Experiment
from jaxcnn.train.duration import epochs, steps
from jaxcnn.train.optimizers import SGD
from jaxcnn.train.schedules import OneCycle


def experiment() -> Experiment:
    return Experiment(
        model=create_model("lenet5", classes=10),
        data=Data(
            source=Digits(),
            image_shape=(32, 32, 1),
            augment=(Resize((32, 32)), Rotate(10.0), PadAndCrop(3)),
            preprocess=(Resize((32, 32)),),
            batch_size=64,
        ),
        optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=OneCycle(),
        duration=epochs(30),
        evaluate_every=epochs(5),
        log_every=steps(100),
    )
