"""Other source: a run's examples from other folders than it was trained on."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxcnn import config
from jaxcnn.data.coco import COCODetection
from jaxcnn.data.examples import Source
from jaxcnn.data.folder import Folder
from jaxcnn.data.paired_folders import PairedFolders
from jaxcnn.data.proposals import WithProposals, without_proposals
from jaxcnn.data.voc import VOCDetection, VOCSegmentation
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment

FLAGS = {"path": "--folder", "images": "--images", "masks": "--masks", "annotations": "--annotations"}
"""Of a source's field, the flag of `jaxcnn evaluate`."""


def source_at(experiment: Experiment, classes: tuple[str, ...], paths: Mapping[str, str]) -> Source:
    """The source of examples at these paths: the run's own elsewhere if it has such fields, else as its task needs.

    Args:
      experiment: the run's.
      classes: the run's.
      paths: {"path": FOLDER}, {"images": ..., "masks": ...} or {"images": ..., "annotations": ...}.

    Raises:
      UserError: the task takes nothing that lies so.
    """
    source: Any = experiment.data.source
    if isinstance(source, WithProposals):  # of the images that lie elsewhere
        return dataclasses.replace(source, source=source_at(_with_source(experiment, source.source), classes, paths))
    if set(_fields(experiment)) == set(paths):
        return dataclasses.replace(source, **paths)
    channels = 1 if experiment.data.image_shape[2] == 1 else 3
    parts = experiment.task.fields(experiment.data.image_shape)
    part = next((name for name in ("mask", "boxes", "label") if name in parts), "")
    match part, sorted(paths):
        case "label", ["path"]:
            return Folder(paths["path"], channels=channels)
        case "mask", ["path"]:
            return VOCSegmentation(paths["path"], _unless_listed(paths["path"], classes), channels)
        case "mask", ["images", "masks"]:
            return PairedFolders(paths["images"], paths["masks"], classes, channels=channels)
        case "boxes", ["path"]:
            return VOCDetection(paths["path"], _unless_listed(paths["path"], classes), channels=channels)
        case "boxes", ["annotations", "images"]:
            return COCODetection(paths["images"], paths["annotations"], classes, channels=channels)
    ways = {
        "label": "--folder FOLDER, with FOLDER/SPLIT/CLASS/*",
        "mask": "--folder FOLDER in Pascal VOC's layout, or --images and --masks, two folders",
        "boxes": "--folder FOLDER in Pascal VOC's layout, or --images and --annotations, a folder and COCO's JSON",
    }
    given = " and ".join(FLAGS[field] for field in paths)
    way = ways.get(part, "the run's own data alone")
    raise UserError(f"{given}: evaluating {type(experiment.task).__name__} takes {way}")


def check_there(run: pathlib.Path, experiment: Experiment) -> None:
    """Raises UserError if the folders of the run's source are not where they were."""
    experiment = _with_source(experiment, without_proposals(experiment.data.source))
    fields = _fields(experiment)
    for field in fields:
        path = getattr(experiment.data.source, field)
        if not os.path.exists(path.partition("{split}")[0] or path):
            flags = " ".join(f"{FLAGS[name]} NEW" for name in fields)
            what = "annotations" if field == "annotations" else "images"
            raise UserError(
                f"{run}: its {what} were in {path}, which is not there now; if they moved: "
                f"jaxcnn evaluate {run} {flags}"
            )


def _fields(experiment: Experiment) -> tuple[str, ...]:
    """The fields of the source that say where its files lie."""
    return config.folder_fields({"data": {"source": config.encode(experiment.data.source)}})


def _with_source(experiment: Experiment, source: Source) -> Experiment:
    return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, source=source))


def _unless_listed(path: str, classes: tuple[str, ...]) -> tuple[str, ...] | None:
    """The run's classes for a folder that does not list its own, which are then compared with the run's."""
    return None if os.path.exists(os.path.join(os.path.expanduser(path), "classes.txt")) else classes
