"""Variables drawn by one operation for all arrays (runs/joined_draws.py), and with one for each, as JAX writes it down.

    python -m benchmarks.initial_state [--models resnet50 ...] [--out initial_state.json]

Of every model at its paper's input: whether both have the same bits, the processor seconds to trace and compile, the
seconds to draw, the second time, and the memory that drawing takes beside its results. Compiled as an initial state is.
"""

import argparse
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import create_model, files
from jaxcnn.models import MODELS
from jaxcnn.runs.joined_draws import joined_draws
from jaxcnn.summary.summary import input_shape

OPTIONS = {"xla_backend_optimization_level": 1}


def measure(init: Callable[..., Any]) -> tuple[dict[str, float], Any]:
    seed, start = np.uint32(0), time.process_time()
    compiled = jax.jit(init).lower(seed).compile(compiler_options=OPTIONS)
    compiling = time.process_time() - start
    for _ in range(2):
        start = time.perf_counter()
        variables = jax.block_until_ready(compiled(seed))
        drawing = time.perf_counter() - start
    memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
    rounded = {"compile, processor s": compiling, "draw, s": drawing, "memory to draw, MiB": memory}
    return {name: round(value, 3) for name, value in rounded.items()}, variables


def both(name: str) -> dict[str, Any]:
    model, images = create_model(name), (1, *input_shape(name))

    def init(seed: jax.Array) -> Any:
        return model.init(jax.random.key(seed), jnp.zeros(images), train=False, method="outputs")

    ours, drawn = measure(joined_draws(init))
    bits = [x.tobytes() for x in map(np.asarray, jax.tree.leaves(drawn))]
    del drawn
    theirs, drawn = measure(init)
    same = bits == [x.tobytes() for x in map(np.asarray, jax.tree.leaves(drawn))]
    return {"same bits": same, "arrays": len(bits), "one operation": ours, "one for each": theirs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--out", type=pathlib.Path)
    given = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    result: dict[str, Any] = {"jax": jax.__version__, "device": jax.devices()[0].device_kind, "nets": {}}
    for name in given.models:
        result["nets"][name] = both(name)
        print(name, result["nets"][name], flush=True)
        if given.out:
            files.write_json(given.out, result)


if __name__ == "__main__":
    main()
