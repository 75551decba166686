"""Two arms of two seeds that train as one program each: the suite's tiny net, and a short linear classifier."""

import dataclasses

import jaxcnn as jc
from tests.experiments.tiny import experiment as tiny


def study() -> jc.Study:
    made = dataclasses.replace(
        tiny(), duration=jc.steps(24), log_every=jc.steps(4), checkpoints=jc.Checkpoints(every=jc.steps(5))
    )
    linear = dataclasses.replace(
        made,
        model=jc.create_model("linear", classes=4),
        duration=jc.steps(6),
        evaluate_every=jc.steps(6),
        checkpoints=jc.Checkpoints(every=jc.steps(6)),
    )
    return jc.Study(question="?", arms={"net": made, "linear": linear}, claims=(), seeds=(0, 1))
