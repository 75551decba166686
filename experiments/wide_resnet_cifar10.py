"""Wide residual networks on CIFAR-10 by the paper's recipe.

Paper: Zagoruyko & Komodakis 2016, section 3: all 50,000 images, channels normalised, padded by 4, cropped, flipped;
batch 128, Nesterov momentum 0.9, weight decay 5e-4, 200 epochs, rate 0.1 times 0.2 after 60, 120 and 160.
Departures: padding is black, where the paper's reflects the image. Norms are decayed too, as in the authors' code.
Data: Krizhevsky 2009, prepared once with `jaxcnn data prepare cifar10`.
Command: python -m jaxcnn.launch experiments/wide_resnet_cifar10.py --net 28-10 --dropout 0.3
Expected: test error of 28-10 4.00%, with a dropout of 0.3 3.89% (medians of five; authors' README), 40-4 4.53%, 16-8
4.27% (Table 5, the last quoted from memory); ours: not run.
Devices and hours: 40-4 six hours, 28-10 "about a day" on one Titan X (authors' README); ours: not run.
"""

from typing import Literal

import jaxcnn as jc

# Depth and widening.
NETS = {"40-4": (40, 4), "16-8": (16, 8), "28-10": (28, 10)}


def experiment(
    net: Literal["40-4", "16-8", "28-10"] = "16-8",
    dropout: float = 0.0,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> jc.Experiment:
    depth, widening = NETS[net]
    return jc.Experiment(
        model=jc.Classifier(
            jc.WideResNet(depth, widening, dropout, dtype=dtype),
            jc.GAP(classes=10, kernel_init="torch_uniform", dtype=dtype),
        ),
        data=jc.Data(
            source=jc.Tfds("cifar10"),
            train_split="train",
            evaluation_splits=(),
            test_splits=("test",),
            image_shape=(32, 32, 3),
            augment=(jc.PadAndCrop(4), jc.HorizontalFlip()),
            normalize=jc.Normalize(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7)),  # of the training set
            batch_size=128,
            workers=4,
        ),
        optimizer=jc.SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, decay="all"),
        schedule=jc.StepDecay(milestones=(jc.epochs(60), jc.epochs(120), jc.epochs(160)), factor=0.2),
        duration=jc.epochs(200),
        log_every=jc.steps(100),
    )
