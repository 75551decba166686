"""GoogLeNet on ImageNet: the paper's recipe, and that of Caffe's replication.

paper: Szegedy et al. 2015, section 6: SGD with momentum 0.9, the rate 4% lower every 8 epochs, averaged weights; crops
of 8% to 100% of the area with an aspect of 3/4 to 4/3, and Howard's (2013) photometric distortions: contrast,
brightness and color by factors of 0.5 to 1.5 in a random order, then AlexNet's shift. Auxiliary heads weigh 0.3.
The paper states no rate, batch, length or weight decay: these are of the solver.prototxt of Caffe's bvlc_googlenet.
caffe: bvlc_googlenet's quick_solver.prototxt, by which its published weights were trained: batch 32, the rate 0.01
(1 - step / 2,400,000)^0.5, weight decay 2e-4, biases at twice the rate and without decay; crops of images of 256x256.
Departures: the paper trained asynchronously, and drew the resampling method too.
Data: ILSVRC 2012, see docs/data.md.
Command: python -m jaxcnn.launch experiments/googlenet_imagenet.py --recipe caffe
Expected: paper 29% top-1 and 9.2% top-5 validation error, one crop (Szegedy et al. 2016, Table 3); caffe 31.3% and
11.1%, centre crop (readme of bvlc_googlenet); ours: not run.
Devices and hours: paper "few high-end GPUs within a week" (section 6, an estimate), caffe not stated; ours: not run.
"""

from typing import Literal

import jaxcnn as jc

CROPS = (jc.RandomResizedCrop(224), jc.HorizontalFlip(), jc.ColorJitter(0.5, 0.5, 0.5), jc.PCANoise())
AUGMENT = {"paper": CROPS, "caffe": (jc.Resize((256, 256)), jc.RandomCrop(224), jc.HorizontalFlip())}
PREPROCESS = {
    "paper": (jc.Resize(256), jc.CenterCrop(224)),
    "caffe": (jc.Resize((256, 256)), jc.CenterCrop(224)),
}
SCHEDULE = {"paper": jc.Exponential(factor=0.96, every=jc.epochs(8)), "caffe": jc.Polynomial(power=0.5)}
DURATION = {"paper": jc.steps(10_000_000), "caffe": jc.steps(2_400_000)}


def experiment(
    recipe: Literal["paper", "caffe"] = "paper", dtype: Literal["float32", "bfloat16"] = "bfloat16"
) -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model("googlenet", classes=1000, dtype=dtype),
        task=jc.Classification(auxiliary_weight=0.3),
        data=jc.Data(
            source=jc.Tfds("imagenet2012"),
            train_split="train",
            evaluation_splits=(),
            test_splits=("validation",),
            image_shape=(224, 224, 3),
            augment=AUGMENT[recipe],
            preprocess=PREPROCESS[recipe],
            normalize=jc.MEAN_RGB,
            batch_size=32,
            workers=16,
        ),
        optimizer=jc.SGD(learning_rate=0.01, momentum=0.9, weight_decay=2e-4),
        schedule=SCHEDULE[recipe],
        groups=(jc.Group("*/bias", rate=2.0),) if recipe == "caffe" else (),
        ema=jc.EMA(0.9999 if recipe == "paper" else 0.0),
        duration=DURATION[recipe],
        log_every=jc.steps(1000),
    )
