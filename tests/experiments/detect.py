"""A small YOLO on made-up rectangles: seconds, and it learns something."""

import jaxcnn as jc


def experiment() -> jc.Experiment:
    return jc.Experiment(
        model=jc.create_model(
            "yolo_v1_small", classes=2, boxes=1, stages=(((3, 8, 2),), ((3, 16, 2),), ((3, 16, 1),)), detections=20
        ),
        task=jc.Detection(protocol="voc07", max_boxes=4, classes=("class0", "class1")),
        data=jc.Data(
            (24, 32, 3),
            source=jc.Synthetic((24, 32, 3), classes=2, train=64, test=16, parts=("boxes",)),
            evaluation_splits=("validation",),
            test_splits=("test",),
            augment=(jc.HorizontalFlip(),),
            batch_size=16,
            evaluation_batch_size=16,
        ),
        optimizer=jc.Adam(3e-3),
        duration=jc.steps(24),
        log_every=jc.steps(4),
        evaluate_every=jc.steps(12),
        checkpoints=jc.Checkpoints(every=jc.steps(5)),
    )
