"""Budget: what is equal between the arms of a study that train: epochs, steps, or compute."""

from collections.abc import Mapping
from typing import Literal

from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.studies.axes import value_text
from jaxcnn.summary.summary import summarize

Matched = Literal["", "epochs", "steps", "compute"]
NEAR = 0.1
"""The largest difference of arms that are matched by compute, as a part of the largest one's."""


def matched_text(matched: Matched, arms: Mapping[str, object]) -> str:
    """What the page says: "Matched by epochs: every arm that trains has 10 epochs"; "" if nothing is stated."""
    trained = [arm for arm in arms.values() if isinstance(arm, Experiment)]
    if not matched or not trained:
        return ""
    if matched == "compute":
        return f"Matched by compute: the arms that train take the same number of multiply-adds, within {NEAR:.0%}."
    lengths = dict.fromkeys(value_text(arm.duration) for arm in trained)
    batches = {arm.data.batch_size for arm in trained}
    steps = "" if len(batches) == 1 else "; batches differ, and so does the number of steps"
    return f"Matched by {matched}: every arm that trains has {' or '.join(lengths)}{steps}."


def check_matched(matched: Matched, arms: Mapping[str, object]) -> None:
    """Raises UserError if the arms that train do not have in common what the study says."""
    trained = {name: arm for name, arm in arms.items() if isinstance(arm, Experiment)}
    if not matched or len(trained) < 2:
        return
    if matched == "compute":
        costs = {name: _multiply_adds(arm) for name, arm in trained.items()}
        low, high = min(costs, key=costs.__getitem__), max(costs, key=costs.__getitem__)
        if costs[low] < (1 - NEAR) * costs[high]:
            raise UserError(
                f'study.matched is "compute", and the arm {low!r} takes {costs[low] / costs[high]:.0%} of the '
                f"multiply-adds of {high!r} for the same number of images; give their durations in proportion"
            )
        return
    first, *others = trained
    for name in others:
        if _length(matched, trained[first]) != _length(matched, trained[name]):
            raise UserError(
                f"study.matched is {matched!r}, and the arms {first!r} and {name!r} differ: "
                f"{_said(trained[first])}, and {_said(trained[name])}"
            )


def _length(matched: Matched, arm: Experiment) -> tuple[object, ...]:
    """What two arms with as many epochs, or steps, have equal."""
    unit, data = arm.duration.unit, arm.data
    images = () if unit == ("steps" if matched == "steps" else "epochs") else (data.source, data.train_split)
    batch = (data.batch_size,) if (unit == "steps") != (matched == "steps") else ()
    return (arm.duration, *images, *batch)


def _multiply_adds(arm: Experiment) -> float:
    """Of the whole training, for as many images as its duration says; in epochs of equal splits."""
    images = arm.duration.amount * (arm.data.batch_size if arm.duration.unit == "steps" else 1)
    return images * summarize(arm.model, arm.data.image_shape).multiply_adds


def _said(arm: Experiment) -> str:
    return f"{arm.duration} of {arm.data.train_split!r} in batches of {arm.data.batch_size}"
