"""C18: deformable convolutions help on deformed objects.

Papers: Dai et al. 2017 (v1, in the last stage), sections 2.3 and 4; Zhu et al. 2019 (v2, in the last three).
Command: python -m jaxcnn.launch experiments/ablations/deformable_convolution.py --quick
Expected: nets with deformable convolutions are better than wider nets without them where objects are bent, and more so
than where they are not. Published: mAP of R-FCN on VOC 2007 79.6, with v1 82.3 (Dai et al., table 4; at an IoU of 0.5,
ResNet-101). Ours: docs/studies.md.
The wider nets have more parameters and more multiply-adds than all nets with deformable convolutions.
Registered anew: all nets had one rate, chosen with another seed, and there were five seeds. Now for each net the rate,
of three, that is best on a tenth of the training images, which no net of the study is trained on. The medium form is
for one GPU.
"""

import dataclasses

import jaxcnn as jc

CUTOUTS, SIGNS = 8, 10
FOUND = "test voc07_map"
PUBLISHED = "mAP of R-FCN on VOC 2007 at an IoU of 0.5: 79.6, with v1 82.3"


def study(scale: jc.Scale = "full") -> jc.Study:
    quick = scale == "quick"
    bent, straight = on_cutouts(0.1, scale), on_cutouts(0.0, scale)
    signs, detected = on_signs(scale), in_composed_images(scale)
    arms = {
        "wider": with_net(bent, quick),
        "v1": with_net(bent, quick, "v1"),
        "v2": with_net(bent, quick, "v2"),
        "straight objects, wider": with_net(straight, quick),
        "straight objects, v1": with_net(straight, quick, "v1"),
        "signs, wider": with_net(signs, quick),
        "signs, v1": with_net(signs, quick, "v1"),
        "detection, wider": with_net(detected, quick),
        "detection, v1": with_net(detected, quick, "v1"),
    }
    small = "a ResNet of three stages on composed images of 32x32 pixels" if quick else "ResNet-18 on composed images"
    claims = (
        jc.Claim(
            text="v1 is at least a point more accurate on bent objects",
            higher="v1",
            lower="wider",
            margin=0.01,
            published=PUBLISHED,
            different=small,
        ),
        jc.Claim(
            text="v2 is at most a point less accurate than v1",
            higher="v2",
            lower="v1",
            margin=-0.01,
            published="COCO's AP of Faster R-CNN, ResNet-50: 38.0 with v1 in the last three stages, 39.9 with v2",
            different=small,
        ),
        jc.Claim(
            text="v1 adds more where objects are bent than where they are not",
            higher="v1",
            lower="wider",
            beyond=("straight objects, v1", "straight objects, wider"),
            published="claimed without a figure",
            different=small,
        ),
        jc.Claim(
            text="v1 is at least a point more accurate on hands that show digits",
            higher="signs, v1",
            lower="signs, wider",
            margin=0.01,
            published=PUBLISHED,
            different="a small ResNet on photos of 32x32 pixels; the same people in both splits"
            if quick
            else "ResNet-18",
        ),
        jc.Claim(
            text="v1 finds bent objects better by at least a point",
            higher="detection, v1",
            lower="detection, wider",
            metric=FOUND,
            margin=0.01,
            published=PUBLISHED,
            different="YOLO's loss on a small ResNet, composed images of 48x48 pixels" if quick else "YOLO's loss",
        ),
        jc.Claim(
            text="the wider net has more parameters than the one with v1",
            higher="wider",
            lower="v1",
            metric="parameters",
            published="-",
            different=small,
        ),
    )
    return jc.Study(
        question="Do deformable convolutions help on deformed objects?",
        arms=arms,
        claims=claims,
        seeds=(0, 1, 2, 3, 4),
        note="Test images show the training images' cutouts in other forms, on other grounds, which are made up.",
        tuning=jc.Tuning({"optimizer.learning_rate": (1e-3, 3e-3, 6e-3) if quick else (3e-4, 1e-3, 3e-3)}),
        matched="epochs",
    )


def with_net(base: jc.Experiment, quick: bool, kind: str = "") -> jc.Experiment:
    """The experiment with a net that is wider, or has deformable convolutions in its last stage (the last two)."""
    fields = {"block": "basic", "depth": (2, 2, 2, 2), "stem": "7x7", "width": 1.0}
    if quick:
        fields |= {"depth": (1, 1, 1), "stem": "3x3", "width": 0.5}
    if kind:
        backbone = jc.DeformableResNet(deformable=(4,) if quick else (4, 5), modulated=kind == "v2", **fields)
    else:
        backbone = jc.ResNet(**fields | {"width": 0.6875 if quick else 1.125})
    return dataclasses.replace(base, model=base.model.clone(backbone=backbone))


EPOCHS: dict[jc.Scale, int] = {"quick": 8, "medium": 30, "full": 60}


def classified(source, classes: int, side: int, scale: jc.Scale) -> jc.Experiment:
    size = (side, side)
    return jc.Experiment(
        model=jc.create_model("resnet18", classes=classes),
        data=jc.Data(
            source=source,
            train_split="train[:90%]",
            evaluation_splits=("train[90%:]",),
            test_splits=("test",),
            image_shape=(*size, 3),
            augment=(jc.Resize(size), jc.HorizontalFlip()),
            preprocess=(jc.Resize(size),),
            normalize=jc.IMAGENET,
            batch_size=50,
            evaluation_batch_size=100,
        ),
        optimizer=jc.Adam(learning_rate=1e-3),
        schedule=jc.OneCycle(),
        duration=jc.epochs(EPOCHS[scale]),
        evaluate_every=jc.epochs(EPOCHS[scale]),
        log_every=jc.steps(20),
    )


def on_cutouts(deformation: float, scale: jc.Scale) -> jc.Experiment:
    side, train, test = {"quick": (32, 1700, 1000), "medium": (64, 6000, 2000), "full": (128, 20_000, 4000)}[scale]
    source = jc.ComposedCutouts(
        "cutouts",
        (side, side, 3),
        size=(0.6, 0.95),
        rotation=30,
        deformation=deformation,
        shared_cutouts=True,
        train=train,
        test=test,
    )
    return classified(source, CUTOUTS, side, scale)


def on_signs(scale: jc.Scale) -> jc.Experiment:
    return classified(jc.Tfds("sign_digits"), SIGNS, {"quick": 32, "medium": 64, "full": 96}[scale], scale)


def in_composed_images(scale: jc.Scale) -> jc.Experiment:
    side, train, test = {"quick": (48, 1700, 300), "medium": (128, 6000, 1000), "full": (256, 20_000, 2000)}[scale]
    source = jc.ComposedCutouts(
        "cutouts",
        (side, side, 3),
        objects=(1, 3),
        size=(0.3, 0.6),
        rotation=30,
        deformation=0.1,
        shared_cutouts=True,
        train=train,
        test=test,
    )
    return jc.Experiment(
        model=jc.create_model("yolo_v1_small", classes=CUTOUTS),
        task=jc.Detection(jc.YOLOLoss(), protocol="voc07", max_boxes=4),
        data=jc.Data(
            source=source,
            train_split="train[:90%]",
            evaluation_splits=("train[90%:]",),
            test_splits=("test",),
            image_shape=(side, side, 3),
            augment=(jc.HorizontalFlip(),),
            preprocess=(),
            normalize=jc.IMAGENET,
            batch_size=25,
            evaluation_batch_size=50,
        ),
        optimizer=jc.Adam(learning_rate=2e-3),
        schedule=jc.OneCycle(),
        duration=jc.epochs(EPOCHS[scale]),
        evaluate_every=jc.epochs(EPOCHS[scale]),
        log_every=jc.steps(20),
    )
