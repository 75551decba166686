"""Commands about experiments, by their files: what memory allows, and whether interruptions change a run."""

import dataclasses
import pathlib
import tempfile
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from jaxcnn.commands.output import show, show_lines
from jaxcnn.errors import UserError
from jaxcnn.text import counted


@dataclasses.dataclass(frozen=True)
class FitBatch:
    """The largest batch whose train step fits into the devices' memory; compiles only, reads no image.

    All other flags are the experiment's.
    """

    file: Annotated[pathlib.Path, tyro.conf.Positional]
    """An experiment file."""
    memory: str | None = None
    """Per device, such as 16GiB; default what this machine's devices have."""
    json: bool = False
    """Print JSON."""


def fit_batch(arguments: list[str]) -> None:
    """Runs `jaxcnn fit-batch`."""
    from jaxcnn.flags import parse, with_flags
    from jaxcnn.runs.fit_batch import fit_batch as fit
    from jaxcnn.runs.memory import parse_bytes

    chosen, flags = with_flags(FitBatch, "jaxcnn fit-batch", arguments)
    memory = None if chosen.memory is None else parse_bytes(chosen.memory)
    found = fit(parse(chosen.file, flags).experiment, memory)
    table = Table("batch size", "per device, MiB", f"of {found.limit / 2**20:,.0f} MiB")
    for size, needed in found.needed.items():
        table.add_row(f"{size:,}", f"{needed / 2**20:,.1f}", "fits" if needed <= found.limit else "does not fit")
    show(dataclasses.asdict(found), table, chosen.json)
    if not chosen.json:
        why = f" (there are {counted(found.examples or 0, 'images')})" if found.fits_all_examples else ""
        devices = counted(found.devices, "devices")
        print(f"largest batch {found.batch_size:,}{why} on {devices}, as compiled for {found.platform}")


@dataclasses.dataclass(frozen=True)
class LearningRates:
    """Train for some steps while the learning rate rises, and draw the loss: where to look for a good rate.

    All other flags are the experiment's.
    """

    file: Annotated[pathlib.Path, tyro.conf.Positional]
    """An experiment file."""
    low: float = 1e-6
    """The first rate."""
    high: float = 10.0
    """The last rate."""
    steps: int = 100
    """From the first to the last."""
    out: pathlib.Path = pathlib.Path("lr_range.png")
    """The picture."""
    json: bool = False
    """Print JSON."""


def lr_range(arguments: list[str]) -> None:
    """Runs `jaxcnn lr-range`."""
    from jaxcnn.flags import parse, with_flags
    from jaxcnn.runs.compare import check_plot, write_figure
    from jaxcnn.runs.lr_range import draw
    from jaxcnn.runs.lr_range import lr_range as test

    chosen, flags = with_flags(LearningRates, "jaxcnn lr-range", arguments)
    check_plot(chosen.out, "--out")
    with tempfile.TemporaryDirectory() as folder:
        experiment = parse(chosen.file, flags).experiment
        found = test(experiment, pathlib.Path(folder) / "run", chosen.low, chosen.high, chosen.steps)
    write_figure(draw(found), chosen.out, "--out")
    table = Table("", "learning rate")
    table.add_row("the loss falls the fastest at", f"{found.steepest:.2g}")
    table.add_row("it is the lowest at", f"{found.lowest:.2g}")
    show(dataclasses.asdict(found), table, chosen.json)
    if found.falling:
        show_lines(f"it still falls at {found.rates[-1]:g}: try a higher --high", beside_json=chosen.json)
    show_lines(f"picture {chosen.out}", beside_json=chosen.json)


@dataclasses.dataclass(frozen=True)
class KFold:
    """Train K runs, each on all but one of K parts of a split and tested on that one; every image tests once.

    Classes are spread evenly over the parts. Killed, the same command goes on. All other flags are the experiment's.
    """

    file: Annotated[pathlib.Path, tyro.conf.Positional]
    """An experiment file."""
    folds: int = 5
    """K."""
    split: str = "train"
    """What is cut; the experiment's own splits are not read."""
    workdir: pathlib.Path | None = None
    """The folder of the runs; default runs/NAME_OF_THE_FILE_kfold."""
    json: bool = False
    """Print JSON."""


def k_fold(arguments: list[str]) -> int:
    """Runs `jaxcnn k-fold`. Returns 75 if it was told to stop."""
    from jaxcnn.flags import parse, with_flags
    from jaxcnn.launch import PREEMPTED, set_up_cache
    from jaxcnn.runs.k_fold import SUMMARY
    from jaxcnn.runs.k_fold import k_fold as run
    from jaxcnn.stop import Stop
    from jaxcnn.text import print_plain

    stop, console = Stop(), Console(stderr=True)
    chosen, flags = with_flags(KFold, "jaxcnn k-fold", arguments)
    command = parse(chosen.file, flags)
    set_up_cache(console)
    path = chosen.workdir or pathlib.Path("runs", f"{chosen.file.stem}_kfold")
    found = run(
        command.experiment,
        path,
        file=chosen.file,
        split=chosen.split,
        folds=chosen.folds,
        console=console,
        stop=stop,
        accept_code=command.accept_code,
    )
    if found is None:
        print_plain(console, "stopped; everything is saved; the same command continues")
        return PREEMPTED
    table = Table("figure", "mean", "deviation", "lowest", "highest")
    for name, mean in found.mean.items():
        each = [fold[name] for fold in found.folds if name in fold]
        row = (mean, found.deviation.get(name, float("nan")), min(each), max(each))
        table.add_row(name.replace("_", " "), *(f"{value:.4f}" for value in row))
    show(dataclasses.asdict(found), table, chosen.json)
    told = f"{found.count:,} images of {found.split}, each tested once in {len(found.folds)} folds: {path / SUMMARY}"
    show_lines(told, beside_json=chosen.json)
    return 0


@dataclasses.dataclass(frozen=True)
class BenchInput:
    """Measure how many images a second the training input of an experiment gives on this machine, stage by stage, and
    how many its step takes; name the bottleneck.

    All other flags are the experiment's, --debug too.
    """

    file: Annotated[pathlib.Path, tyro.conf.Positional]
    """An experiment file."""
    seconds: float = 3.0
    """How long each figure is measured, at least."""
    json: bool = False
    """Print JSON."""


def bench_input(arguments: list[str]) -> None:
    """Runs `jaxcnn bench-input`."""
    from jaxcnn.flags import parse, with_flags
    from jaxcnn.runs.bench_input import bench_input as bench

    chosen, flags = with_flags(BenchInput, "jaxcnn bench-input", arguments)
    found = bench(parse(chosen.file, flags).experiment, chosen.seconds)
    table = Table("stage", "images/s", "")
    for name, rate in found.stages.items():
        alone = f"alone, on {counted(found.readers, found.reader)}" if rate else "nothing to do, or with the reading"
        table.add_row(name, f"{rate:,.0f}" if rate else "-", alone)
    table.add_row("all of these", f"{found.host:,.0f}", "as a run reads ahead")
    table.add_row("transfer", f"{found.transfer:,.0f}", "to the device")
    table.add_row("step", f"{found.step:,.0f}", "alone")
    table.add_row("the loop", f"{found.expected:,.0f}", "to be expected")
    show(dataclasses.asdict(found) | {"verdict": found.verdict()}, table, chosen.json)
    if not chosen.json:
        show_lines(f"bottleneck: {found.verdict()}")


@dataclasses.dataclass(frozen=True)
class Probe:
    """How far a linear classifier gets with the features of the net that an experiment begins with: the run's weights
    that it starts from, or random ones. Seconds for hundreds of photos; nothing is trained but that classifier.

    All other flags are the experiment's.
    """

    file: Annotated[pathlib.Path, tyro.conf.Positional]
    """An experiment file, of a classifier."""
    endpoint: str = "final"
    """The map whose mean over all positions is taken; final is what the head reads."""
    keep: pathlib.Path = pathlib.Path("features")
    """The folder in which features are kept, so that they are computed once for the same weights and images."""
    json: bool = False
    """Print JSON."""


def probe(arguments: list[str]) -> None:
    """Runs `jaxcnn probe`."""
    from jaxcnn.flags import parse, with_flags
    from jaxcnn.studies.linear_probe import PENALTIES
    from jaxcnn.studies.linear_probe import probe as measure
    from jaxcnn.studies.probes import SCORE

    chosen, flags = with_flags(Probe, "jaxcnn probe", arguments)
    experiment = parse(chosen.file, flags).experiment
    found = measure(experiment, chosen.endpoint, chosen.keep, lambda line: show_lines(line, beside_json=chosen.json))
    data = experiment.data
    names = (data.train_split, data.evaluation_splits[0], data.tested[0])
    table = Table("split", "images", SCORE, "95% interval")
    for name, count, share in zip(names, found.counts, (found.train, found.validation, found.test), strict=True):
        interval = "{:.4f} to {:.4f}".format(*found.interval) if name == names[2] else ""
        table.add_row(name, f"{count:,}", f"{share:.4f}", interval)
    show(dataclasses.asdict(found), table, chosen.json)
    if not chosen.json:
        edge = "; it is the last one tried" if found.l2 in (PENALTIES[0], PENALTIES[-1]) else ""
        features = counted(found.size, "features")
        show_lines(f"{features} ({chosen.endpoint}); L2 {found.l2:.2g}, chosen by {names[1]}{edge}")


@dataclasses.dataclass(frozen=True)
class ProveResume:
    """Interrupt an experiment at random moments of every phase, go on, and compare with an uninterrupted run.

    All other flags are the experiment's, --debug too.
    """

    file: Annotated[pathlib.Path, tyro.conf.Positional]
    """An experiment file."""
    kills: int = 12
    """Interruptions: the phases start, compile, step, evaluation, save and end in turn."""
    resizes: int = 0
    """Changes of the number of processes of one run, through 4, 2 and 1."""
    devices: tuple[int, ...] = (1, 2)
    """The first is what runs use; every fourth goes on with one of the others."""
    workdir: pathlib.Path | None = None
    """Where the runs are made and left; default a temporary folder."""
    draw: int = 0
    """Seed of the random moments."""


def prove_resume(arguments: list[str]) -> None:
    """Runs `jaxcnn prove-resume`; UserError where an interruption was not survived."""
    from jaxcnn.flags import with_flags
    from jaxcnn.prove import resume

    chosen, flags = with_flags(ProveResume, "jaxcnn prove-resume", arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.workdir or pathlib.Path(temporary)).absolute()
        proofs = resume.prove_resume(
            chosen.file,
            flags,
            folder,
            kills=chosen.kills,
            resizes=chosen.resizes,
            devices=chosen.devices,
            seed=chosen.draw,
        )
    Console().print(resume.proof_table(proofs))
    failed = sum(bool(proof.problem) for proof in proofs)
    if failed:
        raise UserError(f"{failed} of {len(proofs)} interruptions changed the run")
