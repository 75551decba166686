"""The data of --debug has what the experiment's task reads."""

import dataclasses

import numpy as np
import pytest

from jaxcnn import create_model
from jaxcnn.data.digits import Digits
from jaxcnn.data.survey import check
from jaxcnn.data.transforms import HorizontalFlip, PadAndCrop, PadTo, RandomCrop, Resize
from jaxcnn.experiment import Data, Experiment
from jaxcnn.flags import parse
from jaxcnn.runs.batch_shapes import batch_fields
from jaxcnn.runs.debug import debug
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.detection import Detection
from jaxcnn.tasks.segmentation import Segmentation
from tests.tiny_runs import ROOT


@pytest.mark.parametrize(("task", "parts"), [(Classification(), None), (Segmentation(), ("mask",))])
def test_debug_makes_the_parts_that_the_task_reads(task, parts):
    augment = (RandomCrop(40), PadAndCrop(3), HorizontalFlip())
    data = Data((40, 40, 3), source=Digits(), augment=augment, preprocess=(PadTo(40),))
    made = debug(Experiment(create_model("fcn32s_vgg16", classes=4), data, task=task))
    assert made.data.source.parts == parts
    examples = made.data.source.open(made.data.train_split)
    assert check(examples, made.data.augment, batch_fields(made)) == [] and len(examples) > 6


def test_large_images_shrink_if_the_net_takes_any_size_and_the_transforms_make_them():
    """Faster R-CNN's 800x800, with what fits photos into them; YOLO's 448x448 are its fully connected layers' size."""
    made = parse(ROOT / "experiments" / "faster_rcnn_voc.py", ["--debug"]).experiment
    assert made.data.image_shape == (128, 128, 3)
    assert [each.size for each in made.data.preprocess] == [(128, 128)] * 2
    assert [getattr(each, "size", None) for each in made.data.augment] == [(128, 128), None, (128, 128)]
    examples = made.data.source.open(made.data.train_split)
    assert check(examples, made.data.augment, batch_fields(made)) == []
    fixed = Experiment(create_model("yolo_v1_fast", classes=4), Data((448, 448, 3), source=Digits()), task=Detection())
    assert debug(fixed).data.image_shape == (448, 448, 3)
    sizes = {"augment": (Resize((360, 480)),), "preprocess": (PadTo((480, 640)),), "evaluation_shape": (480, 640, 3)}
    data = Data((360, 480, 3), source=Digits(), **sizes)
    both = debug(Experiment(create_model("faster_rcnn_small", classes=4), data, task=Detection())).data
    assert (both.image_shape, both.evaluation_shape) == ((64, 96, 3), (96, 128, 3))
    assert both.preprocess[0].size == (96, 128) and both.augment[0].size == (64, 96)
    stuck = dataclasses.replace(data, evaluation_shape=None, augment=(Stuck(),), preprocess=(Stuck(),))
    assert (
        debug(Experiment(create_model("faster_rcnn_small", classes=4), stuck, task=Detection())).data.image_shape[0]
        == 360
    )


@dataclasses.dataclass(frozen=True)
class Stuck:
    """Makes images of one size, which it does not tell."""

    def __call__(self, image, rng):
        return np.zeros((360, 480, 3), np.uint8)
