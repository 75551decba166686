"""Sweep command: what `python -m jaxcnn.launch SWEEP.py` does with its flags, which are those of a study."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from rich.console import Console

from jaxcnn.errors import UserError
from jaxcnn.runs.events import SILENT, Events
from jaxcnn.runs.restore import prepared_as_source
from jaxcnn.studies.cell import FINISHED, Cell, Measured
from jaxcnn.studies.command import (
    Ended,
    Flags,
    command_line,
    directory_of,
    made_at_scale,
    make_directory,
    read_flags,
    vmaps_seeds,
)
from jaxcnn.studies.ranking import going_on, rows, write_ranking
from jaxcnn.studies.runner import Start, check, run_all
from jaxcnn.studies.sweep import Sweep, check_sweep, rung_steps, trials_of
from jaxcnn.studies.trials import Results, Trial
from jaxcnn.text import print_plain, table


def parse_sweep(
    function: Callable[..., Sweep], file: pathlib.Path, flags: Sequence[str], doc: str
) -> tuple[Flags, Sweep]:
    """The flags, and the sweep at the scale that they ask for. `--help` and wrong flags leave through SystemExit.

    Raises:
      UserError: a value is wrong, sweep() does not return a Sweep, or check_sweep refuses it.
    """
    chosen = read_flags(file, flags, doc)
    sweep = made_at_scale(function, chosen, file)
    if not isinstance(sweep, Sweep):
        raise UserError(f"{file}: sweep() returned {type(sweep).__name__} and not a Sweep")
    if chosen.seeds is not None:
        sweep = dataclasses.replace(sweep, seeds=tuple(range(chosen.seeds)))
    check_sweep(sweep)
    sweep = dataclasses.replace(sweep, base=prepared_as_source(sweep.base))
    return chosen, dataclasses.replace(sweep, tried_out=True) if chosen.debug else sweep


def run_sweep(
    flags: Flags,
    sweep: Sweep,
    file: pathlib.Path,
    console: Console,
    stop: Callable[[], bool],
    events: Events = SILENT,
) -> Ended:
    """Runs the trials that are not finished, or this share of them, rung by rung, and writes the ranking.

    Each rung needs the figures of all of the one before: a share runs what others have left, and waits for what they
    are running.

    Raises:
      UserError: a trial cannot be run as the sweep has it now; nothing has been run then.
    """
    path = directory_of(flags, file)
    found = trials_of(sweep, path)
    rungs = rung_steps(sweep)
    failed: tuple[str, ...] = ()
    if flags.report_only:
        if not (path.is_dir() and any(path.iterdir())):
            raise UserError(f"{path}: there is no sweep to report on; run it without --report-only first")
    else:
        check(_cells_of(found), file, flags.accept_code)
        make_directory(path)
        print_plain(console, f"sweep directory {path}: {len(found)} points x {len(sweep.seeds)} seeds")
        vmap_seeds = vmaps_seeds(flags, [sweep.base])
        how = Start(file, console, stop, {}, vmap_seeds, flags.accept_code, events)
        on = found
        for rung, until in enumerate(rungs):
            if len(rungs) > 1:
                print_plain(console, f"rung {rung + 1} of {len(rungs)}: {len(on)} points")
            paced = dataclasses.replace(how, until=until)
            done = run_all(Measured(sweep.figure), _cells_of(on), paced, flags.index, flags.of)
            if not done.finished:
                return Ended(False, done.failed, "its ranking is written when all points have ended")
            failed = (*failed, *done.failed)
            if until is not None:
                on = going_on(on, sweep, rung, until)
    results = write_ranking(sweep, found, command_line(flags, file), path, rungs)
    show(results, console)
    if flags.report_only and not results["best"]:
        failed = tuple(cell.name for cell in _cells_of(found) if cell.state() not in FINISHED)
    return Ended(True, failed, f"report: {path / 'sweep.html'}")


def show(results: Results, console: Console) -> None:
    """The ranking, and the best point, on the terminal."""
    lines = rows(results)
    console.print(table([*lines[0]], [[*row.values()] for row in lines]))
    best = results["best"]
    if best:
        edge = f" (at the edge of {', '.join(best['edge'])})" if best["edge"] else ""
        print_plain(console, f"best{edge}: {best['flags']}")


def _cells_of(found: Sequence[Trial]) -> list[Cell]:
    return [cell for trial in found for cell in trial.cells]
