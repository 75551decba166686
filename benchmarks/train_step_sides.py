"""One side of benchmarks/train_step.py, in a process of its own: compiles a net's train step, waits, and times it.

Arguments: side, name, batch, side of the image, steps, rounds, the file that says that it is compiled, the file that
lets it go on, "debug" or "". It prints one line of JSON.
"""

import collections
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

MIB = 2**20
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
LOSSES = 50
"""So many first losses are kept: the plain forms' are to be the same up to rounding."""
# What these nets are called in timm, or in torchvision; what timm sets to 0 by default, as the papers and ours have it.
TIMM = {
    "se_resnet50": ("legacy_seresnet50", {}),
    "senet154": ("legacy_senet154", {}),
    "vgg16": ("vgg16", {"drop_rate": 0.5}),
    "efficientnet_b0": ("efficientnet_b0", {"drop_rate": 0.2, "drop_path_rate": 0.2}),
    "efficientnet_b3": ("efficientnet_b3", {"drop_rate": 0.3, "drop_path_rate": 0.2}),
}
TORCHVISION = {"alexnet": ("alexnet", {}), "googlenet_bn": ("googlenet", {"aux_logits": False, "init_weights": False})}


class Turn:
    """Says that this side is compiled, and waits until it is alone."""

    def __init__(self, ready: str, go: str):
        self.ready, self.go = pathlib.Path(ready), pathlib.Path(go)

    def wait(self) -> None:
        self.ready.touch()
        while not self.go.exists():
            time.sleep(0.05)


def timed(step: Callable[[], None], wait: Callable[[], None], steps: int, rounds: int) -> list[float]:
    """Seconds of a step in each round, the mean of so many in a row, after five that are not counted."""
    for _ in range(min(5, steps)):
        step()
    wait()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        seconds.append((time.perf_counter() - start) / steps)
    return seconds


def figures(batch: int, seconds: list[float]) -> dict[str, Any]:
    return {
        "images/s": batch / statistics.median(seconds),
        "images/s, all rounds": [batch / each for each in seconds],
    }


def ours(
    name: str, batch: int, image: int, steps: int, rounds: int, turn: Turn, debug: bool, plain: bool = False
) -> dict[str, Any]:
    """jaxcnn's; `plain`: in none of the forms that a GPU has."""
    import contextlib
    import unittest.mock as mock

    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxcnn import create_model
    from jaxcnn.data.synthetic import Synthetic
    from jaxcnn.data.transforms import Normalize
    from jaxcnn.experiment import Data, Experiment
    from jaxcnn.models import resnet
    from jaxcnn.ops import window_max
    from jaxcnn.ops.convolution import plain_convolutions
    from jaxcnn.runs.initial_state import initial_state
    from jaxcnn.runs.program import compile_step
    from jaxcnn.train import mesh as meshes
    from jaxcnn.train.optimizers import SGD, build_optimizer

    shape = (image, image, 3)
    data = Data(shape, source=Synthetic(shape), batch_size=batch, normalize=Normalize(MEAN, STD))
    sgd = SGD(learning_rate=0.01, momentum=0.9, weight_decay=1e-4)
    made = Experiment(create_model(name, dtype="bfloat16"), data, optimizer=sgd)
    mesh = meshes.make_mesh(made.parallel, jax.devices()[:1])
    rate = lambda step: jnp.float32(0.01)  # noqa: E731
    optimizer = build_optimizer(sgd, rate, None)
    # The cache is left to the end: what is compiled later writes there too.
    cache = tempfile.TemporaryDirectory()
    jax.config.update("jax_compilation_cache_dir", cache.name)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    with contextlib.ExitStack() as forms:
        if plain:
            forms.enter_context(plain_convolutions())
            selection = window_max.picked_by_selection
            forms.enter_context(mock.patch.object(window_max, "picked_in_blocks", selection))
            forms.enter_context(mock.patch.object(resnet, "relu_of_sum", jax.nn.relu))
        compiled = compile_step(made, mesh, optimizer, rate, log_every=1)
        jax.clear_caches()
        again = compile_step(made, mesh, optimizer, rate, log_every=1)
    state = [jax.jit(lambda: initial_state(made, optimizer), out_shardings=meshes.replicated(mesh))()]
    turn.wait()
    rng = np.random.default_rng(0)
    fields = {
        "image": rng.integers(0, 256, (batch, *shape), np.uint8),
        "label": rng.integers(0, 1000, batch, np.int32),
    }
    placed = meshes.put_batch(fields, ("image", "label"), meshes.split(mesh))
    losses = []

    def step() -> None:
        state[0], metrics = compiled.call(state[0], {}, placed)
        losses.append(metrics["step_loss"])

    seconds = timed(step, lambda: jax.block_until_ready(state), steps, rounds)
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "device": jax.devices()[0].device_kind,
        **figures(batch, seconds),
        "memory, MiB": stats.get("peak_bytes_in_use", compiled.memory) / MIB,
        "compilation, s": compiled.seconds,
        "compilation with the cache, s": again.seconds,
        "losses": [float(loss) for loss in losses[:LOSSES]],
        **kernels(step, lambda: jax.block_until_ready(state)),
        "version": f"jax {jax.__version__}",
    }


def kernels(step: Callable[[], None], wait: Callable[[], None]) -> dict[str, Any]:
    """How many kernels a step has, and its microseconds by the first word of their operations; {} without a GPU."""
    import jax

    count, spent = 0, collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(3):
                step()
            wait()
        for file in pathlib.Path(folder).rglob("*.xplane.pb"):
            for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
                lines = plane.lines if "GPU" in plane.name else []
                for event in (event for line in lines if "Stream" in line.name for event in line.events):
                    operation = str(dict(event.stats).get("hlo_op", "")).split(".")[0]
                    count, spent[operation] = count + 1, spent[operation] + event.duration_ns / 3e3
    if not count:
        return {}
    return {"kernels": count / 3, "us by operation": {name: round(us) for name, us in spent.most_common(16)}}


def theirs(name: str, batch: int, image: int, steps: int, rounds: int, turn: Turn, debug: bool) -> dict[str, Any]:
    """timm's, or torchvision's, with torch.compile and channels_last."""
    import torch

    try:
        import torchvision
    except RuntimeError:  # it lacks its compiled operators beside a CPU build of PyTorch
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", "(Tensor a, Tensor b, float c) -> Tensor")
        import torchvision

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    if name in TORCHVISION:
        called, options = TORCHVISION[name]
        model, version = getattr(torchvision.models, called)(**options), f"torchvision {torchvision.__version__}"
    else:
        import timm

        called, options = TIMM.get(name, (name, {}))
        model, version = timm.create_model(called, num_classes=1000, **options), f"timm {timm.__version__}"
    model = model.to(device).to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    images = torch.randint(0, 256, (batch, 3, image, image), dtype=torch.uint8, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,), device=device)
    mean, std = (torch.tensor(each, device=device).view(1, 3, 1, 1) for each in (MEAN, STD))

    def loss_of(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            out = model((images.float() - mean) / std)
        logits = out[0] if isinstance(out, tuple) else out
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    compiled = torch.compile(loss_of, backend="eager" if debug else "inductor")
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        compiled(images).backward()
        optimizer.step()

    start = time.perf_counter()
    step()
    wait()
    first = time.perf_counter() - start
    optimizer.zero_grad(set_to_none=True)
    if device == "cuda":
        torch.cuda.empty_cache()  # for those that compile beside it
    turn.wait()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(step, wait, steps, rounds)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        **figures(batch, seconds),
        "memory, MiB": torch.cuda.max_memory_allocated() / MIB if device == "cuda" else None,
        "compilation, s": first,
        "version": f"torch {torch.__version__}, {version}",
    }


def main() -> None:
    side, name, batch, image, steps, rounds, ready, go, debug = sys.argv[1:]
    # Beside others on one GPU: none takes what it does not need yet.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    given = (name, int(batch), int(image), int(steps), int(rounds), Turn(ready, go), debug == "debug")
    found = theirs(*given) if side == "torch" else ours(*given, plain=side == "plain")
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
