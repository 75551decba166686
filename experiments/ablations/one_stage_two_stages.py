"""C23: one-stage detectors are faster, two-stage detectors more accurate.

Papers: Redmon et al. 2016 (YOLO), table 1; Ren et al. 2015 (Faster R-CNN), table 5.
Command: python -m jaxcnn.launch experiments/ablations/one_stage_two_stages.py --quick
Expected: Faster R-CNN has the higher mean average precision and takes longer for an image. Published, on VOC 2007 by a
Titan X: Faster R-CNN on VGG-16 73.2 at 7 frames a second, YOLO 63.4 at 45 (YOLO, table 1). Ours: docs/studies.md.
Both detectors have the same convolutions before their heads, see the same images as often, in the same batches, and
have the same optimizer. Data: blood cells (BCCD) and composed cutouts, whose test images show cutouts that no training
image shows.
Registered anew: both had one rate. Now each has the rate, of three, that is best on a tenth of the training images,
which no net of the study is trained on. The medium form is for one GPU.
"""

import dataclasses

import jaxcnn as jc

CELLS = ("RBC", "WBC", "Platelets")
CUTOUTS = 8
FOUND, TIME = "test voc07_map", "relative time per image"
PUBLISHED = "VOC 2007: Faster R-CNN 73.2 at 7 frames a second, YOLO 63.4 at 45"


def study(scale: jc.Scale = "full") -> jc.Study:
    quick = scale == "quick"
    cells, composed = on_blood_cells(scale), on_composed_images(scale)
    arms = {}
    for name, base in (("cells", cells), ("composed", composed)):
        arms[f"{name}, YOLO"] = base
        arms[f"{name}, Faster R-CNN"] = two_stages(base)
    small = "six convolutions from random weights; " + (
        "cells at 144x192 pixels" if quick else "cells at 192x256 pixels"
    )
    claims = []
    for name, of in (("cells", "blood cells"), ("composed", "composed cutouts")):
        sides = {"higher": f"{name}, Faster R-CNN", "lower": f"{name}, YOLO"}
        claims += [
            jc.Claim(
                text=f"two stages have the higher mean average precision by at least two points on {of}",
                **sides,
                margin=0.02,
                published=PUBLISHED,
                different=small,
            ),
            jc.Claim(
                text=f"two stages take at least half as long again for an image of {of}",
                **sides,
                metric=TIME,
                margin=0.5,
                published=PUBLISHED,
                different=f"{small}; CPU, one image at a time" if quick else small,
            ),
        ]
    return jc.Study(
        question="Is one stage faster, and are two stages more accurate?",
        arms=arms,
        claims=tuple(claims),
        seeds=(0, 1, 2, 3, 4),
        metric=FOUND,
        probes=(jc.InferenceTime(beside=cells),),
        tuning=jc.Tuning({"optimizer.learning_rate": (5e-4, 1e-3, 2e-3)}),
        matched="steps",
        note="A time is a multiple of that of a YOLO net with random weights, which is asked in turn with each net.",
    )


def two_stages(base: jc.Experiment) -> jc.Experiment:
    return dataclasses.replace(
        base,
        model=jc.create_model("faster_rcnn_small", classes=base.model.classes),
        task=dataclasses.replace(base.task, criterion=jc.FasterRCNNLoss(anchors=64, regions=32)),
    )


STEPS: dict[jc.Scale, int] = {"quick": 300, "medium": 1500, "full": 3000}


def on_blood_cells(scale: jc.Scale) -> jc.Experiment:
    size = (144, 192) if scale == "quick" else (192, 256)
    return jc.Experiment(
        model=jc.create_model("yolo_v1_small", classes=len(CELLS)),
        task=jc.Detection(jc.YOLOLoss(), protocol="voc07"),
        data=jc.Data(
            source=jc.VOCDetection("bccd", CELLS, coordinates="edges", rules=jc.BoxRules(empty="drop")),
            train_split="train[:90%]",
            evaluation_splits=("train[90%:]",),
            test_splits=("test",),
            image_shape=(*size, 3),
            augment=(jc.EdgeJitter(size, 0.1, value=230), jc.HorizontalFlip(), jc.VerticalFlip(), jc.HSVJitter(0.02)),
            preprocess=(jc.Resize(size),),
            normalize=jc.IMAGENET,
            batch_size=8,
            evaluation_batch_size=24,
        ),
        optimizer=jc.Adam(learning_rate=1e-3),
        schedule=jc.Cosine(warmup=jc.steps(30)),
        duration=jc.steps(STEPS[scale]),
        evaluate_every=jc.steps(STEPS[scale]),
        log_every=jc.steps(20),
    )


def on_composed_images(scale: jc.Scale) -> jc.Experiment:
    base = on_blood_cells(scale)
    size, train, test = {
        "quick": ((144, 144), 1300, 200),
        "medium": ((192, 192), 6000, 1000),
        "full": ((256, 256), 20_000, 2000),
    }[scale]
    source = jc.ComposedCutouts(
        "cutouts", (*size, 3), objects=(1, 4), size=(0.2, 0.5), rotation=30, deformation=0.05, train=train, test=test
    )
    data = dataclasses.replace(
        base.data,
        source=source,
        image_shape=(*size, 3),
        augment=(jc.EdgeJitter(size, 0.1, value=118), jc.HorizontalFlip()),
        preprocess=(),
        evaluation_batch_size=20,
    )
    model = jc.create_model("yolo_v1_small", classes=CUTOUTS)
    return dataclasses.replace(base, model=model, data=data)
