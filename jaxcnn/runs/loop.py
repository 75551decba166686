"""The training loop: decides when, on integers; what happens is in the pure steps of step.py.

At step s (s optimizer steps done) the order is fixed: log, evaluate, save; after the last one the test splits are read,
once. Resume enters at the saved step and
continues as if nothing had happened: the state, the place in the data (a function of the step), the metrics file (cut
to its size at the save) and the evaluations so far are those of the uninterrupted run, bit for bit.
"""

import collections
import contextlib
import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxcnn.data.examples import Examples
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.memory import Memory, load
from jaxcnn.data.pipeline import TrainBatches
from jaxcnn.data.transforms import Transform
from jaxcnn.errors import UserError
from jaxcnn.runs import checkpoint
from jaxcnn.runs.compilation import Compiled
from jaxcnn.runs.consensus import Consensus, Vote
from jaxcnn.runs.display import Display, evaluation_line, figure, speed, train_line
from jaxcnn.runs.evaluation import (
    Metrics,
    Stopped,
    compile_evaluation_step,
    evaluate,
    evaluation_batches,
    nets_of,
)
from jaxcnn.runs.memory import advice, is_out_of_memory
from jaxcnn.runs.program import compile_train_step
from jaxcnn.runs.quarantine import Quarantine
from jaxcnn.runs.reader import Reader
from jaxcnn.runs.restore import load_run, prepared_otherwise
from jaxcnn.runs.run_directory import RunDirectory, State, is_training, line_name
from jaxcnn.runs.selection import Best, best_of, selection
from jaxcnn.runs.setup import Plan, abstract_state, initial_state
from jaxcnn.runs.training_log import Diverged, TrainingLog
from jaxcnn.train import mesh as meshes
from jaxcnn.train.init_from import overlay
from jaxcnn.train.schedules import Plateau
from jaxcnn.train.state import TrainState, all_finite

Transforms = tuple[Transform, ...]
_TRAIN = ""  # the key of the training examples, since an evaluation split may have the same name


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run, or this start of it, ended."""

    state: State
    step: int
    message: str
    result: Metrics


def train_batches(plan: Plan, examples: Examples, transforms: Transforms) -> TrainBatches:
    """This process's part of the training batches."""
    data = plan.experiment.data
    return TrainBatches(
        examples,
        transforms,
        with_image(data.image_shape, LABEL),
        data.batch_size,
        plan.experiment.seed,
        data.tolerate_broken,
        jax.process_index(),
        jax.process_count(),
    )


def run(
    plan: Plan,
    record: RunDirectory,
    display: Display,
    stop: Callable[[], bool] = lambda: False,
    reached: Callable[..., None] = lambda where, patient=False: None,
) -> Outcome:
    """Trains from where the run directory is to the end, or until `stop`, and keeps status.json true throughout.

    Args:
      plan: what to do.
      record: the run directory.
      display: where lines and bars are shown.
      stop: whether this process was told to stop; all processes stop at one step as soon as one was.
      reached: told where this process is, and whether it may stay there for long; for the watch over the others.

    Raises:
      UserError: an image, the disk or a checkpoint stops the run; what was saved before is intact.
    """
    if record.state() == "done":
        step = record.status()["step"]
        return Outcome("done", step, f"already done at step {step:,}", record.result())
    loop = _Loop(plan, record, display, stop, reached)
    ended = False
    try:
        outcome = loop.run()
        ended = True
    except Diverged as error:
        skipped = plan.experiment.skip_bad_steps
        message = (
            f"{error.cause} was not finite at step {error.step:,}"
            + (f", nor in the {skipped} before, which were skipped" if skipped and error.skippable else "")
            + f"; status.json lists that step's examples, `jaxcnn replay RUN --step {error.step}` computes "
            "it again; try a lower learning rate, a longer warm-up, --clip-norm 1"
            + (" or --skip-bad-steps 3" if error.skippable else "")
        )
        ended = True  # on all processes, at this step
        record.write_status("diverged", error.step, message=message, **loop.bad_step(error.step, error.figures))
        return Outcome("diverged", error.step, message, {})
    except BaseException as error:
        if is_out_of_memory(error):
            error = UserError(advice(plan.experiment, plan.mesh, loop.train_step and loop.train_step.memory))
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        with contextlib.suppress(UserError):  # on a full disk the status cannot be written either
            record.write_status("failed", loop.step, message=message)
        raise error
    finally:
        if ended:
            loop.close()
        elif jax.process_count() == 1:  # with several, closing waits for the others, which may not come
            with contextlib.suppress(Exception):  # a save that failed raises here once more
                loop.close()
    more = {} if outcome.state == "done" else {"message": outcome.message}
    record.write_status(outcome.state, outcome.step, **more)
    return outcome


class _Loop:
    """The host's side of one start of a run; it lives as long as the call of `run`."""

    def __init__(
        self,
        plan: Plan,
        record: RunDirectory,
        display: Display,
        stop: Callable[[], bool],
        reached: Callable[..., None],
    ):
        self.plan, self.record, self.display, self.reached = plan, record, display, reached
        self.stop = Consensus(plan.mesh, stop, reached)
        self.quarantine = Quarantine(record, self.stop, plan.experiment.data.tolerate_broken, display.line)
        self.reader = Reader(plan.experiment.data.workers, self.stop.asked)
        self.step = 0
        self.train_step: Compiled | None = None
        self.state: TrainState | None = None
        self.splits: dict[str, tuple[Examples, Transforms]] = {}
        self.evaluations: Metrics = {}
        self.best = Best(plan.experiment.checkpoints)
        self.evaluated = True  # the evaluation that is due at this step, if any, is done
        self.manager = checkpoint.open_manager(record.checkpoints, plan.experiment.checkpoints)
        self.interval = TrainingLog(self._log, plan.experiment.data.batch_size, self._skipped)
        self.board = _open_board(record) if plan.experiment.tensorboard and record.process == 0 else None
        self.figures = ""
        # At most two steps wait for the device: more would only pile up batches in its memory.
        self.in_flight: collections.deque[jax.Array] = collections.deque(maxlen=2)

    def run(self) -> Outcome:
        plan, display = self.plan, self.display
        newest = self.manager.latest_step() or 0
        self.record.write_status("running", newest)
        self.reached("the compilation", patient=True)
        self.train_step = compile_train_step(plan)
        display.line(f"train step compiled: {self.train_step}")
        if plan.evaluations or plan.tests:
            self.evaluation_step = compile_evaluation_step(plan.experiment, plan.mesh)
            display.line(f"evaluation step compiled: {self.evaluation_step}")
        for line in plan.warnings():
            display.line(f"warning: {line}")
        data = plan.experiment.data
        for split, examples, transforms in [
            (_TRAIN, plan.train, data.augment),
            *((split, examples, data.preprocess) for split, examples in plan.evaluations.items()),
        ]:
            if self.stop.now("the compilation"):
                return Outcome("preempted", newest, "stopped before training; the same command continues", {})
            self.reached(f"reading {examples.split}", patient=True)
            self.splits[split] = self._load(examples, transforms)
        self.reached("the restored state", patient=True)
        self._restore()
        self.batches = train_batches(plan, *self.splits[_TRAIN])
        batches = self.reader.training(self.batches, self.step)
        try:
            with (
                display.task("train", plan.total, self.step) as advance,
                contextlib.closing(self.reader),
            ):
                if not self.evaluated:
                    self._evaluate_and_save()
                while self.step < plan.total:
                    if self._stops(f"step {self.step}"):
                        raise Stopped
                    self._train(batches)
                    advance(self.step, self.figures)
                    self._evaluate_and_save()
                result = self._test() | self.evaluations
        except Stopped:
            self.interval.settle()
            self._save()
            checkpoint.wait(self.manager)
            message = f"stopped; saved at step {self.step:,} of {plan.total:,}; the same command continues"
            return Outcome("preempted", self.step, message, {})
        self.reached("the end", patient=True)
        checkpoint.wait(self.manager)
        self.record.write_result(result, selection(plan.experiment, self.best))
        return Outcome("done", self.step, f"done at step {self.step:,}", result)

    def close(self) -> None:
        self.manager.close()
        if self.board is not None:
            self.board.close()

    def _load(self, examples: Examples, transforms: Transforms) -> tuple[Examples, Transforms]:
        """The split, decoded into memory where it fits."""
        data = self.plan.experiment.data
        start = time.perf_counter()
        with self.display.task(f"read {examples.split}", len(examples)) as advance:
            fields = with_image(data.image_shape, LABEL)
            loaded, rest = load(examples, transforms, fields, data.memory_limit, data.tolerate_broken, advance)
        where = "read as needed"
        if isinstance(loaded, Memory):
            self.quarantine.add(loaded.split, [loaded.broken[index] for index in sorted(loaded.broken)])
            where = f"{loaded.nbytes / 2**20:,.1f} MiB in memory, {time.perf_counter() - start:.1f} s"
        self.display.line(f"{examples.name} {examples.version} {examples.split}: {len(examples):,} images, {where}")
        return loaded, rest

    def _restore(self) -> None:
        """Takes the state from the newest good checkpoint, or makes a new one."""
        plan = self.plan
        abstract = abstract_state(plan.experiment, plan.mesh)
        restored = checkpoint.restore_latest(self.manager, abstract, self.record.recognize, self.stop.all)
        device = plan.mesh.devices.flat[0].device_kind
        devices = f"{plan.mesh.size} {device} device{'s' if plan.mesh.size > 1 else ''}"
        if jax.process_count() > 1:
            devices += f" of {jax.process_count()} processes"
        if restored is None:
            # The seed is an argument and no constant: the compile cache then serves all seeds.
            create = functools.partial(initial_state, plan.experiment, plan.optimizer)
            seed = np.uint32(plan.experiment.seed)
            self.state = jax.jit(create, out_shardings=meshes.shardings(abstract))(seed)
            self._init_from()
            self.record.cut_metrics(0)
            count = sum(x.size for x in jax.tree.leaves(self.state.params))
            self.display.line(f"{count:,} parameters, {plan.total:,} steps, {devices}")
            return
        for line in restored.damaged:
            self.display.line(f"warning: {line}")
        if not restored.sealed:
            self.display.line(f"warning: {checkpoint.unsealed(restored.step)}")
        self.step, self.state = restored.step, restored.state
        self.evaluations = restored.note["evaluations"]
        self.best = best_of(plan.experiment.checkpoints, restored.note.get("best", []))
        self.record.cut_metrics(restored.note["metrics_size"])
        self.record.write_status("running", self.step)
        self.evaluated = restored.note["evaluated"]
        self.display.line(f"resumed at step {self.step:,} of {plan.total:,}, {devices}")

    def _init_from(self) -> None:
        """Puts the weights of another run into the new state, where the experiment names one."""
        init_from = self.plan.experiment.init_from
        if init_from.run is None:
            return
        saved = load_run(pathlib.Path(init_from.run), init_from.checkpoint)
        self.state, report = overlay(self.state, saved.state, init_from)
        for line in (*report, *prepared_otherwise(self.plan.experiment, saved)):
            self.display.line(line)

    def _train(self, batches: Iterator[dict[str, np.ndarray]]) -> None:
        """One optimizer step, dispatched; and its interval ended where it is the last of one."""
        plan = self.plan
        batch = self.interval.wait_for(batches)
        if batch["broken"].any():
            self.quarantine.add(plan.train.split, self.batches.broken(self.step, batch))
        placed = meshes.place(batch, ("image", "label"), meshes.split(plan.mesh))
        self.state, metrics = self.train_step.call(self.state, placed)
        self.step += 1
        self.interval.took(self.step, metrics)
        if len(self.in_flight) == 2:
            jax.block_until_ready(self.in_flight[0])
        self.in_flight.append(metrics["bad_step"])
        if self.step % plan.log_every == 0 or self.step == plan.total:
            epoch = self.step * plan.experiment.data.batch_size / len(plan.train)
            self.interval.end({"step": self.step, "split": "train", "epoch": epoch})

    def _evaluate_and_save(self) -> None:
        """What is due at this step. Raises Stopped, with `evaluated` false, where the evaluation is cut short."""
        plan, step = self.plan, self.step
        last = step == plan.total
        evaluation_due = bool(plan.evaluations) and (last or step % plan.evaluate_every == 0)
        save_due = last or step % plan.checkpoint_every == 0
        if evaluation_due or save_due:
            self.interval.settle()
        among_best = False
        if evaluation_due:
            self.evaluated = False
            self._evaluate()
            self.evaluated = True
            before, self.best = self.best, self.best.with_evaluation(step, next(iter(self.evaluations.values())))
            among_best = self.best is not before
        if save_due or among_best:
            self._save(scored=among_best, anew=evaluation_due)

    def _evaluate(self) -> None:
        results = self._measure(self.plan.evaluations)
        self.evaluations = results
        schedule = self.plan.experiment.schedule
        if isinstance(schedule, Plateau):
            observed = schedule.observe(self.state.plateau, next(iter(results.values())))
            self.state = self.state.replace(plateau=jax.device_put(observed, meshes.replicated(self.plan.mesh)))

    def _test(self) -> Metrics:
        """The figures of the finished net on what was held back until now. Raises Stopped where it is cut short."""
        for split, examples in self.plan.tests.items():
            if self.stop.now(f"reading {split}"):
                raise Stopped
            self.reached(f"reading {split}", patient=True)
            self.splits[split] = self._load(examples, self.plan.experiment.data.preprocess)
        return self._measure(self.plan.tests)

    def _measure(self, splits: Iterable[str]) -> Metrics:
        """The figures of all nets on these splits, logged once all of them are there."""
        plan, data = self.plan, self.plan.experiment.data
        results: Metrics = {}
        nets = nets_of(self.state)
        for split in splits:
            examples, transforms = self.splits[split]
            made = evaluation_batches(data, examples, transforms)
            with contextlib.closing(self.reader.evaluation(split, made)) as batches:
                figures = evaluate(
                    self.evaluation_step.call,
                    list(nets.values()),
                    batches,
                    examples,
                    plan.mesh,
                    stop=functools.partial(self._stops, f"the evaluation of {split} at step {self.step}"),
                    on_broken=lambda indices, made=made, split=split: self.quarantine.add(split, made.broken(indices)),
                )
            results |= {split + suffix: metrics for suffix, metrics in zip(nets, figures, strict=True)}
        self.quarantine.share()
        for split, metrics in results.items():
            self._log({"step": self.step, "split": split, **metrics})
        for split, metrics in results.items():
            if not math.isfinite(metrics["loss"]):
                raise self._diverged(f"the loss on {split}")
        return results

    def _save(self, *, scored: bool = False, anew: bool = False) -> None:
        """Saves this step; one of the best with its metrics, as the score by which these are kept.

        `anew` replaces what is saved of this step: a stop cut its evaluation short, which is done now.
        """
        self.reached(f"the save at step {self.step}", patient=True)
        self.quarantine.share()
        if not all_finite(self.state, self.plan.mesh):
            raise self._diverged("a parameter or a running statistic, after the update,")
        checkpoint.wait(self.manager)
        if self.step in self.manager.all_steps():
            if not anew:
                return
            self.manager.delete(self.step)
        note = {
            "evaluated": self.evaluated,
            "evaluations": self.evaluations,
            "best": self.best.note(),
            **self.record.position(),
        }
        metrics = self.evaluations[next(iter(self.plan.evaluations))] if scored else None
        checkpoint.save(self.manager, self.step, self.state, note, metrics)
        self.record.write_status("running", self.step)

    def _stops(self, where: str) -> bool:
        """Whether all processes stop here; what one has passed over two calls before is told to all."""
        vote = self.stop.soon(where, news=self.quarantine.news)
        if vote == Vote.NEWS:
            self.quarantine.share()
        return vote == Vote.STOP

    def _diverged(self, cause: str) -> Diverged:
        """What `cause` ends the run with: it is not finite after the newest step, whose own figures were."""
        return Diverged(self.step, self.interval.newest_figures(), cause, skippable=False)

    def bad_step(self, step: int, figures: tuple[float, float] | None) -> dict[str, Any]:
        """What is recorded of a step, counted from 1: its figures, as text since JSON has no nan, and its examples."""
        known = dict(zip(("loss", "grad_norm"), map(repr, figures or ()), strict=False))
        return known | {"examples": train_batches(self.plan, self.plan.train, ()).indices(step - 1).tolist()}

    def _skipped(self, step: int, loss: float, grad_norm: float) -> None:
        """Records a step whose update was skipped."""
        if self.plan.experiment.skip_bad_steps and self.record.skip(step, self.bad_step(step, (loss, grad_norm))):
            self.display.line(f"warning: skipped step {step:,}: loss {loss}, norm of the gradient {grad_norm}")

    def _log(self, line: dict[str, Any]) -> None:
        """One line of figures: into metrics.jsonl, onto the display, and to TensorBoard where it is on."""
        self.record.log(line)
        if not is_training(line):
            self.display.line(f"step {line['step']:,}  {evaluation_line(line['split'], line)}")
        else:
            self.figures = f"epoch {line['epoch']:.1f}  loss {figure(line['loss'])}  "
            self.figures += speed(line)
            if not self.display.console.is_terminal:
                self.display.line(train_line(line, self.plan.total))
        if self.board is not None:
            for name, value in line.items():
                if name not in ("step", "split") and value is not None:
                    self.board.add_scalar(f"{line_name(line)}/{name}", value, line["step"])


def _open_board(record: RunDirectory) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("tensorboard is on but not installed: pip install 'jaxcnn[tensorboard]'") from error
    return SummaryWriter(str(record.path / "tensorboard"))
