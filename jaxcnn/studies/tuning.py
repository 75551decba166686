"""Tuning: the grid by which every arm of a study that trains is tuned, before the study's own cells.

All arms get the same budget: as many points of a grid, as many seeds, the same part of the training images to be judged
on. Nothing of it touches a test image, and no seed of it is one of the verdict's.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxcnn.data.splits import may_share
from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.experiment import Experiment
from jaxcnn.runs.run_directory import line_name
from jaxcnn.studies.axes import Axes, Point, check_fields, check_values, encoded_axes, points
from jaxcnn.tasks.task import Direction, score_of

if TYPE_CHECKING:
    from jaxcnn.studies.study import Study


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Values of fields that every arm that trains tries before the study; its verdict's cells have the best of them.

    An arm that is no training run, such as k-nearest neighbours, is not tuned.

    Example:
      jc.Tuning({"optimizer.learning_rate": (0.01, 0.03, 0.1)})
    """

    axes: Axes
    """{"optimizer.learning_rate": (0.01, 0.03, 0.1)}: fields by their dotted names; every combination is tried."""
    seeds: tuple[int, ...] = (100,)
    """None of them is one of the study's."""
    metric: str | None = None
    """What is best: a figure of an evaluation split, of training ("train loss") or of Study.reach, never of a test
    split; None: the task's score on the first evaluation split."""
    own: Mapping[str, Axes] = dataclasses.field(default_factory=dict)
    """{arm: its own values}, if an arm needs others, such as rates in proportion to its batch: of the same fields, and
    as many of each."""

    def __post_init__(self):
        check_values(self.axes, "tuning.axes")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise UserError(f"tuning.seeds are {self.seeds}: there must be one at least, and none twice")
        for arm, axes in self.own.items():
            check_values(axes, f"tuning.own[{arm!r}]")
            counts = [{field: len(values) for field, values in each.items()} for each in (self.axes, axes)]
            if counts[0] != counts[1]:
                raise UserError(
                    f"tuning.own[{arm!r}] has {_counted(counts[1])}, and tuning.axes {_counted(counts[0])}: every arm "
                    "has the same budget"
                )

    def axes_of(self, arm: str) -> Axes:
        return self.own.get(arm, self.axes)

    def points_of(self, arm: str) -> list[Point]:
        return points(self.axes_of(arm))

    def metric_of(self, arm: Experiment) -> str:
        """The figure by which this arm is tuned."""
        return metric_of(arm, self.metric)

    def direction_of(self, arm: Experiment) -> Direction:
        return direction_of(arm, self.metric_of(arm))


def metric_of(arm: Experiment, metric: str | None) -> str:
    """The figure by which something is chosen: the one that is asked for, else the score on the first evaluation split,
    of which there must be one."""
    return metric or f"{line_name({'split': arm.data.evaluation_splits[0]})} {score_of(arm.task)}"


def direction_of(arm: Experiment, metric: str) -> Direction:
    """Of a figure; epochs to a threshold are the better the fewer they are."""
    return "lower" if metric.startswith("epochs to ") else arm.task.directions[metric.rpartition(" ")[2]]


def pinned_tuning(tuning: Tuning | None) -> dict[str, Any] | None:
    """What is settled of the tuning before the first cell, as JSON; None without one."""
    if tuning is None:
        return None
    own = {arm: encoded_axes(axes) for arm, axes in tuning.own.items()}
    return {"axes": encoded_axes(tuning.axes), "own": own, "seeds": list(tuning.seeds), "metric": tuning.metric}


def check_tuning(study: "Study", figures: Mapping[str, list[str]]) -> None:
    """Everything about a study's tuning that can be known before anything is run.

    Args:
      study: with its arms.
      figures: {arm: the names of what its cells will have}.

    Raises:
      UserError: it has a seed of the study's or an unknown arm; a field or a value that an arm does not take; a metric
        that an arm lacks, or of a test split; an evaluation split that shares images with a test split.
    """
    tuning = study.tuning
    if tuning is None:
        return
    both = sorted({*tuning.seeds} & {*study.seeds})
    if both:
        raise UserError(f"tuning.seeds and the study's seeds share {both[0]}: the verdict needs seeds of its own")
    trained = {name: arm for name, arm in study.arms.items() if isinstance(arm, Experiment)}
    if not trained:
        raise UserError("study.tuning: no arm is a training run, so that there is nothing to tune")
    for name in tuning.own:
        if name not in trained:
            hint = did_you_mean(name, trained) or "; there is " + ", ".join(trained)
            raise UserError(f"tuning.own: no arm {name!r} that trains{hint}")
    for name, arm in trained.items():
        check_fields(tuning.axes_of(name), arm, f"tuning of {name!r}")
        check_splits(f"tuning: arm {name!r}", tuning.metric, arm)
        check_metric(f"tuning of arm {name!r}: metric", tuning.metric, arm, figures[name])


def check_splits(what: str, metric: str | None, arm: Experiment) -> None:
    """Raises UserError if a run cannot be judged without its test images; the message begins with `what`."""
    if metric is None and not arm.data.evaluation_splits:
        raise UserError(f"{what} has no evaluation split to be judged on; give data.evaluation_splits one")
    for split in arm.data.evaluation_splits:
        for test in arm.data.test_splits:
            if may_share(split, test):
                raise UserError(
                    f"{what} is evaluated on {split!r} and tested on {test!r}, which can share images; choose on a "
                    "part of the training split, such as 'train[90%:]'"
                )


def check_metric(what: str, metric: str | None, arm: Experiment, figures: Sequence[str]) -> None:
    """Raises UserError if nothing may be chosen by this figure: the run lacks it, or it is of test images.

    Args:
      what: how the message begins.
      metric: as metric_of takes it.
      arm: the run.
      figures: the names of all that it will have.
    """
    metric = metric_of(arm, metric)
    tested = [line_name({"split": split}) for split in arm.data.test_splits]
    tested += [f"{split}_ema" for split in tested]
    if any(metric.removeprefix("epochs to ").startswith(f"{split} ") for split in tested):
        raise UserError(f"{what} is {metric!r}, of the test images: nothing may be chosen by these")
    known = [figure for figure in figures if _can_choose(figure, arm, tested)]
    if metric not in known:
        hint = did_you_mean(metric, known) or "; there is " + ", ".join(known)
        raise UserError(f"{what} names nothing to choose by: {metric!r}{hint}")


def _can_choose(figure: str, arm: Experiment, tested: Sequence[str]) -> bool:
    """Whether a run has this figure that knows no test image and is measured by no probe."""
    if figure.startswith("epochs to "):
        return True
    split, _, name = figure.rpartition(" ")
    evaluated = [line_name({"split": each}) for each in arm.data.evaluation_splits]
    trained = ["train", *evaluated, *(f"{each}_ema" for each in evaluated if arm.ema.on)]
    return split in trained and split not in tested and name in arm.task.directions


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} of {field}" for field, count in counts.items())
