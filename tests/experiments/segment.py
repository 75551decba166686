"""An FCN-8s on a narrow ResNet and made-up masks: seconds, for the proof of resume."""

import jaxcnn as jc


def experiment() -> jc.Experiment:
    head = jc.SkipHead(classes=4, maps=(("final", 32, 0), ("stage4", 16, 0), ("stage3", 8, 0)))
    return jc.Experiment(
        model=jc.Segmenter(jc.ResNet("basic", (1, 1, 1, 1), width=0.125), head),
        task=jc.Segmentation(),
        data=jc.Data(
            (32, 32, 3),
            source=jc.Synthetic((32, 32, 3), classes=4, train=128, test=32, parts=("mask",)),
            augment=(jc.HorizontalFlip(),),
            batch_size=16,
            evaluation_batch_size=16,
            evaluation_splits=("validation",),
            test_splits=("test",),
        ),
        optimizer=jc.Adam(1e-3),
        duration=jc.steps(24),
        log_every=jc.steps(4),
        evaluate_every=jc.steps(8),
        checkpoints=jc.Checkpoints(every=jc.steps(5)),
    )
