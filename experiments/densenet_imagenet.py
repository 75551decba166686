"""DenseNet-121, 169, 201, 264 and 161 on ImageNet by the paper's recipe.

Paper: Huang et al. 2017, section 4.2: batch 256, 90 epochs, rate 0.1 divided by ten after 30 and 60, weight decay 1e-4,
Nesterov momentum 0.9. Augmentation as in fb.resnet.torch, on which the authors' code is built: crops of 8% to 100% of
the area, brightness, contrast and saturation by 0.4, AlexNet's color shift, flips.
Departures: none known. Norms are decayed too, as in the authors' code.
Data: ILSVRC 2012, see docs/data.md.
Command: python -m jaxcnn.launch experiments/densenet_imagenet.py --depth 121
Expected: top-1 validation error of one crop, 121: 25.02%, 169: 23.80%, 201: 22.58%, 264: 22.15% (Table 3, quoted from
memory), 161: 22.2% (authors' README); ours: not run.
Devices and hours: 4 GPUs for 121 (command in the authors' README), hours not stated; ours: not run.
"""

from typing import Literal

import jaxcnn as jc


def experiment(
    depth: Literal[121, 161, 169, 201, 264] = 121, dtype: Literal["float32", "bfloat16"] = "bfloat16"
) -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model(f"densenet{depth}", classes=1000, dtype=dtype),
        data=jc.Data(
            source=jc.Tfds("imagenet2012"),
            train_split="train",
            evaluation_splits=(),
            test_splits=("validation",),
            image_shape=(224, 224, 3),
            augment=(
                jc.RandomResizedCrop(224, method="bicubic"),
                jc.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
                jc.PCANoise(),
                jc.HorizontalFlip(),
            ),
            preprocess=(jc.Resize(256, method="bicubic"), jc.CenterCrop(224)),
            normalize=jc.IMAGENET,
            batch_size=256,
            workers=16,
        ),
        optimizer=jc.SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4, decay="all"),
        schedule=jc.StepDecay(milestones=(jc.epochs(30), jc.epochs(60))),
        duration=jc.epochs(90),
        log_every=jc.steps(100),
    )
