"""ResNet-18 and ResNet-50 on ImageNet in 16 to 88 epochs: the recipe of ffcv's table.

Source: libffcv/ffcv-imagenet, rn50_configs and rn18_configs: the rate rises over two epochs and falls in a straight
line to 0; label smoothing 0.1, weight decay without batch norm, crops resized to 160 pixels and in the last quarter to
192, evaluated on 256 pixels of 224/256 of the image and on its mirror image. ResNet-50: batch 4096 (512 on each of 8),
rate 1.7, weight decay 1e-4; ResNet-18: batch 1024, rate 0.5, weight decay 5e-5.
Departures: no blurred convolutions (Zhang 2019); evaluation averages the probabilities of the two views, where ffcv
adds logits; biases are not decayed.
Data: ILSVRC 2012, see docs/data.md.
Command: python -m jaxcnn.launch experiments/resnet_fast_imagenet.py --depth 50 --epochs 16
Expected: top-1 validation accuracy after 16, 24, 32, 40, 56, 88 epochs: ResNet-50 73.8, 75.6, 76.6, 77.2, 78.0, 78.4;
ResNet-18 66.9, 68.8, 70.0, 70.6, 71.3, 72.4 (README of ffcv-imagenet); ours: not run.
Devices and hours: ResNet-50 14.9, 21.7, 28.7, 35.6, 49.4, 77.2 minutes on 8 A100, ResNet-18 35.0, 51.6, 68.9, 85.5,
119.4, 187.3 on one (the same table); ours: not run.
"""

from typing import Literal

import jaxcnn as jc

# The epoch from which images have 192 pixels a side: the middle of the configuration's ramp, which goes by steps of 32.
LARGER = {16: 12, 24: 19, 32: 25, 40: 32, 56: 45, 88: 71}
# Batch, rate and weight decay.
CONFIGS = {18: (1024, 0.5, 5e-5), 50: (4096, 1.7, 1e-4)}


def experiment(
    depth: Literal[18, 50] = 18,
    epochs: Literal[16, 24, 32, 40, 56, 88] = 16,
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
) -> jc.Experiment:
    batch, rate, decay = CONFIGS[depth]
    return jc.Experiment(
        model=jc.create_model(f"resnet{depth}", classes=1000, dtype=dtype),
        task=jc.Classification(jc.CrossEntropy(label_smoothing=0.1), views=jc.Flips()),
        data=jc.Data(
            source=jc.Tfds("imagenet2012"),
            train_split="train",
            evaluation_splits=(),
            test_splits=("validation",),
            image_shape=(192, 192, 3),
            sizes=((jc.epochs(0), 160), (jc.epochs(LARGER[epochs]), 192)),
            evaluation_shape=(256, 256, 3),
            augment=(jc.RandomResizedCrop(192), jc.HorizontalFlip()),
            preprocess=(jc.Resize(293), jc.CenterCrop(256)),  # 256 of 224 / 256
            normalize=jc.IMAGENET,
            batch_size=batch,
            workers=16,
        ),
        optimizer=jc.SGD(learning_rate=rate, momentum=0.9, weight_decay=decay),
        schedule=jc.Polynomial(power=1.0, warmup=jc.epochs(2)),
        duration=jc.epochs(epochs),
        log_every=jc.steps(100),
    )
