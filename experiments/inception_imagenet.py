"""Inception-v3 and Inception-v4 on ImageNet by the papers' recipes.

v3: Szegedy et al. 2016, section 8: 50 replicas with a batch of 32 each, 100 epochs, RMSProp with decay 0.9 and epsilon
1.0, rate 0.045 times 0.94 every two epochs, gradients clipped at a norm of 2.0, averaged weights; label smoothing 0.1
(section 7); the auxiliary head weighs 0.4 (released code).
v4: Szegedy et al. 2017, section 4: 20 replicas, RMSProp, rate and averages as v3; clipping and label smoothing as v3.
Not stated in the papers and taken from the released code (tensorflow/models, inception and slim): momentum 0.9, weight
decay 4e-5, the decay 0.9999 of the averages, color distortion (brightness by 32 of 255, contrast and saturation by 0.5
to 1.5, hue by 0.2), and the centre crop of 0.875. v4's batch of 32 a replica and its length, where the curves of its
figures end, are readings.
Departures: replicas were not synchronous; crops are torchvision's, with at least 5% of the area; brightness is
multiplied, where the code adds to it.
Data: ILSVRC 2012, see docs/data.md.
Command: python -m jaxcnn.launch experiments/inception_imagenet.py --version v3
Expected: v3 21.2% top-1 and 5.6% top-5 validation error, one crop (Table 3); v4 20.0% and 5.0%, one crop (Table 2);
ours: not run.
Devices and hours: v3 50 Kepler GPUs, v4 20, hours not stated; ours: not run.
"""

from typing import Literal

import jaxcnn as jc

REPLICAS = {"v3": 50, "v4": 20}
EPOCHS = {"v3": 100, "v4": 160}


def experiment(
    version: Literal["v3", "v4"] = "v3", dtype: Literal["float32", "bfloat16"] = "bfloat16"
) -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model(f"inception_{version}", classes=1000, dtype=dtype),
        task=jc.Classification(jc.CrossEntropy(label_smoothing=0.1), auxiliary_weight=0.4),
        data=jc.Data(
            source=jc.Tfds("imagenet2012"),
            train_split="train",
            evaluation_splits=(),
            test_splits=("validation",),
            image_shape=(299, 299, 3),
            augment=(
                jc.RandomResizedCrop(299, scale=(0.05, 1.0)),
                jc.HorizontalFlip(),
                jc.ColorJitter(brightness=32 / 255, contrast=0.5, saturation=0.5, hue=0.2),
            ),
            preprocess=(jc.Resize(342), jc.CenterCrop(299)),  # 299 of 0.875
            normalize=jc.Normalize(mean=(127.5,), std=(127.5,)),
            batch_size=32 * REPLICAS[version],
            workers=16,
        ),
        optimizer=jc.RMSProp(learning_rate=0.045, rho=0.9, momentum=0.9, epsilon=1.0, weight_decay=4e-5),
        schedule=jc.Exponential(factor=0.94, every=jc.epochs(2)),
        clip_norm=2.0,
        ema=jc.EMA(0.9999),
        duration=jc.epochs(EPOCHS[version]),
        log_every=jc.steps(100),
    )
