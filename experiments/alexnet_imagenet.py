"""AlexNet on ImageNet by the paper's recipe.

Paper: Krizhevsky, Sutskever & Hinton 2012. Section 4.1: images of 256x256, the middle of the image with its shorter
side at 256; random crops and horizontal flips; the colors shifted along their principal components. Section 5: batch
128, momentum 0.9, weight decay 5e-4, rate 0.01 divided by ten when the validation error stops improving (three times in
the paper), about 90 epochs; dropout 0.5 in the first two FC layers. Evaluated on ten crops.
Departures: crops of 227, which the net's arithmetic needs; the mean color is subtracted, not the mean image; the rate
watches a hundredth of the training set, which the paper's net was trained on as well; weight decay is added to the
gradient before the rate, which is the same while the rate is constant.
Data: ILSVRC 2012, see docs/data.md.
Command: python -m jaxcnn.launch experiments/alexnet_imagenet.py
Expected: 40.7% top-1 and 18.2% top-5 validation error, ten crops (one net of the paper, as Zeiler & Fergus 2014,
Table 2, quote it); ours: not run.
Devices and hours: two GTX 580 with 3 GB, five to six days (section 5); ours: not run.
"""

from typing import Literal

import jaxcnn as jc


def experiment(dtype: Literal["float32", "bfloat16"] = "bfloat16") -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model("alexnet", classes=1000, dtype=dtype),
        task=jc.Classification(views=jc.TenCrop(227)),
        data=jc.Data(
            source=jc.Tfds("imagenet2012"),
            train_split="train[:99%]",
            evaluation_splits=("train[99%:]",),
            test_splits=("validation",),
            image_shape=(227, 227, 3),
            evaluation_shape=(256, 256, 3),
            augment=(jc.Resize(256), jc.CenterCrop(256), jc.RandomCrop(227), jc.HorizontalFlip(), jc.PCANoise()),
            preprocess=(jc.Resize(256), jc.CenterCrop(256)),
            normalize=jc.MEAN_RGB,
            batch_size=128,
            workers=16,
        ),
        optimizer=jc.SGD(learning_rate=0.01, momentum=0.9, weight_decay=5e-4, decay="all"),
        schedule=jc.Plateau(metric="accuracy", factor=0.1, patience=3),
        duration=jc.epochs(90),
        log_every=jc.steps(100),
    )
