"""The `jaxcnn` command: questions to models, finished runs and data. Training is `python -m jaxcnn.launch FILE`."""

import os
import sys
from collections.abc import Callable

import tyro
from rich.console import Console

from jaxcnn.commands import data, experiments, images, machine, models, runs
from jaxcnn.errors import UserError
from jaxcnn.terminal import show_warnings
from jaxcnn.text import print_plain, replace_unknown

COMMANDS: dict[str, Callable[..., int | None]] = {
    "doctor": machine.doctor,
    "evaluate": runs.evaluate,
    "replay": runs.replay,
    "predict": runs.predict,
    "explain": runs.explain,
    "kernels": images.kernels,
    "compare": runs.compare,
    "report": runs.report,
    "export": runs.export,
    "import-weights": models.import_weights,
    "models": models.models,
    "summary": models.summary,
}
DATA_COMMANDS: dict[str, Callable[..., int | None]] = {"prepare": data.prepare, "pack": data.pack}
# Those that take an experiment's flags too, with the class that has their own.
WITH_FLAGS: dict[tuple[str, ...], tuple[Callable[[list[str]], int | None], type]] = {
    ("bench-input",): (experiments.bench_input, experiments.BenchInput),
    ("fit-batch",): (experiments.fit_batch, experiments.FitBatch),
    ("lr-range",): (experiments.lr_range, experiments.LearningRates),
    ("k-fold",): (experiments.k_fold, experiments.KFold),
    ("probe",): (experiments.probe, experiments.Probe),
    ("prove-resume",): (experiments.prove_resume, experiments.ProveResume),
    ("data", "check"): (data.check, data.Check),
}
# Those of them that train, or time a step, and so keep its memory as a run does.
TRAINING = ("bench-input", "lr-range", "k-fold")


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns 0, or 1 after a message; wrong arguments leave through SystemExit(2)."""
    replace_unknown(sys.stdout, sys.stderr)
    if arguments is None:  # from a shell
        arguments = sys.argv[1:]
        show_warnings()
        if arguments[:1] and arguments[0] in TRAINING:
            from jaxcnn.devices import keep_memory  # and JAX, which not every command needs

            keep_memory()
    try:
        if "JAX_ENABLE_X64" in os.environ:
            _use_32_bits()
        code = _run(arguments)
        sys.stdout.flush()
    except UserError as error:
        print_plain(Console(stderr=True), f"error: {error}")
        return 1
    except (AssertionError, RuntimeError):
        from jaxcnn.devices import check_devices

        try:
            check_devices()
        except UserError as error:  # it came of that
            print_plain(Console(stderr=True), f"error: {error}")
            return 1
        raise
    except OSError as error:  # of the output, most likely: whoever reads files says which
        return _not_printed(error)
    return code


def _run(arguments: list[str]) -> int:
    for words, (call, _) in WITH_FLAGS.items():
        if tuple(arguments[: len(words)]) == words:
            return call(arguments[len(words) :]) or 0
    if arguments[:1] == ["data"]:
        return _call(DATA_COMMANDS | _named(("data",)), "jaxcnn data", _data.__doc__ or "", arguments[1:])
    return _call(COMMANDS | _named(()) | {"data": _data}, "jaxcnn", __doc__ or "", arguments)


def _use_32_bits() -> None:
    from jaxcnn.devices import use_32_bits  # and JAX, which not every command needs

    if told := use_32_bits():
        print_plain(Console(stderr=True), f"warning: {told}")


def _not_printed(error: OSError) -> int:
    """Says why the output could not be written. Nobody reads on after `| head`: that is no failure."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries once more at its end
    if isinstance(error, BrokenPipeError):
        return 0
    print_plain(Console(stderr=True), f"error: {error.filename or 'the output'}: {error.strerror or error}")
    return 1


def _data() -> None:
    """Prepare, pack and check data sets: jaxcnn data prepare NAME, data pack SOURCE, data check FILE.py."""


def _named(before: tuple[str, ...]) -> dict[str, Callable[..., int | None]]:
    """For --help: the commands of WITH_FLAGS behind these words, with what they say of themselves."""
    named: dict[str, Callable[..., int | None]] = {}
    for words, (_, own) in WITH_FLAGS.items():
        if words[:-1] == before:
            named[words[-1]] = lambda: None
            named[words[-1]].__doc__ = own.__doc__
    return named


def _call(commands: dict[str, Callable[..., int | None]], program: str, description: str, arguments: list[str]) -> int:
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands)
    code = tyro.extras.subcommand_cli_from_dict(
        commands, prog=program, description=description, args=arguments or ["--help"], config=config
    )
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
