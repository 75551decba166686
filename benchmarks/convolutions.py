"""Convolutions in the forms of jaxcnn/ops/convolution.py beside XLA's own, on a CPU: forward and both gradients.

    python -m benchmarks.convolutions [--rounds 5] [--out convolutions.json]

The two sides run in turn; figures are the medians of the rounds in ms, and XLA's median divided by ours. On another
device both sides are the same program.
"""

import argparse
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from jaxcnn import files
from jaxcnn.ops.convolution import convolve, plain_convolutions

# batch, side, channels, filters, kernel, stride, groups; padded by half the kernel. The nets that have such layers.
SHAPES = {
    "depthwise 3x3, EfficientNet-B0 stage 1": (8, 112, 32, 32, 3, 1, 32),
    "depthwise 3x3 stride 2, B0 stage 2": (8, 112, 96, 96, 3, 2, 96),
    "depthwise 5x5 stride 2, B0 stage 3": (8, 56, 144, 144, 5, 2, 144),
    "depthwise 5x5, B0 stage 5": (8, 14, 480, 480, 5, 1, 480),
    "depthwise 3x3, B0 stage 7": (8, 7, 1152, 1152, 3, 1, 1152),
    "1x1, ResNet-50 stage 2": (8, 56, 64, 256, 1, 1, 1),
    "1x1, ResNet-50 stage 4": (8, 14, 1024, 256, 1, 1, 1),
    "1x1 stride 2, ResNet-50 shortcut": (8, 56, 256, 512, 1, 2, 1),
    "two towers 5x5, AlexNet conv2": (8, 27, 96, 256, 5, 1, 2),
    "two towers 3x3, AlexNet conv4": (8, 13, 384, 384, 3, 1, 2),
    "3x3 on 2x2, ResNet-18 at 64 pixels": (32, 2, 512, 512, 3, 1, 1),
    "7x7 on 6x6": (8, 6, 64, 64, 7, 1, 1),
    "plain on both sides: 3x3, ResNet-18 stage 2": (8, 56, 64, 64, 3, 1, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path)
    given = parser.parse_args()
    rows = {name: measured(*shape, rounds=given.rounds) for name, shape in SHAPES.items()}
    for name, row in rows.items():
        print(f"{name}: " + ", ".join(f"{what} {at['ratio']:.2f}" for what, at in row.items()))
    result = {
        "what": "ms of a convolution: XLA's own, and in the form of ops/convolution.py; ratio: XLA's by ours",
        "versions": {"jax": jax.__version__},
        "cores": os.cpu_count(),
        "load average": os.getloadavg()[0],
        "rounds": given.rounds,
        "convolutions": rows,
    }
    if given.out:
        files.write_json(given.out, result)


def measured(
    batch: int, side: int, channels: int, filters: int, kernel: int, stride: int, groups: int, *, rounds: int
) -> dict[str, dict[str, float]]:
    """{"forward" and the gradient of each argument: {"xla": ms, "ours": ms, "ratio": of the two}}."""
    images = jax.random.normal(jax.random.key(0), (batch, side, side, channels))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, channels // groups, filters))
    around = [(kernel // 2, kernel // 2)] * 2

    def forward(images: jax.Array, weights: jax.Array) -> jax.Array:
        return convolve(images, weights, (stride, stride), around, feature_group_count=groups)

    given = jax.random.normal(jax.random.key(2), jax.eval_shape(forward, images, weights).shape)
    parts: dict[str, Callable[..., Any]] = {
        "forward": forward,
        "gradient of images": lambda images, weights: jax.vjp(lambda x: forward(x, weights), images)[1](given)[0],
        "gradient of weights": lambda images, weights: jax.vjp(lambda w: forward(images, w), weights)[1](given)[0],
    }
    result = {}
    for what, part in parts.items():
        jax.clear_caches()  # a trace of the one is not one of the other
        with plain_convolutions():
            xla = jax.jit(part).lower(images, weights).compile()
        jax.clear_caches()
        ours = jax.jit(part).lower(images, weights).compile()
        milliseconds = [[], []]
        for _ in range(rounds + 1):
            for times, compiled in zip(milliseconds, (xla, ours), strict=True):
                start = time.perf_counter()
                jax.block_until_ready(compiled(images, weights))
                times.append(1e3 * (time.perf_counter() - start))
        theirs, mine = (statistics.median(times[1:]) for times in milliseconds)  # the first call warms up
        result[what] = {"xla": round(theirs, 2), "ours": round(mine, 2), "ratio": round(theirs / mine, 2)}
    return result


if __name__ == "__main__":
    main()
