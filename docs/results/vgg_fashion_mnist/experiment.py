"""The first three stages of VGG-A, narrow, with batch norm and global average pooling, on augmented Fashion-MNIST.

Paper: Simonyan & Zisserman 2015 (the net, cut to three stages of 3/8 its widths); data: Xiao, Rasul, Vollgraf,
"Fashion-MNIST", 2017, prepared once with `jaxcnn data prepare fashion_mnist`.
Command: python -m jaxcnn.launch experiments/vgg_fashion_mnist.py
Expected: at least 0.92 test accuracy, the project's own bound; measured in docs/results.md.
"""

from jaxcnn import create_model
from jaxcnn.data.tfds import Tfds
from jaxcnn.data.transforms import HorizontalFlip, Normalize, Pad, PadAndCrop
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models import GAP
from jaxcnn.train.duration import epochs, steps
from jaxcnn.train.losses import CrossEntropy
from jaxcnn.train.optimizers import SGD
from jaxcnn.train.schedules import OneCycle


def experiment(width: float = 0.375) -> Experiment:
    return Experiment(
        model=create_model("vgg11_bn", width=width, stages=3, head=GAP(classes=10)),
        data=Data(
            source=Tfds("fashion_mnist"),
            image_shape=(32, 32, 1),
            augment=(Pad(2), PadAndCrop(2), HorizontalFlip()),
            preprocess=(Pad(2),),
            normalize=Normalize(mean=(72.94,), std=(90.02,)),  # of the training set
            batch_size=128,
        ),
        optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=OneCycle(),
        loss=CrossEntropy(label_smoothing=0.05),
        duration=epochs(12),
        log_every=steps(100),
    )
