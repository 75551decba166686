"""Images a second of torchvision's fasterrcnn_resnet50_fpn, there and here, with the same weights, on this CPU.

python -m benchmarks.detector_inference [--rounds 7] [--sizes 320 480]
(from the root of the clone, with the extra `parity`)

Both sides take one image in turn, in an order that changes, with as many threads and with the same numbers of
proposals; resizing and decoding of photos are not counted. Weights are random ones at which the signal stays as strong
as it is, converted. Figures are medians, of the ratio of neighbouring calls with its quartiles; and how far the surest
scores of both sides are apart. Nets of YOLO's stand beside for orientation: torchvision has none.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import create_model, from_torch
from tests.models.parity import calibrate, randomize
from tests.torchvision_ops import torch, torchvision_ops

SIZES = (320, 480)
YOLO = {"yolo_v1_fast": 448, "yolo_v1_small": 224}
Side = Callable[[], Any]


def torchvision_net() -> Any:
    """Frozen norms, as with COCO's weights; heads scaled so that probabilities are spread and boxes stay near."""
    torchvision_ops()
    from torchvision.models import ResNet
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.models.resnet import Bottleneck
    from torchvision.ops.misc import FrozenBatchNorm2d

    depth = (3, 4, 6, 3)
    plain = calibrate(randomize(ResNet(Bottleneck, depth)), (64, 64)).state_dict()
    body = _resnet_fpn_extractor(ResNet(Bottleneck, depth, norm_layer=FrozenBatchNorm2d), 5)
    given = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    net = randomize(FasterRCNN(body, num_classes=91, **given))
    body = {f"backbone.body.{key}": value for key, value in plain.items() if not key.startswith("fc.")}
    assert net.load_state_dict(body, strict=False).unexpected_keys == []
    for module in net.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0  # as with the weights COCO_V1
    with torch.no_grad():
        head, predictor = net.rpn.head, net.roi_heads.box_predictor
        for layer, factor in ((head.cls_logits, 0.2), (head.bbox_pred, 0.02), (predictor.cls_score, 0.3)):
            layer.weight.mul_(factor)
        predictor.bbox_pred.weight.mul_(0.1)
    return net.eval()


def sides(net: Any, variables: Any, size: int) -> tuple[Side, Side]:
    image = np.random.default_rng(size).normal(size=(1, size, size, 3)).astype(np.float32)
    model, ours, theirs = create_model("fasterrcnn_resnet50_fpn"), jnp.asarray(image), torch.tensor(image[0])
    call = (
        jax.jit(lambda variables, images: model.apply(variables, images, train=False)).lower(variables, ours).compile()
    )
    net.transform.min_size, net.transform.max_size = (size,), size
    theirs = theirs.permute(2, 0, 1).contiguous()

    def torchvision() -> Any:
        net.transform.min_size, net.transform.max_size = (size,), size
        with torch.inference_mode():
            return net([theirs])[0]["scores"].numpy()

    return lambda: call(variables, ours).scores[0], torchvision


def taken(side: Side) -> float:
    start = time.perf_counter()
    jax.block_until_ready(side())  # PyTorch's arrays are there when the call returns
    return time.perf_counter() - start


def measured(pair: tuple[Side, Side], rounds: int) -> dict[str, Any]:
    ours, theirs = (np.asarray(side()) for side in pair)
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            times[which].append(taken(pair[which]))
    low, middle, high = statistics.quantiles([b / a for a, b in zip(*times, strict=True)], n=4)
    return {
        "jaxcnn, images/s": round(1 / statistics.median(times[0]), 3),
        "torchvision, images/s": round(1 / statistics.median(times[1]), 3),
        "jaxcnn over torchvision": {"median": round(middle, 2), "quartiles": [round(low, 2), round(high, 2)]},
        "detections": [int((ours > 0).sum()), len(theirs)],
        "largest difference of the 20 best scores": float(np.abs(ours[:20] - theirs[:20]).max()),
    }


def alone(name: str, size: int, rounds: int) -> float:
    """Images a second of one net of ours."""
    model, rng = create_model(name), np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(1, size, size, 3)), jnp.float32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.01, leaf.shape) ** 2, leaf.dtype), shapes)
    call = jax.jit(lambda variables: model.apply(variables, images, train=False)).lower(variables).compile()
    call(variables)
    return round(1 / statistics.median(taken(lambda: call(variables)) for _ in range(rounds)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    given = parser.parse_args()
    rounds = given.rounds
    torch.set_num_threads(os.cpu_count() or 1)
    load = os.getloadavg()[0]
    net = torchvision_net()
    variables = from_torch("fasterrcnn_resnet50_fpn", net.state_dict())
    found: dict[str, Any] = {}
    for size in given.sizes:
        found[f"{size}x{size}"] = measured(sides(net, variables, size), rounds)
        print(size, found[f"{size}x{size}"], file=sys.stderr, flush=True)  # of a run that is cut short
    found |= {f"{name}, {size}x{size}, images/s": alone(name, size, rounds) for name, size in YOLO.items()}
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
