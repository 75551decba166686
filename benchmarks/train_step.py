"""The train step of whole nets in bfloat16 beside timm's with torch.compile and channels_last: images/s and memory.

python benchmarks/train_step.py [--models resnet50 ...] [--batch 256] [--image 224] [--steps 20] [--rounds 3] [--out F]

For a GPU; needs the extra `parity`, with a PyTorch for that GPU. Both sides get uint8 images that stay on the device,
normalise them, and take a whole step: forward, backward, SGD with momentum and weight decay. Each measurement is a
process of its own, the two sides in turn, round by round; figures are medians. On a CPU it runs, and says nothing.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

MIB = 2**20
NETS = ("resnet50", "vgg16", "efficientnet_b0", "densenet121")
# What timm sets to 0 by default, as the papers and our table have it.
REGULARISED = {"vgg16": {"drop_rate": 0.5}, "efficientnet_b0": {"drop_rate": 0.2, "drop_path_rate": 0.2}}
# Dense bfloat16 operations a second, from NVIDIA's data sheets, by what the device calls itself.
PEAK = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "V100": 125e12}
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def timed(step: Callable[[], None], wait: Callable[[], None], steps: int) -> float:
    """Seconds of a step, the mean of so many in a row, after three that are not counted."""
    for _ in range(3):
        step()
    wait()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return (time.perf_counter() - start) / steps


def ours(name: str, batch: int, image: int, steps: int) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxcnn import create_model
    from jaxcnn.data.synthetic import Synthetic
    from jaxcnn.data.transforms import Normalize
    from jaxcnn.experiment import Data, Experiment
    from jaxcnn.runs.program import compile_step
    from jaxcnn.runs.setup import initial_state
    from jaxcnn.train import mesh as meshes
    from jaxcnn.train.optimizers import SGD, build_optimizer

    shape = (image, image, 3)
    data = Data(shape, source=Synthetic(shape), batch_size=batch, normalize=Normalize(MEAN, STD))
    sgd = SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4)
    made = Experiment(create_model(name, dtype=jnp.bfloat16), data, optimizer=sgd)
    mesh = meshes.make_mesh(made.parallel, jax.devices()[:1])
    rate = lambda step: jnp.float32(0.1)  # noqa: E731
    compiled = compile_step(made, mesh, build_optimizer(sgd, rate, None), rate, log_every=1)
    rng = np.random.default_rng(0)
    fields = {
        "image": rng.integers(0, 256, (batch, *shape), np.uint8),
        "label": rng.integers(0, 1000, batch, np.int32),
    }
    placed = meshes.put_batch(fields, ("image", "label"), meshes.split(mesh))
    state = [jax.device_put(initial_state(made, build_optimizer(sgd, rate, None)), meshes.replicated(mesh)), None]

    def step() -> None:
        state[:] = compiled.call(state[0], {}, placed)

    seconds = timed(step, lambda: jax.block_until_ready(state), steps)
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "device": jax.devices()[0].device_kind,
        "images/s": batch / seconds,
        "memory, MiB": stats.get("peak_bytes_in_use", compiled.memory) / MIB,
        "compilation, s": compiled.seconds,
        "version": f"jax {jax.__version__}",
    }


def timms(name: str, batch: int, image: int, steps: int) -> dict[str, Any]:
    import torch

    try:
        import timm
    except RuntimeError:  # torchvision, which it imports, lacks its compiled operators beside a CPU build of PyTorch
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", "(Tensor a, Tensor b, float c) -> Tensor")
        import timm

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    model = timm.create_model(name, num_classes=1000, **REGULARISED.get(name, {}))
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images = torch.randint(0, 256, (batch, 3, image, image), dtype=torch.uint8, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,), device=device)
    mean, std = (torch.tensor(each, device=device).view(1, 3, 1, 1) for each in (MEAN, STD))

    def loss_of(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = model((images.float() - mean) / std)
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    compiled = torch.compile(loss_of)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        compiled(images).backward()
        optimizer.step()

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    start = time.perf_counter()
    step()
    wait()
    first = time.perf_counter() - start
    seconds = timed(step, wait, steps)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "images/s": batch / seconds,
        "memory, MiB": torch.cuda.max_memory_allocated() / MIB if device == "cuda" else None,
        "compilation, s": first,
        "version": f"torch {torch.__version__}, timm {timm.__version__}",
    }


def measured(side: str, *arguments: object) -> dict[str, Any]:
    """One measurement in a process of its own: neither framework leaves memory to the other."""
    command = [sys.executable, __file__, "--one", side, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, side: str, batch: int, image: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds; the share of peak counts three times the forward pass's multiply-adds, twice."""
    failed = [each["failed"] for each in found if "failed" in each]
    if failed:
        return {"model": name, "side": side, "batch": batch, "failed": failed[0]}
    import jax

    from jaxcnn import create_model
    from jaxcnn.summary.summary import summarize

    jax.config.update("jax_platforms", "cpu")  # counting takes no device
    rate = statistics.median(each["images/s"] for each in found)
    peak = next((value for kind, value in PEAK.items() if kind in found[0]["device"]), None)
    operations = 6 * summarize(create_model(name), (image, image, 3)).multiply_adds
    return {
        "model": name,
        "side": side,
        "batch": batch,
        **found[0],
        "images/s": rate,
        "images/s, all rounds": [each["images/s"] for each in found],
        "share of peak": rate * operations / peak if peak else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(NETS))
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--image", type=int, default=224)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sides = {"jaxcnn": ours, "timm": timms}
    if arguments.one:
        side, name, *numbers = arguments.one
        print(json.dumps(sides[side](name, *map(int, numbers))))
        return
    rows = []
    for name in arguments.models:
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for _ in range(arguments.rounds):
            for side in sides:
                found[side].append(measured(side, name, arguments.batch, arguments.image, arguments.steps))
        for side in sides:
            rows.append(row(name, side, arguments.batch, arguments.image, found[side]))
            print(json.dumps(rows[-1]), flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
