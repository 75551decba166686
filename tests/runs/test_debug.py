"""The data of --debug has what the experiment's task reads."""

import pytest

from jaxcnn import create_model
from jaxcnn.data.digits import Digits
from jaxcnn.data.survey import check
from jaxcnn.data.transforms import HorizontalFlip, PadAndCrop, PadTo, RandomCrop
from jaxcnn.experiment import Data, Experiment
from jaxcnn.runs.debug import debug
from jaxcnn.runs.setup import batch_fields
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.segmentation import Segmentation


@pytest.mark.parametrize(("task", "parts"), [(Classification(), None), (Segmentation(), ("mask",))])
def test_debug_makes_the_parts_that_the_task_reads(task, parts):
    augment = (RandomCrop(40), PadAndCrop(3), HorizontalFlip())
    data = Data((40, 40, 3), source=Digits(), augment=augment, preprocess=(PadTo(40),))
    made = debug(Experiment(create_model("fcn32s_vgg16", classes=4), data, task=task))
    assert made.data.source.parts == parts
    examples = made.data.source.open(made.data.train_split)
    assert check(examples, made.data.augment, batch_fields(made)) == [] and len(examples) > 6
