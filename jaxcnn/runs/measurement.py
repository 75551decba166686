"""Measurement: the figures of a loop's nets on splits that are open, raw and averaged ones on the same batches."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.data.examples import Examples
from jaxcnn.data.transforms import Transform
from jaxcnn.runs.evaluation import Metrics, evaluate, evaluated_metrics, evaluation_batches, nets_of
from jaxcnn.runs.member import Member, not_finite
from jaxcnn.runs.reader import Reader
from jaxcnn.runs.stepper import Stepper
from jaxcnn.train.state import TrainState

Splits = Mapping[str, tuple[Examples, tuple[Transform, ...]]]


def measure(
    state: TrainState,
    splits: Splits,
    members: Sequence[Member],
    stepper: Stepper,
    step: Any,
    reader: Reader,
    stops: Callable[[str], bool],
) -> tuple[list[Metrics], dict[int, str]]:
    """The metrics of each member's nets, and, by its number, what of one is not finite.

    Args:
      state: of all nets.
      splits: with what is left to do to their images.
      members: whose nets they are.
      stepper: of the loop.
      step: the evaluation step, compiled.
      reader: of the loop.
      stops: whether all processes stop in this split.

    Raises:
      Stopped: `stops` said so.
    """
    experiment = members[0].plan.experiment
    results: list[Metrics] = [{} for _ in members]
    bad: dict[int, str] = {}
    nets = nets_of(state)
    for split, (examples, transforms) in splits.items():
        made = evaluation_batches(experiment, examples, transforms)

        def pass_over(indices: np.ndarray, made: Any = made, split: str = split) -> None:
            for member in members:
                member.quarantine.add(split, made.broken(indices))

        with contextlib.closing(reader.evaluation(split, made)) as batches:
            measured = evaluate(
                step,
                list(nets.values()),
                batches,
                examples,
                stepper.put_evaluation,
                stop=functools.partial(stops, split),
                on_broken=pass_over,
            )
        for suffix, both in zip(nets, measured, strict=True):
            for number, own in enumerate(results):
                sums, records = (stepper.member(each, number) for each in both)
                own[split + suffix] = evaluated_metrics(experiment.task, sums, records)
                if (name := not_finite(sums)) is not None:
                    bad.setdefault(number, f"the {name} on {split + suffix}")
    return results, bad
