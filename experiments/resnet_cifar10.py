"""ResNet-20 to ResNet-110 and the plain nets of their depths on CIFAR-10 by the paper's recipe.

Paper: He et al. 2016, section 4.2: 45,000 images to train on and 5,000 to validate with, padded by 4, cropped, flipped;
batch 128, rate 0.1 divided by ten after 32,000 and 48,000 of 64,000 steps, momentum 0.9, weight decay 1e-4. Depth 110
begins with a rate of 0.01, for about 400 steps.
Departures: colors are normalised by the channels' means and deviations, not by the mean image; of depth 110 the rate
rises to 0.1 in a straight line over 400 steps.
Data: Krizhevsky 2009, prepared once with `jaxcnn data prepare cifar10`.
Command: python -m jaxcnn.launch experiments/resnet_cifar10.py --depth 20
Expected: test error of depth 20, 32, 44, 56, 110: 8.75%, 7.51%, 7.17%, 6.97%, 6.43% (Table 6); the plain nets are in
Figure 6 only, about 9.5%, 10%, 12% and 13.5% (read from it) and above 60% for 110; ours: not run.
Devices and hours: two GPUs, hours not stated; ours: not run.
"""

from typing import Literal

import jaxcnn as jc


def experiment(
    depth: Literal[20, 32, 44, 56, 110] = 20,
    net: Literal["residual", "plain"] = "residual",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> jc.Experiment:
    shortcut = "A" if net == "residual" else "none"
    return jc.Experiment(
        model=jc.create_model(f"resnet{depth}_cifar", classes=10, shortcut=shortcut, dtype=dtype),
        data=jc.Data(
            source=jc.Tfds("cifar10"),
            train_split="train[:90%]",
            evaluation_splits=("train[90%:]",),
            test_splits=("test",),
            image_shape=(32, 32, 3),
            augment=(jc.PadAndCrop(4), jc.HorizontalFlip()),
            normalize=jc.Normalize(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7)),  # of the training set
            batch_size=128,
            workers=4,
        ),
        optimizer=jc.SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4, decay="all"),
        schedule=jc.StepDecay(
            milestones=(jc.steps(32_000), jc.steps(48_000)), warmup=jc.steps(400 if depth == 110 else 0)
        ),
        duration=jc.steps(64_000),
        log_every=jc.steps(100),
    )
