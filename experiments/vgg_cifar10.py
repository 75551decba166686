"""VGG-16 with batch norm on CIFAR-10, the recipe of the CIFAR era: pad-and-crop, flip, SGD, step decay.

Paper: Simonyan & Zisserman 2015 (the net); the two hidden FC layers are 512 wide, since the last map is 1x1. Data:
Krizhevsky 2009, prepared once with `jaxcnn data prepare cifar10`.
Command: python -m jaxcnn.launch experiments/vgg_cifar10.py
Expected: 0.9390 to 0.9420 test accuracy is what public VGG-16-BN implementations report for such recipes (quoted from
memory, not from a paper) with all 50,000 images; here 45,000 are trained on and 5,000 are the validation
split (He et al. 2016, section 4.2, split them so); ours: not run.
"""

from typing import Literal

from jaxcnn import create_model
from jaxcnn.data.tfds import Tfds
from jaxcnn.data.transforms import HorizontalFlip, Normalize, PadAndCrop
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models import FC, GAP
from jaxcnn.train.duration import epochs, steps
from jaxcnn.train.optimizers import SGD
from jaxcnn.train.schedules import StepDecay


def experiment(head: Literal["fc", "gap"] = "fc", dtype: Literal["float32", "bfloat16"] = "float32") -> Experiment:
    if head == "fc":
        made = FC(classes=10, widths=(512, 512), names=("fc6", "fc7", "fc8"), grid=(1, 1), dropout=0.5)
    else:
        made = GAP(classes=10)
    return Experiment(
        model=create_model("vgg16_bn", head=made, dtype=dtype),
        data=Data(
            source=Tfds("cifar10"),
            image_shape=(32, 32, 3),
            augment=(PadAndCrop(4), HorizontalFlip()),
            normalize=Normalize(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7)),  # of the training set
            batch_size=128,
            workers=4,
        ),
        optimizer=SGD(learning_rate=0.05, momentum=0.9, weight_decay=5e-4),
        schedule=StepDecay(milestones=(epochs(80), epochs(120)), warmup=epochs(1)),
        duration=epochs(160),
        log_every=steps(100),
    )
