"""ZFNet on ImageNet by the paper's recipe.

Paper: Zeiler & Fergus 2014, section 3: the shorter side at 256, the middle 256x256, crops of 224 with and without
horizontal flips; batch 128, rate 0.01, momentum 0.9, the rate lowered by hand when the validation error stops
improving, dropout 0.5 in the two hidden FC layers, 70 epochs. Evaluated on ten crops.
Departures: crops at any place, not at the corners and the middle only; the mean color is subtracted, not the mean
image; the rate is divided by ten by a rule, which watches a hundredth of the training set; filters of the first layer
are not renormalised to an RMS of 0.1. The paper states no weight decay: this is AlexNet's.
Data: ILSVRC 2012, see docs/data.md.
Command: python -m jaxcnn.launch experiments/zfnet_imagenet.py --variant base
Expected: base 38.4% top-1 and 16.5% top-5 validation error, wide 37.5% and 16.0%, ten crops (Table 2); ours: not run.
Devices and hours: one GTX 580, twelve days (section 3); ours: not run.
"""

from typing import Literal

import jaxcnn as jc

MODELS = {"base": "zfnet", "wide": "zfnet_wide"}


def experiment(
    variant: Literal["base", "wide"] = "base", dtype: Literal["float32", "bfloat16"] = "bfloat16"
) -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model(MODELS[variant], classes=1000, dtype=dtype),
        task=jc.Classification(views=jc.TenCrop(224)),
        data=jc.Data(
            source=jc.Tfds("imagenet2012"),
            train_split="train[:99%]",
            evaluation_splits=("train[99%:]",),
            test_splits=("validation",),
            image_shape=(224, 224, 3),
            evaluation_shape=(256, 256, 3),
            augment=(jc.Resize(256), jc.CenterCrop(256), jc.RandomCrop(224), jc.HorizontalFlip()),
            preprocess=(jc.Resize(256), jc.CenterCrop(256)),
            normalize=jc.MEAN_RGB,
            batch_size=128,
            workers=16,
        ),
        optimizer=jc.SGD(learning_rate=0.01, momentum=0.9, weight_decay=5e-4, decay="all"),
        schedule=jc.Plateau(metric="accuracy", factor=0.1, patience=3),
        duration=jc.epochs(70),
        log_every=jc.steps(100),
    )
