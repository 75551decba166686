"""A study of seconds: two equal arms, one that differs, and one that diverges."""

import dataclasses

from jaxcnn.studies.study import Claim, Study
from jaxcnn.train.duration import steps
from jaxcnn.train.optimizers import SGD
from tests.experiments import tiny


def study() -> Study:
    base = dataclasses.replace(tiny.experiment(), duration=steps(40))
    return Study(
        question="Does dropout slow a tiny net down?",
        arms={
            "none": base,
            "same": base,
            "half": dataclasses.replace(base, model=base.model.clone(dropout=0.5)),
            "wild": dataclasses.replace(base, optimizer=SGD(learning_rate=1e25)),
        },
        claims=(
            Claim("with dropout the training loss is higher", "half", "none", metric="train loss", published="none"),
            Claim("equal arms differ", "same", "none", metric="test loss"),
            Claim("a wild rate does worse", "none", "wild"),
        ),
        seeds=(0, 1),
        reach={"train accuracy": 0.4},
        diverged={"test accuracy": 0.25},
    )
