"""python -m tests.many_devices FOLDER: 20 steps of the tiny experiment on the first 1, 2, 4 and 8 of 8 fake devices.

One process for all of them, since most of a short run's time is the start of its process. Writes FOLDER/runs.json:
{name: {"losses": [...], "test": {...}, "test_ema": {...}, "spec": how the largest parameter lies}}, and of 100 steps
with a frozen layer "frozen": {parameter: whether its bits are those of the start}; and of initial states of 1 and 8
devices "initial": {"exchanges": of the latter, "split": arrays of it, "same": whether they have the same bits}.
"""

import dataclasses
import json
import pathlib
import re
import sys
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from rich.console import Console

from jaxcnn import config
from jaxcnn.experiment import Checkpoints, Experiment
from jaxcnn.models import create_model
from jaxcnn.runs.display import Display
from jaxcnn.runs.initial_state import abstract_state
from jaxcnn.runs.loop import run
from jaxcnn.runs.program import jit_initial_state
from jaxcnn.runs.restore import load_run
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.start import start_run
from jaxcnn.runs.stepper import stepper_for
from jaxcnn.train import mesh as meshes
from jaxcnn.train.averages import SWA
from jaxcnn.train.duration import steps
from jaxcnn.train.groups import Group
from jaxcnn.train.mesh import Parallel, make_mesh
from jaxcnn.train.optimizers import SAM, SGD
from tests.experiments.tiny import experiment

# (accumulate, bn_group); one device runs all of them.
CASES = {2: [(1, 16)], 4: [(2, "global")], 8: [(1, "global"), (2, 16)]}
CASES[1] = [case for cases in CASES.values() for case in cases]


def name_of(devices: int, fsdp: bool, accumulate: int, group: int | str) -> str:
    return f"{devices}-{'fsdp' if fsdp else 'replicated'}-{accumulate}-{group}"


def make(devices: int, fsdp: bool, accumulate: int, group: int | str) -> Experiment:
    tiny = experiment()
    return dataclasses.replace(
        tiny,
        data=dataclasses.replace(tiny.data, batch_size=64),
        # Half of the devices, where there are enough, so that both axes of the mesh are used.
        parallel=Parallel(fsdp=max(2, devices // 2) if fsdp else 1, shard_above=1),
        accumulate=accumulate,
        bn_group=group,
        duration=steps(20),
        log_every=steps(1),
    )


TUNED = (1, 8)
"""Devices of the runs that have all that fine-tuning asks of a step; of 8, 4 share a state."""


def tuned(devices: int) -> Experiment:
    return dataclasses.replace(
        make(devices, devices > 1, 2, "global"),
        optimizer=SAM(SGD(0.1, weight_decay=0.01), rho=0.05),
        layer_decay=0.5,
        groups=(Group("params/bn1/*", freeze_until=steps(5)),),
        clip_norm=1.0,
        ema=SWA(start=steps(8), every=steps(4), recompute=steps(3)),
    )


def cases() -> list[tuple[int, bool, tuple[int, int | str]]]:
    """(devices, fsdp, case)."""
    return [(devices, fsdp, each) for devices in CASES for fsdp in (False, True)[:devices] for each in CASES[devices]]


def frozen(folder: pathlib.Path) -> dict[str, bool]:
    """After 100 steps on 8 devices, with momentum and weight decay: whether each parameter has the bits that it had."""
    made = dataclasses.replace(
        make(8, True, 2, 16),
        optimizer=SGD(0.05, weight_decay=0.1, decay="all"),
        groups=(Group("params/conv1/*", freeze=True),),
        duration=steps(100),
        evaluate_every=steps(100),
        log_every=steps(100),
        checkpoints=Checkpoints(every=steps(100)),
    )
    plan, path = make_plan(made), folder / "frozen"
    quiet = Console(file=(folder / "output.txt").open("a"))
    with start_run(path, config.encode(made), None, plan.dataset()) as directory, Display(quiet) as display:
        run(plan, directory, display)
    first = flatten_dict(stepper_for([plan]).create()[0].params, sep="/")
    last = flatten_dict(load_run(path).state.params, sep="/")
    return {name: np.asarray(first[name]).tobytes() == np.asarray(last[name]).tobytes() for name in first}


def initial() -> dict[str, Any]:
    params, exchanges, split = [], 0, 0
    for fsdp in (1, 8):
        net, parallel = create_model("mlp", classes=4), Parallel(fsdp=fsdp, shard_above=1000)
        made = dataclasses.replace(experiment(), model=net, parallel=parallel)
        plan = dataclasses.replace(make_plan(made), mesh=make_mesh(made.parallel, jax.devices()[:fsdp]))
        shardings = meshes.shardings(abstract_state(made, plan.mesh))
        compiled = jit_initial_state(plan, shardings).lower(jax.ShapeDtypeStruct((), np.uint32)).compile()
        params.append(jax.tree.leaves(compiled(np.uint32(3)).params))
        exchanges = len(re.findall(r"= \S+ (all-|collective-|reduce-scatter)", compiled.as_text()))
        split = sum("fsdp" in str(sharding.spec) for sharding in jax.tree.leaves(shardings.params))
    same = all(np.asarray(one).tobytes() == np.asarray(other).tobytes() for one, other in zip(*params, strict=True))
    return {"exchanges": exchanges, "split": split, "same": same}


def main(folder: pathlib.Path) -> None:
    done = {}
    runs = [(devices, name_of(devices, fsdp, *case), make(devices, fsdp, *case)) for devices, fsdp, case in cases()]
    runs += [(devices, f"{devices}-tuned", tuned(devices)) for devices in TUNED]
    runs.append((8, "8-several", dataclasses.replace(make(8, True, 1, "global"), log_every=steps(4), steps_per_call=2)))
    for devices, name, made in runs:
        plan = dataclasses.replace(make_plan(made), mesh=make_mesh(made.parallel, jax.devices()[:devices]))
        path = folder / name
        quiet = Console(file=(folder / "output.txt").open("a"))
        with start_run(path, config.encode(made), None, plan.dataset()) as directory, Display(quiet) as display:
            result = run(plan, directory, display).result
            losses = [line["loss"] for line in directory.metrics() if line["split"] == "train"]
        largest = max(jax.tree.leaves(abstract_state(made, plan.mesh).params), key=lambda x: x.size)
        done[name] = {"losses": losses, **result, "spec": str(largest.sharding.spec)}
    done |= {"frozen": frozen(folder), "initial": initial()}
    (folder / "runs.json").write_text(json.dumps(done))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).absolute())
