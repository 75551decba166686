"""EfficientNet-B0 to B7 on ImageNet by the paper's recipe.

Paper: Tan & Le 2019, section 5.2: RMSProp with decay 0.9 and momentum 0.9, batch norm momentum 0.99, weight decay 1e-5,
rate 0.256 times 0.97 every 2.4 epochs, AutoAugment, stochastic depth with a survival probability of 0.8, dropout from
0.2 for B0 to 0.5 for B7. From the released code (tensorflow/tpu): the rate is 0.016 for each 256 of the batch, so that
0.256 is that of 4096; 5 epochs of warm-up, 350 epochs, TensorFlow's RMSProp with epsilon 1e-3, label smoothing 0.1,
averages with 0.9999, bicubic crops, evaluated on the middle 0.875; padding and batch norm of TensorFlow.
Departures: biases are not decayed; batch norm sees the whole batch, and not the part of some cores; AutoAugment's
operations are torchvision's; the rate falls every 751 steps, not every 750.7.
Data: ILSVRC 2012, see docs/data.md.
Command: python -m jaxcnn.launch experiments/efficientnet_imagenet.py --net b0
Expected: top-1 validation accuracy of one crop of b0 to b7: 77.1, 79.1, 80.1, 81.6, 82.9, 83.6, 84.0, 84.3 (Table 2,
quoted from memory; b0 to b2 and b7 read elsewhere too); ours: not run.
Devices and hours: not stated (TPU cores in the code); ours: not run.
"""

from typing import Literal

import jaxcnn as jc

# Input size, and the size that it is the middle of.
SIZES = {
    "b0": (224, 256),
    "b1": (240, 274),
    "b2": (260, 297),
    "b3": (300, 343),
    "b4": (380, 434),
    "b5": (456, 521),
    "b6": (528, 603),
    "b7": (600, 686),
}


def experiment(
    net: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"] = "b0",
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
) -> jc.Experiment:
    size, around = SIZES[net]
    return jc.Experiment(
        model=jc.create_model(
            f"efficientnet_{net}", classes=1000, padding="tf", epsilon=1e-3, decay=0.99, drop_path=0.2, dtype=dtype
        ),
        task=jc.Classification(jc.CrossEntropy(label_smoothing=0.1)),
        data=jc.Data(
            source=jc.Tfds("imagenet2012"),
            train_split="train",
            evaluation_splits=(),
            test_splits=("validation",),
            image_shape=(size, size, 3),
            augment=(
                jc.RandomResizedCrop(size, method="bicubic"),
                jc.HorizontalFlip(),
                jc.AutoAugment("imagenet", fill=128),
            ),
            preprocess=(jc.Resize(around, method="bicubic"), jc.CenterCrop(size)),
            normalize=jc.IMAGENET,
            batch_size=4096,
            workers=16,
        ),
        optimizer=jc.RMSProp(learning_rate=0.256, rho=0.9, momentum=0.9, epsilon=1e-3, weight_decay=1e-5),
        schedule=jc.Exponential(factor=0.97, every=jc.epochs(2.4), warmup=jc.epochs(5)),
        ema=jc.EMA(0.9999),
        duration=jc.epochs(350),
        log_every=jc.steps(100),
    )
