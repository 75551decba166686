"""VGG on ImageNet by the paper's recipe.

Paper: Simonyan & Zisserman 2015, section 3.1: scale jitter (S from [256, 512]), random 224x224 crop and horizontal
flip, the colors shifted as in AlexNet, minus the training set's mean RGB, SGD with momentum 0.9, batch 256, weight
decay 5e-4, dropout 0.5 in the first two FC layers, rate 0.01 divided by ten when the validation accuracy stops
improving, 74 epochs. Nets start from Glorot's initialisation, which the paper found to do as well; with --start RUN, a
run of net A, they start as the paper's did: its first four convolutions and its FC layers, N(0, 0.01^2) elsewhere.
Evaluated densely at Q = 384 with the mirror images, as jittered training is in the paper.
Departures: evaluation sees the middle square of an image; the rate watches a hundredth of the training set.
Data: ILSVRC 2012, see docs/data.md.
Command: python -m jaxcnn.launch experiments/vgg_imagenet.py --variant D
Expected: top-1 and top-5 validation error, single scale, dense evaluation (Table 3): C 27.3% and 8.8%, D 25.6% and
8.1%, E 25.5% and 8.0% for S in [256, 512]; A 29.6% and 10.4%, A-LRN 29.7% and 10.5%, B 28.7% and 9.9% for S = 256, all
that the paper has of them; ours: not run.
Devices and hours: four Titan Black, two to three weeks a net (section 3.3); ours: not run.
"""

from typing import Literal

import jaxcnn as jc

MODELS = {"A": "vgg11", "A-LRN": "vgg11_lrn", "B": "vgg13", "C": "vgg16_c", "D": "vgg16", "E": "vgg19"}


# The first four convolutions of net A, which have these names in all nets, and the FC layers.
STAGED = (*(f"params/backbone/{name}/*" for name in ("conv1_1", "conv2_1", "conv3_1", "conv3_2")), "params/head/*")


def experiment(
    variant: Literal["A", "A-LRN", "B", "C", "D", "E"] = "D",
    start: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
) -> jc.Experiment:
    kernels = "glorot_uniform" if start is None else "normal_0.01"
    return jc.Experiment(
        model=jc.create_model(MODELS[variant], classes=1000, kernel_init=kernels, dtype=dtype),
        init_from=jc.InitFrom(run=start, include=("*",) if start is None else STAGED),
        task=jc.Classification(views=jc.Dense()),
        data=jc.Data(
            source=jc.Tfds("imagenet2012"),
            # The labels of "test" are hidden, so "validation" is the test split, read once; 12,812 training
            # images (a standard error of 0.4 points) choose the learning rate and the best checkpoint in its place.
            train_split="train[:99%]",
            evaluation_splits=("train[99%:]",),
            test_splits=("validation",),
            image_shape=(224, 224, 3),
            evaluation_shape=(384, 384, 3),
            augment=(jc.ScaleJitter(256, 512), jc.RandomCrop(224), jc.HorizontalFlip(), jc.PCANoise()),
            preprocess=(jc.Resize(384), jc.CenterCrop(384)),
            normalize=jc.MEAN_RGB,
            batch_size=256,
            evaluation_batch_size=256,
            workers=16,
        ),
        optimizer=jc.SGD(learning_rate=0.01, momentum=0.9, weight_decay=5e-4, decay="all"),
        schedule=jc.Plateau(metric="accuracy", factor=0.1, patience=3),
        duration=jc.epochs(74),
        log_every=jc.steps(100),
    )
