"""Faster R-CNN in a small form on photos of blood cells, for two CPU cores.

Paper: Ren, He, Girshick & Sun 2015 (the two stages, their losses in approximate joint training, section 3.2). Data:
BCCD (Shenggan and cosmicad, MIT licence), 364 photos of 640x480 with boxes of red cells, white cells and platelets, in
Pascal VOC's layout: bccd/{JPEGImages,Annotations,ImageSets/Main}; 205, 87 and 72 photos. Two boxes have no area and are
dropped.
Departures, all for two cores: photos at 192x256, six convolutions with batch norm from random weights, anchors of 16,
32 and 64 pixels, RoIAlign to 4x4, one hidden layer, 64 anchors and 32 regions drawn of each photo, Adam, batches of 8.
Command: python -m jaxcnn.launch experiments/faster_rcnn_bccd.py
Expected: a mean average precision (voc07, at an IoU of 0.5) far above what the mean layout of the training boxes gets
on every photo; ours: not run.
"""

import jaxcnn as jc

CLASSES = ("RBC", "WBC", "Platelets")
SIZE = (192, 256)


def experiment() -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model("faster_rcnn_small", classes=len(CLASSES)),
        task=jc.Detection(jc.FasterRCNNLoss(anchors=64, regions=32), protocol="voc07", classes=CLASSES),
        data=jc.Data(
            source=jc.VOCDetection("bccd", CLASSES, coordinates="edges", rules=jc.BoxRules(empty="drop")),
            train_split="train",
            evaluation_splits=("val",),
            test_splits=("test",),
            image_shape=(*SIZE, 3),
            augment=(jc.EdgeJitter(SIZE, 0.1, value=230), jc.HorizontalFlip(), jc.VerticalFlip(), jc.HSVJitter(0.02)),
            preprocess=(jc.Resize(SIZE),),
            normalize=jc.IMAGENET,
            batch_size=8,
            evaluation_batch_size=24,
        ),
        optimizer=jc.Adam(learning_rate=1e-3),
        schedule=jc.Cosine(warmup=jc.steps(30)),
        duration=jc.steps(600),
        evaluate_every=jc.steps(100),
        log_every=jc.steps(20),
        checkpoints=jc.Checkpoints(every=jc.steps(200)),
    )
