"""YOLO v1 in a small form on photos of blood cells, for two CPU cores.

Paper: Redmon, Divvala, Girshick & Farhadi 2016 (the net's form, the loss and the augmentation). Data: BCCD (Shenggan
and cosmicad, MIT licence), 364 photos of 640x480 with boxes of red cells, white cells and platelets, in Pascal VOC's
layout: bccd/{JPEGImages,Annotations,ImageSets/Main}; 205, 87 and 72 photos. Two boxes have no area and are dropped.
Departures, all for two cores: photos at 192x256, six convolutions with batch norm from random weights, a grid of 12x16
cells that answers from its surroundings alone, Adam, batches of 16.
Command: python -m jaxcnn.launch experiments/yolo_bccd.py
Expected: a mean average precision (voc07, at an IoU of 0.5) far above what the mean layout of the training boxes gets
on every photo; ours: docs/detection.md.
"""

import jaxcnn as jc

CLASSES = ("RBC", "WBC", "Platelets")
SIZE = (192, 256)


def experiment() -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model("yolo_v1_small", classes=len(CLASSES)),
        task=jc.Detection(jc.YOLOLoss(), protocol="voc07", classes=CLASSES),
        data=jc.Data(
            source=jc.VOCDetection("bccd", CLASSES, coordinates="edges", rules=jc.BoxRules(empty="drop")),
            train_split="train",
            evaluation_splits=("val",),
            test_splits=("test",),
            image_shape=(*SIZE, 3),
            augment=(jc.EdgeJitter(SIZE, 0.1, value=230), jc.HorizontalFlip(), jc.VerticalFlip(), jc.HSVJitter(0.02)),
            preprocess=(jc.Resize(SIZE),),
            normalize=jc.IMAGENET,
            batch_size=16,
            evaluation_batch_size=24,
        ),
        optimizer=jc.Adam(learning_rate=1e-3),
        schedule=jc.Cosine(warmup=jc.steps(30)),
        duration=jc.steps(390),
        evaluate_every=jc.steps(65),
        log_every=jc.steps(13),
        checkpoints=jc.Checkpoints(every=jc.steps(130)),
    )
