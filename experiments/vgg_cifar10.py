"""VGG-16 with batch norm on CIFAR-10, the recipe of the CIFAR era: pad-and-crop, flip, SGD, step decay.

Paper: Simonyan & Zisserman 2015 (the net); the two hidden FC layers are 512 wide, since the last map is 1x1. Data:
Krizhevsky 2009, prepared once with `jaxcnn data prepare cifar10`.
Command: python -m jaxcnn.launch experiments/vgg_cifar10.py
Expected: 0.9390 to 0.9420 test accuracy is what public VGG-16-BN implementations report for such recipes (quoted from
memory, not from a paper) with all 50,000 images; here 45,000 are trained on and 5,000 are the validation
split (He et al. 2016, section 4.2, split them so); ours: not run.
"""

from typing import Literal

import jaxcnn as jc


def experiment(head: Literal["fc", "gap"] = "fc", dtype: Literal["float32", "bfloat16"] = "float32") -> jc.Experiment:
    if head == "fc":
        made = jc.FC(classes=10, widths=(512, 512), names=("fc6", "fc7", "fc8"), grid=(1, 1), dropout=0.5)
    else:
        made = jc.GAP(classes=10)
    return jc.Experiment(
        model=jc.create_model("vgg16_bn", head=made, dtype=dtype),
        data=jc.Data(
            source=jc.Tfds("cifar10"),
            image_shape=(32, 32, 3),
            augment=(jc.PadAndCrop(4), jc.HorizontalFlip()),
            normalize=jc.Normalize(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7)),  # of the training set
            batch_size=128,
            workers=4,
        ),
        optimizer=jc.SGD(learning_rate=0.05, momentum=0.9, weight_decay=5e-4),
        schedule=jc.StepDecay(milestones=(jc.epochs(80), jc.epochs(120)), warmup=jc.epochs(1)),
        duration=jc.epochs(160),
        log_every=jc.steps(100),
    )
