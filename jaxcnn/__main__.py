"""The `jaxcnn` command: what can be asked of finished runs and of data. Training is `python -m jaxcnn.launch FILE`."""

import ast
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from jaxcnn.errors import UserError

Run = Annotated[pathlib.Path, tyro.conf.Positional]
Checkpoint = Annotated[str, tyro.conf.arg(help="latest, best or a step.")]


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
    from jaxcnn.data import imagenet
    from jaxcnn.data.transforms import Normalize
    from jaxcnn.train import import_weights as importing

    prepared = importing.PREPARATIONS.get(name, importing.Preparation())
    normalize = Normalize(mean or prepared.normalize.mean, std or prepared.normalize.std)
    prepared = importing.Preparation(
        resize or prepared.resize, crop or prepared.crop, method or prepared.method, normalize
    )
    if classes is None:
        names = list(imagenet.names())
    elif classes.is_file():
        names = classes.read_text().split("\n")
        names = names[:-1] if names[-1] == "" else names
    else:
        raise UserError(f"{classes}: no such file")
    fields = dict(_assignment(text) for text in set)
    print(importing.import_weights(name, file, out, prepared, names, fields))


def models(pattern: Annotated[str, tyro.conf.Positional] = "*", /) -> None:
    """List the names of the models.

    Args:
      pattern: Such as "vgg*".
    """
    from jaxcnn import list_models

    print("\n".join(list_models(pattern)))


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


COMMANDS: dict[str, Callable[..., None]] = {
    "evaluate": evaluate,
    "predict": predict,
    "compare": compare,
    "import-weights": import_weights,
    "models": models,
}
DATA_COMMANDS: dict[str, Callable[..., None]] = {"prepare": data_prepare, "check": data_check}


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns 0, or 1 after a message; wrong arguments leave through SystemExit(2)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments[:1] == ["data"]:
            _call(DATA_COMMANDS, "jaxcnn data", "Prepare and check data sets.", arguments[1:])
        else:
            _call(COMMANDS | {"data": lambda: None}, "jaxcnn", __doc__, arguments)
    except UserError as error:
        Console(stderr=True).print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        return 1
    return 0


def _call(commands: dict[str, Callable[..., None]], program: str, description: str, arguments: list[str]) -> None:
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands)
    tyro.extras.subcommand_cli_from_dict(
        commands, prog=program, description=description, args=arguments or ["--help"], config=config
    )


def _assignment(text: str) -> tuple[str, Any]:
    """'epsilon=1e-3' -> ("epsilon", 0.001); a value that is no number, bool or tuple is a string."""
    field, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: a field is set as NAME=VALUE")
    try:
        return field, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return field, value


def _show(value: Any, table: Table, as_json: bool) -> None:
    if as_json:
        print(json.dumps(value, indent=2))
    else:
        Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
