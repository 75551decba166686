"""Member: one run among those that a loop trains together; of most loops the only one."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxcnn.data.pipeline import TrainBatches
from jaxcnn.errors import UserError
from jaxcnn.runs import checkpoint
from jaxcnn.runs.batch_shapes import batch_fields
from jaxcnn.runs.consensus import Consensus
from jaxcnn.runs.evaluation import Metrics, ordered
from jaxcnn.runs.quarantine import Quarantine
from jaxcnn.runs.run_directory import RunDirectory, State, line_name
from jaxcnn.runs.selection import Best, Patience, best_of, patience_of, selection
from jaxcnn.runs.setup import Plan
from jaxcnn.runs.sizes import stages
from jaxcnn.runs.training_log import Diverged
from jaxcnn.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run, or this start of it, ended."""

    state: State
    step: int
    message: str
    result: Metrics


class Member:
    """Its run directory, checkpoints, evaluations and what is best of them.

    Args:
      plan: of the run.
      directory: its run directory.
      consensus: of the processes.
      say: shows a line.
    """

    def __init__(self, plan: Plan, directory: RunDirectory, consensus: Consensus, say: Callable[[str], None]):
        self.plan, self.directory, self.say = plan, directory, say
        experiment = plan.experiment
        self.manager = checkpoint.open_manager(directory.checkpoints, experiment)
        self.quarantine = Quarantine(directory, consensus, experiment.data.tolerate_broken, say)
        self.best, self.patience = Best(experiment), Patience(experiment)
        self.evaluations: Metrics = {}
        self.batches: TrainBatches
        self.diverged: Diverged | None = None
        self.ended: Outcome | None = None
        self.teacher: str | None = None
        """The digest of its teacher's weights, if it has one."""
        self.board = _open_board(directory) if experiment.tensorboard and directory.process == 0 else None

    @property
    def training(self) -> bool:
        """Whether it is to go on: it has neither diverged nor come to its end."""
        return self.diverged is None and self.ended is None

    def outcome(self, state: State, step: int, message: str) -> Outcome:
        """How the run ended: as the loop did, unless it did so before."""
        if self.ended is not None:
            return self.ended
        if self.diverged is None:
            return Outcome(state, step, message, {})
        return Outcome("diverged", self.diverged.step, self.directory.status().get("message", ""), {})

    def close(self) -> None:
        self.manager.close()
        if self.board is not None:
            self.board.close()

    def resume(self, note: Mapping[str, Any], step: int) -> None:
        """Goes back to what a checkpoint notes. Raises UserError if the teacher's weights are others now."""
        check_same_teacher(self.directory.path, note, self.teacher)
        self.evaluations = note["evaluations"]
        self.best = best_of(self.plan.experiment, note.get("best", []))
        self.patience = patience_of(self.plan.experiment, note.get("patience", (None, 0)))
        self.directory.cut_metrics(note["metrics_size"])
        self.directory.write_status("running", step)

    def evaluated(self, step: int, results: Metrics) -> bool:
        """Takes the figures of an evaluation; whether it is among the best."""
        self.evaluations, first = results, next(iter(results.values()))
        self.patience = self.patience.with_evaluation(first)
        before, self.best = self.best, self.best.with_evaluation(step, first)
        return self.best is not before

    def save(self, step: int, state: Any, *, evaluated: bool, scored: bool, anew: bool) -> None:
        """Saves a step; one of the best with its metrics, as the score by which these are kept.

        `anew` replaces what is saved of this step: a stop cut its evaluation short, which is done now.
        """
        checkpoint.wait(self.manager)
        if step in self.manager.all_steps():
            if not anew:
                return
            self.manager.delete(step)
        note = {
            "evaluated": evaluated,
            "evaluations": self.evaluations,
            "best": self.best.note(),
            **({"patience": self.patience.note()} if self.plan.experiment.early_stopping.on else {}),
            **({} if self.teacher is None else {"teacher": self.teacher}),
            **self.directory.position(),
        }
        metrics = self.evaluations[next(iter(self.plan.evaluations))] if scored else None
        checkpoint.save(self.manager, step, state, note, metrics)
        self.directory.write_status("running", step)

    def finish(self, tested: Metrics, step: int) -> None:
        """Writes the result, of the test splits and the last evaluation, and that the run is done."""
        checkpoint.wait(self.manager)
        result = tested | self.evaluations
        self.directory.write_result(result, selection(self.plan.experiment, self.best))
        early = step < self.plan.total
        reason = f"stopped early, at step {step:,} of {self.plan.total:,}: {self.patience.reason}" if early else ""
        self.end("done", step, **({"message": reason} if early else {}))
        self.ended = Outcome("done", step, f"done at step {step:,}" + (f" ({reason})" if early else ""), result)
        if early:
            self.say(f"{self.directory.path.name}: {reason}")

    def end(self, state: State, step: int, **more: Any) -> None:
        """Writes how the run, or this start of it, ended; not on a full disk, where nothing can be written."""
        with contextlib.suppress(UserError) if state == "failed" else contextlib.nullcontext():
            self.directory.write_status(state, step, **more)

    def diverge(self, error: Diverged) -> None:
        """Records that training cannot go on, and says so."""
        self.diverged = error
        skipped = self.plan.experiment.skip_bad_steps
        message = (
            f"{error.cause} was not finite at step {error.step:,}"
            + (f", nor in the {skipped} before, which were skipped" if skipped and error.skippable else "")
            + f"; status.json lists that step's examples, `jaxcnn replay RUN --step {error.step}` computes "
            "it again; try a lower learning rate, a longer warm-up, --clip-norm 1"
            + (" or --skip-bad-steps 3" if error.skippable and not skipped else "")
        )
        self.directory.write_status(
            "diverged", error.step, message=message, **self.bad_step(error.step, error.loss_and_norm)
        )

    def skipped(self, step: int, loss: float, grad_norm: float) -> None:
        """Records a step whose update was skipped, if the run still goes on."""
        if not (self.training and self.plan.experiment.skip_bad_steps):
            return
        if self.directory.skip(step, self.bad_step(step, (loss, grad_norm))):
            self.say(f"warning: skipped step {step:,}: loss {loss}, norm of the gradient {grad_norm}")

    def bad_step(self, step: int, loss_and_norm: tuple[float, float] | None) -> dict[str, Any]:
        """What is recorded of a step, counted from 1: loss and norm, text since JSON has no nan, and the examples."""
        known = dict(zip(("loss", "grad_norm"), map(repr, loss_and_norm or ()), strict=False))
        return known | {"examples": train_batches(self.plan, self.plan.train, ()).indices(step - 1).tolist()}

    def log(self, line: dict[str, Any]) -> None:
        """One line of figures: into metrics.jsonl, and to TensorBoard if it is on."""
        self.directory.log(line)
        if self.board is not None:
            for name, value in line.items():
                if name not in ("step", "split") and value is not None:
                    self.board.add_scalar(f"{line_name(line)}/{name}", value, line["step"])


def check_same_teacher(path: pathlib.Path, note: Mapping[str, Any], digest: str | None) -> None:
    """Raises UserError unless a checkpoint of the run in `path` notes the teacher that has this digest."""
    if note.get("teacher") != digest:
        raise UserError(
            f"{path}: the teacher's weights are not those that the run began with; put them back, or begin anew in "
            "another --workdir"
        )


def training_line(
    task: Task, line: dict[str, Any], metrics: Mapping[str, Any], times: Mapping[str, Any]
) -> dict[str, Any]:
    """One interval of training for metrics.jsonl, from what one net's steps gave."""
    found = task.metrics(metrics["sums"], {})
    scalars = {name: metrics[name].item() for name in ("learning_rate", "grad_norm")}
    line = line | ordered(task, found) | scalars | {"count": found["count"]} | dict(times)
    # All steps of an interval may be skipped: a figure of nothing is null.
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in line.items()}


def not_finite(sums: Mapping[str, np.ndarray]) -> str | None:
    """The name of a sum that is not finite, if there is one: what a net of broken weights gives."""
    return next((name for name, value in sums.items() if not np.isfinite(value).all()), None)


def train_batches(plan: Plan, examples: Any, transforms: tuple[Any, ...]) -> TrainBatches:
    """This process's part of the training batches. `transforms` are those that are still to be applied; with sizes that
    change, of the leading ones alone (`Data.leading`)."""
    data = plan.experiment.data
    return TrainBatches(
        examples,
        transforms,
        batch_fields(plan.experiment),
        data.batch_size,
        plan.experiment.seed,
        data.tolerate_broken,
        jax.process_index(),
        jax.process_count(),
        max(1, data.repeats),
        plan.order,
        stages(plan.experiment, len(plan.train), transforms),
    )


def _open_board(directory: RunDirectory) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("tensorboard is on but not installed: pip install 'jaxcnn[tensorboard]'") from error
    return SummaryWriter(str(directory.path / "tensorboard"))
