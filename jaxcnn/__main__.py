"""The `jaxcnn` command: questions to models, finished runs and data. Training is `python -m jaxcnn.launch FILE`."""

import ast
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console, RenderableType
from rich.table import Table

from jaxcnn.errors import UserError, did_you_mean

Run = Annotated[pathlib.Path, tyro.conf.Positional]
Checkpoint = Annotated[str, tyro.conf.arg(help="latest, best or a step.")]
ExplainMethod = Literal["cam", "gradcam", "occlusion", "features", "receptive-field", "filters", "templates"]


def evaluate(
    run: Run,
    /,
    split: str | None = None,
    checkpoint: Checkpoint = "latest",
    data_dir: str | None = None,
    folder: str | None = None,
    json: bool = False,
) -> None:
    """Evaluate a run on a split; on its own evaluation splits the figures are the training's, exactly.

    Args:
      run: A run directory.
      split: A split of the run's data; default its evaluation splits.
      checkpoint: latest, best or a step.
      data_dir: Where prepared TFDS data lies, if not where the run found it.
      folder: Evaluate on the images in FOLDER/SPLIT/CLASS/ instead of the run's data set.
      json: Print JSON.
    """
    from jaxcnn.train.evaluate import evaluate_run
    from jaxcnn.train.progress import result_table

    result = evaluate_run(run, split, checkpoint, data_dir, folder)
    _show(result, result_table(result), json)


def predict(
    run: Run,
    images: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional],
    /,
    checkpoint: Checkpoint = "latest",
    ema: bool = False,
    top: int = 5,
    json: bool = False,
) -> None:
    """The most probable classes of image files, by name.

    Args:
      run: A run directory.
      images: Image files of any common format.
      checkpoint: latest, best or a step.
      ema: Use the averaged weights.
      top: How many classes.
      json: Print JSON: a list of {"image", "classes": [[name, probability], ...]}.
    """
    from jaxcnn.train.predict import predict_run

    if not images:
        raise UserError("name at least one image file")
    predictions = predict_run(run, list(images), checkpoint, averaged=ema, top=top)
    table = Table("image", "class", "probability")
    for prediction in predictions:
        for place, (name, probability) in enumerate(prediction.spoken()):
            table.add_row("" if place else prediction.image, name, f"{probability:.4f}", end_section=False)
    _show([{"image": p.image, "classes": p.classes} for p in predictions], table, json)


def explain(
    run: Run,
    images: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional] = (),
    /,
    *,
    method: ExplainMethod,
    class_: Annotated[str | None, tyro.conf.arg(name="class", metavar="NAME")] = None,
    endpoint: str = "final",
    box: Annotated[str | None, tyro.conf.arg(metavar="L,T,R,B")] = None,
    out: pathlib.Path | None = None,
    checkpoint: Checkpoint = "latest",
    ema: bool = False,
) -> None:
    """What a net sees in image files, as PNG overlays and a page; filters and templates need no image.

    Args:
      run: A run directory, or what import-weights wrote.
      images: Image files of any common format.
      method: What to show.
      class_: A class by name or index; default the predicted one of each image.
      endpoint: The map to look at: a name of `features()`, such as stage3.
      box: Where the object is, left,top,right,bottom in pixels of the image file: prints the IoU with the map's box.
      out: The folder to write to; default RUN/explain.
      checkpoint: latest, best or a step.
      ema: Use the averaged weights.
    """
    from jaxcnn.report.explanation import Question, explain_run

    question = Question(method, class_, endpoint, None if box is None else _numbers("--box", box))
    _print_lines(explain_run(run, list(images), question, out, which=checkpoint, averaged=ema))


def kernels(
    images: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional],
    /,
    out: pathlib.Path = pathlib.Path("kernels"),
    sizes: tuple[int, ...] = (2, 4, 8),
) -> None:
    """Classic 3x3 kernels and max, average and min pooling on image files, as PNG files and a page.

    Args:
      images: Image files of any common format.
      out: The folder to write to.
      sizes: Sides of the pooling windows, in pixels.
    """
    from jaxcnn.report.kernels import show_kernels

    if not images:
        raise UserError("name at least one image file")
    _print_lines([f"page {show_kernels(list(images), out, sizes)}"])


def compare(
    runs: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional],
    /,
    plot: pathlib.Path | None = None,
    json: bool = False,
) -> None:
    """Runs side by side: state, final figures, and the fields in which their configs differ.

    Args:
      runs: Run directories.
      plot: Draw the learning curves into this file (.png, .svg, .pdf).
      json: Print JSON.
    """
    from jaxcnn.train.compare import compare_runs, comparison_table, plot_runs

    if not runs:
        raise UserError("name at least one run directory")
    rows = compare_runs(list(runs))
    _show(rows, comparison_table(rows), json)
    if plot is not None:
        plot_runs(list(runs), plot)


def report(run: Run, /, split: str | None = None, data_dir: str | None = None) -> None:
    """Write report.html of a run again: curves, final figures, confusions, mistakes, summary, environment.

    Args:
      run: A run directory, of a finished run or not.
      split: The split whose images are answered; default the first of the run's evaluation splits.
      data_dir: Where prepared TFDS data lies, if not where the run found it.
    """
    from jaxcnn.report.run import write_report

    _print_lines([f"page {write_report(run, split=split, data_dir=data_dir)}"])


def import_weights(
    name: Annotated[str, tyro.conf.Positional],
    file: Annotated[pathlib.Path, tyro.conf.Positional],
    /,
    out: pathlib.Path,
    resize: int | None = None,
    crop: int | None = None,
    method: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    classes: pathlib.Path | None = None,
    set: tuple[str, ...] = (),
) -> None:
    """Write a run directory from a state dict of torchvision or timm, for predict, evaluate and --init-from.run.

    Args:
      name: A model of `jaxcnn models`.
      file: A .pth (needs PyTorch) or .safetensors file (needs safetensors).
      out: The run directory to write.
      resize: Shorter side of the image before the crop; default what the reference uses, as for the next four.
      crop: Side of the central crop.
      method: bilinear, bicubic, ...
      mean: Per channel, in units of 0..255.
      std: Per channel, in units of 0..255.
      classes: A text file with a class name per line; default the 1,000 classes of ImageNet.
      set: Fields of the model, such as padding=tf epsilon=1e-3.
    """
    from jaxcnn.train import import_weights as importing

    prepared = importing.preparation(name, resize=resize, crop=crop, method=method, mean=mean, std=std)
    fields = dict(_assignment(text) for text in set)
    print(importing.import_weights(name, file, out, prepared, importing.class_names(classes), fields))


def summary(
    name: Annotated[str, tyro.conf.Positional],
    /,
    image_size: int | None = None,
    classes: int | None = None,
    depth: int | None = None,
    json: bool = False,
) -> None:
    """A model's layers with shapes, parameters, multiply-adds and receptive fields; counted, not run.

    Args:
      name: A name that `jaxcnn models` lists.
      image_size: Side of the square images; default the paper's input.
      classes: Number of logits; default the paper's.
      depth: One line per module of this depth: 1 is backbone and head, 2 their blocks; default one per layer.
      json: Print JSON.
    """
    from jaxcnn import create_model
    from jaxcnn.explain.summary import input_shape, summarize
    from jaxcnn.explain.table import size, summary_json, summary_table
    from jaxcnn.models.catalogue import CATALOGUE

    model = create_model(name, classes)
    counted = summarize(model, input_shape(name, image_size))
    entry = CATALOGUE[name]
    year = f" ({entry.year})" if entry.year else ""
    title = f"{name}, {size(counted.input_shape)}\n{entry.paper}{year}"
    width = Console().width
    _show(summary_json(counted), summary_table(counted, title, depth=depth, width=width), json)


def models(
    pattern: Annotated[str, tyro.conf.Positional] = "*",
    /,
    names: bool = False,
    markdown: bool = False,
    json: bool = False,
    update: pathlib.Path | None = None,
) -> None:
    """The models: paper, input, parameters, multiply-adds and published accuracy.

    Args:
      pattern: Such as "vgg*".
      names: Print the names only, sorted.
      markdown: Print Markdown.
      json: Print JSON.
      update: Write the Markdown between the markers in this file, as in README.md.
    """
    from jaxcnn.explain import overview
    from jaxcnn.models import MODELS, list_models

    chosen = list_models(pattern)
    if not chosen:
        raise UserError(f"no model matches {pattern!r}{did_you_mean(pattern, MODELS)}")
    if names:
        print("\n".join(chosen))
        return
    rows = overview.overview(name for name in MODELS if name in chosen)
    if update is not None:
        overview.update(update, rows)
    elif markdown:
        print(overview.markdown(rows))
    else:
        _show([dataclasses.asdict(row) for row in rows], overview.overview_table(rows, Console().width), json)


def data_prepare(name: Annotated[str, tyro.conf.Positional], /, data_dir: str | None = None) -> None:
    """Download and prepare a TFDS data set, once; training never does.

    Args:
      name: Such as fashion_mnist or imagenet2012.
      data_dir: Where to; default TFDS_DATA_DIR, else TFDS's own.
    """
    from jaxcnn.data.tfds import prepare

    print(prepare(name, data_dir))


def data_check(file: Annotated[pathlib.Path, tyro.conf.Positional], /, data_dir: str | None = None) -> None:
    """Read every example that an experiment uses, and list the broken ones.

    Args:
      file: An experiment file.
      data_dir: Where prepared TFDS data lies.
    """
    from jaxcnn.data.examples import check
    from jaxcnn.launch import parse

    data = parse(file, []).experiment.data
    console, found = Console(), 0
    for split in dict.fromkeys((data.train_split, *data.evaluation_splits)):
        examples = data.source.open(split, data_dir or data.data_dir)
        broken = check(examples)
        found += len(broken)
        console.print(f"{examples.name} {split}: {len(examples):,} images, {len(broken)} broken", highlight=False)
        for error in broken:
            console.print(f"  {error}", highlight=False, markup=False, soft_wrap=True)
    if found:
        raise UserError(f"{found} broken images")


def doctor(
    workdir: pathlib.Path = pathlib.Path("runs"),
    data_dir: str | None = None,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    start_timeout: float = 300.0,
    json: bool = False,
) -> int:
    """The checks before a run, alone: devices, versions, disk, cache, data, and the way to other processes.

    Run it where a run would: in a shell, or as `srun jaxcnn doctor` on the nodes of a job.

    Args:
      workdir: Where run directories will be.
      data_dir: Where prepared TFDS data lies.
      coordinator: HOST:PORT of process 0, where no scheduler tells.
      processes: How many processes; 1 ignores the scheduler.
      process: Which of them this is, from 0.
      start_timeout: Seconds for the slowest process to start.
      json: Print JSON.
    """
    import os

    from jaxcnn.cluster.doctor import examine, findings_table
    from jaxcnn.cluster.join import Deadlines, join
    from jaxcnn.cluster.place import Flags
    from jaxcnn.launch import set_up_cache

    deadlines = Deadlines(start_timeout, start_timeout)
    company = join(os.environ, Flags(coordinator, processes, process), deadlines)
    set_up_cache(Console(stderr=True))
    findings = list(examine(company, deadlines, workdir, data_dir))
    failed = [finding for finding in findings if finding.state == "fail"]
    if company.place.index == 0 or failed:
        _show([dataclasses.asdict(finding) for finding in findings], findings_table(findings), json)
    message = "; ".join(finding.found for finding in failed)
    if company.watch is not None:
        company.leave(1 if failed else 0, message)
    return 1 if failed else 0


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
    import tempfile

    from jaxcnn.prove import resume

    arguments = arguments or ["--help"]
    chosen, flags = tyro.cli(
        ProveResume,
        args=arguments,
        prog="jaxcnn prove-resume",
        return_unknown_args=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
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


COMMANDS: dict[str, Callable[..., int | None]] = {
    "doctor": doctor,
    "evaluate": evaluate,
    "predict": predict,
    "explain": explain,
    "kernels": kernels,
    "compare": compare,
    "report": report,
    "import-weights": import_weights,
    "models": models,
    "summary": summary,
}
DATA_COMMANDS: dict[str, Callable[..., int | None]] = {"prepare": data_prepare, "check": data_check}


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns 0, or 1 after a message; wrong arguments leave through SystemExit(2)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments[:1] == ["prove-resume"]:
            prove_resume(arguments[1:])
        elif arguments[:1] == ["data"]:
            _call(DATA_COMMANDS, "jaxcnn data", "Prepare and check data sets.", arguments[1:])
        else:
            return _call(COMMANDS | {"data": lambda: None, "prove-resume": lambda: None}, "jaxcnn", __doc__, arguments)
    except UserError as error:
        Console(stderr=True).print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        return 1
    return 0


def _call(commands: dict[str, Callable[..., int | None]], program: str, description: str, arguments: list[str]) -> int:
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands)
    code = tyro.extras.subcommand_cli_from_dict(
        commands, prog=program, description=description, args=arguments or ["--help"], config=config
    )
    return code or 0


def _assignment(text: str) -> tuple[str, Any]:
    """'epsilon=1e-3' -> ("epsilon", 0.001); a value that is no number, bool or tuple is a string."""
    field, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: a field is set as NAME=VALUE")
    try:
        return field, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return field, value


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    """ "1,2,3,4" -> (1.0, 2.0, 3.0, 4.0)."""
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise UserError(f"{flag} {text}: give numbers with commas between them") from None


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        Console().print(line, highlight=False, markup=False, soft_wrap=True)


def _show(value: Any, table: RenderableType, as_json: bool) -> None:
    if as_json:
        print(json.dumps(value, indent=2))
    else:
        Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
