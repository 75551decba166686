"""DenseNet and DenseNet-BC on CIFAR-10 by the paper's recipe.

Paper: Huang et al. 2017, sections 3 and 4.2: all 50,000 images, channels normalised, padded by 4, cropped and flipped;
batch 64, 300 epochs, rate 0.1 divided by ten after half and three quarters of them, weight decay 1e-4, Nesterov
momentum 0.9. Without augmentation (--augmentation none) dropout of 0.2 follows each convolution but the first.
Departures: none known. Norms are decayed too, as in the authors' code.
Data: Krizhevsky 2009, prepared once with `jaxcnn data prepare cifar10`.
Command: python -m jaxcnn.launch experiments/densenet_cifar10.py --net bc-100-12
Expected: test error with augmentation (without), by depth and growth: 40-12 5.24% (7.00%), 100-12 4.10% (5.77%), 100-24
3.74% (5.83%), bc-100-12 4.51% (5.92%), bc-250-24 3.62% (5.19%), bc-190-40 3.46% (not stated) (Table 2; authors'
README); ours: not run.
Devices and hours: not stated; ours: not run.
"""

from typing import Any, Literal

import jaxcnn as jc

# Layers of each of the three blocks, growth, width of the stem; two convolutions a layer in a BC net.
NETS = {
    "40-12": (12, 12, 16),
    "100-12": (32, 12, 16),
    "100-24": (32, 24, 16),
    "bc-100-12": (16, 12, 24),
    "bc-250-24": (41, 24, 48),
    "bc-190-40": (31, 40, 80),
}


def experiment(
    net: Literal["40-12", "100-12", "100-24", "bc-100-12", "bc-250-24", "bc-190-40"] = "40-12",
    augmentation: Literal["standard", "none"] = "standard",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> jc.Experiment:
    layers, growth, stem = NETS[net]
    augmented = augmentation == "standard"
    basic: dict[str, Any] = {} if net.startswith("bc") else {"bottleneck": 0, "compression": 1.0}
    return jc.Experiment(
        model=jc.create_model(
            "densenet100_bc_k12_cifar",
            classes=10,
            depth=(layers, layers, layers),
            growth=growth,
            stem_width=stem,
            conv_dropout=0.0 if augmented else 0.2,
            dtype=dtype,
            **basic,
        ),
        data=jc.Data(
            source=jc.Tfds("cifar10"),
            train_split="train",
            evaluation_splits=(),
            test_splits=("test",),
            image_shape=(32, 32, 3),
            augment=(jc.PadAndCrop(4), jc.HorizontalFlip()) if augmented else (),
            normalize=jc.Normalize(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7)),  # of the training set
            batch_size=64,
            workers=4,
        ),
        optimizer=jc.SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4, decay="all"),
        schedule=jc.StepDecay(milestones=(jc.epochs(150), jc.epochs(225))),
        duration=jc.epochs(300),
        log_every=jc.steps(100),
    )
