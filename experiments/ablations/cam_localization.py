"""C21: class activation maps localise an object without labels of boxes.

Papers: Zhou et al. 2016 (CAM), section 3.2; Choe et al. 2020, which measures such boxes by one level for the whole set,
beside the box in the middle.
Command: python -m jaxcnn.launch experiments/ablations/cam_localization.py --quick
Expected: boxes around maps are better than the whole image, and not much better than a box of the mean size in the
middle. Published: top-5 localisation error on ILSVRC 2014 37.1 with CAM, 34.2 of a net that was trained on boxes (Zhou
et al., abstract). Ours: docs/studies.md.
Registered anew: the net had one rate, and five seeds. Now eight, and of three rates the one that is best on a tenth of
the training images, which no net of the study is trained on. The medium form is for one GPU.
"""

import jaxcnn as jc

FIGURE = "MaxBoxAcc"


def study(scale: jc.Scale = "full") -> jc.Study:
    base = on_tiny_imagenet(scale)
    arms = {
        "maps of a GAP net": base,
        "the whole image": jc.SameBox(base, "whole_image"),
        "the box in the middle": jc.SameBox(base, "center_box"),
    }
    claims = [
        jc.Claim(
            text=f"boxes around the maps are right more often than {other}",
            higher="maps of a GAP net",
            lower=other,
            metric=FIGURE,
            published="top-5 localisation error on ILSVRC 2014: 37.1 with CAM, 34.2 if trained on boxes",
            different="twenty classes of Tiny ImageNet, whose objects fill most of an image; Grad-CAM",
        )
        for other in ("the whole image", "the box in the middle")
    ]
    return jc.Study(
        question="Does a classifier's map localise an object that no box ever showed it?",
        arms=arms,
        claims=tuple(claims),
        seeds=tuple(range(8 if scale == "quick" else 5)),
        metric=FIGURE,
        probes=(jc.WeakLocalization(),),
        note="MaxBoxAcc: the best one level for the whole set, at an IoU of 0.5, for the true class of each image.",
        tuning=jc.Tuning({"optimizer.learning_rate": (5e-4, 2e-3, 5e-3)}),
    )


def on_tiny_imagenet(scale: jc.Scale) -> jc.Experiment:
    side, epochs, net = {
        "quick": (32, 4, {"stages": 3, "width": 0.25}),
        "medium": (64, 12, {"stages": 4, "width": 0.5}),
        "full": (64, 30, {"stages": 4}),
    }[scale]
    size = (side, side)
    return jc.Experiment(
        model=jc.create_model("vgg11_bn", head=jc.GAP(classes=20), **net),
        data=jc.Data(
            source=jc.Tfds("tiny_imagenet20", objects=True),
            train_split="train[:90%]",
            evaluation_splits=("train[90%:]",),
            test_splits=("validation",),
            image_shape=(*size, 3),
            augment=(jc.EdgeJitter(size, 0.15, value=118), jc.HorizontalFlip()),
            preprocess=(jc.Resize(size),),
            normalize=jc.IMAGENET,
            batch_size=64,
            evaluation_batch_size=100,
        ),
        optimizer=jc.Adam(learning_rate=2e-3),
        schedule=jc.OneCycle(),
        duration=jc.epochs(epochs),
        evaluate_every=jc.epochs(epochs),
        log_every=jc.steps(20),
    )
