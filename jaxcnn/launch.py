"""python -m jaxcnn.launch EXPERIMENT.py [flags]: the front door, and the only module with process-wide effects.

Under Slurm, Kubernetes, Cloud TPU and Open MPI it finds out by itself which process of a run it is
(docs/clusters.md); --coordinator HOST:PORT --processes N --process I say it elsewhere.

Exit codes: 0 done, 1 failed or diverged, 2 wrong file or flags, 75 stopped with everything saved, 69 another process
was lost; after 75 and 69 the same command goes on. A run also stops, saved, when nobody reads its output any more.
"""

import contextlib
import functools
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from rich.console import Console

from jaxcnn import config, experiment_file
from jaxcnn.cluster.heartbeat import LOST, is_loss
from jaxcnn.cluster.initialize import Deadlines, ProcessGroup, initialize
from jaxcnn.cluster.preflight import check_collective, check_equal
from jaxcnn.cluster.rendezvous import ProcessMissing, Stopped
from jaxcnn.devices import check_devices, keep_memory, use_32_bits
from jaxcnn.errors import UserError
from jaxcnn.files import expanded
from jaxcnn.flags import parse, process_flags
from jaxcnn.runs import checkpoint, own_code
from jaxcnn.runs.display import Display, result_table
from jaxcnn.runs.events import SILENT, Events
from jaxcnn.runs.failure import failure_recorder
from jaxcnn.runs.loop import run
from jaxcnn.runs.restore import check_init_from
from jaxcnn.runs.run_directory import REPORT, RunDirectory
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.start import start_run
from jaxcnn.runs.teacher import check_teacher
from jaxcnn.stop import Stop
from jaxcnn.terminal import keep_going, open_closed_streams, show_warnings
from jaxcnn.text import print_plain, replace_unknown

DONE, FAILED, WRONG_ARGUMENTS, PREEMPTED = 0, 1, 2, 75
EXIT_CODES = {"done": DONE, "diverged": FAILED, "preempted": PREEMPTED}


def main(
    arguments: Sequence[str] | None = None, stop: Callable[[], bool] | None = None, events: Events = SILENT
) -> int:
    """The command line. Returns the exit code; `--help` and wrong flags leave through SystemExit, as usual.

    One of several processes that fails ends at once instead, after telling the others.

    Args:
      arguments: default: those of the process.
      stop: whether to stop with everything saved; default: what signals say.
      events: told of the run's course.
    """
    replace_unknown(sys.stdout, sys.stderr)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    errors = Console(stderr=True)
    stop = stop or Stop()
    try:
        file, flags = _split(arguments)
        processes, deadlines, flags = process_flags(flags)
        alone = bool({"-h", "--help"} & set(flags))
        group = initialize({} if alone else os.environ, processes, deadlines, stop)
    except Stopped as error:
        _print(errors, f"{error}; the same command continues")
        return PREEMPTED
    except UserError as error:
        _print(errors, f"error: {error}")
        return LOST if isinstance(error, ProcessMissing) else WRONG_ARGUMENTS
    if group.heartbeat is None:
        return _launch(file, flags, group, deadlines, stop, events)[0]
    try:
        code, message = _launch(file, flags, group, deadlines, stop, events)
    except BaseException as error:
        group.confirm_others_alive()
        code, message = FAILED, f"{type(error).__name__}: {error}".splitlines()[0]
        group.heartbeat.announce_exit(code, message)
        with contextlib.suppress(OSError):
            traceback.print_exc()
    group.exit(code, message)
    return code


def _launch(
    file: pathlib.Path,
    flags: list[str],
    group: ProcessGroup,
    deadlines: Deadlines,
    stop: Callable[[], bool],
    events: Events,
) -> tuple[int, str]:
    """The exit code and the message of one process."""
    errors = Console(stderr=True)
    process = group.index
    with contextlib.ExitStack() as held:
        try:
            if told := use_32_bits():
                _print(errors, f"warning: {told}")
            function = experiment_file.load_function(file)
            if function.__name__ in ("study", "sweep"):
                return _study(function, file, flags, group, stop, events)
            command = parse(file, flags)
            set_up_cache(errors)
            check_devices()
            plan = make_plan(command.experiment)
            workdir = pathlib.Path(command.workdir or f"runs/{file.stem}{'_debug' if command.debug else ''}")
            workdir = expanded(workdir)
            if not checkpoint.steps(workdir.absolute() / "checkpoints"):  # a run that goes on has its weights
                check_init_from(command.experiment, plan.mesh)
            check_teacher(plan)
            encoded = config.encode(command.experiment)
            if group.heartbeat is not None:
                facts = {"the config": config.identity(encoded), "the data set": plan.dataset()}
                check_equal(
                    group,
                    facts | {"the experiment file": own_code.digests(experiment_file.sources(file))},
                    deadlines.start,
                )
                check_collective(group, deadlines.start)
            start = functools.partial(start_run, workdir.absolute(), encoded, file, plan.dataset(), command.accept_code)
            directory = held.enter_context(_open_directory(group, workdir.absolute(), start))
        except UserError as error:
            group.confirm_others_alive()
            _print(errors, f"error: {error}")
            return WRONG_ARGUMENTS, str(error)
        except SystemExit as error:
            if group.heartbeat is None:
                raise
            return int(error.code or DONE), "wrong flags"
        console = Console(quiet=process > 0)
        try:
            with Display(console) as display:
                display.line(f"run directory {workdir}")
                outcome = run(plan, directory, display, stop, group.report_progress, events)
        except UserError as error:
            group.confirm_others_alive()  # a save fails without another process, and it is not the disk then
            _print(errors, f"error: {error}")
            return FAILED, str(error)
        if outcome.result:
            console.print(result_table(outcome.result, directory.roles()))
        if process == 0:
            _print(console if outcome.state == "done" else errors, outcome.message)
            if outcome.state == "done":
                group.disconnect(DONE, outcome.message)  # no other process has to wait for the page
                if not command.no_report:
                    _report(workdir, console, errors, stop)
    return EXIT_CODES[outcome.state], outcome.message


@contextlib.contextmanager
def _open_directory(
    group: ProcessGroup, path: pathlib.Path, start: Callable[[], contextlib.AbstractContextManager[RunDirectory]]
) -> Iterator[RunDirectory]:
    """The run directory: process 0 makes and locks it, the others open it after that."""
    if group.index == 0:
        with start() as directory:
            group.barrier("the run directory")
            group.on_loss(failure_recorder(path, is_loss))
            yield directory
        return
    group.barrier("the run directory")
    if not (path / "config.json").exists():
        raise UserError(f"{path} is not there on {group.names[group.index]}; all nodes must share --workdir")
    group.on_loss(failure_recorder(path, is_loss))
    yield RunDirectory(path, group.index)


def _study(
    function: Callable[..., Any],
    file: pathlib.Path,
    flags: list[str],
    group: ProcessGroup,
    stop: Callable[[], bool],
    events: Events,
) -> tuple[int, str]:
    """Runs the file of a study or a sweep. Raises UserError before anything has been run."""
    from jaxcnn.studies import command, sweep_command  # and matplotlib, as below

    parse_flags: Callable[..., Any] = command.parse_flags
    run_file: Callable[..., Any] = command.run_study
    if function.__name__ == "sweep":
        parse_flags, run_file = sweep_command.parse_sweep, sweep_command.run_sweep
    console, errors = Console(), Console(stderr=True)
    if group.heartbeat is not None:
        raise UserError(
            f"{file}: a {function.__name__} is one process; several jobs share its cells with --index I --of N"
        )
    try:
        chosen, made = parse_flags(function, file, flags, experiment_file.docstring())
    except UserError:
        raise
    except Exception as error:
        raise experiment_file.failure(file, error) from error
    set_up_cache(errors)
    check_devices()
    ended = run_file(chosen, made, file, console, stop, events)
    if not ended.finished:
        _print(errors, f"stopped; everything is saved; the same command continues; {ended.message}")
        return PREEMPTED, ended.message
    if ended.failed:
        again = "the command without --report-only runs them" if chosen.report_only else "the same command tries again"
        _print(errors, f"not finished: {'; '.join(ended.failed)}; {again}")
    _print(console, ended.message)
    return FAILED if ended.failed else DONE, ended.message


def _report(workdir: pathlib.Path, console: Console, errors: Console, stop: Callable[[], bool]) -> None:
    """Writes the page of a finished run that has none. The run stays done, whatever happens here."""
    if (workdir / REPORT).exists():
        return
    try:
        from jaxcnn.report.run import write_report  # and matplotlib, which no run should wait for at its start

        _print(console, f"page {write_report(workdir, stop=stop)}")
    except Exception as error:
        again = f"jaxcnn report {workdir} tries again"
        _print(errors, f"warning: {REPORT} was not written: {type(error).__name__}: {error}; {again}")


def _print(console: Console, text: str) -> None:
    print_plain(console, text)


def _split(arguments: list[str]) -> tuple[pathlib.Path, list[str]]:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: python -m jaxcnn.launch EXPERIMENT.py [flags]\n\n{__doc__}")
        print("python -m jaxcnn.launch EXPERIMENT.py --help lists every field of that experiment with its default.")
        raise SystemExit(DONE if arguments else WRONG_ARGUMENTS)
    if arguments[0].startswith("-"):
        raise UserError(f"the experiment file comes first: python -m jaxcnn.launch EXPERIMENT.py {arguments[0]} ...")
    return pathlib.Path(arguments[0]), arguments[1:]


def set_up_cache(errors: Console) -> None:
    """The persistent compile cache: JAX_COMPILATION_CACHE_DIR, else a folder in the user's cache."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "jaxcnn" / "xla"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            usable = os.access(folder, os.W_OK)
        except OSError:
            usable = False
        if not usable:
            _print(errors, f"warning: no compile cache: {folder} cannot be written")
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    for option, value in {
        # Programs that compile within a second too.
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_persistent_cache_min_compile_time_secs": 0,
        # What XLA found by trying kernels on a GPU, most of the time that compilation takes there, lies beside the
        # programs and serves other programs too. JAX's default, but not a promise.
        "jax_persistent_cache_enable_xla_caches": "xla_gpu_per_fusion_autotune_cache_dir",
    }.items():
        if option.upper() not in os.environ:
            jax.config.update(option, value)


if __name__ == "__main__":
    open_closed_streams()
    replace_unknown(sys.stdout, sys.stderr)
    keep_memory()
    told = Stop()
    keep_going(told.tell)
    show_warnings()
    code = main(stop=told)
    if code == FAILED:
        # A save that failed leaves threads of orbax, for which an ordinary exit would wait until they give up.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
