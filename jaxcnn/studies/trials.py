"""Trials: one point of a grid, run with each tuning seed; every one a cell like any other. Of each arm one is chosen.

The cells lie in tuning/ARM/POINT/seedN of the study's directory. What is chosen is a pure function of them, so that
every start, share and --report-only chooses the same.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.studies.axes import Point, at_edge, encoded, encoded_axes, point_folder, point_text, with_values
from jaxcnn.studies.cell import FINISHED, Cell, Measured, cell_metrics
from jaxcnn.studies.study import Study, folder, with_seed
from jaxcnn.tasks.task import Direction

Results = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A point of an arm's grid, and its cells, one for each tuning seed."""

    arm_name: str
    point: Mapping[str, Any]
    cells: tuple[Cell, ...]

    @property
    def finished(self) -> bool:
        return all(cell.state() in FINISHED for cell in self.cells)


def trials(study: Study, path: pathlib.Path) -> list[Trial]:
    """All trials of a study in `path`, arm by arm; [] without a tuning.

    Their runs have no test split: no test image is read.
    """
    tuning = study.tuning
    if tuning is None:
        return []
    return [
        trial_of(name, with_values(untested(arm), point), point, tuning.seeds, path / "tuning" / folder(name))
        for name, arm in study.arms.items()
        if isinstance(arm, Experiment)
        for point in tuning.points_of(name)
    ]


def trial_of(name: str, made: Experiment, point: Point, seeds: Sequence[int], path: pathlib.Path) -> Trial:
    """The trial of a point in `path`; `made` has its values."""
    label = ", ".join(filter(None, (name, point_text(point))))
    cells = [Cell(label, with_seed(made, seed), seed, path / point_folder(point) / f"seed{seed}") for seed in seeds]
    return Trial(name, point, tuple(cells))


def untested(arm: Experiment) -> Experiment:
    """The run without its test splits."""
    return dataclasses.replace(arm, data=dataclasses.replace(arm.data, test_splits=()))


def score(trial: Trial, study: Study | Measured, metric: str) -> float | None:
    """The mean over its seeds of what is compared; None if one is unfinished, diverged or lacks the figure."""
    values = [cell_metrics(cell, study).get(metric) if cell.state() == "done" else None for cell in trial.cells]
    known = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def best(scores: Sequence[float | None], direction: Direction) -> int:
    """The number of the best score, of equal ones the first; 0 if there is none."""
    known = [number for number, value in enumerate(scores) if value is not None]
    sign = 1 if direction == "higher" else -1
    return max(known, key=lambda number: sign * (scores[number] or 0.0), default=0)


def tuned(study: Study, found: Sequence[Trial]) -> Study:
    """The study whose arms have the chosen values; the study itself if it has no tuning.

    Raises:
      UserError: a trial is not finished.
    """
    open_trials = [trial for trial in found if not trial.finished]
    if open_trials:
        trial = open_trials[0]
        raise UserError(f"the tuning is not finished: {trial.arm_name}, {point_text(trial.point)}")
    arms = dict(study.arms)
    for name, (own, number) in _chosen(study, found).items():
        arm = arms[name]
        assert isinstance(arm, Experiment)
        arms[name] = with_values(arm, own[number].point)
    return dataclasses.replace(study, arms=arms)


def chosen_trials(study: Study, found: Sequence[Trial]) -> dict[str, Trial]:
    """{arm: the trial that is chosen} of the arms that are tuned."""
    return {name: own[number] for name, (own, number) in _chosen(study, found).items()}


def _chosen(study: Study, found: Sequence[Trial]) -> dict[str, tuple[list[Trial], int]]:
    """{arm: its trials, and the number of the one that is chosen}."""
    chosen: dict[str, tuple[list[Trial], int]] = {}
    for name, arm in study.arms.items():
        own = [trial for trial in found if trial.arm_name == name]
        if own and isinstance(arm, Experiment) and study.tuning is not None:
            metric = study.tuning.metric_of(arm)
            scores = [score(trial, study, metric) for trial in own]
            chosen[name] = (own, best(scores, study.tuning.direction_of(arm)))
    return chosen


def tuning_results(study: Study, found: Sequence[Trial], path: pathlib.Path) -> Results | None:
    """What study.json has under "tuning"; None of a study without one.

    {"seeds": [100], "fields": ["optimizer.learning_rate"], "arms": {name: {
        "metric": "train[90%:] accuracy", "direction": "higher" or "lower",
        "axes": {field: [values of this arm]},
        "trials": [{"point": {field: value}, "text": "learning_rate 0.1", "score": the mean over the seeds, or None,
                    "cells": [{"seed", "path", "state", "message", "score"}]}],      # in the grid's order
        "chosen": the number of a trial, None while the tuning is not finished,
        "edge": [fields of which the smallest or largest number was chosen, of three or more],
        "all_failed": whether no trial has a score, so that the first one is taken}}}

    An arm that is no training run is not in it. Values that are parts of an experiment are as in config.json.
    """
    tuning = study.tuning
    if tuning is None:
        return None
    chosen, arms = _chosen(study, found), {}
    for name, (own, number) in chosen.items():
        arm = study.arms[name]
        assert isinstance(arm, Experiment)
        metric, axes = tuning.metric_of(arm), tuning.axes_of(name)
        finished = all(trial.finished for trial in own)
        scores = [score(trial, study, metric) for trial in own]
        arms[name] = {
            "metric": metric,
            "direction": tuning.direction_of(arm),
            "axes": encoded_axes(axes),
            "trials": [
                {
                    "point": encoded(trial.point),
                    "text": point_text(trial.point),
                    "score": value,
                    "cells": [_told(cell, study, metric, path) for cell in trial.cells],
                }
                for trial, value in zip(own, scores, strict=True)
            ],
            "chosen": number if finished else None,
            "edge": at_edge(axes, own[number].point) if finished else [],
            "all_failed": finished and all(value is None for value in scores),
        }
    return {"seeds": list(tuning.seeds), "fields": [*tuning.axes], "arms": arms}


def _told(cell: Cell, study: Study, metric: str, path: pathlib.Path) -> Results:
    state = cell.state()
    return {
        "seed": cell.seed,
        "path": str(cell.path.relative_to(path)),
        "state": state,
        "message": cell.message(),
        "score": cell_metrics(cell, study).get(metric) if state == "done" else None,
    }
