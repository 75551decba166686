"""Weak localisation: the boxes of a classifier's maps, measured over a whole split, beside boxes that cost nothing.

A net that was trained on labels alone never saw a box; what is bright in its class activation map is one all the same
(Zhou et al. 2016, section 3.2). Measured as Choe et al. 2020 do, by one level for the whole set.
"""

import dataclasses
from typing import Any, ClassVar, Literal, cast

import jax
import numpy as np
from flax import linen as nn

from jaxcnn.data.boxed import truths_of
from jaxcnn.data.draws import EVALUATION, Draws
from jaxcnn.data.examples import Examples
from jaxcnn.data.fields import LABEL, box_fields, with_image
from jaxcnn.data.preparation import read
from jaxcnn.data.splits import open_split
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.explain.cam import cam, gradcam, upsample
from jaxcnn.metrics.localization import THRESHOLDS, BoxAccuracy, baselines, max_box_acc
from jaxcnn.runs.restore import RestoredRun

METHODS = {"cam": cam, "gradcam": gradcam}
MOST = 20
"""Boxes of an image."""
METRICS = ("MaxBoxAcc", "MaxBoxAccV2")
BATCH = 50


@dataclasses.dataclass(frozen=True)
class WeakLocalization:
    """A probe: the boxes around the maps of each test image's own class. The source gives labels and boxes.

    Metrics: "MaxBoxAcc", "MaxBoxAccV2" and "MaxBoxAcc and class", of images whose class the net knows too. Boxes and
    maps are compared as the net sees the image; resizing changes no IoU.
    """

    method: Literal["cam", "gradcam"] = "gradcam"
    """"cam" needs a head of global average pooling; on such a net both are the same up to a factor and a ReLU."""

    metrics: ClassVar = (*METRICS, "MaxBoxAcc and class")

    def __post_init__(self):
        if self.method not in METHODS:
            raise UserError(f"WeakLocalization: method is {self.method!r}; it must be {' or '.join(METHODS)}")

    def measure(self, run: RestoredRun) -> dict[str, float]:
        data = run.experiment.data
        examples = open_split(data.source, data.test_splits[0], data.data_dir)
        variables = {"params": run.state.params, **run.state.stats}
        found = localize(run.experiment.model, variables, examples, data, self.method)
        return dict(
            zip(self.metrics, (found.max_box_acc, found.max_box_acc_v2, found.max_box_acc_and_class), strict=True)
        )


@dataclasses.dataclass(frozen=True)
class SameBox:
    """An arm that is no run: the same box for every test image. Every seed measures the same.

    Metrics: as WeakLocalization's "MaxBoxAcc", at an IoU of 0.5, and "MaxBoxAccV2", the mean over 0.3, 0.5 and 0.7.
    """

    like: Experiment
    """The run to compare with: its data is taken."""
    box: Literal["whole_image", "center_box"] = "center_box"
    """The image's edges, or the box of the mean width and height of these images' boxes, in the middle."""

    metrics: ClassVar = METRICS

    def measure(self, seed: int) -> dict[str, float]:
        data = self.like.data
        images, labels, truths = _read(open_split(data.source, data.test_splits[0], data.data_dir), data)
        found = baselines(truths, [image.shape[:2] for image in images], labels)[self.box]
        return dict(zip(METRICS, (found[0.5], float(np.mean([found[each] for each in THRESHOLDS]))), strict=True))


def localize(
    model: nn.Module, variables: Any, examples: Examples, data: Data, method: Literal["cam", "gradcam"]
) -> BoxAccuracy:
    """How well the boxes around a classifier's maps fit, over a whole split.

    Args:
      model: a Classifier, with a GAP head for "cam".
      variables: of it.
      examples: with a label and boxes.
      data: how its images are prepared.
      method: what the maps are.

    Raises:
      UserError: the examples have no boxes, or the method does not suit the net.

    Example: localize(run.model, variables, examples, run.experiment.data, "gradcam").max_box_acc
    """
    images, labels, truths = _read(examples, data)

    @jax.jit
    def explain(variables: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        prepared = data.normalize(images)
        maps = METHODS[method](model, variables, prepared, labels)
        logits = cast(jax.Array, model.apply(variables, prepared, train=False))
        return upsample(maps, (images.shape[1], images.shape[2])), logits.argmax(-1)

    maps, right = [], []
    batch = min(BATCH, len(images))
    for start in range(0, len(images), batch):
        rows = np.arange(start, start + batch) % len(images)  # the last batch is filled up: one shape is compiled
        found, predicted = jax.device_get(explain(variables, images[rows], labels[rows]))
        count = min(batch, len(images) - start)
        maps += [*found[:count]]
        right += (predicted == labels[rows])[:count].tolist()
    return max_box_acc(maps, truths, labels, right)


def _read(examples: Examples, data: Data) -> tuple[np.ndarray, np.ndarray, list[dict[str, np.ndarray]]]:
    """Images uint8 [n, H, W, C] after the evaluation's transforms, labels [n], and the boxes of each."""
    if "boxes" not in next(truths_of(examples), {}):
        raise UserError(
            f"{examples.name}/{examples.split} has no boxes, by which maps are measured; give a source with labels and "
            "boxes, such as Tfds(..., objects=True)"
        )
    fields = with_image(data.shape(evaluated=True), LABEL | box_fields(MOST))
    draws = Draws(EVALUATION)
    found = [read(examples, i, data.preprocess, draws.at(i), fields) for i in range(len(examples))]
    truths = [{"boxes": one["boxes"], "classes": one["classes"]} for one in found]
    return np.stack([one["image"] for one in found]), np.array([one["label"] for one in found]), truths
