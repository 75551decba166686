"""The operators of detectors beside torchvision's on this machine's CPU: NMS, RoIAlign and RoIPool, overlaps, coding.

python -m benchmarks.detection_ops [--rounds 15]        (from the root of the clone, with the extra `parity`)

Both sides take a call in turn, in an order that changes, on the same arrays in their own layouts and with as many
threads. Figures are medians of milliseconds a call and of the ratios of calls that stood side by side, with their
quartiles, and say whether both sides gave the same. "+ gradient": the values and the gradient of all features.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.ops import boxes as box
from jaxcnn.ops import nms, roi
from jaxcnn.ops.box_coding import BoxCoder
from tests.torchvision_ops import torch, torchvision_ops

Side = Callable[[], Any]


def random_boxes(rng: np.random.Generator, count: int, width: float, height: float, sides: tuple) -> np.ndarray:
    """[count, 4] float32 in an image of that size, sides between two numbers."""
    size = np.minimum(rng.uniform(*sides, (count, 2)), np.array([width, height]) * 0.95)
    first = rng.uniform(size=(count, 2)) * (np.array([width, height]) - size)
    return np.concatenate([first, first + size], -1).astype(np.float32)


def suppression(count: int, size: int, classes: int = 0) -> tuple[Side, Side]:
    rng = np.random.default_rng(count)
    boxes = random_boxes(rng, count, 1000, 600, (8, 300))
    scores = rng.permutation(count).astype(np.float32)
    labels = rng.integers(0, max(classes, 1), count)
    arrays, tensors = [[f(each) for each in (boxes, scores, labels)] for f in (jnp.asarray, torch.tensor)]
    ops = torchvision_ops()
    if classes:
        return lambda: nms.class_nms(*arrays, 0.7, size), lambda: ops.batched_nms(*tensors, 0.7)[:size]
    return lambda: nms.nms(*arrays[:2], 0.7, size), lambda: ops.nms(*tensors[:2], 0.7)[:size]


def regions(name: str, shape: tuple[int, int, int], count: int, scale: float, gradient: bool) -> tuple[Side, Side]:
    rng = np.random.default_rng(0)
    height, width, channels = shape
    boxes = random_boxes(rng, count, width / scale, height / scale, (16, 400))[None]
    features = rng.normal(size=(1, *shape)).astype(np.float32)
    ops = torchvision_ops()
    ours, theirs = {
        "RoIPool": (lambda x, b: roi.roi_pool(x, b, 7, scale), lambda x, b: ops.roi_pool(x, b, 7, scale)),
        "RoIAlign": (
            lambda x, b: roi.roi_align(x, b, 7, scale, 2, False),
            lambda x, b: ops.roi_align(x, b, 7, scale, 2, False),
        ),
        "adaptive RoIAlign": (
            lambda x, b: roi.roi_align(x, b, 7, scale, 0, True),
            lambda x, b: ops.roi_align(x, b, 7, scale, 0, True),
        ),
    }[name]
    x, b = jnp.asarray(features), jnp.asarray(boxes)
    leaf, tensors = torch.tensor(features).permute(0, 3, 1, 2).contiguous(), list(torch.tensor(boxes))
    if not gradient:
        call = jax.jit(ours)
        return lambda: call(x, b), lambda: theirs(leaf, tensors).permute(0, 2, 3, 1)[None]
    weights = rng.normal(size=(1, count, 7, 7, channels)).astype(np.float32)
    w, their_w = jnp.asarray(weights), torch.tensor(weights)[0].permute(0, 3, 1, 2).contiguous()
    pulled = jax.jit(lambda x, b, w: jax.vjp(lambda x: ours(x, b), x)[1](w)[0])
    # Without the values XLA would leave them out.
    both = jax.jit(lambda x, b, w: (pulled(x, b, w), ours(x, b)))
    leaf.requires_grad_()

    def backward() -> Any:
        leaf.grad = None
        theirs(leaf, tensors).backward(their_w)
        return leaf.grad.permute(0, 2, 3, 1)

    return lambda: both(x, b, w), backward


def overlaps() -> tuple[Side, Side]:
    rng = np.random.default_rng(0)
    anchors, truths = (random_boxes(rng, count, 1000, 600, (8, 300)) for count in (17_100, 100))
    call, (a, b) = jax.jit(box.iou), (jnp.asarray(anchors), jnp.asarray(truths))
    ops, (c, d) = torchvision_ops(), (torch.tensor(anchors), torch.tensor(truths))
    return lambda: call(a, b), lambda: ops.box_iou(c, d)


def decoding() -> tuple[Side, Side]:
    torchvision_ops()
    from torchvision.models.detection._utils import BoxCoder as Theirs

    rng = np.random.default_rng(0)
    anchors = random_boxes(rng, 17_100, 1000, 600, (8, 300))
    offsets = rng.normal(size=anchors.shape).astype(np.float32)
    call, (a, o) = jax.jit(BoxCoder().decode), (jnp.asarray(anchors), jnp.asarray(offsets))
    theirs, b, p = Theirs((1.0, 1.0, 1.0, 1.0)), torch.tensor(anchors), torch.tensor(offsets)
    return lambda: call(o, a), lambda: theirs.decode_single(p, b)


CONV5, STRIDE_8 = (38, 50, 512), (100, 136, 256)
CASES: dict[str, Callable[[], tuple[Side, Side]]] = {
    "NMS, 1,000 boxes, the best 300": lambda: suppression(1000, 300),
    "NMS, 6,000 boxes, the best 300": lambda: suppression(6000, 300),
    "NMS, 12,000 boxes, the best 2,000": lambda: suppression(12_000, 2000),
    "NMS of 80 classes, 5,000 boxes, the best 100": lambda: suppression(5000, 100, classes=80),
    "RoIPool, 38x50x512, 128 boxes": lambda: regions("RoIPool", CONV5, 128, 1 / 16, False),
    "RoIPool, 38x50x512, 128 boxes, + gradient": lambda: regions("RoIPool", CONV5, 128, 1 / 16, True),
    "RoIAlign, 38x50x512, 128 boxes": lambda: regions("RoIAlign", CONV5, 128, 1 / 16, False),
    "RoIAlign, 38x50x512, 128 boxes, + gradient": lambda: regions("RoIAlign", CONV5, 128, 1 / 16, True),
    "adaptive RoIAlign, 38x50x512, 128 boxes": lambda: regions("adaptive RoIAlign", CONV5, 128, 1 / 16, False),
    "RoIAlign, 100x136x256, 512 boxes": lambda: regions("RoIAlign", STRIDE_8, 512, 1 / 8, False),
    "RoIAlign, 100x136x256, 512 boxes, + gradient": lambda: regions("RoIAlign", STRIDE_8, 512, 1 / 8, True),
    "IoU, 17,100 anchors and 100 boxes": overlaps,
    "decoding of 17,100 boxes": decoding,
}


def taken(side: Side) -> float:
    start = time.perf_counter()
    jax.block_until_ready(side())  # PyTorch's tensors are there when the call returns
    return 1000 * (time.perf_counter() - start)


def same(ours: Any, theirs: Any) -> bool:
    ours, theirs = np.asarray(ours[0] if isinstance(ours, tuple) else ours), theirs.detach().numpy()
    if ours.dtype.kind == "i":
        return bool(np.array_equal(ours[ours >= 0], theirs))
    return bool((np.abs(ours - theirs) <= 1e-4 * np.maximum(1, np.abs(theirs).max())).all())


def measured(sides: tuple[Side, Side], rounds: int) -> dict[str, Any]:
    equal = same(*(side() for side in sides))
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            each = taken(sides[which])
            if number:
                times[which].append(each)
    low, middle, high = statistics.quantiles([b / a for a, b in zip(*times, strict=True)], n=4)
    return {
        "jaxcnn, ms": round(statistics.median(times[0]), 3),
        "torchvision, ms": round(statistics.median(times[1]), 3),
        "torchvision over jaxcnn": {"median": round(middle, 2), "quartiles": [round(low, 2), round(high, 2)]},
        "same results": equal,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torchvision_ops()
    torch.set_num_threads(os.cpu_count() or 1)
    load = os.getloadavg()[0]
    found = {name: measured(make(), rounds) for name, make in CASES.items()}
    report = {
        "device": "cpu",
        "cpus": os.cpu_count(),
        "jax": jax.__version__,
        "torch": torch.__version__,
        "rounds": rounds,
        "load average before and after": [load, os.getloadavg()[0]],
    }
    print(json.dumps(report | found, indent=2))


if __name__ == "__main__":
    main()
