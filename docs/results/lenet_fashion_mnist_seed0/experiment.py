"""LeNet-5 on Fashion-MNIST.

Paper: LeCun et al. 1998 (the net); data: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017, prepared once with
`jaxcnn data prepare fashion_mnist`. 28x28 is padded to 32x32, as the paper pads MNIST.
Command: python -m jaxcnn.launch experiments/lenet_fashion_mnist.py
Expected: test accuracy 0.890 after 5 epochs: a PyTorch LeNet-5 with tanh and this recipe reaches 0.889 and 0.890 on two
seeds; ours is measured in docs/results.md.
"""

from jaxcnn import create_model
from jaxcnn.data.tfds import Tfds
from jaxcnn.data.transforms import Normalize, Pad
from jaxcnn.experiment import Data, Experiment
from jaxcnn.train.duration import epochs, steps
from jaxcnn.train.optimizers import SGD
from jaxcnn.train.schedules import OneCycle


def experiment() -> Experiment:
    return Experiment(
        model=create_model("lenet5", classes=10),
        data=Data(
            source=Tfds("fashion_mnist"),
            image_shape=(32, 32, 1),
            augment=(Pad(2),),
            preprocess=(Pad(2),),
            normalize=Normalize(mean=(72.94,), std=(90.02,)),  # of the training set
            batch_size=128,
        ),
        optimizer=SGD(learning_rate=0.05, momentum=0.9),
        schedule=OneCycle(),
        duration=epochs(5),
        log_every=steps(100),
    )
