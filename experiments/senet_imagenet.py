"""SE-ResNet-50, 101, 152 and SENet-154 on ImageNet by the paper's recipe.

Paper: Hu et al. 2018, section 6.1: crops of random size and aspect to 224, flips, the mean color subtracted; batch
1024, momentum 0.9, rate 0.6 divided by ten every 30 epochs, 100 epochs. SENet-154 is trained with label smoothing 0.1
(appendix). The paper states no weight decay: 1e-4 is the residual paper's.
Departures: mini-batches are not balanced over classes, as those of the paper's first version; for SENet-154 batch norm
is not frozen in the last epochs.
Data: ILSVRC 2012, see docs/data.md.
Command: python -m jaxcnn.launch experiments/senet_imagenet.py --net se_resnet50
Expected: top-1 and top-5 validation error of one crop, se_resnet50 23.29% and 6.62%, se_resnet101 22.38% and 6.07%,
se_resnet152 21.57% and 5.73% (Table 2; the last quoted from memory), senet154 18.68% and 4.47% (authors' README);
ours: not run.
Devices and hours: not stated; ours: not run.
"""

from typing import Literal

import jaxcnn as jc


def experiment(
    net: Literal["se_resnet50", "se_resnet101", "se_resnet152", "senet154"] = "se_resnet50",
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
) -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model(net, classes=1000, dtype=dtype),
        task=jc.Classification(jc.CrossEntropy(label_smoothing=0.1 if net == "senet154" else 0.0)),
        data=jc.Data(
            source=jc.Tfds("imagenet2012"),
            train_split="train",
            evaluation_splits=(),
            test_splits=("validation",),
            image_shape=(224, 224, 3),
            augment=(jc.RandomResizedCrop(224), jc.HorizontalFlip()),
            preprocess=(jc.Resize(256), jc.CenterCrop(224)),
            normalize=jc.MEAN_RGB,
            batch_size=1024,
            workers=16,
        ),
        optimizer=jc.SGD(learning_rate=0.6, momentum=0.9, weight_decay=1e-4, decay="all"),
        schedule=jc.StepDecay(milestones=(jc.epochs(30), jc.epochs(60), jc.epochs(90))),
        duration=jc.epochs(100),
        log_every=jc.steps(100),
    )
