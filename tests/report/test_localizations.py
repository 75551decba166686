"""The page of a localizer: its boxes beside those that cost nothing, the truth dashed, and the worst boxes."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as jc
from jaxcnn.models.localizer import LocalizerOutputs
from jaxcnn.ops.boxes import to_center
from jaxcnn.report import localizations as module
from jaxcnn.report.localizations import localize_split
from jaxcnn.report.run import write_report
from jaxcnn.runs.prediction import Net
from jaxcnn.runs.setup import open_evaluations
from tests.tiny_runs import read

SHAPE, CLASSES = (24, 32, 3), 2


def experiment(images=20):
    net = jc.create_model("linear", classes=CLASSES)
    return jc.Experiment(
        model=jc.Localizer(net.backbone, net.head),
        task=jc.Localization(),
        data=jc.Data(
            SHAPE,
            source=jc.Synthetic(SHAPE, classes=CLASSES, train=16, test=images, parts=("boxes",)),
            evaluation_splits=(),
            test_splits=("test",),
            batch_size=16,
            evaluation_batch_size=16,
        ),
        duration=jc.steps(2),
        log_every=jc.steps(1),
    )


class Told:
    """A model that says of each image what is written in `answers` for it: a class and a box for each class, in pixels.

    Images are known by the sum of their pixels.
    """

    classes = CLASSES

    def __init__(self, examples):
        self.keys = jnp.array([int(example["image"].sum()) for example in examples])
        areas = [(each["boxes"][:, 2:] - each["boxes"][:, :2]).prod(1) for each in examples]
        rows = [int(area.argmax()) for area in areas]
        self.true = np.stack([example["boxes"][row] for example, row in zip(examples, rows, strict=True)])
        self.labels = np.array([example["classes"][row] for example, row in zip(examples, rows, strict=True)])
        self.boxes, self.kinds = np.repeat(self.true[:, None], CLASSES, 1), self.labels.copy()

    def apply(self, variables, images, *, train, method):
        assert not train and method == "outputs"
        sums = jnp.round(images.sum((1, 2, 3))).astype(jnp.int32)
        row = jnp.abs(sums[:, None] - self.keys).argmin(1)
        boxes = to_center(jnp.asarray(self.boxes)[row]) / jnp.array([32, 24, 32, 24])
        return LocalizerOutputs(
            9.0 * jax.nn.one_hot(jnp.asarray(self.kinds)[row], CLASSES), boxes, jnp.zeros((len(row), 0, 2))
        )


@pytest.fixture
def asked():
    made = experiment()
    (examples,) = open_evaluations(made, ("test",)).values()
    told = Told([examples[i] for i in range(len(examples))])
    data = types.SimpleNamespace(**vars(made.data), shape=made.data.shape)
    data.normalize = lambda images: images.astype(jnp.float32)
    parts = types.SimpleNamespace(data=data, task=made.task, model=told, precision="highest")
    return told, examples, Net(parts, examples.classes, {}, 0)


def test_the_truth_is_right_everywhere_and_has_no_miss(asked):
    _, examples, net = asked
    found = localize_split(net, examples)
    assert found.count == found.total == 20 and not found.misses
    assert found.measured["top1_localization"] == 1 and found.measured["whole_image_localization"] < 1
    assert all(each.objects == each.named == each.placed == each.both > 0 for each in found.classes)
    assert all(each.iou == pytest.approx(1, abs=1e-5) for each in found.classes)


def test_the_worst_boxes_come_first_and_a_wrong_class_is_told_apart(asked):
    told, examples, net = asked
    right, wrong, shifted, unsure = 2, 3, 5, 6
    told.boxes[wrong] = (0, 0, 1, 1) if told.true[wrong, 0] > 1 else (30, 22, 32, 24)  # touches nothing
    told.kinds[wrong] = 1 - told.labels[wrong]
    sides = told.true[shifted, 2:] - told.true[shifted, :2]
    told.boxes[shifted, :, 2] = told.true[shifted, 0] + 0.4 * sides[0]  # an IoU of 0.4
    told.kinds[right] = 1 - told.labels[right]  # but its box is right
    told.boxes[unsure, told.labels[unsure]] = (0, 0, 1, 1)  # the box of the class that it does not name
    told.kinds[unsure] = 1 - told.labels[unsure]
    found = localize_split(net, examples)
    assert [miss.where for miss in found.misses] == [examples.where(wrong), examples.where(shifted)]
    names = [f"class{each}" for each in told.labels]
    other = f"class{1 - told.labels[wrong]}"
    assert found.misses[0].told.startswith(f"{names[wrong]}, taken for {other}: an IoU of 0.00, the object has ")
    share = sides.prod() / (24 * 32)
    assert found.misses[1].told == f"{names[shifted]}: an IoU of 0.40, the object has {share:.1%} of the image"
    assert sum(each.objects for each in found.classes) == 20
    assert [sum(getattr(each, name) for each in found.classes) for name in ("named", "placed", "both")] == [17, 18, 16]
    # As the task's own figures have it, the box of the true class counts, whatever the net names.
    assert found.measured["gt_known_localization"] == pytest.approx(17 / 20)
    assert found.misses[0].picture.shape == (240, 320, 3)


def test_of_boxes_that_touch_nothing_the_largest_object_is_first_and_there_are_few_pictures(asked, monkeypatch):
    told, examples, net = asked
    told.boxes[:] = (0, 0, 0.01, 0.01)
    monkeypatch.setattr(module, "PICTURES", 3)
    found = localize_split(net, examples)
    areas = (told.true[:, 2:] - told.true[:, :2]).prod(1)
    shares = [float(re.findall(r"([\d.]+)% of the image", miss.told)[0]) for miss in found.misses]
    assert len(shares) == 3 and shares == pytest.approx(np.sort(areas)[:-4:-1] / (24 * 32) * 100, abs=0.06)


def test_the_page_of_a_run_has_the_truth_the_figures_and_the_misses(tmp_path):
    path = tmp_path / "run"
    jc.train(experiment(), path, quiet=True)
    page = write_report(path).read_text()
    parts = re.findall(r"<h[23]>(.*)</h[23]>", page)
    assert parts == ["Final figures", "Curves", "Predictions", "Boxes", "Worst misses", "Model", "Environment"]
    result = read(path, "result.json")["test"]
    for name in ("gt_known", "top1", "whole_image", "center_box"):
        assert (
            f"<td>{name.replace('_', ' ')} localization</td><td>{result[f'{name}_localization']:.4f}</td></tr>" in page
        )
    assert "20 of the 20 images of the split test" in page and page.count(": the truth") == 8
    assert page.count("an IoU of") >= 2 and f"<td>mean box iou</td><td>{result['mean_box_iou']:.4f}</td>" in page
