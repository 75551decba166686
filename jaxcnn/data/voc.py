"""Pascal VOC's folders (Everingham et al. 2010), which other sets of masks use too."""

import os
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxcnn.data.examples import Examples, check_split
from jaxcnn.data.folder import some
from jaxcnn.data.masks import MaskedExamples, MaskValues
from jaxcnn.data.paired_folders import by_stem, check_channels, refuse
from jaxcnn.data.splits import sliced
from jaxcnn.errors import UserError
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
        classes = self._classes()
        return MaskedExamples(
            os.path.basename(self.path) or "voc",
            split,
            classes,
            [os.path.join(images, files[stem]) for stem in stems],
            [os.path.join(masks, masks_there[stem]) for stem in stems],
            MaskValues(len(classes)),
            self.channels,
        )

    def _classes(self) -> tuple[str, ...]:
        if self.classes is not None:
            return self.classes
        file = os.path.join(self.path, "classes.txt")
        return tuple(_lines(file)) if os.path.exists(file) else CLASSES


def _lines(file: str) -> list[str]:
    """The lines of a text file that are not empty, without space around them."""
    try:
        text = read_bytes(file).decode()
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
