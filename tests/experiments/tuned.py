"""A study of seconds whose arms are tuned: linear classifiers with and without momentum; one rate of three is wild."""

import dataclasses

import jaxcnn as jc


def study() -> jc.Study:
    base = jc.Experiment(
        model=jc.create_model("linear", classes=4),
        data=jc.Data(
            image_shape=(6, 6, 1),
            source=jc.Synthetic(image_shape=(6, 6, 1), classes=4, train=64, test=40),
            train_split="train",
            evaluation_splits=("validation",),
            batch_size=16,
            evaluation_batch_size=40,
        ),
        optimizer=jc.SGD(learning_rate=0.5),
        duration=jc.steps(4),
        evaluate_every=jc.steps(4),
        log_every=jc.steps(4),
        checkpoints=jc.Checkpoints(every=jc.steps(4)),
    )
    plain = dataclasses.replace(base, optimizer=jc.SGD(learning_rate=0.5, momentum=0.0))
    return jc.Study(
        question="Does momentum help a linear classifier?",
        arms={"momentum": base, "plain": plain},
        claims=(jc.Claim("momentum lowers the loss", "plain", "momentum", metric="test loss"),),
        seeds=(0, 1),
        tuning=jc.Tuning(
            {"optimizer.learning_rate": (0.001, 0.02, 1e38)},
            seeds=(100,),
            metric="validation loss",
            own={"plain": {"optimizer.learning_rate": (0.01, 0.2, 1e38)}},
        ),
        matched="epochs",
    )
