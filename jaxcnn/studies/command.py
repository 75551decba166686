"""Command: what `python -m jaxcnn.launch STUDY.py` does with its flags; signals and exit codes are launch.py's."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

import jax
import tyro
from rich.console import Console

from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.files import expanded
from jaxcnn.runs.events import SILENT, Events
from jaxcnn.studies.cell import FINISHED, Cell, Measured, cells, check_metrics, counts
from jaxcnn.studies.foreseen import foreseen, foreseen_text
from jaxcnn.studies.judge import Results
from jaxcnn.studies.pinned import pin
from jaxcnn.studies.right import keep_right
from jaxcnn.studies.runner import CellsEnded, Start, check, run_all, run_cells
from jaxcnn.studies.scale import at_scale, scales_of
from jaxcnn.studies.study import Arm, Study, prepared, shrunk
from jaxcnn.studies.table import rows
from jaxcnn.studies.trials import Trial, trials, tuned
from jaxcnn.studies.write import write_study
from jaxcnn.text import print_plain, table

SMALL = 2_000_000
"""Parameters up to which a net leaves an accelerator idle and its seeds are vmapped by default."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """Flags of a study file, or of a sweep's."""

    quick: bool = False
    """The scale for two CPU cores, on real data."""
    medium: bool = False
    """The scale for one GPU and minutes, on real data."""
    debug: bool = False
    """Every cell shrunk to seconds on synthetic data, two seeds: to try the file out."""
    workdir: str | None = None
    """Directory of the study; default runs/NAME_OF_THE_FILE, with _quick, _medium or _debug."""
    seeds: int | None = None
    """How many seeds, 0 to N - 1; default the study's own."""
    index: int = 0
    """With --of: which share of the cells to run, from 0."""
    of: int = 1
    """Run every OF-th cell only, for job arrays; --report-only makes the report once all are there."""
    vmap_seeds: Literal["auto", "yes", "no"] = "auto"
    """Train the seeds of an arm as one program, vmapped over them. auto: on accelerators, if the nets are small. On a
    CPU it is faster for some nets (docs/speed.md), and each run differs by rounding from one trained alone."""
    accept_code: bool = False
    """Go on with cells although the code of the study file has changed."""
    report_only: bool = False
    """Run nothing, rebuild the report from what is there."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a start of a study ended."""

    finished: bool
    """False where it was stopped before its last cell."""
    failed: tuple[str, ...]
    """Names of the cells that failed, probes included."""
    message: str


def parse_flags(
    function: Callable[..., Study], file: pathlib.Path, flags: Sequence[str], doc: str
) -> tuple[Flags, Study]:
    """The flags, and the study at the scale that they ask for. `--help` and wrong flags leave through SystemExit.

    Raises:
      UserError: a value is wrong, study() does not return a Study, a claim names a figure that nothing measures, or a
        run whose preparation is to be taken over is not there.
    """
    chosen = read_flags(file, flags, doc)
    study = made_at_scale(function, chosen, file)
    if not isinstance(study, Study):
        raise UserError(f"{file}: study() returned {type(study).__name__} and not a Study")
    if chosen.seeds is not None:
        study = dataclasses.replace(study, seeds=tuple(range(chosen.seeds)))
    check_metrics(study)
    study = prepared(study)
    return chosen, shrunk(study) if chosen.debug else study


def read_flags(file: pathlib.Path, flags: Sequence[str], doc: str) -> Flags:
    """Raises UserError if their values do not fit each other."""
    chosen = tyro.cli(
        Annotated[Flags, tyro.conf.arg(name="")],
        args=list(flags),
        prog=f"python -m jaxcnn.launch {file}",
        description=doc,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    if not 0 <= chosen.index < chosen.of:
        raise UserError(f"--index is {chosen.index} and --of {chosen.of}: index counts from 0 to of - 1")
    if chosen.quick and chosen.medium:
        raise UserError("--quick and --medium are two scales; give one of them")
    return chosen


def made_at_scale(function: Callable[..., Any], flags: Flags, file: pathlib.Path) -> Any:
    """What study() or sweep() returns at the scale that the flags ask for; --debug shrinks the quick form, if there is
    one and no other is asked for."""
    quick = flags.quick or (flags.debug and "quick" in scales_of(function, file))
    return at_scale(function, "medium" if flags.medium else "quick" if quick else "full", file)


def directory_of(flags: Flags, file: pathlib.Path) -> pathlib.Path:
    """Where a study or a sweep keeps its runs."""
    suffix = "_debug" if flags.debug else "_quick" if flags.quick else "_medium" if flags.medium else ""
    return expanded(pathlib.Path(flags.workdir or f"runs/{file.stem}{suffix}"))


def run_study(
    flags: Flags,
    study: Study,
    file: pathlib.Path,
    console: Console,
    stop: Callable[[], bool],
    events: Events = SILENT,
) -> Ended:
    """Runs the cells that are not finished, or this share of them, and writes the report of the whole.

    Raises:
      UserError: a cell cannot be run as the study has it now; nothing has been run then.
    """
    path = directory_of(flags, file)
    found = trials(study, path)
    done = CellsEnded(True, (), ())
    if flags.report_only:
        if not (path.is_dir() and any(path.iterdir())):
            raise UserError(f"{path}: there is no study to report on; run it without --report-only first")
        pinned = pin(path, study, [*_cells_of(found), *cells(study, path)])
    else:
        _check(study, found, path, file, flags.accept_code)
        make_directory(path)
        pinned = pin(path, study, [*_cells_of(found), *cells(study, path)])
        tuning = f", after {len(_cells_of(found))} runs that tune them" if found else ""
        print_plain(console, f"study directory {path}: {len(study.arms)} arms x {len(study.seeds)} seeds{tuning}")
        for row in foreseen(study, found, read_images=True):
            print_plain(console, foreseen_text(row))
        how = Start(file, console, stop, pinned, vmaps_seeds(flags, study.arms.values()), flags.accept_code, events)
        if not _finished(found):
            done = run_all(_judged_by_tuning(study, found), _cells_of(found), how, flags.index, flags.of)
            if not done.finished or done.failed:
                return Ended(done.finished, done.failed, "no cell of the verdict is run before all have ended")
            _check(study, found, path, file, flags.accept_code)
            for row in foreseen(study, found):
                if row["from"] == "tuning":
                    print_plain(console, foreseen_text(row))
        done = run_cells(tuned(study, found), cells(tuned(study, found), path)[flags.index :: flags.of], how)
    study = tuned(study, found) if _finished(found) else study
    everything = cells(study, path)
    share = everything[flags.index :: flags.of]
    if done.finished and not flags.report_only:
        warn = lambda text: print_plain(console, f"warning: {text}")  # noqa: E731
        keep_right(study, [cell for cell in share if cell.name not in done.elsewhere], stop, warn)
    unfinished = [cell.name for cell in share if cell.state() not in FINISHED and cell.name not in done.elsewhere]
    failed = tuple(dict.fromkeys([*done.failed, *unfinished]))
    left = f"; {len(done.elsewhere)} cells are left to the process that runs them" if done.elsewhere else ""
    if flags.of > 1 and not flags.report_only:
        message = f"share {flags.index} of {flags.of} is done{left}; --report-only makes the report when all are"
        return Ended(done.finished, failed, message)
    results = write_study(study, everything, path, command_line(flags, file), pinned, found)
    show(results, console)
    return Ended(done.finished, failed, f"report: {path / 'study.html'}{left}")


def _cells_of(found: Sequence[Trial]) -> list[Cell]:
    return [cell for trial in found for cell in trial.cells]


def _finished(found: Sequence[Trial]) -> bool:
    return all(trial.finished for trial in found)


def _check(study: Study, found: Sequence[Trial], path: pathlib.Path, file: pathlib.Path, accept_code: bool) -> None:
    """The trials, and the study's cells as the trials have tuned them. Before all have ended these are checked as they
    are without, if they have not begun."""
    check(_cells_of(found), file, accept_code)
    if _finished(found):
        check(cells(tuned(study, found), path), file, accept_code)
    else:
        check([cell for cell in cells(study, path) if not (cell.path / "config.json").exists()], file, accept_code)


def _judged_by_tuning(study: Study, found: Sequence[Trial]) -> Measured:
    """The trials have no probes, and are told by the figure that chooses."""
    arm = _cells_of(found)[0].arm
    assert study.tuning is not None and isinstance(arm, Experiment)
    return Measured(study.tuning.metric_of(arm), study.reach)


def show(results: Results, console: Console) -> None:
    """The table and the verdicts, on the terminal."""
    lines = rows(results)
    columns = [name for name in lines[0] if name not in ("images per second", "multiply-adds")]
    console.print(table(columns, [[row[name] for name in columns] for row in lines]))
    for name, arm in (results["tuning"] or {"arms": {}})["arms"].items():
        print_plain(console, f"tuned {name}: {_tuned_text(arm)}")
    for claim in results["claims"]:
        changed = f" ({claim['change']})" if claim["change"] else ""
        print_plain(console, f"{claim['verdict']}: {claim['text']}{changed} ({claim['reason']})")


def _tuned_text(arm: Results) -> str:
    """What was chosen for an arm, by what, and whether the grid may be too small."""
    if arm["chosen"] is None:
        return "not finished"
    trial, count = arm["trials"][arm["chosen"]], len(arm["trials"])
    if arm["all_failed"]:
        return f"{trial['text']}, the first of {count}: none has a {arm['metric']}"
    edge = f", at the edge of the grid in {', '.join(arm['edge'])}" if arm["edge"] else ""
    return f"{trial['text']} ({arm['metric']} {trial['score']:.4g}, best of {count}{edge})"


def vmaps_seeds(flags: Flags, arms: Iterable[Arm]) -> bool:
    """Whether seeds are trained as one program; by default if the nets are too small for an accelerator."""
    if flags.vmap_seeds != "auto":
        return flags.vmap_seeds == "yes"
    largest = max((counts(arm).get("parameters", 0) for arm in arms), default=0)
    return jax.default_backend() != "cpu" and largest <= SMALL


def make_directory(path: pathlib.Path) -> None:
    """Raises UserError if it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}; choose another --workdir") from error


def command_line(flags: Flags, file: pathlib.Path) -> str:
    """The command that makes this study or sweep, without machine paths."""
    words = ["python -m jaxcnn.launch", _relative(file)]
    words += ["--quick"] * flags.quick + ["--medium"] * flags.medium + ["--debug"] * flags.debug
    words += [] if flags.seeds is None else [f"--seeds {flags.seeds}"]
    return " ".join(words)


def _relative(file: pathlib.Path) -> str:
    root = pathlib.Path.cwd()
    return str(file.absolute().relative_to(root)) if file.absolute().is_relative_to(root) else file.name
