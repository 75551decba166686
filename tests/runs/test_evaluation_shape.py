"""Training on crops of images that are evaluated and predicted whole."""

import contextlib

import numpy as np
import pytest
from rich.console import Console

from jaxcnn import config
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.data.transforms import CenterCrop, PadTo, RandomCrop
from jaxcnn.errors import UserError
from jaxcnn.experiment import Checkpoints, Data, Experiment
from jaxcnn.models import FC, create_model
from jaxcnn.runs.debug import debug
from jaxcnn.runs.display import Display
from jaxcnn.runs.evaluation import evaluate_run
from jaxcnn.runs.loop import run
from jaxcnn.runs.prediction import load_net, prepare
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.start import start_run
from jaxcnn.tasks.segmentation import Segmentation
from jaxcnn.train.duration import steps
from tests.tasks.segmenters import Pixelwise

WHOLE, CROP = (12, 10, 3), (6, 6, 3)
SOURCE = Synthetic(image_shape=(10, 10, 3), classes=3, train=24, test=5, parts=("mask",))


def experiment(**data):
    fields = {"evaluation_shape": WHOLE, "augment": (RandomCrop(6),), "preprocess": (PadTo(WHOLE[:2]),)} | data
    return Experiment(
        Pixelwise(3),
        Data(CROP, SOURCE, batch_size=8, **fields),
        task=Segmentation(),
        duration=steps(2),
        evaluate_every=steps(2),
        checkpoints=Checkpoints(best=0),
    )


def test_a_net_is_trained_on_crops_and_evaluated_and_asked_on_whole_images(tmp_path):
    made = experiment()
    plan = make_plan(made)
    with contextlib.ExitStack() as held:
        directory = held.enter_context(start_run(tmp_path / "run", config.encode(made), None, plan.dataset()))
        display = held.enter_context(Display(Console(quiet=True), lines=False))
        assert run(plan, directory, display).state == "done"
    result = directory.result()
    assert result["test"]["count"] == 5 and evaluate_run(tmp_path / "run") == result
    net = load_net(tmp_path / "run")
    examples = SOURCE.open("test", None)
    right = pixels = 0
    for i in range(5):
        image = prepare(examples[i]["image"], net.data, tmp_path)
        assert image.shape == WHOLE
        right += (net.predict(image[None])[0][:10] == examples[i]["mask"]).sum()  # two rows are padded at the end
        pixels += 100
    assert result["test"]["pixel_accuracy"] == pytest.approx(right / pixels)


def test_without_a_shape_of_its_own_evaluation_has_that_of_training():
    data = Data(CROP, SOURCE)
    assert data.shape(evaluated=True) == data.shape(evaluated=False) == CROP
    with pytest.raises(UserError, match=r"the image is \(10, 10, 3\) and after .*\(12, 10, 3\), but .* \(6, 6, 3\)"):
        make_plan(experiment(evaluation_shape=None))


@pytest.mark.parametrize("shape", [(12, 10), (12, 0, 3), (12, 10, 1)])
def test_shapes_that_cannot_be_are_refused(shape):
    with pytest.raises(UserError, match=r"data.evaluation_shape is "):
        experiment(evaluation_shape=shape)


def test_a_net_that_takes_one_size_only_is_refused_before_it_is_compiled():
    model = create_model("mlp", head=FC(classes=3, widths=(4,)))
    source = Synthetic(image_shape=(10, 10, 3), classes=3)
    data = Data(CROP, source, augment=(CenterCrop(6),), evaluation_shape=(10, 10, 3))
    with pytest.raises(UserError, match=r"does not take images of data.evaluation_shape \(10, 10, 3\)"):
        make_plan(Experiment(model, data))


def test_debug_keeps_both_shapes():
    small = debug(experiment())
    example = small.data.source.open("train", None)[0]
    assert example["image"].shape == WHOLE and example["mask"].shape == WHOLE[:2]
    assert np.array_equal(make_plan(small).experiment.data.evaluation_shape, WHOLE)
