"""The train step of whole nets in float32 on a CPU beside PyTorch's with channels_last: images/s and their ratio.

    python -m benchmarks.train_step_cpu [--nets lenet5 ...] [--rounds 3] [--seconds 3] [--cpu-time] [--out F]

Needs the extra `parity` (torch, torchvision, timm). A whole step, forward, backward and SGD with momentum, on uint8
images that are normalised in the step; labels and images stay. Each measurement is a process of its own, the two sides
in turn, round by round; figures are medians, written as they come. What our side compiles in the first round, which is
what "compilation, s" says, the others find in a cache. Both sides take the cores that the process may use:
`taskset -c 0 python -m benchmarks.train_step_cpu --cpu-time` compares one core's processor time on a busy machine.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from jaxcnn import files

# name: (our name, batch, image side, channels, classes)
NETS = {
    "lenet5": ("lenet5", 128, 32, 1, 10),
    "resnet20": ("resnet20_cifar", 128, 32, 3, 10),
    "resnet18_64": ("resnet18", 32, 64, 3, 1000),
    "resnet18_96": ("resnet18", 32, 96, 3, 1000),
    "resnet50": ("resnet50", 8, 224, 3, 1000),
    "vgg16": ("vgg16", 4, 224, 3, 1000),
    "efficientnet_b0": ("efficientnet_b0", 8, 224, 3, 1000),
    "densenet121": ("densenet121", 8, 224, 3, 1000),
}
MEAN, STD = 120.0, 60.0


def timed(step: Callable[[], None], seconds: float, clock: Callable[[], float]) -> float:
    """Seconds of a step: the median of as many as fit into so many seconds, three at least, after one."""
    step()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = clock()
        step()
        times.append(clock() - start)
    return statistics.median(times)


def jaxcnns(name: str, seconds: float, clock: Callable[[], float]) -> dict[str, Any]:
    """Images a second of our compiled step, and the seconds that its compilation took."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxcnn import create_model
    from jaxcnn.data.synthetic import Synthetic
    from jaxcnn.data.transforms import Normalize
    from jaxcnn.devices import keep_memory
    from jaxcnn.experiment import Data, Experiment
    from jaxcnn.ops import onednn
    from jaxcnn.runs.initial_state import initial_state
    from jaxcnn.runs.program import compile_step
    from jaxcnn.train import mesh as meshes
    from jaxcnn.train.optimizers import SGD, build_optimizer

    keep_memory()  # as the front door does
    ours, batch, side, channels, classes = NETS[name]
    shape = (side, side, channels)
    normalize = Normalize((MEAN,) * channels, (STD,) * channels)
    data = Data(shape, source=Synthetic(shape, classes=classes), batch_size=batch, normalize=normalize)
    sgd = SGD(learning_rate=0.01, momentum=0.9, weight_decay=1e-4)
    made = Experiment(create_model(ours, classes=classes), data, optimizer=sgd)
    mesh = meshes.make_mesh(made.parallel, jax.devices()[:1])
    rate = lambda step: jnp.float32(0.01)  # noqa: E731
    optimizer = build_optimizer(sgd, rate, None)
    compiled = compile_step(made, mesh, optimizer, rate, log_every=1)
    rng = np.random.default_rng(0)
    fields = {
        "image": rng.integers(0, 256, (batch, *shape), np.uint8),
        "label": rng.integers(0, classes, batch, np.int32),
    }
    placed = meshes.put_batch(fields, ("image", "label"), meshes.split(mesh))
    state = [jax.device_put(initial_state(made, optimizer), meshes.replicated(mesh)), None]

    def step() -> None:
        state[:] = compiled.call(state[0], {}, placed)
        jax.block_until_ready(state)

    return {
        "images/s": batch / timed(step, seconds, clock),
        "memory, MiB": compiled.memory / 2**20,
        "compilation, s": compiled.seconds,
        "version": f"jax {jax.__version__}",
        "convolutions": onednn.computed_by(),
    }


def torchs(name: str, seconds: float, clock: Callable[[], float]) -> dict[str, Any]:
    """Images a second of PyTorch's step, not compiled (its users' first choice on a CPU), channels_last."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    _, batch, side, channels, classes = NETS[name]
    model = torch_model(name).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    images = torch.randint(0, 256, (batch, channels, side, side), dtype=torch.uint8)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (batch,))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model((images.float() - MEAN) / STD), labels).backward()
        optimizer.step()

    return {"images/s": batch / timed(step, seconds, clock), "version": f"torch {torch.__version__}"}


def torch_model(name: str) -> Any:
    """timm's EfficientNet, torchvision's nets, and the two that neither has."""
    import torch
    from torch import nn
    from torch.nn import functional

    if name in ("efficientnet_b0",):
        try:
            import timm
        except RuntimeError:  # torchvision, which it imports, lacks its compiled operators beside a CPU build
            for operator in ("nms", "qnms"):
                torch.library.define(f"torchvision::{operator}", "(Tensor a, Tensor b, float c) -> Tensor")
            import timm
        return timm.create_model(name, num_classes=1000, drop_rate=0.2, drop_path_rate=0.2)
    if name == "lenet5":
        pool = lambda: nn.AvgPool2d(2)  # noqa: E731
        features = (nn.Conv2d(1, 6, 5), nn.Tanh(), pool(), nn.Conv2d(6, 16, 5), nn.Tanh(), pool(), nn.Flatten())
        head = (nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10))
        return nn.Sequential(*features, *head)
    if name != "resnet20":
        try:
            import torchvision.models
        except RuntimeError:
            for operator in ("nms", "qnms"):
                torch.library.define(f"torchvision::{operator}", "(Tensor a, Tensor b, float c) -> Tensor")
            import torchvision.models
        return getattr(torchvision.models, name.split("_")[0])()

    class Block(nn.Module):
        """Option A of the paper: the shortcut is subsampled, and new channels are zeros."""

        def __init__(self, before: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
            self.stride, self.more = stride, width - before

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inside = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
            if self.more:
                x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
            return functional.relu(inside + x)

    blocks, before = [], 16
    for width in (16, 32, 64):
        for number in range(3):
            blocks.append(Block(before, width, 2 if number == 0 and width > 16 else 1))
            before = width
    stem = (nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def measured(side: str, name: str, seconds: float, cpu_time: bool, cache: str) -> dict[str, Any]:
    """One measurement in a process of its own; {"failed": why} if it did not come to one."""
    options = ["--one", side, name, "--seconds", str(seconds), *(["--cpu-time"] if cpu_time else [])]
    kept = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-m", __spec__.name, *options]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | kept)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def row(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """{side: medians over the rounds}, and the ratio of the two."""
    result: dict[str, Any] = {}
    for side, rounds in found.items():
        failed = [each["failed"] for each in rounds if "failed" in each]
        if failed:
            result[side] = {"failed": failed[0]}
            continue
        rates = [each["images/s"] for each in rounds]
        result[side] = {**rounds[0], "images/s": statistics.median(rates), "all rounds": rates}
    if not any("failed" in each for each in result.values()):
        result["ratio"] = result["jaxcnn"]["images/s"] / result["torch"]["images/s"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="of steps, in each measurement; at least three steps")
    parser.add_argument("--cpu-time", action="store_true", help="processor time: for one core of a busy machine")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    sides = {"jaxcnn": jaxcnns, "torch": torchs}
    if given.one:
        side, name = given.one
        clock = time.process_time if given.cpu_time else time.perf_counter
        print(json.dumps(sides[side](name, given.seconds, clock)))
        return
    with tempfile.TemporaryDirectory() as cache:
        compare(given, list(sides), cache)


def compare(given: argparse.Namespace, sides: list[str], cache: str) -> None:
    """Measures, prints and writes all nets."""
    rows: dict[str, Any] = {}
    for name in given.nets:
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for _ in range(given.rounds):
            for side in sides:
                found[side].append(measured(side, name, given.seconds, given.cpu_time, cache))
        rows[name] = row(found)
        print(name, json.dumps(rows[name]), flush=True)
        if given.out:
            what = {
                "what": "images/s of a train step, float32, SGD with momentum; ratio: jaxcnn's by torch's",
                "clock": "processor" if given.cpu_time else "wall",
                "cores": len(os.sched_getaffinity(0)),
                "load average": os.getloadavg()[0],
            }
            files.write_json(given.out, {**what, "rounds": given.rounds, "nets": rows})


if __name__ == "__main__":
    main()
