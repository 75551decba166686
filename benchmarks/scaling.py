"""What more devices change: step time on simulated devices, the collectives' share, FSDP's memory by compiled analysis.

python benchmarks/scaling.py [--only state|memory|time|estimate] [--out FILE.json] [--models ...] [--devices ...]

Simulated devices are threads of one CPU: their times say how much work is added, not how fast a cluster is. Memory and
collectives are read off the compiled program of one device, scheduled for memory as XLA does for GPUs, in float32.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import create_model
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.experiment import Data, Experiment
from jaxcnn.runs.compilation import Compiled
from jaxcnn.runs.initial_state import abstract_state, initial_state
from jaxcnn.runs.program import compile_step
from jaxcnn.train import mesh as meshes
from jaxcnn.train.mesh import Parallel, make_mesh
from jaxcnn.train.optimizers import SGD, build_optimizer

MIB = 2**20
LOCAL = 32  # examples per device
# Assumptions of the estimate, not measurements: images/s of one GPU of the H100 class in bfloat16 with the data ready,
# and bytes/s that leave a GPU in an all-reduce, inside a node (NVLink) and between nodes (400 Gbit/s for each GPU).
ASSUMED_IMAGES = {"resnet50": 3000.0, "vgg16": 1500.0, "resnet152": 1200.0}
PARAMETERS = {"resnet50": 25_557_032, "vgg16": 138_357_544, "resnet152": 60_192_808}  # as `jaxcnn models` counts them
NODE_BANDWIDTH, NETWORK_BANDWIDTH = 200e9, 35e9
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1, "u8": 1, "s8": 1, "f64": 8, "s64": 8, "u64": 8}


def collectives(text: str) -> dict[str, dict[str, float]]:
    """{kind: {"count", "MiB"}} of the results of the collectives in an HLO text, for one device."""
    found: dict[str, dict[str, float]] = {}
    for shapes, kind in re.findall(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(", text):
        size = 0
        for element, sides in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            size += BYTES.get(element, 0) * int(np.prod([int(side) for side in sides.split(",") if side] or [1]))
        entry = found.setdefault(kind, {"count": 0, "MiB": 0.0})
        entry["count"] += 1
        entry["MiB"] += size / MIB
    return found


def compile_for(
    model: str, image: int, batch: int, fsdp: int, flags: str
) -> tuple[Compiled, Experiment, jax.sharding.Mesh]:
    made = Experiment(
        create_model(model, classes=1000 if image > 64 else 10),
        Data((image, image, 3), source=Synthetic((image, image, 3)), batch_size=batch),
        optimizer=SGD(momentum=0.9),
        parallel=Parallel(fsdp=fsdp, shard_above=Parallel.shard_above if image > 64 else 2**10),
        xla_flags=flags,
    )
    mesh = make_mesh(made.parallel)
    rate = lambda step: jnp.float32(0.1)  # noqa: E731
    optimizer = build_optimizer(made.optimizer, rate, None)
    return compile_step(made, mesh, optimizer, rate, log_every=1), made, mesh


def memory(model: str, fsdp: int) -> dict[str, object]:
    """Bytes per device of one train step at 224 x 224, and what its collectives move."""
    compiled, made, mesh = compile_for(model, 224, LOCAL * jax.device_count(), fsdp, "cpu-memory-v1")
    analysis = compiled.call.memory_analysis()
    found = collectives(compiled.call.as_text())
    moved = sum(entry["MiB"] for entry in found.values())
    return {
        "model": model,
        "devices": mesh.size,
        "fsdp": fsdp,
        "state, MiB": meshes.device_bytes(abstract_state(made, mesh)) / MIB,
        "temporaries, MiB": analysis.temp_size_in_bytes / MIB,
        "in all, MiB": compiled.memory / MIB,
        "collectives": found,
        "collectives, share of bytes accessed": moved * MIB / compiled.call.cost_analysis()["bytes accessed"],
    }


def state_sizes(model: str, counts: list[int]) -> list[dict[str, object]]:
    """Bytes of parameters, momentum and statistics on each of so many devices, from the layout alone."""
    made = Experiment(
        create_model(model), Data((224, 224, 3), source=Synthetic((224, 224, 3))), optimizer=SGD(momentum=0.9)
    )
    rows = []
    for devices in counts:
        mesh = make_mesh(Parallel(fsdp=devices), jax.devices()[:devices])
        size = meshes.device_bytes(abstract_state(made, mesh))
        rows.append({"model": model, "fsdp": devices, "state, MiB": size / MIB})
    return rows


def step_time(batch: int, fsdp: int, rounds: int = 7) -> dict[str, object]:
    """Median seconds of a step of ResNet-20 at 32 x 32; its arrays are small, and sharded above 1,024 elements."""
    compiled, made, mesh = compile_for("resnet20_cifar", 32, batch, fsdp, "none")
    optimizer = build_optimizer(made.optimizer, lambda step: jnp.float32(0.1), None)
    shardings = meshes.shardings(abstract_state(made, mesh))
    state = jax.jit(lambda: initial_state(made, optimizer), out_shardings=shardings)()
    rng = np.random.default_rng(0)
    fields = {
        "image": rng.integers(0, 256, (batch, 32, 32, 3), np.uint8),
        "label": np.arange(batch, dtype=np.int32) % 10,
    }
    placed = meshes.put_batch(fields, ("image", "label"), meshes.split(mesh))
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        state, metrics = compiled.call(state, {}, placed)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - start)
    found = collectives(compiled.call.as_text())
    moved = sum(entry["MiB"] for entry in found.values())
    return {
        "devices": mesh.size,
        "fsdp": fsdp,
        "batch": batch,
        "step, s": statistics.median(seconds[1:]),
        "collectives, share of bytes accessed": moved * MIB / compiled.call.cost_analysis()["bytes accessed"],
    }


def estimate(model: str, gpus: int, images_per_gpu: float, batch: int = 256) -> dict[str, object]:
    """Seconds of an ImageNet epoch (1,281,167 images) where each GPU computes so many images/s at `batch` examples.

    The gradients, float32, go around a ring of all GPUs: 2 (n - 1) / n of their bytes leave each. From "exchange hidden
    behind the backward pass, which is two thirds of the step" to "nothing hidden".
    """
    gradients = 4 * PARAMETERS[model]
    compute = batch / images_per_gpu
    exchange = 2 * (gpus - 1) / gpus * gradients / (NODE_BANDWIDTH if gpus <= 8 else NETWORK_BANDWIDTH)
    steps = 1_281_167 / (batch * gpus)
    return {
        "model": model,
        "GPUs": gpus,
        "global batch": batch * gpus,
        "step, computing, ms": 1e3 * compute,
        "step, exchange, ms": 1e3 * exchange,
        "epoch, s, exchange hidden": steps * max(compute, compute / 3 + exchange),
        "epoch, s, nothing hidden": steps * (compute + exchange),
        "input, images/s": gpus * images_per_gpu,
    }


def in_process(devices: int, *arguments: object) -> Any:
    """One measurement in a process with so many simulated devices."""
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"arguments": [devices, *map(str, arguments)], "failed": done.stderr.splitlines()[-1:]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["state", "memory", "time", "estimate"])
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--models", nargs="+", default=["vgg16", "resnet152"])
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, *rest = arguments.one
        measured = {
            "state": lambda: state_sizes(rest[0], [int(devices) for devices in rest[1:]]),
            "memory": lambda: memory(rest[0], int(rest[1])),
            "time": lambda: step_time(int(rest[0]), int(rest[1])),
        }
        print(json.dumps(measured[kind]()))
        return
    report = json.loads(arguments.out.read_text()) if arguments.out and arguments.out.exists() else {}
    report |= {"jax": jax.__version__, "cpus": os.cpu_count(), "examples per device": LOCAL}

    def add(where: str, row: dict[str, object]) -> None:
        report.setdefault(where, []).append(row)
        print(json.dumps(row), flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(report, indent=2) + "\n")

    if arguments.only in (None, "time"):
        for devices in (1, 2, 4, 8):
            for name, batch in (("fixed local batch", 16 * devices), ("fixed global batch", 64)):
                for fsdp in sorted({1, devices}):
                    add(name, in_process(devices, "time", batch, fsdp))
    if arguments.only in (None, "estimate"):
        for model, images in ASSUMED_IMAGES.items():
            for gpus in (8, 64, 512):
                add("estimate", estimate(model, gpus, images))
    if arguments.only in (None, "state"):
        for model in arguments.models:
            for row in in_process(max(arguments.devices), "state", model, *arguments.devices):
                add("state", row)
    if arguments.only in (None, "memory"):
        for model in arguments.models:
            for devices in arguments.devices:
                for fsdp in sorted({1, devices}):
                    add("memory", in_process(devices, "memory", model, fsdp))


if __name__ == "__main__":
    main()
