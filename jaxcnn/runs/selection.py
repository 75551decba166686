"""Selection: what the evaluations during training choose, kept so that every number says whether it was looked at."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcnn.experiment import Experiment
from jaxcnn.tasks.task import better
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


@dataclasses.dataclass(frozen=True)
class Patience:
    """Early stopping's view of the evaluations so far; a checkpoint notes it. A function of them alone, as `Best`."""

    experiment: Experiment
    best: float | None = None
    """Of the watched figure, higher is better; None before the first."""
    waited: int = 0
    """Evaluations since then."""

    def with_evaluation(self, metrics: Mapping[str, float]) -> "Patience":
        """After one more evaluation. A figure that is not finite is no improvement."""
        stopping = self.experiment.early_stopping
        if not stopping.on:
            return self
        assert stopping.metric is not None  # Experiment has filled it in
        now = better(self.experiment.task.directions[stopping.metric], metrics[stopping.metric])
        improved = math.isfinite(now) and (self.best is None or now > self.best + stopping.min_improvement)
        return Patience(self.experiment, now, 0) if improved else dataclasses.replace(self, waited=self.waited + 1)

    @property
    def over(self) -> bool:
        """Whether training ends here."""
        stopping = self.experiment.early_stopping
        return stopping.on and self.waited >= stopping.patience

    @property
    def reason(self) -> str:
        """Why it does."""
        stopping = self.experiment.early_stopping
        times = f"{stopping.patience} evaluations" if stopping.patience > 1 else "one evaluation"
        return f"{stopping.metric} on {self.experiment.data.evaluation_splits[0]} did not improve for {times}"

    def note(self) -> list[float | int | None]:
        """As JSON."""
        return [self.best, self.waited]


def patience_of(experiment: Experiment, note: Sequence[Any]) -> Patience:
    """The inverse of `Patience.note`."""
    best, waited = note
    return Patience(experiment, None if best is None else float(best), int(waited))


def selection(experiment: Experiment, best: Best) -> dict[str, Any]:
    """For result.json: which split chose what.

    {"split": "train[90%:]", "metric": "accuracy", "best_step": 1200, "chose": ["best checkpoint"]}; with a plateau
    schedule also "plateau_metric" and "learning rate (plateau)", with early stopping the like. Without an evaluation
    split nothing was chosen, and "split" is None. The figures of result.json are those of the last step, whatever was
    chosen.
    """
    splits, kept = experiment.data.evaluation_splits, experiment.checkpoints
    if not splits:
        return {"split": None, "chose": [], "why": "data.evaluation_splits is empty: nothing was selected"}
    found: dict[str, Any] = {"split": splits[0], "metric": kept.metric, "best_step": best.step, "chose": []}
    if kept.best:
        found["chose"].append("best checkpoint")
    if experiment.early_stopping.on:
        found["chose"].append("end of training (early stopping)")
        found["early_stopping_metric"] = experiment.early_stopping.metric
    if isinstance(experiment.schedule, Plateau):
        found["chose"].append("learning rate (plateau)")
        found["plateau_metric"] = experiment.schedule.metric
    return found


def observe(experiment: Experiment, plateau: Any, metrics: dict[str, float]) -> Any:
    """The plateau schedule's state after one evaluation of the first split."""
    schedule = experiment.schedule
    assert isinstance(schedule, Plateau) and schedule.metric is not None  # Experiment has filled it in
    return schedule.observe(plateau, metrics[schedule.metric], experiment.task.directions[schedule.metric])
