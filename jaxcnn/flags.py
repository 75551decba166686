"""Flags: an experiment file and the command line -> the experiment; and which process of how many this one is."""

import dataclasses
import inspect
import pathlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import tyro

from jaxcnn import config, experiment_file
from jaxcnn.cluster.environment import ProcessFlags
from jaxcnn.cluster.initialize import Deadlines
from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.experiment import Experiment
from jaxcnn.runs.debug import debug
from jaxcnn.runs.restore import prepared_as_source, trust_run
from jaxcnn.tasks.distillation import distillation_of
from jaxcnn.train import duration

T = TypeVar("T")

SHORT = {"--optimizer.lr": "--optimizer.learning-rate"}

# (name, type, default), as dataclasses.make_dataclass takes them: what a start has beside its experiment.
_RUN_FIELDS: list[tuple[str, Any, Any]] = [
    ("workdir", Annotated[str | None, tyro.conf.arg(help="Run directory; default runs/NAME_OF_THE_FILE.")], None),
    (
        "accept_code",
        Annotated[bool, tyro.conf.arg(help="Go on with a run although the code of its file has changed.")],
        False,
    ),
    (
        "trust",
        Annotated[bool, tyro.conf.arg(help="Run the own code of the run that --init-from.run names.")],
        False,
    ),
    (
        "no_report",
        Annotated[bool, tyro.conf.arg(help="Write no report.html at the end; `jaxcnn report RUN` writes it later.")],
        False,
    ),
    ("debug", Annotated[bool, tyro.conf.arg(help="A few steps on synthetic images, in seconds.")], False),
]
_PROCESS_FIELDS: list[tuple[str, Any, Any]] = [
    ("coordinator", Annotated[str | None, tyro.conf.arg(help="HOST:PORT of process 0; a scheduler tells it.")], None),
    ("processes", Annotated[int | None, tyro.conf.arg(help="How many processes; 1 ignores the scheduler.")], None),
    ("process", Annotated[int | None, tyro.conf.arg(help="Which of them this is, from 0.")], None),
    ("start_timeout", Annotated[float, tyro.conf.arg(help="Seconds for the slowest process to start.")], 300.0),
    (
        "lost_after",
        Annotated[float, tyro.conf.arg(help="Seconds after which a silent or stuck process counts as lost.")],
        120.0,
    ),
]


@dataclasses.dataclass(frozen=True)
class Command:
    """What the command line asks for."""

    experiment: Experiment
    workdir: str | None
    debug: bool
    accept_code: bool = False
    no_report: bool = False


def parse(file: pathlib.Path, flags: Sequence[str]) -> Command:
    """The experiment that the file and the flags describe.

    The arguments of experiment(...) are flags too: they are read first, since the fields and their defaults depend on
    them. `--help` prints every field and leaves through SystemExit(0); a wrong flag through SystemExit(2).

    Raises:
      UserError: the file or a value is wrong.
    """
    function = experiment_file.load_function(file)
    if function.__name__ in ("study", "sweep"):
        raise UserError(f"{file}: this is a {function.__name__} of many experiments; it needs a file with one")
    choices = _choices(function, file)
    program = f"python -m jaxcnn.launch {file}"
    flags = [_spelled_out(flag) for flag in flags]
    values: dict[str, Any] = {}
    if choices:
        chosen, _ = tyro.cli(
            dataclasses.make_dataclass("Choices", choices),
            args=[flag for flag in flags if flag not in ("-h", "--help")],
            prog=program,
            return_unknown_args=True,
            add_help=False,
        )
        values = {field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)}
    try:
        experiment = function(**values)
    except Exception as error:
        raise experiment_file.failure(file, error) from error
    if not isinstance(experiment, Experiment):
        raise UserError(f"{file}: experiment() returned {type(experiment).__name__} and not an Experiment")

    fields = [
        ("experiment", Annotated[Experiment, tyro.conf.arg(name="")], dataclasses.field(default=experiment)),
        *_RUN_FIELDS,
        *_PROCESS_FIELDS,
        # A flag of a bool that is already True would be called --no-... here.
        *(
            (name, kind, default if kind is bool else dataclasses.field(default=values[name]))
            for name, kind, default in choices
        ),
    ]
    everything, unknown = tyro.cli(
        dataclasses.make_dataclass("Everything", fields),
        args=flags,
        prog=program,
        return_unknown_args=True,
        description=experiment_file.docstring(),
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff),
        registry=_registry(),
    )
    if unknown:
        raise _unknown_flag(file, unknown[0], [name for name, *_ in fields[1:]], experiment)
    if everything.trust:
        _trust_sources(everything.experiment)
    chosen = prepared_as_source(everything.experiment)
    experiment = debug(chosen) if everything.debug else chosen
    return Command(
        experiment,
        everything.workdir,
        everything.debug,
        everything.accept_code,
        everything.no_report,
    )


def with_flags(command: type[T], program: str, arguments: Sequence[str]) -> tuple[T, list[str]]:
    """A command's own arguments, and the other flags: its experiment's. A "--" between them may be left out."""
    return tyro.cli(
        command,
        args=[argument for argument in arguments if argument != "--"] or ["--help"],
        prog=program,
        return_unknown_args=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def process_flags(flags: list[str]) -> tuple[ProcessFlags, Deadlines, list[str]]:
    """Which process this is, and the other flags: the first is needed before the file is run."""
    chosen, rest = tyro.cli(
        dataclasses.make_dataclass("Processes", _PROCESS_FIELDS),
        args=flags,
        prog="python -m jaxcnn.launch",
        return_unknown_args=True,
        add_help=False,
    )
    deadlines = Deadlines(chosen.start_timeout, chosen.lost_after)
    return ProcessFlags(chosen.coordinator, chosen.processes, chosen.process), deadlines, rest


def _trust_sources(experiment: Experiment) -> None:
    """Trusts the code of the runs whose weights it reads. Raises UserError if they are none."""
    taught = distillation_of(experiment.task)
    for source in (experiment.init_from.run, taught and taught.run):
        if source is not None:
            trust_run(pathlib.Path(source))


def _spelled_out(argument: str) -> str:
    """An argument with the long name of its flag, where SHORT has its short one."""
    name, equals, value = argument.partition("=")
    return SHORT.get(name, name) + equals + value


def _choices(function: Callable[..., Any], file: pathlib.Path) -> list[tuple[str, Any, Any]]:
    """(name, type, default) of the arguments of experiment(...), as dataclass fields."""
    taken = {field.name for field in dataclasses.fields(Experiment)}
    taken |= {name for name, *_ in (*_RUN_FIELDS, *_PROCESS_FIELDS)}
    choices = []
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if parameter.default is parameter.empty:
            raise UserError(f"{file}: the argument {name!r} of experiment() needs a default")
        if name in taken:
            raise UserError(f"{file}: the argument {name!r} of experiment() is a flag already; give it another name")
        kind = type(parameter.default) if parameter.annotation is parameter.empty else parameter.annotation
        choices.append((name, kind, dataclasses.field(default=parameter.default)))
    return choices


def _unknown_flag(file: pathlib.Path, flag: str, others: list[str], experiment: Experiment) -> UserError:
    if not flag.startswith("--"):
        return UserError(f"{file}: {flag!r} belongs to no flag; flags are written --name value")
    fields = [name for name in config.flatten(config.encode(experiment)) if not name.endswith("class")]
    known = [*SHORT, *(f"--{name.replace('_', '-')}" for name in [*others, *fields])]
    name = flag.partition("=")[0].replace("_", "-")
    inside = [one for one in known if one.rpartition(".")[2] == name.lstrip("-") and one != name]
    hint = f"; did you mean {' or '.join(map(repr, inside))}?" if inside else did_you_mean(name, known)
    return UserError(f"{file}: no flag {flag}{hint or '; --help lists them all'}")


def _registry() -> tyro.constructors.ConstructorRegistry:
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
        optional = info.type == (duration.Duration | None)
        if info.type is not duration.Duration and not optional:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="{None}|N{epochs|steps|examples}" if optional else "N{epochs|steps|examples}",
            instance_from_str=lambda words: None if optional and words[0] == "None" else duration.parse(words[0]),
            is_instance=lambda value: isinstance(value, duration.Duration) or (optional and value is None),
            str_from_instance=lambda value: [str(value).replace(" ", "")],
        )

    return registry
