"""The `jaxcnn` command: questions to models, finished runs and data. Training is `python -m jaxcnn.launch FILE`."""

import os
import sys
from collections.abc import Callable

import tyro
from rich.console import Console

from jaxcnn.commands import data, experiments, images, machine, models, runs
from jaxcnn.errors import UserError
from jaxcnn.text import print_plain, replace_unknown

COMMANDS: dict[str, Callable[..., int | None]] = {
    "doctor": machine.doctor,
    "evaluate": runs.evaluate,
    "replay": runs.replay,
    "fit-batch": experiments.fit_batch,
    "predict": runs.predict,
    "explain": runs.explain,
    "kernels": images.kernels,
    "compare": runs.compare,
    "report": runs.report,
    "import-weights": models.import_weights,
    "models": models.models,
    "summary": models.summary,
}
DATA_COMMANDS: dict[str, Callable[..., int | None]] = {"prepare": data.prepare, "check": data.check}


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns 0, or 1 after a message; wrong arguments leave through SystemExit(2)."""
    replace_unknown(sys.stdout, sys.stderr)
    arguments = sys.argv[1:] if arguments is None else arguments
    code = 0
    try:
        if arguments[:1] == ["prove-resume"]:
            experiments.prove_resume(arguments[1:])
        elif arguments[:1] == ["data"]:
            _call(DATA_COMMANDS, "jaxcnn data", "Prepare and check data sets.", arguments[1:])
        else:
            code = _call(COMMANDS | {"data": lambda: None, "prove-resume": lambda: None}, "jaxcnn", __doc__, arguments)
        sys.stdout.flush()
    except UserError as error:
        print_plain(Console(stderr=True), f"error: {error}")
        return 1
    except OSError as error:  # of the output, most likely: whoever reads files says which
        return _not_printed(error)
    return code


def _not_printed(error: OSError) -> int:
    """Says why the output could not be written. Nobody reads on after `| head`: that is no failure."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries once more at its end
    if isinstance(error, BrokenPipeError):
        return 0
    print_plain(Console(stderr=True), f"error: {error.filename or 'the output'}: {error.strerror or error}")
    return 1


def _call(commands: dict[str, Callable[..., int | None]], program: str, description: str, arguments: list[str]) -> int:
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands)
    code = tyro.extras.subcommand_cli_from_dict(
        commands, prog=program, description=description, args=arguments or ["--help"], config=config
    )
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
