"""Sixty shapes of convolutions on a CPU, forward and both gradients: ours, XLA's own and PyTorch's.

    python -m benchmarks.convolutions [--rounds 5] [--only "3x3"] [--cpu-time] [--out convolutions.json]

The sides run in turn: ops/convolution.py, `lax.conv_general_dilated` as it is, and PyTorch with channels_last if it is
installed (the extra `parity`). Ours are oneDNN's where that is installed and JAXCNN_ONEDNN is not 0. Figures are the
medians of the rounds in ms, and the other side's median divided by ours: over 1, ours is faster. They are written as
they come. Each takes the cores that the process may use: `taskset -c 0 python -m benchmarks.convolutions --cpu-time`
compares one core's processor time on a busy machine. On another device our side and XLA's are of that device.
"""

import argparse
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import files
from jaxcnn.devices import keep_memory
from jaxcnn.ops import onednn
from jaxcnn.ops.convolution import convolve, plain_convolutions


class Shape(NamedTuple):
    """A convolution of [batch, side, side, channels], padded so that stride 1 keeps the side."""

    batch: int
    side: int
    channels: int
    filters: int
    kernel: int
    stride: int = 1
    groups: int = 1
    dilation: int = 1

    def __str__(self) -> str:
        text = f"{self.batch}x{self.side}x{self.side}, {self.channels} to {self.filters}, {self.kernel}x{self.kernel}"
        further = {"stride": self.stride, "groups": self.groups, "dilation": self.dilation}
        return text + "".join(f", {name} {value}" for name, value in further.items() if value > 1)

    @property
    def padding(self) -> int:
        return (self.kernel - 1) * self.dilation // 2


# By class: layers of the nets that are named, and shapes between them.
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "1x1": (  # ResNet-50, DenseNet-121, EfficientNet-B0
        *((8, 56, 64, 256, 1), (8, 56, 256, 64, 1), (8, 28, 512, 128, 1), (8, 14, 1024, 256, 1), (8, 7, 512, 2048, 1)),
        *((8, 112, 32, 16, 1), (8, 112, 16, 96, 1), (8, 7, 320, 1280, 1), (8, 1, 2048, 1000, 1), (2, 224, 3, 64, 1)),
    ),
    "1x1, stride": ((8, 56, 256, 512, 1, 2), (8, 14, 1024, 2048, 1, 2), (128, 32, 16, 32, 1, 2)),
    "3x3": (  # VGG-16, ResNet-18 at 224 and 96 pixels, DenseNet-121, ResNet-20
        *((2, 224, 3, 64, 3), (1, 224, 64, 64, 3), (2, 112, 128, 128, 3), (4, 56, 256, 256, 3), (4, 14, 512, 512, 3)),
        *((8, 56, 64, 64, 3), (8, 28, 128, 128, 3), (8, 14, 256, 256, 3), (8, 7, 512, 512, 3), (32, 24, 64, 64, 3)),
        *((8, 56, 128, 32, 3), (8, 14, 128, 32, 3), (128, 32, 3, 16, 3), (128, 32, 16, 16, 3), (128, 16, 32, 32, 3)),
        *((128, 8, 64, 64, 3), (8, 28, 1, 2, 3)),
    ),
    "3x3, small map": ((32, 2, 512, 512, 3), (32, 1, 512, 512, 3), (32, 3, 512, 512, 3), (32, 4, 256, 256, 3)),
    "3x3, stride": ((8, 224, 3, 32, 3, 2), (8, 56, 64, 128, 3, 2), (8, 14, 256, 512, 3, 2), (128, 32, 16, 32, 3, 2)),
    "5x5": ((128, 28, 1, 6, 5), (128, 14, 6, 16, 5), (8, 28, 16, 32, 5), (8, 14, 48, 128, 5), (8, 4, 64, 64, 5)),
    "7x7": ((8, 224, 3, 64, 7, 2), (4, 56, 32, 32, 7), (8, 14, 64, 64, 7), (8, 6, 64, 64, 7)),
    "few groups": ((8, 27, 96, 256, 5, 1, 2), (8, 13, 384, 384, 3, 1, 2), (8, 28, 240, 240, 1, 1, 3)),
    "many groups": (  # ResNeXt-50, SENet-154
        *((8, 56, 128, 128, 3, 1, 32), (8, 28, 256, 256, 3, 1, 32), (8, 28, 512, 512, 3, 2, 32)),
        *((8, 7, 1024, 1024, 3, 1, 32), (4, 28, 512, 512, 3, 1, 64)),
    ),
    "depthwise": (  # EfficientNet-B0
        *((8, 112, 32, 32, 3, 1, 32), (8, 112, 96, 96, 3, 2, 96), (8, 56, 144, 144, 3, 1, 144)),
        *((8, 56, 144, 144, 5, 2, 144), (8, 14, 480, 480, 5, 1, 480), (8, 7, 1152, 1152, 3, 1, 1152)),
    ),
    "dilation": ((4, 28, 256, 256, 3, 1, 1, 2), (2, 28, 512, 512, 3, 1, 1, 4), (2, 28, 256, 256, 3, 1, 1, 12)),
}
PARTS = ("forward", "gradient of images", "gradient of weights")
LONGEST = 2.0
"""Seconds of a side's calls for one figure: a side that takes longer has fewer rounds, one at least."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(SHAPES), nargs="+", default=list(SHAPES), help="classes of shapes")
    parser.add_argument("--cpu-time", action="store_true", help="processor time: for one core of a busy machine")
    parser.add_argument("--out", type=pathlib.Path)
    given = parser.parse_args()
    keep_memory()  # as the front door does
    clock = time.process_time if given.cpu_time else time.perf_counter
    try:
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        versions = {"jax": jax.__version__, "torch": torch.__version__}
    except ImportError:
        print("PyTorch is not installed: ours and XLA's only (pip install -e '.[parity]' adds it)")
        versions = {"jax": jax.__version__}
    rows: dict[str, Any] = {}
    for kind in given.only:
        for shape in (Shape(*numbers) for numbers in SHAPES[kind]):
            rows[str(shape)] = {"class": kind, **measured(shape, given.rounds, clock, "torch" in versions)}
            parts = rows[str(shape)]
            ratios = (f"{part} {_ratios(parts[part])}" for part in PARTS)
            print(f"{kind}: {shape}: " + "; ".join(ratios), flush=True)
            if given.out:
                result = {
                    "what": "ms of a convolution; over ours: that side's by ours, the larger the faster ours",
                    "versions": versions,
                    "ours by": onednn.computed_by(),
                    "clock": "processor" if given.cpu_time else "wall",
                    "cores": len(os.sched_getaffinity(0)),
                    "load average": os.getloadavg()[0],
                    "rounds": given.rounds,
                    "slowest over ours": slowest(rows),
                    "convolutions": rows,
                }
                files.write_json(given.out, result)
    for kind, ratios in slowest(rows).items():
        print(f"{kind}, the lowest of its shapes: " + "; ".join(f"{part} {_ratios(at)}" for part, at in ratios.items()))


def _ratios(of: dict[str, Any]) -> str:
    return ", ".join(f"{side} {ratio:.2f}" for side, ratio in of["over ours"].items())


def slowest(rows: dict[str, Any]) -> dict[str, Any]:
    """By class and part, the lowest ratio of its shapes to each other side."""
    found: dict[str, Any] = {}
    for row in rows.values():
        for part in PARTS:
            least = found.setdefault(row["class"], {}).setdefault(part, {"over ours": {}})["over ours"]
            for side, ratio in row[part]["over ours"].items():
                least[side] = min(ratio, least.get(side, ratio))
    return found


def measured(shape: Shape, rounds: int, clock: Callable[[], float], with_torch: bool) -> dict[str, Any]:
    """{part: {side: ms, "over ours": {other side: its time by ours}}}; checks that the sides agree."""
    random = np.random.default_rng(0)
    images = random.standard_normal((shape.batch, shape.side, shape.side, shape.channels), np.float32)
    weights = random.standard_normal(
        (shape.kernel, shape.kernel, shape.channels // shape.groups, shape.filters), np.float32
    )
    sides = {"ours": jaxs(shape, images, weights)}
    with plain_convolutions():
        sides["xla"] = jaxs(shape, images, weights)
    if with_torch:
        sides["torch"] = torchs(shape, images, weights)
    result: dict[str, Any] = {}
    for number, part in enumerate(PARTS):
        calls = {side: made[number] for side, made in sides.items()}
        first = {side: call() for side, call in calls.items()}  # warms up
        for side, array in first.items():
            np.testing.assert_allclose(array, first["xla"], atol=1e-4 * np.abs(first["xla"]).max(), err_msg=side)
        times: dict[str, list[float]] = {side: [] for side in calls}
        for _ in range(rounds):
            for side, call in calls.items():
                if sum(times[side]) < LONGEST:
                    start = clock()
                    call()
                    times[side].append(clock() - start)
        medians = {side: 1e3 * statistics.median(each) for side, each in times.items()}
        ratios = {side: round(median / medians["ours"], 2) for side, median in medians.items() if side != "ours"}
        result[part] = {side: round(median, 2) for side, median in medians.items()} | {"over ours": ratios}
    return result


def jaxs(shape: Shape, images: np.ndarray, weights: np.ndarray) -> Sequence[Callable[[], Any]]:
    """The three parts, compiled in the form that convolutions have now."""
    around = [(shape.padding, shape.padding)] * 2

    def forward(images: jax.Array, weights: jax.Array) -> jax.Array:
        dilation = (shape.dilation, shape.dilation)
        strides = (shape.stride, shape.stride)
        return convolve(images, weights, strides, around, rhs_dilation=dilation, feature_group_count=shape.groups)

    placed = jnp.asarray(images), jnp.asarray(weights)
    result = jax.eval_shape(forward, *placed)
    given = jnp.asarray(np.random.default_rng(1).standard_normal(result.shape, np.float32))
    parts = (
        forward,
        lambda images, weights, given: jax.vjp(lambda x: forward(x, weights), images)[1](given)[0],
        lambda images, weights, given: jax.vjp(lambda w: forward(images, w), weights)[1](given)[0],
    )
    calls = []
    for part in parts:
        jax.clear_caches()  # a trace of the one form is not one of the other
        arrays = placed if part is forward else (*placed, given)
        compiled = jax.jit(part).lower(*arrays).compile()
        calls.append(lambda compiled=compiled, arrays=arrays: jax.block_until_ready(compiled(*arrays)))
    return calls


def torchs(shape: Shape, images: np.ndarray, weights: np.ndarray) -> Sequence[Callable[[], Any]]:
    """The three parts by PyTorch, channels_last, with results in our order of axes (views: nothing is copied)."""
    import torch

    last = torch.channels_last
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    w = torch.from_numpy(weights).permute(3, 2, 0, 1).contiguous(memory_format=last)
    geometry = ([shape.stride] * 2, [shape.padding] * 2, [shape.dilation] * 2)
    forward = lambda: torch.nn.functional.conv2d(x, w, None, *geometry, shape.groups)  # noqa: E731
    random = np.random.default_rng(1)
    with torch.no_grad():
        channels, *sides = forward().shape[1:]
    given = torch.from_numpy(random.standard_normal((shape.batch, *sides, channels), np.float32)).permute(0, 3, 1, 2)

    def gradient(number: int) -> Any:
        wanted = [number == 0, number == 1, False]
        backward = torch.ops.aten.convolution_backward
        return backward(given, x, w, None, *geometry, False, [0, 0], shape.groups, wanted)[number]

    return (
        lambda: forward().permute(0, 2, 3, 1).numpy(),
        lambda: gradient(0).permute(0, 2, 3, 1).numpy(),
        lambda: gradient(1).permute(2, 3, 1, 0).numpy(),
    )


if __name__ == "__main__":
    main()
