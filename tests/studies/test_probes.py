"""Each probe against the same figure computed from the checkpoint's variables by hand."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from rich.console import Console

from jaxcnn import config, create_model
from jaxcnn.data.digits import Digits
from jaxcnn.data.transforms import CenterCrop, Resize
from jaxcnn.errors import UserError
from jaxcnn.runs.display import Display
from jaxcnn.runs.loop import run
from jaxcnn.runs.restore import load_run
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.start import start_run
from jaxcnn.studies.probes import Cost, Cropped, Generalization, Shifted, WithoutBlocks, deletable
from jaxcnn.studies.recipes import changed, digits
from jaxcnn.train.duration import epochs


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small residual net after three epochs on the digits."""
    model = create_model("resnet20_cifar", depth=(2, 1), width=0.5)
    experiment = changed(digits(model), learning_rate=0.1, duration=epochs(3), train_split="train[:600]")
    plan = make_plan(experiment)
    path = tmp_path_factory.mktemp("run")
    quiet = Display(Console(quiet=True), lines=False)
    with start_run(path, config.encode(experiment), None, plan.dataset()) as directory, quiet as display:
        outcome = run(plan, directory, display)
    assert outcome.result["test"]["accuracy"] > 0.5
    return load_run(path)


def read(split):
    examples = Digits().open(split)
    items = [examples[i] for i in range(len(examples))]
    return np.stack([item["image"] for item in items]), np.array([item["label"] for item in items])


def logits(saved, images, params=None):
    experiment = saved.experiment
    variables = {"params": saved.state.params if params is None else params, **saved.state.stats}
    return np.asarray(experiment.model.apply(variables, experiment.data.normalize(images), train=False))


def accuracy(saved, images, labels, params=None):
    return float((logits(saved, images, params).argmax(-1) == labels).mean())


def test_shifted_images_are_moved_and_filled_with_black(saved):
    images, labels = read("test")
    moved = np.zeros((4, *images.shape), np.uint8)
    moved[0, :, 2:], moved[1, :, :-2] = images[:, :-2], images[:, 2:]
    moved[2, :, :, 2:], moved[3, :, :, :-2] = images[:, :, :-2], images[:, :, 2:]
    expected = np.mean([accuracy(saved, each, labels) for each in moved])
    measured = Shifted(2).measure(saved)
    assert set(measured) == set(Shifted.metrics)
    assert measured["accuracy when shifted"] == pytest.approx(expected, abs=1e-9)
    lost = accuracy(saved, images, labels) - expected
    assert measured["accuracy lost to the shift"] == pytest.approx(lost, abs=1e-9) and lost > 0.1


def test_cropped_images_are_the_enlarged_middle(saved):
    images, labels = read("test")
    crop, resize = CenterCrop(4), Resize((8, 8))
    cropped = np.stack([resize(crop(image, None), None) for image in images])
    measured = Cropped(4).measure(saved)
    assert set(measured) == set(Cropped.metrics)
    assert measured["accuracy when cropped"] == pytest.approx(accuracy(saved, cropped, labels), abs=1e-9)
    assert measured["accuracy lost to the crop"] > 0.1


def test_generalization_measures_the_training_images_as_they_are(saved):
    measured = Generalization().measure(saved)
    assert set(measured) == set(Generalization.metrics)
    fitted, test = accuracy(saved, *read("train[:600]")), accuracy(saved, *read("test"))
    assert measured["fitted accuracy"] == pytest.approx(fitted, abs=1e-9)
    assert measured["gap"] == pytest.approx(fitted - test, abs=1e-9)
    losses = []
    for split in ("train[:600]", "test"):
        images, labels = read(split)
        losses.append(float(-jax.nn.log_softmax(logits(saved, images))[np.arange(len(labels)), labels].mean()))
    assert measured["fitted loss"] == pytest.approx(losses[0], rel=1e-5)
    assert measured["loss gap"] == pytest.approx(losses[1] - losses[0], rel=1e-4)


def test_a_block_left_out_adds_nothing(saved):
    """A block whose last norm is 0 adds nothing: the same net, made without the field `without`."""
    images, labels = read("test")
    assert deletable(saved.experiment.model) == ["layer1_0", "layer1_1"]  # layer2_0 halves the map
    without = []
    for block in ("layer1_0", "layer1_1"):
        flat = flatten_dict(saved.state.params)
        for name in ("scale", "bias"):
            flat["backbone", block, "bn2", name] *= 0
        without.append(accuracy(saved, images, labels, unflatten_dict(flat)))
    measured = WithoutBlocks().measure(saved)
    assert set(measured) == set(WithoutBlocks.metrics)
    whole = accuracy(saved, images, labels)
    assert min(without) < whole
    assert measured["accuracy without a block"] == pytest.approx(np.mean(without), abs=1e-9)
    assert measured["accuracy lost with a block"] == pytest.approx(whole - np.mean(without), abs=1e-9)
    assert measured["accuracy lost with the worst block"] == pytest.approx(whole - min(without), abs=1e-9)


def test_nets_that_have_no_block_to_leave_out_are_refused(saved):
    assert deletable(create_model("resnet50")) == [
        f"layer{stage}_{number}" for stage, blocks in enumerate((3, 4, 6, 3), 1) for number in range(1, blocks)
    ]
    with pytest.raises(UserError, match="only a ResNet"):
        deletable(create_model("vgg11"))
    with pytest.raises(UserError, match="every block changes"):
        deletable(create_model("resnet50", depth=(1, 1)))
    experiment = dataclasses.replace(saved.experiment, model=create_model("lecture_simple"))
    with pytest.raises(UserError, match="only a ResNet"):
        WithoutBlocks().measure(dataclasses.replace(saved, experiment=experiment))


def test_cost_counts_what_is_kept(saved):
    measured = Cost(batch=20, repeats=2).measure(saved)
    assert set(measured) == set(Cost.metrics)
    arrays = jax.tree.leaves((saved.state.params, saved.state.stats))
    assert measured["megabytes kept"] == pytest.approx(sum(np.asarray(x).nbytes for x in arrays) / 1e6)
    assert 0 < measured["milliseconds per test image"] < 1000
