"""R-CNN's net in a small form on photos of blood cells: fine-tuned on warped proposals, for two CPU cores.

Paper: Girshick, Donahue, Darrell & Malik 2014, sections 2.1 and 2.3: regions with an IoU of at least 0.5 with an object
are of its class, all others background; a quarter of what is learned are objects. Data: BCCD (Shenggan and cosmicad,
MIT licence), 364 photos of 640x480 with boxes of red cells, white cells and platelets; two boxes have no area and are
dropped. Proposals: selective search in its small form, of each photo once, when its split is opened, or --proposals
FILE (docs/detection.md writes one).
Departures, all for two cores: regions of 32x32 with 2 pixels of context, four convolutions with batch norm from random
weights, Adam, batches of 128; a set of regions that is chosen once.
Command: python -m jaxcnn.launch experiments/rcnn_bccd.py
The machines and the regression of boxes come after it: benchmarks/rcnn.py.
Expected: the accuracy on regions, of which three quarters are background, says little; R-CNN's mean average precision
is what counts; ours: not measured to the end.
"""

import jaxcnn as jc

CLASSES = ("RBC", "WBC", "Platelets")
STAGES = (((3, 32, 1),), ((3, 64, 1),), ((3, 64, 1),), ((3, 96, 1),))


def experiment(proposals: str | None = None) -> jc.Experiment:
    photos = jc.VOCDetection("bccd", CLASSES, coordinates="edges", rules=jc.BoxRules(empty="drop"))
    source = jc.WarpedRegions(jc.WithProposals(photos, proposals), size=32, padding=2)
    return jc.Experiment(
        model=jc.Classifier(
            backbone=jc.Darknet(STAGES, norm="batch"),
            head=jc.FC(classes=1 + len(CLASSES), widths=(128,), names=("fc7", "fc8"), dropout=0.5),
        ),
        data=jc.Data(
            source=source,
            train_split="train",
            evaluation_splits=("val",),
            test_splits=("test",),
            image_shape=(32, 32, 3),
            augment=(jc.HorizontalFlip(), jc.VerticalFlip()),
            normalize=jc.MEAN_RGB,
            batch_size=128,
        ),
        optimizer=jc.Adam(learning_rate=1e-3),
        schedule=jc.Cosine(warmup=jc.steps(30)),
        duration=jc.steps(600),
        evaluate_every=jc.steps(200),
        log_every=jc.steps(20),
        checkpoints=jc.Checkpoints(every=jc.steps(200)),
    )
