"""Image labels: the classes that are in each photo, of a source that has boxes around objects."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxcnn.data.examples import Example, Examples, Source
from jaxcnn.errors import UserError
from jaxcnn.parts import SOURCE, check_part

PASSED_ON = ("noted", "notes", "dropped", "refused", "files")
"""What examples may have beside what they must, and what is true of these too."""


@dataclass(frozen=True)
class ImageLabels:
    """The examples of a source with boxes, with "labels", the classes of its objects, in the place of the boxes.

    A class of which all objects in an image are difficult, or crowds, is "unsure" there, as in the lists of Pascal
    VOC's classification challenge (0 beside 1 and -1 in ImageSets/Main/CLASS_SPLIT.txt). Transforms do not change
    labels: a crop keeps those of the whole image.

    Example: ImageLabels(VOCDetection("VOCdevkit/VOC2007"))
    """

    source: Source

    def __post_init__(self):
        check_part("ImageLabels.source", self.source, SOURCE)

    def open(self, split: str, data_dir: str | None = None) -> "LabeledExamples":
        """The examples of a whole split."""
        return LabeledExamples(self.source.open(split, data_dir))


class LabeledExamples:
    def __init__(self, examples: Examples):
        self.name, self.version, self.split = examples.name, examples.version, examples.split
        self.classes, self.examples = examples.classes, examples

    def __getattr__(self, name: str) -> Any:
        if name in PASSED_ON:  # as far as the source knows it
            return getattr(self.examples, name)
        raise AttributeError(name)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int) -> Example:
        example = self.examples[i]
        if "classes" not in example:
            raise UserError(f"{self.where(i)}: ImageLabels reads the classes of boxes, and the source gives no boxes")
        classes = np.asarray(example["classes"])
        odd = np.zeros(len(classes), bool)
        for flag in ("difficult", "crowd"):
            odd |= np.asarray(example.get(flag, odd))
        labels = np.unique(classes[~odd]).astype(np.int32)
        unsure = np.setdiff1d(classes[odd], labels).astype(np.int32)
        return {"image": example["image"], "labels": labels, "unsure": unsure}

    def where(self, i: int) -> str:
        return self.examples.where(i)
