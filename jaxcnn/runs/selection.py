"""Selection: what the evaluations during training choose, kept so that every number says whether it was looked at."""

import dataclasses
import math
from typing import Any

from jaxcnn.experiment import Experiment
from jaxcnn.train.schedules import Plateau


@dataclasses.dataclass(frozen=True)
class Best:
    """The best evaluations so far, at most `checkpoints.best` of them, as (score, step); a checkpoint notes it.

    It is a function of the evaluations alone, so that a resumed run keeps what the uninterrupted one keeps.
    """

    experiment: Experiment
    entries: tuple[tuple[float, int], ...] = ()

    def with_evaluation(self, step: int, metrics: dict[str, float]) -> "Best":
        """After one more evaluation; unchanged where it is none of the best. Of equal ones the earlier stays."""
        score, most = self.experiment.score(metrics), self.experiment.checkpoints.best
        full = len(self.entries) == most
        if not math.isfinite(score) or most == 0 or (full and score <= min(self.entries)[0]):
            return self
        entries = sorted([*self.entries, (score, step)])
        return dataclasses.replace(self, entries=tuple(entries[-most:]))

    @property
    def step(self) -> int | None:
        """Of the best one."""
        return max(self.entries)[1] if self.entries else None

    def note(self) -> list[list[float]]:
        """As JSON."""
        return [list(entry) for entry in self.entries]


def best_of(experiment: Experiment, note: list[list[float]]) -> Best:
    """The inverse of `Best.note`."""
    return Best(experiment, tuple((float(score), int(step)) for score, step in note))


def selection(experiment: Experiment, best: Best) -> dict[str, Any]:
    """For result.json: which split chose what.

    {"split": "train[90%:]", "metric": "accuracy", "best_step": 1200, "chose": ["best checkpoint"]}; with a plateau
    schedule also "plateau_metric" and "learning rate (plateau)". Without an evaluation split nothing was chosen, and
    "split" is None. The figures of result.json are those of the last step, whatever was chosen.
    """
    splits, kept = experiment.data.evaluation_splits, experiment.checkpoints
    if not splits:
        return {"split": None, "chose": [], "why": "data.evaluation_splits is empty: nothing was selected"}
    found: dict[str, Any] = {"split": splits[0], "metric": kept.metric, "best_step": best.step, "chose": []}
    if kept.best:
        found["chose"].append("best checkpoint")
    if isinstance(experiment.schedule, Plateau):
        found["chose"].append("learning rate (plateau)")
        found["plateau_metric"] = experiment.schedule.metric
    return found


def observe(experiment: Experiment, plateau: Any, metrics: dict[str, float]) -> Any:
    """The plateau schedule's state after one evaluation of the first split."""
    schedule = experiment.schedule
    assert isinstance(schedule, Plateau) and schedule.metric is not None  # Experiment has filled it in
    return schedule.observe(plateau, metrics[schedule.metric], experiment.task.directions[schedule.metric])
