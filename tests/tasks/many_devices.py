"""python -m tests.tasks.many_devices FILE: a set whose last batch is uneven, evaluated on 1, 2, 4 and 8 fake devices.

Writes {devices: {"metrics": {...}, "loss": the training loss of all, "gradient": its norm, "gathers": all-gathers,
"steps": {microbatches: [loss, norm of the gradient] of a train step}, "detection_steps" and "localization_steps": the
same of a detector and of a localizer, "region_steps": of Faster R-CNN that learns from all anchors and regions,
"drawn_steps": from some that are drawn, "mixing_steps": of a classifier with Mixup and CutMix,
"weighting_steps": of one with class weights}}.
"""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from jaxcnn.data.synthetic import Synthetic
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models import GAP, VGG, create_model
from jaxcnn.models.localizer import Localizer, RegressionHead
from jaxcnn.runs.initial_state import initial_state
from jaxcnn.runs.program import train_step
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.detection import Detection
from jaxcnn.tasks.localization import Localization
from jaxcnn.tasks.mixing import CutMix, Mixup
from jaxcnn.tasks.rcnn_loss import FasterRCNNLoss
from jaxcnn.tasks.segmentation import Segmentation
from jaxcnn.train.mesh import Parallel, make_mesh, split
from jaxcnn.train.optimizers import build_optimizer
from jaxcnn.train.state import TrainState
from tests.nets import TinyNet
from tests.tasks.segmenters import Given, Pixelwise

CLASSES, BATCH, IMAGES = 5, 8, 19
MICROBATCHES = {1: (1,), 2: (2,), 8: (1,)}
REGION_MICROBATCHES = {1: (1,), 2: (2,)}
DRAWN_MICROBATCHES = {1: (1,), 8: (1,)}
"""{devices: numbers of microbatches}: to compile a step takes seconds, so these are few."""
WEIGHTS = (1.0, 0.5, 2.0, 1.5, 1.0)
TASK = Segmentation(classes=("a", "b", "c", "d", "e"))


def examples() -> tuple[np.ndarray, np.ndarray]:
    """Logits [19, 6, 7, 5] that give class 3 nowhere, and masks in which it is not either and some pixels are 255."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(IMAGES, 6, 7, CLASSES)).astype(np.float32)
    logits[..., 3] = -9
    masks = rng.choice([0, 1, 2, 4, 255], (IMAGES, 6, 7)).astype(np.uint8)
    return logits, masks


def batches() -> list[dict[str, np.ndarray]]:
    """Filled up with garbage that looks like examples and is not valid."""
    logits, masks = examples()
    order = np.arange(-(-IMAGES // BATCH) * BATCH)
    parts = np.split(order, len(order) // BATCH)
    return [{"image": logits[i % IMAGES], "mask": masks[i % IMAGES], "valid": i < IMAGES} for i in parts]


def training_batch(images: int = 16) -> dict[str, np.ndarray]:
    """Images uint8 [16, 6, 7, 3] of which every second one has few pixels that count, and the last none."""
    rng = np.random.default_rng(1)
    masks = rng.integers(0, CLASSES, (images, 6, 7)).astype(np.uint8)
    masks[1::2][rng.random(masks[1::2].shape) < 0.9] = 255
    masks[-1] = 255
    return {"image": rng.integers(0, 256, (images, 6, 7, 3)).astype(np.uint8), "mask": masks}


def boxes_batch(images: int = 16) -> dict[str, np.ndarray]:
    """Images uint8 [16, 16, 24, 3] with three boxes each, of which every second one has none."""
    rng = np.random.default_rng(2)
    task = Detection(max_boxes=4)
    batch = {name: field.empty(images) for name, field in task.fields((16, 24, 3)).items()}
    first = rng.uniform(0, 10, (images, 3, 2))
    batch["boxes"][:, :3] = np.concatenate([first, first + rng.uniform(2, 6, first.shape)], -1)
    batch["classes"][::2, :3] = rng.integers(0, 3, (images // 2, 3))
    return batch | {"image": rng.integers(0, 256, (images, 16, 24, 3)).astype(np.uint8)}


def segmentation(accumulate: int) -> Experiment:
    source = Synthetic(image_shape=(6, 7, 3), classes=CLASSES)
    return Experiment(
        Pixelwise(CLASSES), Data((6, 7, 3), source), task=Segmentation(class_weights=WEIGHTS), accumulate=accumulate
    )


def detection(accumulate: int) -> Experiment:
    source = Synthetic(image_shape=(16, 24, 3), classes=3, parts=("boxes",))
    model = create_model("yolo_v1_small", classes=3, stages=(((3, 8, 2),), ((3, 8, 1),)), norm="none")
    return Experiment(model, Data((16, 24, 3), source), task=Detection(max_boxes=4), accumulate=accumulate)


def localization(accumulate: int) -> Experiment:
    source = Synthetic(image_shape=(16, 24, 3), classes=3, parts=("boxes",))
    model = Localizer(VGG("A", stages=1, width=0.1), GAP(3), RegressionHead(4))
    return Experiment(model, Data((16, 24, 3), source), task=Localization(max_boxes=4), accumulate=accumulate)


def labeled_batch(images: int = 16) -> dict[str, np.ndarray]:
    """Images uint8 [16, 12, 12, 3] of four classes."""
    rng = np.random.default_rng(3)
    return {
        "image": rng.integers(0, 256, (images, 12, 12, 3)).astype(np.uint8),
        "label": rng.integers(0, 4, images).astype(np.int32),
    }


def mixing() -> Experiment:
    return Experiment(TinyNet(), Data((12, 12, 3)), task=Classification(mix=(Mixup(), CutMix())))


def weighting(accumulate: int) -> Experiment:
    task = Classification(class_weights=WEIGHTS[:4])
    return Experiment(TinyNet(norm=False), Data((12, 12, 3)), task=task, accumulate=accumulate)


def regions(accumulate: int, drawn: bool) -> Experiment:
    """Faster R-CNN. Which anchors and regions are drawn depends on the microbatch, unless all are."""
    source = Synthetic(image_shape=(16, 24, 3), classes=3, parts=("boxes",))
    stages = {"stages": (((3, 8, 4),), ((3, 8, 2),)), "norm": "none", "maps": (("final", 8),), "bins": 2}
    few = {"sizes": ((6, 9),), "before_nms": (16, 16), "after_nms": (8, 8), "min_size": 1, "widths": (8,)}
    model = create_model("faster_rcnn_small", classes=3, **stages, **few)
    some = {"anchors": 6, "regions": 5}
    every = {"anchors": 36, "regions": 12, "positive_anchors": 1.0, "positive": 1.0}
    task = Detection(FasterRCNNLoss(inside=False, **(some if drawn else every)), max_boxes=4)
    return Experiment(model, Data((16, 24, 3), source), task=task, accumulate=accumulate)


def one_step(
    experiment: Experiment, batch: dict[str, np.ndarray], sharding: NamedSharding, state: TrainState | None = None
) -> list[float]:
    """Loss and norm of the gradient of a step as training takes it, in so many microbatches."""
    optimizer = build_optimizer(experiment.optimizer, constant, None)
    step = jax.jit(train_step(experiment, optimizer, constant, log_every=1))
    state = jax.jit(lambda: initial_state(experiment, optimizer))() if state is None else state
    _, metrics = step(state, {}, jax.device_put(batch, sharding))
    return [float(metrics["step_loss"]), float(metrics["grad_norm"])]


def constant(step: jax.Array) -> jax.Array:
    return jnp.float32(0.1)


def main(file: pathlib.Path) -> None:
    model, found = Given(CLASSES), {}
    first = regions(1, drawn=False)
    state = jax.jit(lambda: initial_state(first, build_optimizer(first.optimizer, constant, None)))()
    for devices in (1, 2, 4, 8):
        sharding = split(make_mesh(Parallel(), jax.devices()[:devices]))
        placed = [jax.device_put(batch, sharding) for batch in batches()]
        evaluate = jax.jit(lambda batch: TASK.outputs(model, {}, batch)[0]).lower(placed[0]).compile()
        total = jax.tree.map(lambda *sums: sum(sums), *map(evaluate, placed))
        whole = jax.tree.map(lambda *parts: jnp.concatenate(parts), *placed)

        @jax.jit
        def loss(images, masks):
            return TASK.loss(model, {}, {"image": images, "mask": masks}, train=True, rngs={})[0]

        value, gradient = jax.value_and_grad(loss)(whole["image"], whole["mask"])
        found[devices] = {
            "metrics": TASK.metrics(jax.device_get(total), {}),
            "loss": float(value),
            "gradient": float(jnp.linalg.norm(gradient)),
            "gathers": evaluate.as_text().count("all-gather"),
            "steps": {n: one_step(segmentation(n), training_batch(), sharding) for n in MICROBATCHES.get(devices, ())},
            "detection_steps": {
                n: one_step(detection(n), boxes_batch(), sharding) for n in MICROBATCHES.get(devices, ())
            },
            "localization_steps": {
                n: one_step(localization(n), boxes_batch(), sharding) for n in MICROBATCHES.get(devices, ())
            },
            "region_steps": {
                n: one_step(regions(n, False), boxes_batch(), sharding, state)
                for n in REGION_MICROBATCHES.get(devices, ())
            },
            "mixing_steps": {
                n: one_step(mixing(), labeled_batch(), sharding) for n in DRAWN_MICROBATCHES.get(devices, ())
            },
            "weighting_steps": {
                n: one_step(weighting(n), labeled_batch(), sharding) for n in MICROBATCHES.get(devices, ())
            },
            "drawn_steps": {
                n: one_step(regions(n, True), boxes_batch(), sharding, state)
                for n in DRAWN_MICROBATCHES.get(devices, ())
            },
        }
    file.write_text(json.dumps(found))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
