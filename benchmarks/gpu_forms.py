"""The forms that a convolution may take on a GPU, by kind: what jaxcnn/ops/gpu_forms.py has its table from.

    python -m benchmarks.gpu_forms --out gpu_forms.json [--batch 128] [--seconds 230]

In bfloat16, forward and both gradients, each its own program; medians of calls in turn. A kind has the form whose time
over XLA's own, the geometric mean over the kind's shapes of all parts together, is the least, if it is under 0.95.
Results are written as they come. --debug tries everything at tiny sizes, and stores nothing.
"""

import argparse
import math
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn import files
from jaxcnn.ops import gpu_forms
from jaxcnn.ops.convolution import convolve
from jaxcnn.ops.gpu_forms import POSSIBLE, kind_of
from jaxcnn.ops.platform import traced_for

# side, channels, filters, kernel, stride, padding, groups
SHAPES = {
    "VGG-16 conv1_1": (224, 3, 64, 3, 1, 1, 1),
    "ResNet-50 conv1": (224, 3, 64, 7, 2, 3, 1),
    "EfficientNet-B0 stem": (224, 3, 32, 3, 2, 1, 1),
    "AlexNet conv1": (224, 3, 64, 11, 4, 2, 1),
    "EfficientNet-B0 stage 1, depthwise 3x3": (112, 32, 32, 3, 1, 1, 32),
    "EfficientNet-B0 stage 2, depthwise 3x3 stride 2": (112, 96, 96, 3, 2, 1, 96),
    "EfficientNet-B0 stage 3, depthwise 5x5": (28, 240, 240, 5, 1, 2, 240),
    "EfficientNet-B0 stage 6, depthwise 5x5": (7, 1152, 1152, 5, 1, 2, 1152),
    "ResNet-50 stage 2, 1x1 out": (56, 64, 256, 1, 1, 0, 1),
    "ResNet-50 stage 4, 1x1 in": (14, 1024, 256, 1, 1, 0, 1),
    "ResNet-50 stage 3, 1x1 stride 2": (56, 256, 512, 1, 2, 0, 1),
}
WINS = 0.95
"""A form wins if it takes so much of XLA's time or less: less is not worth another form."""


def measured(
    shape: tuple[int, int, int, int, int, int, int], forms: tuple[str, ...], batch: int, calls: int
) -> dict[str, dict[str, float]]:
    """{form: {"forward" and the gradient of each argument: ms}}."""
    side, channels, filters, kernel, stride, padding, groups = shape
    images = jax.random.normal(jax.random.key(0), (batch, side, side, channels), jnp.bfloat16)
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, channels // groups, filters), jnp.bfloat16)
    kind = kind_of(weights.shape, (stride, stride), [(padding, padding)] * 2, (1, 1), groups)
    programs = {}
    before = gpu_forms.FORMS[kind]
    try:
        for form in forms:
            gpu_forms.FORMS[kind] = form  # pyright: ignore[reportArgumentType]
            with traced_for("gpu"):
                programs[form] = compiled(images, weights, stride, padding, groups)
    finally:
        gpu_forms.FORMS[kind] = before
    times = {form: {what: [] for what in parts} for form, parts in programs.items()}
    for _ in range(calls):
        for form, parts in programs.items():
            for what, call in parts.items():
                start = time.perf_counter()
                jax.block_until_ready([call(images, weights) for _ in range(10)])
                times[form][what].append(100 * (time.perf_counter() - start))
    return {
        form: {what: statistics.median(each[1:] or each) for what, each in parts.items()}
        for form, parts in times.items()
    }


def compiled(
    images: jax.Array, weights: jax.Array, stride: int, padding: int, groups: int
) -> dict[str, Callable[..., Any]]:
    """The three parts, traced anew."""

    def forward(images: jax.Array, weights: jax.Array) -> jax.Array:
        return convolve(images, weights, (stride, stride), [(padding, padding)] * 2, feature_group_count=groups)

    out = jax.eval_shape(forward, images, weights)
    given = jnp.ones(out.shape, out.dtype)
    parts = {
        "forward": forward,
        "gradient of images": lambda images, weights: jax.vjp(lambda x: forward(x, weights), images)[1](given)[0],
        "gradient of weights": lambda images, weights: jax.vjp(lambda w: forward(images, w), weights)[1](given)[0],
    }
    return {what: jax.jit(part).lower(images, weights).compile() for what, part in parts.items()}


def best_forms(convolutions: dict[str, Any]) -> dict[str, str]:
    """{kind: form} of what was measured. A net's first convolution needs no gradient of its images."""
    ratios: dict[str, dict[str, list[float]]] = {}
    for row in convolutions.values():
        parts = ["forward", "gradient of weights"]
        if not row["kind"].startswith("few channels"):
            parts.append("gradient of images")
        total = {form: sum(times[part] for part in parts) for form, times in row["ms"].items()}
        for form, each in total.items():
            ratios.setdefault(row["kind"], {}).setdefault(form, []).append(each / total["xla"])
    means = {
        kind: {form: math.exp(statistics.fmean(map(math.log, each))) for form, each in of.items()}
        for kind, of in ratios.items()
    }
    return {
        kind: min((form for form in of if form == "xla" or of[form] < WINS), key=of.__getitem__)
        for kind, of in means.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--calls", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=230)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--debug", action="store_true")
    given = parser.parse_args()
    if given.debug and given.out:
        parser.error("--debug measures nothing that is worth an --out")
    until = time.monotonic() + given.seconds
    result: dict[str, Any] = {
        "what": "ms of a convolution in bfloat16 on a GPU in the forms of ops/gpu_forms.py",
        "device": jax.devices()[0].device_kind,
        "versions": {"jax": jax.__version__},
        "batch": given.batch,
        "convolutions": {},
    }
    for name, shape in SHAPES.items():
        if time.monotonic() > until:
            print(f"out of time before {name}")
            break
        side, channels, filters, kernel, stride, padding, groups = shape
        kind = kind_of(
            (kernel, kernel, channels // groups, filters), (stride,) * 2, [(padding, padding)] * 2, (1, 1), groups
        )
        if given.debug:
            shape = (max(4, side // 16), *shape[1:])
        times = measured(shape, POSSIBLE[kind], 1 if given.debug else given.batch, 1 if given.debug else given.calls)
        result["convolutions"][name] = {"kind": kind, "ms": times}
        print(
            name, {form: {what: round(ms, 3) for what, ms in each.items()} for form, each in times.items()}, flush=True
        )
        result["forms"] = best_forms(result["convolutions"])
        if given.out:
            files.write_json(given.out, result)
    print(result.get("forms"))


if __name__ == "__main__":
    main()
