"""python -m tests.tasks.many_devices FILE: a set whose last batch is uneven, evaluated on 1, 2, 4 and 8 fake devices.

Writes {devices: {"metrics": {...}, "loss": the training loss of all, "gradient": its norm, "gathers": all-gathers}}.
"""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.tasks.segmentation import Segmentation
from jaxcnn.train.mesh import Parallel, make_mesh, split
from tests.tasks.segmenters import Given

CLASSES, BATCH, IMAGES = 5, 8, 19
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


def main(file: pathlib.Path) -> None:
    model, found = Given(CLASSES), {}
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
        }
    file.write_text(json.dumps(found))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
