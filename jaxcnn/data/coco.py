"""COCO's annotations (Lin et al. 2014): one JSON file for all photos of a split, boxes as x, y, width, height."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from jaxcnn.data.box_rules import UNLABELED, Annotations, BoxRules, Note
from jaxcnn.data.boxed import BoxedExamples, class_numbers
from jaxcnn.data.examples import Examples, check_split
from jaxcnn.data.folder import some
from jaxcnn.data.paired_folders import check_channels, refuse
from jaxcnn.data.splits import sliced
from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.files import read_bytes

LARGEST = 2**32
"""Bytes of an annotation file; COCO's own has 470 million."""


@dataclass(frozen=True)
class COCODetection:
    """Photos in a folder and their boxes in a JSON file: COCODetection("coco/{split}2017",
    "coco/annotations/instances_{split}2017.json").

    Where the paths have "{split}" in them, it stands for the split; else split "train" is all of it, to be cut into
    "train[:70%]" and so on (splits.py). Ids of categories may have gaps, as COCO's own do: labels are their places in
    the order of the ids, or in `classes`. What is not as it should be is dealt with by `rules`.
    """

    slices: ClassVar[bool] = True

    images: str
    """The folder of the photos. Both are made absolute at once, so that a stored run finds its images from anywhere."""
    annotations: str
    """The JSON file: {"images": [{id, file_name, width, height}], "annotations": [{id, image_id, category_id, bbox: [x,
    y, width, height], iscrowd}], "categories": [{id, name}]}."""
    classes: tuple[str, ...] | None = None
    """Names of categories, in label order; None: all, in the order of their ids."""
    rules: BoxRules = BoxRules()
    channels: Literal[1, 3] = 3

    def __post_init__(self):
        check_channels(self, self.channels)
        for field in ("images", "annotations"):
            object.__setattr__(self, field, os.path.abspath(os.path.expanduser(getattr(self, field))))

    def open(self, split: str, data_dir: str | None = None) -> Examples:
        """The examples of a split, or of a part of it; `data_dir` is not used."""
        return sliced(self._open, split)

    def _open(self, split: str) -> "COCOExamples":
        if "{split}" not in self.annotations:
            check_split(split, ["train"], f"{self.annotations} without {{split}} in its path")
        file, folder = (path.replace("{split}", split) for path in (self.annotations, self.images))
        if not os.path.isfile(file):
            raise UserError(f"COCODetection: there is no file {file}{_beside(self.annotations)}")
        if not os.path.isdir(folder):
            raise UserError(f"COCODetection: there is no folder {folder} of images; --data.source.images NEW")
        read = _read(file)
        images, dropped = self._images(file, folder, read["images"])
        index_of = {entry["id"]: i for i, entry in enumerate(images)}
        listed = {entry["id"] for entry in read["images"]}
        objects = [each for each in read["annotations"] if each["image_id"] in index_of]
        strangers = [each for each in read["annotations"] if each["image_id"] not in listed]
        if strangers and self.rules.missing == "refuse":
            first = strangers[0]
            raise UserError(
                f"COCODetection: {file}: {len(strangers)} annotations are of images that are not in its list, the "
                f"first is annotation {first.get('id')} of image {first['image_id']}; leave them out by "
                'rules=jc.BoxRules(missing="drop")'
            )
        dropped += [
            Note("boxes of images that are not listed", "dropped", f"annotation {each.get('id')}: dropped")
            for each in strangers
        ]
        ids, names = self._categories(file, read["categories"], objects)
        classes = self.classes or tuple(names)
        kinds = [None if each.get("category_id") is None else ids[each["category_id"]] for each in objects]
        numbers = class_numbers(kinds, [file] * len(kinds), classes, self.rules, f"COCODetection {file}")
        order = np.argsort(np.array([index_of[each["image_id"]] for each in objects], np.int64), kind="stable")
        written = np.array([each["bbox"] for each in objects], float).reshape(-1, 4)
        seen: set[Any] = set()
        twice = np.zeros(len(objects), bool)
        for number, each in enumerate(objects):
            twice[number] = each.get("id") is not None and each["id"] in seen
            seen.add(each.get("id"))
        given = Annotations(
            image=np.array([index_of[each["image_id"]] for each in objects], np.int64),
            boxes=np.concatenate([written[:, :2], written[:, :2] + written[:, 2:]], 1),
            classes=numbers,
            difficult=np.zeros(len(objects), bool),
            crowd=np.array([bool(each.get("iscrowd", 0)) for each in objects], bool),
            written=written,
            flat=np.any(written[:, 2:] <= 0, axis=1),
            names=classes,
            area=_areas(objects, written),
            twice=twice,
        ).chosen(order)
        sizes = np.array([_size(entry) for entry in images], float).reshape(-1, 2)
        paths = [os.path.join(folder, entry["file_name"]) for entry in images]
        name = os.path.basename(os.path.dirname(self.annotations.partition("{split}")[0])) or "coco"
        made = COCOExamples(name, split, paths, sizes, given, self.rules, self.channels, dropped=dropped)
        by_path = {os.fsencode(path): entry["id"] for path, entry in zip(paths, images, strict=True)}
        made.image_ids = np.array([by_path[path] for path in made.files.tolist()])
        by_name = {name: number for number, name in ids.items()}
        made.category_ids = np.array([by_name.get(name, UNLABELED) for name in classes])
        return made

    def _images(self, file: str, folder: str, entries: list[dict]) -> tuple[list[dict], list[Note]]:
        """The entries of images that are there, and what is told of the others."""
        for key in ("id", "file_name"):
            refuse(f"{key}s of images are in {file} twice", _twice(entry[key] for entry in entries))
        there: dict[str, set[str]] = {}
        lacking = []
        for entry in entries:
            head, tail = os.path.split(os.path.join(folder, entry["file_name"]))
            if head not in there:
                there[head] = set(os.listdir(head)) if os.path.isdir(head) else set()
            if tail not in there[head]:
                lacking.append(entry)
        if self.rules.missing == "refuse":
            refuse(f"images of {file} are not in {folder}", [entry["file_name"] for entry in lacking])
        gone = {entry["id"] for entry in lacking}
        notes = [
            Note("images without a file", "dropped", f"{entry['file_name']} is not in {folder}: dropped")
            for entry in lacking
        ]
        return [entry for entry in entries if entry["id"] not in gone], notes

    def _categories(self, file: str, entries: list[dict], objects: list[dict]) -> tuple[dict[Any, str], list[str]]:
        """{id: name}, and the names in the order of the ids."""
        refuse(f"ids of categories are in {file} twice", _twice(entry["id"] for entry in entries))
        refuse(f"names of categories are in {file} twice", _twice(entry["name"] for entry in entries))
        ids = {entry["id"]: str(entry["name"]) for entry in sorted(entries, key=lambda entry: entry["id"])}
        strange = Counter(each["category_id"] for each in objects if each.get("category_id") not in (None, *ids))
        if strange:
            number, count = strange.most_common(1)[0]
            raise UserError(
                f"COCODetection: {file}: {count} annotations are of category {number}, which is not in its list: "
                f"{some([f'{name} {key}' for key, name in ids.items()])}"
            )
        unknown = [name for name in self.classes or () if name not in ids.values()]
        if unknown:
            hint = did_you_mean(unknown[0], ids.values()) or ";"
            raise UserError(
                f"COCODetection: {file} has no category {unknown[0]!r}{hint} it has {some([*ids.values()])}"
            )
        return ids, list(ids.values())


class COCOExamples(BoxedExamples):
    """Boxed examples that know the ids of the file, which results in COCO's form name."""

    image_ids: np.ndarray
    """[N], of the images."""
    category_ids: np.ndarray
    """[classes], of the categories, in label order."""


def _read(file: str) -> dict[str, list[dict]]:
    """A file's three lists. UserError, with the entry, if one of them is not as COCO has it."""
    try:
        found = json.loads(read_bytes(file, LARGEST))
    except (OSError, ValueError) as error:
        raise UserError(f"COCODetection: {file} cannot be read as JSON: {error}") from error
    needed = {
        "images": ("id", "file_name"),
        "annotations": ("image_id", "bbox"),
        "categories": ("id", "name"),
    }
    if not isinstance(found, Mapping) or not all(isinstance(found.get(name), list) for name in needed):
        told = f"has the keys {some([*map(str, found)])}" if isinstance(found, Mapping) else "is a list"
        raise UserError(
            f"COCODetection: {file} {told}, but COCO's instances have lists {', '.join(needed)} (a file of results, or "
            "of captions, has others)"
        )
    for name, keys in needed.items():
        for number, entry in enumerate(found[name]):
            lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if lacking:
                raise UserError(f"COCODetection: {file}: entry {number} of {name} has no {lacking[0]!r}")
    for each in found["annotations"]:
        box = each["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and all(type(value) in (int, float) for value in box)):
            raise UserError(
                f"COCODetection: {file}: annotation {each.get('id')} has the bbox {str(box)[:80]}, but a box is four "
                "numbers: x, y, width, height"
            )
    return {name: found[name] for name in needed}


def _areas(objects: list[dict], written: np.ndarray) -> np.ndarray:
    """Of the objects' segments, as COCO tells sizes; of the box where the file does not say."""
    boxes = written[:, 2:].prod(1).tolist()
    pairs = zip((each.get("area") for each in objects), boxes, strict=True)
    return np.array([area if isinstance(area, int | float) else of_box for area, of_box in pairs], float)


def _size(entry: dict) -> tuple[float, float]:
    height, width = (entry.get(side) or 0 for side in ("height", "width"))
    return (height, width) if height > 0 and width > 0 else (np.nan, np.nan)


def _twice(values: Any) -> list[str]:
    return [str(value) for value, count in Counter(values).items() if count > 1]


def _beside(pattern: str) -> str:
    """What there is in place of {split}."""
    start, marked, end = os.path.basename(pattern).partition("{split}")
    folder = os.path.dirname(pattern)
    if not marked or not os.path.isdir(folder):
        return "; if it moved: --data.source.annotations NEW"
    names = [name for name in sorted(os.listdir(folder)) if name.startswith(start) and name.endswith(end)]
    there = [name[len(start) : len(name) - len(end)] for name in names]
    return f"; for {{split}} there is {some(there)}" if there else f"; {folder} has no file like it"
