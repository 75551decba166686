"""Pascal VOC's folders (Everingham et al. 2010), which other sets of masks and of boxes use too."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np

from jaxcnn.data.box_rules import Annotations, BoxRules, Note
from jaxcnn.data.boxed import BoxedExamples, class_numbers
from jaxcnn.data.examples import Examples, check_split
from jaxcnn.data.folder import some, subfolders
from jaxcnn.data.masks import MaskedExamples, MaskValues
from jaxcnn.data.paired_folders import by_stem, check_channels, refuse
from jaxcnn.data.splits import sliced
from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.files import read_bytes

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Of Pascal VOC, in the order of its masks."""


@dataclass(frozen=True)
class VOCSegmentation:
    """Pascal VOC's layout: PATH/JPEGImages, PATH/SegmentationClass, and PATH/ImageSets/Segmentation/SPLIT.txt with one
    name a line: VOCSegmentation("VOCdevkit/VOC2012").

    Masks are palette images, read as indices; 255, the border of objects, is ignored. Splits are the names of the text
    files, such as train, val and trainval, and parts of these (splits.py). VOC's own test split has no public masks.
    """

    slices: ClassVar[bool] = True

    path: str
    """Made absolute at once, so that a stored run finds its images from anywhere."""
    classes: tuple[str, ...] | None = None
    """Names in the order of the masks' values; None: the lines of PATH/classes.txt, or VOC's 21."""
    channels: Literal[1, 3] = 3

    def __post_init__(self):
        check_channels(self, self.channels)
        object.__setattr__(self, "path", os.path.abspath(os.path.expanduser(self.path)))

    def open(self, split: str, data_dir: str | None = None) -> Examples:
        """The examples of a split, or of a part of it; `data_dir` is not used. Only lists the files: they are read when
        they are asked for.
        """
        return sliced(self._open, split)

    def _open(self, split: str) -> MaskedExamples:
        images, masks, lists = (
            os.path.join(self.path, *parts)
            for parts in (("JPEGImages",), ("SegmentationClass",), ("ImageSets", "Segmentation"))
        )
        for folder in (images, masks, lists):
            if not os.path.isdir(folder):
                raise UserError(
                    f"VOCSegmentation: there is no folder {folder}; expected are PATH/JPEGImages, "
                    "PATH/SegmentationClass and PATH/ImageSets/Segmentation/SPLIT.txt. If it moved: "
                    "--data.source.path NEW"
                )
        splits = [name[:-4] for name in sorted(os.listdir(lists)) if name.endswith(".txt") and name[0] != "."]
        check_split(split, splits, f"VOCSegmentation {lists}")
        file = os.path.join(lists, f"{split}.txt")
        names = _lines(file)
        stems, files, masks_there = dict.fromkeys(names), by_stem(images), by_stem(masks)
        if not names or len(stems) < len(names):
            twice = "" if not names else f": {some(sorted({name for name in names if names.count(name) > 1}))}"
            raise UserError(f"VOCSegmentation: {file} {'has no name' if not names else 'has names twice'}{twice}")
        refuse(f"names of {file} have no image in {images}", [stem for stem in stems if stem not in files])
        refuse(f"images of {file} have no mask in {masks}", [stem for stem in stems if stem not in masks_there])
        classes = self.classes or _classes(self.path, self.path, CLASSES)
        return MaskedExamples(
            os.path.basename(self.path) or "voc",
            split,
            classes,
            [os.path.join(images, files[stem]) for stem in stems],
            [os.path.join(masks, masks_there[stem]) for stem in stems],
            MaskValues(len(classes)),
            self.channels,
        )


@dataclass(frozen=True)
class VOCDetection:
    """Pascal VOC's layout with boxes: PATH/JPEGImages, PATH/Annotations/*.xml and PATH/ImageSets/Main/SPLIT.txt with
    one name a line: VOCDetection("VOCdevkit/VOC2007").

    Splits are the names of the text files, such as trainval and test, and parts of these (splits.py). If PATH holds
    several such sets, a split names one: with PATH "VOCdevkit", "VOC2007/trainval+VOC2012/trainval" is what papers call
    07+12. All annotations are read when a split is opened, photos when they are asked for.

    What is not as it should be is dealt with by `rules`: what they refuse makes a photo a broken one, and a class that
    is not in the list or a name without files stops at once.
    """

    slices: ClassVar[bool] = True

    path: str
    """Made absolute at once, so that a stored run finds its images from anywhere."""
    classes: tuple[str, ...] | None = None
    """In label order; None: the lines of PATH/classes.txt, or VOC's 20. There is no background among them."""
    coordinates: Literal["inclusive", "edges"] = "inclusive"
    """What the numbers mean. "inclusive", as VOC has them: the first pixel is 1 and xmax the last one inside, so that
    the edges are (xmin - 1, ymin - 1, xmax, ymax). "edges", as labelImg and many exporters write them."""
    rules: BoxRules = BoxRules()
    channels: Literal[1, 3] = 3

    def __post_init__(self):
        check_channels(self, self.channels)
        if self.coordinates not in (choices := ("inclusive", "edges")):
            raise UserError(
                f"VOCDetection: coordinates is {self.coordinates!r}{did_you_mean(self.coordinates, choices) or ';'} "
                f"there is {' and '.join(choices)}"
            )
        object.__setattr__(self, "path", os.path.abspath(os.path.expanduser(self.path)))

    def open(self, split: str, data_dir: str | None = None) -> Examples:
        """The examples of a split, or of a part of it; `data_dir` is not used."""
        return sliced(self._open, split)

    def _open(self, split: str) -> BoxedExamples:
        part, _, name = split.rpartition("/")
        root = os.path.join(self.path, part) if part else self.path
        images, annotations, lists = (
            os.path.join(root, *parts) for parts in (("JPEGImages",), ("Annotations",), ("ImageSets", "Main"))
        )
        for folder in (images, annotations, lists):
            if not os.path.isdir(folder):
                raise UserError(f"VOCDetection: there is no folder {folder}; {_expected(self.path)}")
        classes = self.classes or _classes(self.path, root, CLASSES[1:])
        of_class = tuple(f"{each}_" for each in classes)  # Main has lists for each class too, with a column of flags
        splits = [each[:-4] for each in sorted(os.listdir(lists)) if each.endswith(".txt") and each[0] != "."]
        check_split(name, [each for each in splits if not each.startswith(of_class)], f"VOCDetection {lists}")
        names = _names(os.path.join(lists, f"{name}.txt"))
        files = by_stem(images)
        lacking = {each: f"no image in {images}" for each in names if each not in files}
        there = set(os.listdir(annotations))
        lacking |= {each: f"no {each}.xml in {annotations}" for each in names if f"{each}.xml" not in there}
        if lacking and self.rules.missing == "refuse":
            refuse(f"names of {lists}/{name}.txt lack a file (the first: {next(iter(lacking.values()))})", [*lacking])
        dropped = [
            Note("images without a file", "dropped", f"{each} has {why}: dropped") for each, why in lacking.items()
        ]
        names = [each for each in names if each not in lacking]
        paths = [os.path.join(annotations, f"{each}.xml") for each in names]
        with ThreadPoolExecutor(8) as pool:  # a network file system answers each question late
            read = list(pool.map(_read, paths))
        sizes = np.array([each.size for each in read], float).reshape(-1, 2)
        objects = [(i, written) for i, each in enumerate(read) for written in each.objects]
        kinds = class_numbers(
            [written.name for _, written in objects],
            [paths[i] for i, _ in objects],
            classes,
            self.rules,
            f"VOCDetection {root} {name}",
        )
        numbers = np.array([written.box for _, written in objects], float).reshape(-1, 4)
        given = Annotations(
            image=np.array([i for i, _ in objects], np.int64),
            boxes=numbers - ((1, 1, 0, 0) if self.coordinates == "inclusive" else 0),
            classes=kinds,
            difficult=np.array([written.difficult for _, written in objects], bool),
            crowd=np.zeros(len(objects), bool),
            written=numbers,
            flat=np.any(numbers[:, :2] >= numbers[:, 2:], axis=1),
            names=tuple(classes),
        )
        return BoxedExamples(
            os.path.basename(self.path) or "voc",
            split,
            [os.path.join(images, files[each]) for each in names],
            sizes,
            given,
            self.rules,
            self.channels,
            dropped=dropped,
            refused={i: each.wrong for i, each in enumerate(read) if each.wrong},
        )


class _Object(NamedTuple):
    name: str | None
    box: tuple[float, ...]
    difficult: bool


class _Annotation(NamedTuple):
    """What an XML file says; `wrong` says why it cannot be used."""

    size: tuple[float, float] = (np.nan, np.nan)
    objects: tuple[_Object, ...] = ()
    wrong: str = ""


def _read(path: str) -> _Annotation:
    try:
        root = ElementTree.fromstring(read_bytes(path))
        if root.tag != "annotation":
            raise ValueError(f"its first element is <{root.tag}>, and not <annotation>")
        height, width = (float(root.findtext(f"size/{side}") or 0) for side in ("height", "width"))
        objects = tuple(_object(number, each) for number, each in enumerate(root.findall("object")))
    except (OSError, ValueError, ElementTree.ParseError) as error:
        return _Annotation(wrong=f"its annotation {path} cannot be read as one of Pascal VOC: {error}")
    return _Annotation((height, width) if height > 0 and width > 0 else (np.nan, np.nan), objects)


def _object(number: int, element: ElementTree.Element) -> _Object:
    """Raises ValueError, with the number of the object, if it has no box."""
    corners = []
    for corner in ("xmin", "ymin", "xmax", "ymax"):
        text = element.findtext(f"bndbox/{corner}")
        try:
            corners.append(float(text or ""))
        except ValueError:
            told = "has no" if text is None else f"has {text.strip()!r} for its"
            raise ValueError(f"object {number} {told} bndbox/{corner}") from None
    name = (element.findtext("name") or "").strip()
    return _Object(name or None, tuple(corners), (element.findtext("difficult") or "0").strip() not in ("0", ""))


def _names(file: str) -> list[str]:
    """The names in a list of images. UserError if there is none, one is there twice, or it is the list of a class."""
    lines = _lines(file)
    flagged = [line for line in lines if re.fullmatch(r"\S+\s+-?[01]", line)]
    if flagged:
        raise UserError(f"VOCDetection: {file} has a flag behind each name ({flagged[0]}): it is the list of one class")
    twice = sorted({line for line in lines if lines.count(line) > 1}) if len(set(lines)) < len(lines) else []
    if twice or not lines:
        raise UserError(f"VOCDetection: {file} has {f'names twice: {some(twice)}' if twice else 'no name'}")
    return lines


def _expected(path: str) -> str:
    there = subfolders(path) if os.path.isdir(path) else []
    sets = [each for each in there if os.path.isdir(os.path.join(path, each, "ImageSets"))]
    if sets:
        return f"{path} holds {some(sets)}: give one of these folders, or splits such as '{sets[0]}/trainval'"
    return (
        "expected are PATH/JPEGImages, PATH/Annotations and PATH/ImageSets/Main/SPLIT.txt. If it moved: "
        "--data.source.path NEW"
    )


def _classes(path: str, root: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """The lines of classes.txt in one of these folders, else the default."""
    for folder in (root, path):
        file = os.path.join(folder, "classes.txt")
        if os.path.exists(file):
            return tuple(_lines(file))
    return default


def _lines(file: str) -> list[str]:
    """The lines of a text file that are not empty, without space around them."""
    try:
        text = read_bytes(file).decode()
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
