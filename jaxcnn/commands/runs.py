"""Commands about runs: what a run directory has, and what its net says of data and images."""

import os
import pathlib
from typing import Annotated, Literal, get_args

import tyro

from jaxcnn.commands.output import show, show_failures, show_lines
from jaxcnn.errors import UserError
from jaxcnn.text import table

Run = Annotated[pathlib.Path, tyro.conf.Positional]
Checkpoint = Annotated[str, tyro.conf.arg(help="latest, best or a step.")]
Trust = Annotated[bool, tyro.conf.arg(help="Run the own code of a run that you did not start here; look at it first.")]
ViewsName = Literal["flips", "ten-crop", "dense"]
ExplainMethod = Literal[
    "prediction", "cam", "gradcam", "occlusion", "features", "receptive-field", "filters", "templates"
]


def evaluate(
    run: Run,
    /,
    split: str | None = None,
    checkpoint: Checkpoint = "latest",
    data_dir: str | None = None,
    folder: str | None = None,
    images: str | None = None,
    masks: str | None = None,
    annotations: str | None = None,
    protocol: str | None = None,
    views: ViewsName | None = None,
    sides: str | None = None,
    trust: Trust = False,
    json: bool = False,
) -> None:
    """Evaluate a run on a split; on its own test and evaluation splits the figures are the training's, exactly.

    Args:
      run: A run directory.
      split: A split of the run's data, or a part, such as train[:1000]; default its test and evaluation splits.
      checkpoint: latest, best or a step.
      data_dir: Where prepared TFDS data lies, if not where the run found it.
      folder: Evaluate on the images in FOLDER/SPLIT/CLASS/ instead of the run's data set; those of a segmenter or a
        detector lie there as Pascal VOC's do.
      images: Evaluate on the images in this folder, with --masks or --annotations. {split} in the paths stands for the
        split; without it the split train is all of them.
      masks: The folder of the masks of --images, for segmentation.
      annotations: The boxes of --images, in COCO's JSON.
      protocol: Measure boxes by voc07, voc10 or coco and not as the run did.
      views: Look at each image several times and average the probabilities: flips, ten-crop (crops of training's size)
        or dense (the whole image, fully connected layers as convolutions).
      sides: Of the images for --views, in pixels: 256, or for dense several, 256,384,512; default as the run has it.
      json: Print JSON.
    """
    from jaxcnn.runs.display import result_table
    from jaxcnn.runs.evaluation import evaluate_run
    from jaxcnn.runs.run_directory import open_run

    _trust(run, trust)
    given = {"path": folder, "images": images, "masks": masks, "annotations": annotations}
    paths = {field: path for field, path in given.items() if path is not None}
    _check_sides(views, sides)
    result = evaluate_run(run, split, checkpoint, data_dir, paths, protocol, views, sides)
    show(result, result_table(result, open_run(run).roles()), json)


def predict(
    run: Run,
    images: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional],
    /,
    checkpoint: Checkpoint = "latest",
    ema: bool = False,
    top: int = 5,
    out: pathlib.Path | None = None,
    coco: pathlib.Path | None = None,
    views: ViewsName | None = None,
    sides: str | None = None,
    trust: Trust = False,
    json: bool = False,
) -> int:
    """What a net says about image files: their most probable classes, say, or boxes around the objects in them.

    Exit code 1 if there is an image that cannot be read.

    The net sees what it was trained on: nets of handwritten digits know light ink on a dark ground, so invert a scan of
    dark ink on paper first. What the net sees of an image is on the page of `jaxcnn explain`.

    Args:
      run: A run directory.
      images: Image files of any common format, or folders, for all images in them and in the folders inside.
      checkpoint: latest, best or a step.
      ema: Use the averaged weights.
      top: How many classes a classifier names; how many boxes are printed, of those with a score of at least 0.2.
      out: The folder for the pictures of tasks that draw, such as segmentation; default RUN/predictions.
      coco: Write all boxes to this file in COCO's form for results.
      views: Look at each image several times, as in jaxcnn evaluate.
      sides: Of the images for --views, in pixels.
      json: Print JSON: a list of {"image", "classes": [[name, probability], ...]} (of a classifier), {"image",
        "detections": [{"class", "score", "box": [xmin, ymin, xmax, ymax]}, ...]} (of a detector, every box), or
        {"image", "error"}.
    """
    from jaxcnn.runs.evaluation import check_detects
    from jaxcnn.runs.prediction import Prediction, predict_run
    from jaxcnn.runs.restore import load_experiment
    from jaxcnn.runs.run_directory import open_run
    from jaxcnn.runs.start import PICTURES

    if not images:
        raise UserError("name at least one image file")
    _trust(run, trust)
    if coco is not None:
        check_detects(load_experiment(open_run(run)), "--coco")
    _check_sides(views, sides)
    found = predict_run(run, list(images), checkpoint, averaged=ema, top=top, views=views, sides=sides)
    predictions = [each for each in found if isinstance(each, Prediction)]
    rows = [
        ("" if number else prediction.image, *row)
        for prediction in predictions
        for number, row in enumerate(prediction.answer.rows)
    ]
    value = [
        {"image": each.image} | (each.answer.values if isinstance(each, Prediction) else {"error": each.cause})
        for each in found
    ]
    if predictions or json:
        columns = predictions[0].answer.columns if predictions else ("", "")
        show(value, table(("image", *columns), rows), json)
    if coco is not None:
        from jaxcnn.runs.coco_results import write_results

        show_lines(write_results(coco, predictions, open_run(run)), beside_json=json)
    pictures = [(pathlib.Path(each.image), each.answer.pictures) for each in predictions if each.answer.pictures]
    if pictures:
        from jaxcnn.report.page import save_pictures  # and matplotlib

        show_lines(*save_pictures(pictures, out or run / PICTURES), beside_json=json)
    return show_failures(each.cause for each in found if not isinstance(each, Prediction))


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
    trust: Trust = False,
) -> int:
    """What a net sees in image files, as PNG overlays and a page; filters and templates need no image.

    The page is named after the method, an endpoint that is not the final one, and a class that was asked for; pictures
    after the image too. Exit code 1 if there is an image that cannot be read; the page has the others.

    Args:
      run: A run directory, or what import-weights wrote.
      images: Image files of any common format, or folders, for all images in them and in the folders inside.
      method: What to show.
      class_: A class by name or index; default the predicted one of each image.
      endpoint: The map to look at: a name of `features()`, such as stage3.
      box: Where the object is, left,top,right,bottom in pixels of the image file: prints the IoU with the map's box.
      out: The folder to write to; default RUN/explain.
      checkpoint: latest, best or a step.
      ema: Use the averaged weights.
    """
    from jaxcnn.report.explanation import Question, explain_run

    _trust(run, trust)
    question = Question(method, class_, endpoint, None if box is None else _numbers("--box", box))
    lines, failures = explain_run(run, list(images), question, out, checkpoint=checkpoint, averaged=ema)
    show_lines(*lines)
    return show_failures(failures)


def compare(
    runs: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional],
    /,
    plot: pathlib.Path | None = None,
    json: bool = False,
) -> None:
    """Runs side by side: state, devices, commit, final figures, and the fields in which their configs differ.

    Args:
      runs: Run directories.
      plot: Draw the learning curves into this file (.png, .svg, .pdf).
      json: Print JSON.
    """
    from jaxcnn.runs.compare import check_plot, compare_runs, comparison_table, plot_runs

    if not runs:
        raise UserError("name at least one run directory")
    if plot is not None:
        check_plot(plot)
    once = list({os.path.abspath(run): run for run in runs}.values())
    rows = compare_runs(once)
    show(rows, comparison_table(rows), json)
    if plot is not None:
        plot_runs(once, plot)


def report(run: Run, /, split: str | None = None, data_dir: str | None = None, trust: Trust = False) -> None:
    """Write report.html of a run again: curves, final figures, confusions, mistakes, summary, environment.

    Args:
      run: A run directory, of a finished run or not.
      split: The split whose images are answered; default the first test split, of a run under way the first
        evaluation split.
      data_dir: Where prepared TFDS data lies, if not where the run found it.
    """
    from jaxcnn.report.run import write_report

    _trust(run, trust)
    show_lines(f"page {write_report(run, split=split, data_dir=data_dir)}")


def export(
    run: Run,
    /,
    out: pathlib.Path,
    format: Literal["safetensors", "npz", "jax", "onnx"] | None = None,
    names: str = "jaxcnn",
    checkpoint: Checkpoint = "latest",
    averaged: bool = False,
    batch: int | None = None,
    trust: Trust = False,
) -> None:
    """Write a run's net to one file: its weights, or the whole program.

    Args:
      run: A run directory.
      out: The file. Its ending says the format.
      format: safetensors and npz hold the weights; jax the program, for jax.export without this package, and onnx
        as ONNX's graph.
      names: Of the arrays: jaxcnn, or another library's whose net of this kind loads them, torchvision or timm.
      averaged: The average of the weights.
      batch: How many images a program takes; default any number.
    """
    from jaxcnn.runs.export import Format, export_run, notes_beside

    chosen = format or next((kind for kind in get_args(Format) if out.suffix == f".{kind}"), None)
    if chosen is None:
        raise UserError(f"{out}: name it .safetensors, .npz, .jax or .onnx, or give --format")
    _trust(run, trust)
    found = export_run(run, out, chosen, names=names, checkpoint=checkpoint, averaged=averaged, batch=batch)
    what = f"{found.arrays} arrays by {found.names}'s names" if found.names else "a program"
    notes = f"; notes in {notes_beside(found.file)}" if chosen == "jax" else ""
    show_lines(f"{found.file}: {what}, {found.parameters:,} parameters{notes}")


def replay(run: Run, /, step: int, trust: Trust = False, json: bool = False) -> None:
    """Compute one training step of a run again, such as the one that was not finite, from the checkpoint before it.

    Args:
      run: A run directory.
      step: Counted from 1, as in status.json, skipped.jsonl and metrics.jsonl.
      json: Print JSON.
    """
    from jaxcnn.runs.replay import replay as replay_step

    _trust(run, trust)
    found = replay_step(run, step)
    rows = [
        ("loss", found["loss"]),
        ("grad_norm", found["grad_norm"]),
        ("loss that the run noted", found["recorded"]),
        ("computed from checkpoint", found["from"] or "none: from the start"),
        ("examples", ", ".join(map(str, found["examples"][:16])) + (" ..." * (len(found["examples"]) > 16))),
    ]
    # Text, because JSON has no nan.
    shown = found | {name: repr(found[name]) for name in ("loss", "grad_norm")}
    show(shown, table(("", f"step {step:,}"), rows), json)


def _check_sides(views: str | None, sides: str | None) -> None:
    if sides is not None and views is None:
        raise UserError("--sides is of --views: name them too, such as --views ten-crop")


def _trust(run: pathlib.Path, trust: bool) -> None:
    if trust:
        from jaxcnn.runs.restore import trust_run

        trust_run(run)


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    """ "1,2,3,4" -> (1.0, 2.0, 3.0, 4.0)."""
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise UserError(f"{flag} {text}: give numbers with commas between them") from None
