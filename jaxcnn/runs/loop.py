"""The training loop: decides when, on integers; what happens is in the pure steps of train/step.py and the task.

One loop serves one run and the runs of several seeds: what differs in the computation is in stepper.py, and each run's
own files are in member.py.

At step s (s optimizer steps done) the order is fixed: log, evaluate, save; after the last one, which any evaluation may
be with early stopping, the test splits are read, once. Resume enters at the saved step and continues as if nothing had
happened: the state, the place in the data (a function of the step), the metrics file (cut to its size at the save) and
the evaluations so far are those of the uninterrupted run, bit for bit.
"""

import collections
import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import jax

from jaxcnn.data.examples import Examples
from jaxcnn.data.memory import Memory, load
from jaxcnn.data.transforms import Transform
from jaxcnn.errors import UserError
from jaxcnn.runs import checkpoint
from jaxcnn.runs.averaged_statistics import AveragedStatistics
from jaxcnn.runs.batch_shapes import batch_fields
from jaxcnn.runs.compilation import Compiled, beside
from jaxcnn.runs.consensus import Consensus, Vote
from jaxcnn.runs.display import Display, evaluation_line, metrics_text, speed, train_line
from jaxcnn.runs.evaluation import Metrics, Stopped
from jaxcnn.runs.events import SILENT, Events
from jaxcnn.runs.measurement import measure
from jaxcnn.runs.member import Member, Outcome, train_batches, training_line
from jaxcnn.runs.memory import advice, is_out_of_memory
from jaxcnn.runs.reader import Reader
from jaxcnn.runs.resume import newest_common, with_init_from
from jaxcnn.runs.run_directory import RunDirectory, State
from jaxcnn.runs.selection import observe
from jaxcnn.runs.setup import Plan
from jaxcnn.runs.several_steps import steps_of_call
from jaxcnn.runs.sizes import change_at
from jaxcnn.runs.stepper import stepper_for
from jaxcnn.runs.teacher import frozen_for
from jaxcnn.runs.training_log import Diverged, TrainingLog
from jaxcnn.runs.warnings import warnings_of
from jaxcnn.train.mesh import described, on_cpu
from jaxcnn.train.schedules import Plateau
from jaxcnn.train.state import TrainState

Transforms = tuple[Transform, ...]
_TRAIN = ""  # the key of the training examples, since an evaluation split may have the same name


class _AllDiverged(Exception):
    """No run of the loop can go on."""


def run(
    plan: Plan,
    directory: RunDirectory,
    display: Display,
    stop: Callable[[], bool] = lambda: False,
    report_progress: Callable[..., None] = lambda where, patient=False: None,
    events: Events = SILENT,
) -> Outcome:
    """Trains from where the run directory is to the end, or until `stop`, and keeps status.json true throughout.

    Args:
      plan: what to do.
      directory: the run directory.
      display: where lines and bars are shown.
      stop: whether this process was told to stop; all processes stop at one step as soon as one was.
      report_progress: told where this process is, and whether it may stay there for long; for the heartbeat.
      events: told of the run's course.

    Raises:
      UserError: an image, the disk or a checkpoint stops the run; what was saved before is intact.
    """
    if directory.state() == "done":
        status = directory.status()
        why = f" ({status['message']})" if "message" in status else ""
        message = f"already done at step {status['step']:,}{why}"
        return Outcome("done", status["step"], message, directory.result())
    (outcome,) = run_seeds([plan], [directory], display, stop, report_progress, events)
    return outcome


def run_seeds(
    plans: Sequence[Plan],
    directories: Sequence[RunDirectory],
    display: Display,
    stop: Callable[[], bool] = lambda: False,
    report_progress: Callable[..., None] = lambda where, patient=False: None,
    events: Events = SILENT,
) -> list[Outcome]:
    """`run` for the seeds of one experiment, as one program; none of them is done. One that diverges leaves the others.

    Each has the files and checkpoints of a run of its own, so that none shows how it was trained.
    """
    loop = _Loop(plans, directories, display, stop, report_progress, events)
    ended = False
    try:
        outcomes = loop.run()
        ended = True
    except _AllDiverged:
        ended = True  # on all processes, at this step
        outcomes = loop.outcomes("diverged", "")
    except BaseException as error:
        if is_out_of_memory(error):
            memory = loop.train_step and loop.train_step.memory
            error = UserError(advice(plans[0].experiment, plans[0].mesh, memory))
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        for member in loop.living:
            member.end("failed", loop.step, message=message)
        raise error
    finally:
        if ended:
            loop.close()
        elif jax.process_count() == 1:  # with several, closing waits for the others, which may not come
            with contextlib.suppress(Exception):  # a save that failed raises here once more
                loop.close()
    for member, outcome in zip(loop.members, outcomes, strict=True):
        if member.training:
            member.end(outcome.state, outcome.step, message=outcome.message)
    return outcomes


class _Loop:
    """The host's side of one start of a run, or of several; it lives as long as the call of `run_seeds`."""

    def __init__(
        self,
        plans: Sequence[Plan],
        directories: Sequence[RunDirectory],
        display: Display,
        stop: Callable[[], bool],
        report_progress: Callable[..., None],
        events: Events,
    ):
        plan = self.plan = plans[0]
        self.display, self.report_progress, self.events = display, report_progress, events
        self.consensus = Consensus(plan.mesh, stop, report_progress)
        self.members = [Member(*each, self.consensus, display.line) for each in zip(plans, directories, strict=True)]
        self.reader = Reader(plan.experiment.data.workers, self.consensus.stop_requested)
        self.step = 0
        self.train_step: Compiled | None = None
        self.compiling: Callable[[], Future[Compiled]] | None = None
        """Begins to compile the evaluation step, at its first call; None once it is there."""
        self.state: TrainState
        self.frozen: Any = {}  # variables outside of the state: a teacher's
        self.splits: dict[str, tuple[Examples, Transforms]] = {}
        self.evaluated = True  # the evaluation that is due at this step, if any, is done
        skipped = lambda number, *step: self.members[number].skipped(*step)  # noqa: E731
        size, alone = plan.experiment.data.batch_size, jax.process_count() == 1
        self.log = TrainingLog(self._log_interval, size, skipped, self._diverge, alone=alone)
        self.bar_text = ""
        # At most two steps wait for the device: more would only pile up batches in its memory.
        self.in_flight: collections.deque[jax.Array] = collections.deque(maxlen=2)

    @property
    def living(self) -> list[Member]:
        """Those whose training goes on."""
        return [member for member in self.members if member.training]

    @property
    def over(self) -> list[Member]:
        """Those of them whose training ends at this step."""
        return [member for member in self.living if self.step == self.plan.total or member.patience.over]

    def run(self) -> list[Outcome]:
        plan, display, data = self.plan, self.display, self.plan.experiment.data
        newest = min(member.manager.latest_step() or 0 for member in self.members)
        for member in self.members:
            member.directory.write_status("running", newest)
        self.report_progress("the compilation", patient=True)
        self.stepper = stepper_for([member.plan for member in self.members])
        self.statistics = AveragedStatistics(plan, self.stepper)
        with self.events.phase("compile"):
            compile_train = self.stepper.lower_train()
            # XLA needs no Python, and for half of its time one core: meanwhile threads trace and compile the rest.
            if newest == 0:
                self.stepper.compile_initial()
            lowered = beside(self.stepper.lower_evaluation) if plan.evaluations or plan.tests else None
            self.train_step = compile_train()
            self.compiling = lowered and functools.cache(functools.partial(beside, lowered.result()))
        display.line(f"train step compiled: {self.train_step}")
        if not on_cpu(plan.mesh):  # on a GPU XLA times kernels as it compiles, and steps would take part of it
            self._take_evaluation_step(wait=True)
        for line in (*plan.how_trained(), *(f"warning: {warning}" for warning in warnings_of(plan))):
            display.line(line)
        for split, examples, transforms in [
            (_TRAIN, plan.train, data.augment[: data.leading]),
            *((split, examples, data.preprocess) for split, examples in plan.evaluations.items()),
        ]:
            if self.consensus.vote_and_wait("the compilation"):
                self.step = newest
                return self.outcomes("preempted", "stopped before training; the same command continues")
            self.report_progress(f"reading {examples.split}", patient=True)
            self.splits[split] = self._load(examples, transforms, evaluated=split != _TRAIN)
        self.report_progress("the restored state", patient=True)
        self.frozen = frozen_for(self.members, self.stepper)
        self._restore()
        sent = [train_batches(member.plan, *self.splits[_TRAIN]) for member in self.members]
        for member, own in zip(self.members, self.stepper.sender.hold_if_small(sent, data.device_limit), strict=True):
            member.batches = own
        batches = zip(*(self.reader.training(member.batches, self.step) for member in self.members), strict=True)
        try:
            with display.task("train", plan.total, self.step) as advance, contextlib.closing(self.reader):
                if not self.evaluated:
                    self._evaluate_and_save()
                self._finish()
                while self.living:
                    if self._stops(f"step {self.step}"):
                        raise Stopped
                    with self.events.phase("step"):
                        self._train(batches)
                    advance(self.step, self.bar_text)
                    self._take_evaluation_step()
                    self._evaluate_and_save()
                    self._finish()
        except Stopped:
            self.log.settle()
            self._save()
            for member in self.living:
                checkpoint.wait(member.manager)
            message = f"stopped; saved at step {self.step:,} of {plan.total:,}; the same command continues"
            return self.outcomes("preempted", message)
        return self.outcomes("done", "")

    def outcomes(self, state: State, message: str) -> list[Outcome]:
        """How each run ended, if the loop ended so at this step."""
        return [member.outcome(state, self.step, message) for member in self.members]

    def close(self) -> None:
        for member in self.members:
            member.close()

    def _take_evaluation_step(self, *, wait: bool = False) -> None:
        """Begins to compile the evaluation step, beside what follows; takes it, once it is there, and says so."""
        compiled = self.compiling and self.compiling()
        if compiled is not None and (wait or compiled.done()):
            if not compiled.done():
                self.report_progress("the compilation", patient=True)
            self.evaluation_step, self.compiling = compiled.result(), None
            self.display.line(f"evaluation step compiled: {self.evaluation_step}")

    def _load(self, examples: Examples, transforms: Transforms, *, evaluated: bool) -> tuple[Examples, Transforms]:
        """The split, decoded into memory where it fits."""
        data, fields = self.plan.experiment.data, batch_fields(self.plan.experiment, evaluated=evaluated)
        start = time.perf_counter()
        with self.display.task(f"read {examples.split}", len(examples)) as advance:
            loaded, rest = load(examples, transforms, fields, data.memory_limit, data.tolerate_broken, advance)
        where = "read as needed"
        if isinstance(loaded, Memory):
            for member in self.members:
                member.quarantine.add(loaded.split, [loaded.broken[index] for index in sorted(loaded.broken)])
            where = f"{loaded.nbytes / 2**20:,.1f} MiB in memory, {time.perf_counter() - start:.1f} s"
        self.display.line(f"{examples.name} {examples.version} {examples.split}: {len(examples):,} images, {where}")
        return loaded, rest

    def _restore(self) -> None:
        """Takes the states from the newest good checkpoint that all have, or makes new ones."""
        plan = self.plan
        restored = newest_common(self.members, self.stepper, self.consensus.all_true)
        devices = described(plan.mesh)
        if restored is None:
            self.state = self.stepper.joined(
                [with_init_from(state, plan.experiment, self.display.line) for state in self.stepper.create()]
            )
            for member in self.members:
                member.directory.cut_metrics(0)
            count = sum(x.size for x in jax.tree.leaves(self.state.params)) // len(self.members)
            self.display.line(f"{count:,} parameters, {plan.total:,} steps, {devices}")
            return
        self.step = restored[0].step
        self.state = self.stepper.joined([each.state for each in restored])
        for member, each in zip(self.members, restored, strict=True):
            for line in each.damaged:
                self.display.line(f"warning: {line}")
            if not each.sealed:
                self.display.line(f"warning: {checkpoint.unsealed(each.step)}")
            member.resume(each.note, self.step)
        self.evaluated = all(each.note["evaluated"] for each in restored)
        self.display.line(f"resumed at step {self.step:,} of {plan.total:,}, {devices}")

    def _train(self, batches: Iterator[Any]) -> None:
        """The steps of one call, dispatched; and their interval ended if the last of them is the last of one."""
        plan, path = self.plan, self.members[0].directory.path
        taken = [self.log.wait_for(batches) for _ in range(steps_of_call(plan, self.step))]
        for step, batch in enumerate(taken, self.step):
            self.events.read(path, step, [own["index"] for own in batch])
            for member, own in zip(self.members, batch, strict=True):
                if own["broken"].any() and member.training:
                    member.quarantine.add(plan.train.split, member.batches.broken(step, own))
        if told := change_at(plan.experiment.data, len(plan.train), self.step):
            self.display.line(told)
        assert self.train_step is not None
        self.state, metrics = self.train_step.call(self.state, self.frozen, self.stepper.put_steps(taken))
        self.step += len(taken)
        self.log.took(self.step, metrics)
        if len(self.in_flight) == 2:
            jax.block_until_ready(self.in_flight[0])
        self.in_flight.append(metrics["bad_step"])
        if self.step % plan.log_every == 0 or self.step == plan.total:
            epoch = self.step * plan.experiment.data.batch_size / len(plan.train)
            self.log.end({"step": self.step, "split": "train", "epoch": epoch})

    def _evaluate_and_save(self) -> None:
        """What is due at this step. Raises Stopped, with `evaluated` false, if the evaluation is cut short."""
        plan, step = self.plan, self.step
        last = step == plan.total
        evaluation_due = bool(plan.evaluations) and (last or step % plan.evaluate_every == 0)
        save_due = last or step % plan.checkpoint_every == 0
        if evaluation_due or save_due:
            self.log.settle()
            self.evaluated = False  # a stop from here on leaves all that is due at this step to the next start
            stops = functools.partial(self._stops, f"the statistics of the average at step {step}")
            batches = [member.batches for member in self.members]
            self.state = self.statistics.renewed(self.state, self.frozen, batches, self.reader, stops)
        best: list[Member] = []
        if evaluation_due:
            results = self._measure(plan.evaluations, self.living)
            pairs = zip(self.members, results, strict=True)
            best = [member for member, own in pairs if member.training and member.evaluated(step, own)]
            self._observe()
        # All save with one that is among its best, since a restart needs a step that all have.
        self.evaluated = True
        if save_due or best or self.over:
            self._save(best, anew=True)

    def _observe(self) -> None:
        """Shows the evaluation to the plateau schedule."""
        if isinstance(self.plan.experiment.schedule, Plateau):
            plateaus = [self.stepper.member(self.state.plateau, number) for number in range(len(self.members))]
            for number, member in enumerate(self.members):
                if member.training:
                    first = next(iter(member.evaluations.values()))
                    plateaus[number] = observe(member.plan.experiment, plateaus[number], first)
            self.state = self.stepper.with_plateaus(self.state, plateaus)

    def _finish(self) -> None:
        """Ends the runs whose training is over, by the test splits. Raises Stopped if it is cut short."""
        over = self.over
        if not over:
            return
        for split, examples in self.plan.tests.items():
            if self.consensus.vote_and_wait(f"reading {split}"):
                raise Stopped
            if split not in self.splits:
                self.report_progress(f"reading {split}", patient=True)
                self.splits[split] = self._load(examples, self.plan.experiment.data.preprocess, evaluated=True)
        tested = self._measure(self.plan.tests, over)
        self.report_progress("the end", patient=True)
        with self.events.phase("end"):
            for member, own in zip(self.members, tested, strict=True):
                if member in over and member.training:
                    member.finish(own, self.step)

    def _measure(self, splits: Iterable[str], members: Sequence[Member]) -> list[Metrics]:
        """The figures of each run's nets on these splits, logged for these runs once all of them are there."""
        with self.events.phase("evaluation"):
            return self._measured(splits, members)

    def _measured(self, splits: Iterable[str], members: Sequence[Member]) -> list[Metrics]:
        stops = lambda split: self._stops(f"the evaluation of {split} at step {self.step}")  # noqa: E731
        self._take_evaluation_step(wait=True)
        opened = {split: self.splits[split] for split in splits}
        step = self.evaluation_step.call if opened else None
        results, bad = measure(self.state, opened, self.members, self.stepper, step, self.reader, stops)
        for number, (member, own) in enumerate(zip(self.members, results, strict=True)):
            member.quarantine.share()
            if member in members:
                for split, metrics in own.items():
                    self._log(member, {"step": self.step, "split": split, **metrics})
                if number in bad:
                    self._broken(number, bad[number])
        return results

    def _save(self, best: Sequence[Member] = (), *, anew: bool = False) -> None:
        """Saves this step of every run, with its metrics as the score of those that have it among their best."""
        self.report_progress(f"the save at step {self.step}", patient=True)
        with self.events.phase("save"):
            for number, member in enumerate(self.members):
                member.quarantine.share()
                if member.training and not self.stepper.finite(self.state, number):
                    self._broken(number, "a parameter or a running statistic, after the update,")
                if member.training:
                    state = self.stepper.member(self.state, number)
                    member.save(self.step, state, evaluated=self.evaluated, scored=member in best, anew=anew)
                    self.events.saved(functools.partial(checkpoint.wait, member.manager))

    def _stops(self, where: str) -> bool:
        """Whether all processes stop here; what one has passed over two calls before is told to all."""
        news = any(member.quarantine.news for member in self.members)
        vote = self.consensus.vote(where, news=news)
        if vote == Vote.NEWS:
            for member in self.members:
                member.quarantine.share()
        return vote == Vote.STOP

    def _broken(self, number: int, cause: str) -> None:
        """Ends a run by `cause`, which is not finite after the newest step, whose own loss and gradient were."""
        self._diverge(number, Diverged(self.step, self.log.newest_loss_and_norm(number), cause, skippable=False))

    def _diverge(self, number: int, error: Diverged) -> None:
        """Ends one run. Raises _AllDiverged if none is left."""
        member = self.members[number]
        if member.training:
            member.diverge(error)
        if not self.living:
            raise _AllDiverged

    def _log_interval(self, line: dict[str, Any], metrics: Any, times: dict[str, float | None]) -> None:
        """An interval of training, whose figures are those of all nets."""
        for number, member in enumerate(self.members):
            if member.training:
                own = self.stepper.member(metrics, number)
                self._log(member, training_line(self.plan.experiment.task, line, own, times), training=True)

    def _log(self, member: Member, line: dict[str, Any], training: bool = False) -> None:
        """One line of figures, into the run's files and onto the display."""
        member.log(line)
        if not training:
            self.display.line(f"step {line['step']:,}  {evaluation_line(line['split'], line)}")
            return
        self.bar_text = f"epoch {line['epoch']:.1f}  {metrics_text(line)}  {speed(line)}"
        if not self.display.console.is_terminal:
            self.display.line(train_line(line, self.plan.total))
