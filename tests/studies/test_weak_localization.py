"""Boxes of maps over a split: a net whose map is the object scores 1, and the same box what the metric says."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.data.synthetic import Synthetic
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.metrics.localization import baselines
from jaxcnn.models import GAP, Classifier
from jaxcnn.runs.debug import debug
from jaxcnn.studies.weak_localization import METRICS, SameBox, WeakLocalization, localize

SHAPE, CLASSES = (32, 40, 3), 3


class Blots:
    """Grey images, each with one box of its class's level, 100 + 50 * class."""

    name, version, split, classes = "blots", "1", "test", ("a", "b", "c")

    def __len__(self):
        return 7

    def __getitem__(self, i):
        rng = np.random.default_rng(i)
        (left, top), label = rng.integers(1, 12, 2), i % CLASSES
        box = np.array([[left, top, left + rng.integers(8, 20), top + rng.integers(8, 18)]], np.float32)
        image = np.zeros(SHAPE, np.uint8)
        x1, y1, x2, y2 = box[0].astype(int)
        image[y1:y2, x1:x2] = 100 + 50 * label
        return {"image": image, "label": label, "boxes": box, "classes": np.array([label], np.int32)}

    def where(self, i):
        return f"blots[{i}]"


class Levels(nn.Module):
    """A map of each class: 1 where the image has its level. Pixels are 0..1."""

    @nn.compact
    def __call__(self, x, *, train):
        levels = (100 + 50 * jnp.arange(CLASSES)) / 255
        return {"final": (jnp.abs(x[..., :1] - levels) < 0.01).astype(jnp.float32)}


DATA = Data(SHAPE, Synthetic(SHAPE, classes=CLASSES))
MODEL = Classifier(Levels(), GAP(CLASSES))
EYE = {"params": {"head": {"fc": {"kernel": jnp.eye(CLASSES), "bias": jnp.zeros(CLASSES)}}}}


@pytest.mark.parametrize("method", ["cam", "gradcam"])
def test_a_map_that_is_the_object_is_right_and_one_of_another_class_is_not(method):
    found = localize(MODEL, EYE, Blots(), DATA, method)
    assert (found.max_box_acc, found.max_box_acc_v2, found.max_box_acc_and_class) == (1, 1, 1)
    turned = jax.tree.map(lambda kernel: jnp.roll(kernel, 1, -1), EYE)
    found = localize(MODEL, turned, Blots(), DATA, method)
    assert (found.max_box_acc, found.max_box_acc_and_class) == (0, 0)


def test_what_it_knows_of_the_class_is_told_apart():
    """A bias that says class b of every image leaves the maps as they are."""
    biased = {"params": {"head": {"fc": EYE["params"]["head"]["fc"] | {"bias": jnp.array([0.0, 9, 0])}}}}
    found = localize(MODEL, biased, Blots(), DATA, "cam")
    assert found.max_box_acc == 1 and found.max_box_acc_and_class == pytest.approx(2 / 7)


def test_the_same_box_scores_what_the_metric_says():
    source = Synthetic(SHAPE, classes=CLASSES, test=20, parts=("boxes",))
    experiment = Experiment(MODEL, Data(SHAPE, source, test_splits=("test",)))
    examples = source.open("test")
    truths = [{"boxes": examples[i]["boxes"], "classes": examples[i]["classes"]} for i in range(20)]
    labels = [examples[i]["label"] for i in range(20)]
    expected = baselines(truths, [SHAPE[:2]] * 20, labels)
    for box in ("whole_image", "center_box"):
        found = SameBox(experiment, box).measure(0)
        assert tuple(found) == METRICS and found["MaxBoxAcc"] == expected[box][0.5]
        assert found["MaxBoxAccV2"] == pytest.approx(np.mean(list(expected[box].values())))


def test_a_probe_gives_the_figures_that_it_names_and_a_debug_run_keeps_boxes():
    source = Synthetic(SHAPE, classes=CLASSES, test=5, parts=("boxes",))
    run = types.SimpleNamespace(
        experiment=Experiment(MODEL, Data(SHAPE, source)), state=types.SimpleNamespace(params=EYE["params"], stats={})
    )
    assert tuple(WeakLocalization().measure(run)) == WeakLocalization.metrics
    with pytest.raises(UserError, match="synthetic/test has no boxes, by which maps are measured"):
        SameBox(Experiment(MODEL, DATA)).measure(0)
    with pytest.raises(UserError, match="method is 'grad'"):
        WeakLocalization("grad")
    from jaxcnn.data.tfds import Tfds

    model = Classifier(Levels(), GAP(20))
    shrunk = debug(Experiment(model, Data(SHAPE, Tfds("tiny_imagenet20", objects=True))))
    assert shrunk.data.source.parts == ("boxes",)
    assert debug(Experiment(model, Data(SHAPE, Tfds("fashion_mnist")))).data.source.parts is None
