"""Run: report.html of a run directory: curves, final figures, confusions, confident mistakes, summary, environment."""

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import markupsafe
import numpy as np
from PIL import Image

from jaxcnn import config
from jaxcnn.data import imagenet
from jaxcnn.errors import UserError
from jaxcnn.explain import overlay
from jaxcnn.explain.confusion import confusion_matrix
from jaxcnn.report.detections import DetectedSplit, curves_figure, detect_split
from jaxcnn.report.localizations import LocalizedSplit, localize_split
from jaxcnn.report.page import jpeg, png, svg, write_page
from jaxcnn.report.predictions import IMAGES, SECONDS, Predictions, Shown, predict_split, show
from jaxcnn.runs.compare import commit_of, curves, devices_of, panels_of
from jaxcnn.runs.display import result_names
from jaxcnn.runs.prediction import load_net
from jaxcnn.runs.restore import load_experiment, other_data
from jaxcnn.runs.run_directory import REPORT, RunDirectory, labeled, open_run
from jaxcnn.runs.setup import open_evaluations
from jaxcnn.summary.summary import Summary, summarize
from jaxcnn.summary.table import cells, fold
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.detection import CERTAIN
from jaxcnn.tasks.localization import RIGHT, Localization
from jaxcnn.tasks.task import Detecting

FULL_MATRIX = 20
"""Up to so many classes the confusion matrix is a table of numbers, with more a picture and its largest entries."""
LARGEST = 20
"""How many of these."""
PICTURE = 400
"""Side of the picture of a confusion matrix, in pixels."""
MANY = 1_000
"""With more classes than these, those that do not occur in the predictions have no row of precision and recall."""
DEEP = 60
"""A summary with more layers has a row per block of the backbone."""
THUMBNAIL = 128
LARGE = 320
"""Sides, in pixels: of an image that a class is told of, and of one in which the answer itself is a picture."""


def write_report(
    path: pathlib.Path,
    *,
    split: str | None = None,
    data_dir: str | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> pathlib.Path:
    """Writes report.html of a run directory, finished or not, and returns its path.

    The figures and curves are the run's own. The confusions and mistakes come from predicting examples of a split again
    with the newest checkpoint, within the bounds of predictions.py; where that is not possible, because the data is not
    there any more, the page says why.

    Args:
      path: the run directory.
      split: the one to predict, default the first test split, of a run under way the first evaluation split, since
        no test split is read before the end.
      data_dir: where prepared TFDS data lies, if not where the run found it.
      stop: asked after every batch of predictions, to leave it at those.

    Raises:
      UserError: this is no run, it cannot be written, or there is no `split` of this name.
    """
    directory = open_run(path)
    experiment, lines = load_experiment(directory), directory.metrics()
    environment = directory.environment()
    classes = [imagenet.described(name) for name in environment["dataset"]["classes"]]
    answered = _answered(directory, split, data_dir, stop)
    predictions, detected = answered.predictions, answered.detected
    summary, uncounted = _summary(experiment)
    page = directory.path / REPORT
    write_page(
        page,
        "run.html",
        title=directory.path.name,
        status=directory.status(),
        result={labeled(split, directory.roles()): metrics for split, metrics in directory.result().items()},
        selection=directory.selection(),
        tested=experiment.data.tested,
        names=result_names(directory.result()),
        curves=[
            svg(curves({"": lines}, (name,)), f"{name} by step")
            for name in (*panels_of(lines), "learning_rate")
            if lines
        ],
        speed=_speed(lines),
        classes=classes,
        predictions=predictions,
        missing=answered.missing,
        classifies=isinstance(experiment.task, Classification),
        shown=[_shown(each) for each in answered.shown],
        drawn=any(each.truth is not None for each in answered.shown),
        detected=detected,
        localized=answered.localized,
        enough=RIGHT,
        certain=CERTAIN,
        detected_curves=svg(curves_figure(detected), "Precision by recall of each class") if detected else None,
        photo=_photo,
        bounds=f"at most {IMAGES:,} images and about {SECONDS} seconds",
        matrix=_matrix(predictions, classes) if predictions else None,
        per_class=_per_class(predictions, classes) if predictions else None,
        mistakes=_mistakes(predictions, classes) if predictions else None,
        summary=summary,
        uncounted=uncounted,
        layers=_layers(summary) if summary else None,
        environment=_environment(environment),
        config=config.flatten(directory.config()),
    )
    return page


@dataclasses.dataclass(frozen=True)
class _Answered:
    """What the net says of images of a split: a classifier's predictions, a detector's detections, a localizer's boxes,
    what any other net says of some of them; or why there is nothing."""

    predictions: Predictions | None = None
    detected: DetectedSplit | None = None
    localized: LocalizedSplit | None = None
    shown: list[Shown] = dataclasses.field(default_factory=list)
    missing: str = ""


def _answered(directory: RunDirectory, split: str | None, data_dir: str | None, stop: Callable[[], bool]) -> _Answered:
    if jax.process_count() > 1:
        return _Answered(
            missing="this page was written by one of several processes; `jaxcnn report` on one machine adds this part"
        )
    experiment = load_experiment(directory)
    data = experiment.data
    tests = data.test_splits if directory.status().get("state") == "done" else ()
    names = (*tests, *data.evaluation_splits) if split is None else (split,)
    if not names:
        return _Answered(missing="the run has no split to evaluate, or none yet")
    if data_dir is not None:
        experiment = dataclasses.replace(experiment, data=dataclasses.replace(data, data_dir=data_dir))
    try:
        (examples,) = open_evaluations(experiment, names[:1]).values()
        net = load_net(directory.path)
        if examples.classes != net.classes:
            return _Answered(
                missing=f"{examples.name}/{examples.split} has other classes now than the run was trained on"
            )
        if told := other_data(directory, examples):
            return _Answered(missing=told)
        if isinstance(experiment.task, Classification):
            return _Answered(predictions=predict_split(net, examples, stop))
        detected = detect_split(net, examples, stop) if isinstance(experiment.task, Detecting) else None
        localized = localize_split(net, examples, stop) if isinstance(experiment.task, Localization) else None
        return _Answered(detected=detected, localized=localized, shown=show(net, examples))
    except UserError as error:
        if split is not None:  # asked for by name
            raise
        return _Answered(missing=str(error))


def _summary(experiment: Any) -> tuple[Summary | None, str]:
    try:
        return summarize(experiment.model, experiment.data.image_shape), ""
    except (UserError, NotImplementedError) as error:  # a net of the user's own may do what trace.py cannot count
        return None, str(error)


def _speed(lines: list[dict[str, Any]]) -> float | None:
    """The median of the logged images per second in training."""
    speeds = [line["examples_per_second"] for line in lines if "examples_per_second" in line]
    return float(np.median(speeds)) if speeds else None


def _matrix(predictions: Predictions, classes: list[str]) -> dict[str, Any]:
    """The confusion matrix as rows of (count, share of the row), or as a picture with its largest entries.

    With more classes than pixels each pixel is a block of classes: what is made does not grow with the classes.
    """
    if len(classes) <= FULL_MATRIX:
        matrix = confusion_matrix(predictions.labels, predictions.predicted, len(classes))
        shares = _shares(matrix)
        return {"rows": [list(zip(*row, strict=True)) for row in zip(matrix.tolist(), shares.tolist(), strict=True)]}
    block = -(-len(classes) // PICTURE)
    blocks = confusion_matrix(predictions.labels // block, predictions.predicted // block, -(-len(classes) // block))
    picture = overlay.enlarge(overlay.map_image(_shares(blocks)), overlay.zoom(len(blocks), PICTURE))
    wrong = predictions.labels != predictions.predicted
    pairs = predictions.labels[wrong] * len(classes) + predictions.predicted[wrong]
    found, counts = np.unique(pairs, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:LARGEST]
    return {
        "picture": png(picture, "Confusion matrix", class_="pixels"),
        "block": block,
        "largest": [(*(classes[i] for i in divmod(int(found[k]), len(classes))), int(counts[k])) for k in order],
    }


def _shares(matrix: np.ndarray) -> np.ndarray:
    """Each row over its sum."""
    return matrix / np.maximum(matrix.sum(1, keepdims=True), 1)


def _per_class(predictions: Predictions, classes: list[str]) -> list[tuple[str, int, str, str]]:
    """(class, examples, precision, recall) of the classes that occur, as true or predicted, if there are many."""
    text = lambda value: "–" if math.isnan(value) else f"{value:.1%}"  # noqa: E731, RUF001
    right, actual, predicted = (
        np.bincount(values, minlength=len(classes))
        for values in (
            predictions.labels[predictions.labels == predictions.predicted],
            predictions.labels,
            predictions.predicted,
        )
    )
    ratio = lambda counts: np.divide(right, counts, out=np.full(len(classes), np.nan), where=counts > 0)  # noqa: E731
    rows = zip(classes, actual, predicted, ratio(predicted), ratio(actual), strict=True)
    many = len(classes) > MANY
    return [(name, int(n), text(p), text(r)) for name, n, m, p, r in rows if n or m or not many]


def _mistakes(predictions: Predictions, classes: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "image": _thumbnail(mistake.image, f"{classes[mistake.label]} taken for {classes[mistake.predicted]}"),
            "label": classes[mistake.label],
            "predicted": classes[mistake.predicted],
            "probability": mistake.probability,
            "where": mistake.where,
        }
        for mistake in predictions.mistakes
    ]


def _shown(shown: Shown) -> dict[str, Any]:
    """The image, or its truth, its first picture, and the rows."""
    first = (shown.image, shown.where) if shown.truth is None else (shown.truth, f"{shown.where}: the truth")
    pictures = [first, *((picture, shown.where) for picture in list(shown.answer.pictures.values())[:1])]
    return {
        "pictures": [_thumbnail(picture, told, LARGE) for picture, told in pictures],
        "rows": shown.answer.rows,
        "where": shown.where,
    }


def _photo(image: np.ndarray, description: str) -> markupsafe.Markup:
    small = Image.fromarray(image)
    small.thumbnail((LARGE, LARGE))
    return jpeg(np.asarray(small), description)


def _thumbnail(image: np.ndarray, description: str, side: int = THUMBNAIL) -> markupsafe.Markup:
    if max(image.shape[:2]) > side:
        small = Image.fromarray(overlay.rgb(image))
        small.thumbnail((side, side))
        return png(np.asarray(small), description)
    return png(image, description, class_="pixels")


def _layers(summary: Summary) -> list[list[str]]:
    return [cells(layer) for layer in fold(summary.layers, 2 if len(summary.layers) > DEEP else None)]


def _environment(environment: dict[str, Any]) -> dict[str, str]:
    dataset = environment["dataset"]
    splits = ", ".join(f"{name} {count:,}" for name, count in dataset["splits"].items())
    rows = {
        "commit": commit_of(environment),
        "devices": devices_of(environment),
        "data": " ".join(filter(None, (dataset["name"], dataset["version"], splits and f"({splits})"))),
        "label hash": dataset["label_hash"],
        "machine": f"{environment['platform']}, {environment['cpus']} CPUs",
        "python": environment["python"],
        "versions": ", ".join(f"{name} {version}" for name, version in environment["versions"].items()),
        "variables": ", ".join(f"{name}={value}" for name, value in environment["variables"].items()),
        "starts": str(1 + len(environment.get("resumed", []))),
    }
    return {name: value for name, value in rows.items() if value}
