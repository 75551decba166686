"""COCO results: what a detector finds in photos, in the form that COCO's tools read."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxcnn import files
from jaxcnn.data.coco import COCODetection, COCOExamples
from jaxcnn.data.proposals import without_proposals
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs.prediction import Prediction
from jaxcnn.runs.restore import load_experiment
from jaxcnn.runs.run_directory import RunDirectory


def coco_results(
    predictions: Sequence[Prediction], experiment: Experiment, classes: Sequence[str]
) -> tuple[list[dict[str, Any]], str]:
    """The detections as COCO's results, and a sentence that says whose ids they have.

    Of a run on a COCODetection source, categories have the ids of its file of annotations, and so have the photos that
    are in its list. Otherwise categories are counted from 1 in the order of the labels. A photo that no list has is
    known by its name without the ending, as a number if it is one, as of COCO's own photos.

    Returns:
      [{"image_id", "category_id", "bbox": [x, y, width, height], "score"}] with boxes in pixels of the photo.

    Raises:
      UserError: the annotations cannot be read any more; two photos would have one id.
    """
    numbers = {name: label + 1 for label, name in enumerate(classes)}
    told = "category ids are counted from 1 in the order of the labels: " + ", ".join(
        f"{number} {name}" for name, number in list(numbers.items())[:6]
    )
    listed: dict[str, Any] = {}
    data, source = experiment.data, without_proposals(experiment.data.source)
    if isinstance(source, COCODetection):
        given = "+".join((data.train_split, *data.evaluation_splits, *data.test_splits)).split("+")
        for split in dict.fromkeys(part.partition("[")[0] for part in given):
            examples = source.open(split, data.data_dir)
            if isinstance(examples, COCOExamples):
                numbers = {name: int(number) for name, number in zip(classes, examples.category_ids, strict=True)}
                paths = (os.path.realpath(os.fsdecode(file)) for file in examples.files.tolist())
                listed |= zip(paths, examples.image_ids.tolist(), strict=True)
        told = f"category ids are those of {source.annotations}"
    results, owners = [], {}
    for prediction in predictions:
        number = listed.get(os.path.realpath(prediction.image), _number(prediction.image))
        if owners.setdefault(number, prediction.image) != prediction.image:
            raise UserError(f"{owners[number]} and {prediction.image} would both have the image_id {number!r}")
        for found in prediction.answer.values["detections"]:
            left, top, right, bottom = found["box"]
            box = [left, top, round(right - left, 2), round(bottom - top, 2)]
            results.append(
                {"image_id": number, "category_id": numbers[found["class"]], "bbox": box, "score": found["score"]}
            )
    return results, told


def write_results(file: pathlib.Path, predictions: Sequence[Prediction], run: RunDirectory) -> str:
    """Writes coco_results of a run's answers; returns a line that says so. Raises UserError if that cannot be done."""
    classes = run.environment()["dataset"]["classes"]
    results, told = coco_results(predictions, load_experiment(run), classes)
    try:
        files.write_text(file, files.to_json(results))
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error}") from error
    return f"coco {file}: {len(results)} boxes; {told}"


def _number(image: str) -> int | str:
    stem = os.path.splitext(os.path.basename(image))[0]
    return int(stem) if stem.isascii() and stem.isdigit() else stem
