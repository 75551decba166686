"""VGG on ImageNet by the paper's recipe.

Paper: Simonyan & Zisserman 2015, section 3.1: scale jitter (S from [256, 512]), random 224x224 crop and horizontal
flip, minus the training set's mean RGB, SGD with momentum 0.9, batch 256, weight decay 5e-4, dropout 0.5 in the first
two FC layers, rate 0.01 divided by ten when the validation accuracy stops improving, 74 epochs. Departures: the paper
also shifts the RGB colours (AlexNet's PCA), starts deep nets from net A's weights (here Glorot's initialisation, which
the paper found to make that unnecessary), and evaluates densely; here the centre crop of the image resized to 384 (the
paper's Q for jittered training). The rate watches a hundredth of the training set.
Data: ILSVRC 2012, see docs/data.md.
Command: python -m jaxcnn.launch experiments/vgg_imagenet.py --variant D
Expected: D 25.6% top-1 and 8.1% top-5 validation error, single scale, dense evaluation (Table 3, S in [256, 512]);
ours: not run.
"""

from typing import Literal

import jaxcnn as jc

MODELS = {"A": "vgg11", "A-LRN": "vgg11_lrn", "B": "vgg13", "C": "vgg16_c", "D": "vgg16", "E": "vgg19"}


def experiment(
    variant: Literal["A", "A-LRN", "B", "C", "D", "E"] = "D", dtype: Literal["float32", "bfloat16"] = "bfloat16"
) -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model(MODELS[variant], classes=1000, dtype=dtype),
        data=jc.Data(
            source=jc.Tfds("imagenet2012"),
            # The labels of "test" are hidden, so "validation" is the test split, read once; 12,812 training
            # images (a standard error of 0.4 points) choose the learning rate and the best checkpoint in its place.
            train_split="train[:99%]",
            evaluation_splits=("train[99%:]",),
            test_splits=("validation",),
            image_shape=(224, 224, 3),
            augment=(jc.ScaleJitter(256, 512), jc.RandomCrop(224), jc.HorizontalFlip()),
            preprocess=(jc.Resize(384), jc.CenterCrop(224)),
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
