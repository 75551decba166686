"""Runner: runs the cells of a study one after another. Finished cells stay as they are, killed ones go on."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxcnn import config, experiment_file
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs import own_code
from jaxcnn.runs.display import Display
from jaxcnn.runs.events import SILENT, Events
from jaxcnn.runs.initial_state import same_but_for_seed
from jaxcnn.runs.loop import run, run_seeds
from jaxcnn.runs.run_directory import RunDirectory
from jaxcnn.runs.setup import Plan, make_plan
from jaxcnn.runs.start import InUse, start_run
from jaxcnn.runs.teacher import check_teacher
from jaxcnn.studies.cell import FINISHED, Cell, Measured, cell_metrics, probe
from jaxcnn.studies.judge import Results
from jaxcnn.studies.pinned import keep_copy
from jaxcnn.studies.study import Study
from jaxcnn.text import print_plain


@dataclasses.dataclass(frozen=True)
class Start:
    """How one start of a study, or a sweep, runs its cells."""

    file: pathlib.Path
    console: Console
    stop: Callable[[], bool]
    pinned: Results
    """What was settled before the first run, of which each cell gets a copy; {} of a sweep, which claims nothing."""
    vmap_seeds: bool = False
    """Whether the seeds of an arm are trained as one program, vmapped over them, if that is possible
    (runs/stepper.py: Stacked)."""
    accept_code: bool = False
    events: Events = SILENT
    until: int | None = None
    """The step behind which a run is stopped, saved, to go on later; None: it is trained to its end."""

    def over(self, cell: Cell) -> bool:
        """Whether there is nothing to run of this cell. One that stands at the very step may lack its evaluation."""
        return cell.state() in FINISHED or (self.until is not None and cell.step() > self.until)

    def paced(self) -> "Start":
        """With a `stop` of one run's own, which is also told once the run has trained `until` steps."""
        if self.until is None:
            return self
        watch = _Watch(self.events)
        until, stop = self.until, self.stop
        return dataclasses.replace(self, events=watch, stop=lambda: watch.step >= until or stop())


class _Watch(Events):
    """Hands on what it is told, and knows the step. A step is read after what is due at it is evaluated and saved."""

    def __init__(self, events: Events):
        self.events, self.step = events, 0

    def phase(self, name: str) -> contextlib.AbstractContextManager[Any]:
        return self.events.phase(name)

    def read(self, run: pathlib.Path, step: int, examples: Sequence[np.ndarray]) -> None:
        self.step = step
        self.events.read(run, step, examples)

    def saved(self, wait: Callable[[], None]) -> None:
        self.events.saved(wait)


@dataclasses.dataclass(frozen=True)
class CellsEnded:
    """What became of the cells of one start."""

    finished: bool
    """False if `stop` ended it before the last cell."""
    failed: tuple[str, ...]
    """Names of the cells that failed, or whose probes did."""
    elsewhere: tuple[str, ...]
    """Names of the cells that another process was running."""


def check(cells: Sequence[Cell], file: pathlib.Path, accept_code: bool = False) -> None:
    """Everything that can be known before the first cell is run.

    Raises:
      UserError: a cell was run with another config or other code, or its experiment does not fit its data.
    """
    planned, sources = set(), experiment_file.sources(file)
    for cell in cells:
        if (cell.path / "config.json").exists():
            changed = config.changes(RunDirectory(cell.path).config(), config.encode(cell.arm))
            if changed:
                field, (old, new) = next(iter(changed.items()))
                raise UserError(
                    f"{cell.path} holds a run with another config: {field} was {old!r} and is {new!r}; "
                    "choose another --workdir, or delete this cell"
                )
            if not accept_code:
                known = RunDirectory(cell.path).environment().get("code", {})
                own_code.check_same(cell.path, known, sources, config.encode(cell.arm))
        elif isinstance(cell.arm, Experiment) and cell.arm_name not in planned:
            planned.add(cell.arm_name)
            try:
                check_teacher(make_plan(cell.arm))
            except UserError as error:
                raise UserError(f"arm {cell.arm_name!r}: {error}") from error


def run_cells(study: Study | Measured, cells: Sequence[Cell], how: Start) -> CellsEnded:
    """Runs these cells of a study that are not finished, with a copy of the pinned claims in each.

    A cell that fails is said, and the next one is run; its directory keeps its state and message. One that another
    process runs is left to it.
    """
    previous, failed, elsewhere = None, [], []
    plans = _Plans()
    for number, cell in enumerate(cells, 1):
        label = f"[{number}/{len(cells)}] {cell.name}"
        if how.stop():
            return CellsEnded(False, (*failed,), (*elsewhere,))
        if cell.arm_name != previous:
            jax.clear_caches()  # the programs of the arm before
            previous, plans = cell.arm_name, _Plans()
            of_arm = [each for each in cells if each.arm_name == cell.arm_name and not how.over(each)]
            if how.vmap_seeds and of_arm and fits(of_arm) and not _run_vmapped(of_arm, plans, how):
                return CellsEnded(False, (*failed,), (*elsewhere,))
        began = how.over(cell)
        start = time.perf_counter()
        try:
            state = cell.state() if began else _run(cell, plans, how)
            if state == "preempted" and not how.over(cell):
                return CellsEnded(False, (*failed,), (*elsewhere,))
            if state == "done":
                probe(cell, study)
        except InUse:
            elsewhere.append(cell.name)
            print_plain(how.console, f"{label}: another process runs it; left to that")
            continue
        except UserError as error:
            failed.append(cell.name)
            print_plain(how.console, f"{label}: failed: {error}")
            continue
        except Exception as error:
            failed.append(cell.name)
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            print_plain(how.console, f"{label}: failed: {text}")
            continue
        value = cell_metrics(cell, study).get(study.metric)
        told = f"stopped for now at step {cell.step():,}" if state == "preempted" else state
        what = told if value is None else f"{study.metric} {value:.4g}"
        print_plain(
            how.console, f"{label}: {what} ({'finished before' if began else f'{time.perf_counter() - start:.1f} s'})"
        )
    return CellsEnded(True, (*failed,), (*elsewhere,))


class _Plans:
    """The plans of an arm's seeds: its data is opened, its net traced and its programs compiled once for all."""

    def __init__(self) -> None:
        self._newest: tuple[Experiment, Plan] | None = None

    def of(self, experiment: Experiment) -> Plan:
        if self._newest is None or not same_but_for_seed(self._newest[0], experiment):
            self._newest = experiment, make_plan(experiment)
        return self._newest[1].with_seed(experiment.seed)


WAIT = 5.0
"""Seconds between two looks at cells that other processes run."""


def run_all(study: Study | Measured, cells: Sequence[Cell], how: Start, index: int = 0, of: int = 1) -> CellsEnded:
    """Runs a share of the cells, and returns when all of them have ended: what comes next needs all.

    What other shares have not done by then is run as well; what they are running is waited for, and taken over if they
    end without it. `elsewhere` is empty then.
    """
    done = run_cells(study, cells[index::of], how)
    failed, told = done.failed, False
    while done.finished:
        left = [cell for cell in cells if not how.over(cell) and cell.name not in failed]
        if not left:
            break
        if {cell.name for cell in left} <= {*done.elsewhere}:
            if not told:
                print_plain(how.console, f"waiting for {len(left)} runs of other processes")
            told, how = True, dataclasses.replace(how, console=Console(quiet=True))
            time.sleep(WAIT)
        done = run_cells(study, left, how)
        failed = (*failed, *done.failed)
    return CellsEnded(done.finished, failed, ())


def fits(cells: Sequence[Cell]) -> bool:
    """Whether these unfinished cells can be trained as one program: seeds of one experiment, in one process."""
    return len(cells) > 1 and isinstance(cells[0].arm, Experiment) and jax.process_count() == 1


def _run_vmapped(cells: Sequence[Cell], plans: "_Plans", how: Start) -> bool:
    """False if `stop` ended it. What goes wrong is left to the cells, which are then run one by one."""
    start, how = time.perf_counter(), how.paced()
    try:
        with contextlib.ExitStack() as held:
            made = [plans.of(cell.arm) for cell in cells if isinstance(cell.arm, Experiment)]  # all, see `fits`
            directories = [
                held.enter_context(
                    start_run(cell.path.absolute(), config.encode(cell.arm), how.file, plan.dataset(), how.accept_code)
                )
                for cell, plan in zip(cells, made, strict=True)
            ]
            for cell in cells:
                keep_copy(cell.path, how.pinned)
            display = held.enter_context(Display(how.console, lines=False))
            outcomes = run_seeds(made, directories, display, how.stop, events=how.events)
    except InUse:
        return True  # each cell says so
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        print_plain(how.console, f"{cells[0].arm_name}: the seeds cannot be vmapped ({text}); one by one")
        return True
    if any(outcome.state == "preempted" for outcome in outcomes) and not all(map(how.over, cells)):
        return False
    print_plain(
        how.console, f"{cells[0].arm_name}: {len(cells)} seeds as one program ({time.perf_counter() - start:.1f} s)"
    )
    return True


def _run(cell: Cell, plans: "_Plans", how: Start) -> str:
    """Runs or goes on with one cell; returns its state."""
    how = how.paced()
    encoded = config.encode(cell.arm)
    if isinstance(cell.arm, Experiment):
        plan = plans.of(cell.arm)
        with contextlib.ExitStack() as held:
            opened = start_run(cell.path.absolute(), encoded, how.file, plan.dataset(), how.accept_code)
            directory = held.enter_context(opened)
            keep_copy(cell.path, how.pinned)
            display = held.enter_context(Display(how.console, lines=False))
            return run(plan, directory, display, how.stop, events=how.events).state
    with start_run(cell.path.absolute(), encoded, how.file, {}, how.accept_code) as directory:
        keep_copy(cell.path, how.pinned)
        directory.write_status("running", 0)
        try:
            measured = cell.arm.measure(cell.seed)
        except Exception as error:
            directory.write_status("failed", 0, message=f"{type(error).__name__}: {error}".splitlines()[0])
            raise
        result: dict[str, dict[str, float]] = {}
        for name, value in measured.items():
            split, _, metric = name.partition(" ")
            result.setdefault(split, {})[metric] = value
        directory.write_result(result)
        directory.write_status("done", 0)
    return "done"
