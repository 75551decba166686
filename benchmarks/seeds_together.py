"""The seeds of an arm trained as one program against one by one, whole: compilation, evaluation and checkpoints too.

python benchmarks/seeds_together.py [--seeds 5] [--epochs 3]

Both sides in one run and on the same digits, in turn; the largest difference of a final loss shows that they agree,
beside what an invisible change of the pixels changes in runs one by one.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import tempfile
import time

import jax
from rich.console import Console

from jaxcnn import create_model
from jaxcnn.data.digits import Digits
from jaxcnn.data.transforms import Normalize, Resize
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models import GAP
from jaxcnn.runs.run_directory import RunDirectory
from jaxcnn.studies.cell import cells
from jaxcnn.studies.runner import run_cells
from jaxcnn.studies.study import Study
from jaxcnn.train.duration import epochs, steps
from jaxcnn.train.optimizers import SGD

NETS = {
    "linear, 8x8": ("linear", {"classes": 10}, 8),
    "MLP 784-2048-1024-10, 28x28": ("mlp", {}, 28),
    "LeNet-5, 32x32": ("lenet5", {}, 32),
    "VGG-A, 3 stages, an eighth as wide, 16x16": (
        "vgg11_bn",
        {"stages": 3, "width": 0.125, "head": GAP(classes=10)},
        16,
    ),
}


def seconds(experiment: Experiment, seeds: int, vmap_seeds: bool, path: pathlib.Path) -> tuple[float, list[float]]:
    """Of the whole arm, and each seed's final test loss."""
    study = Study("?", {"net": experiment, "unused": experiment}, (), seeds=tuple(range(seeds)))
    own = [cell for cell in cells(study, path) if cell.arm_name == "net"]
    quiet = Console(file=open(os.devnull, "w"))  # noqa: SIM115
    start = time.perf_counter()
    run_cells(study, own, pathlib.Path(__file__), quiet, lambda: False, vmap_seeds)
    return time.perf_counter() - start, [RunDirectory(cell.path).result()["test"]["loss"] for cell in own]


def nudged(experiment: Experiment) -> Experiment:
    """The same with pixels darker by 1e-4 of their 255 levels, some last bits: how far rounding carries a run."""
    data = dataclasses.replace(experiment.data, normalize=Normalize((1e-4,), (255.0,)))
    return dataclasses.replace(experiment, data=data)


def largest(losses: list[float], others: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(losses, others, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=3)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    report: dict[str, object] = {"device": jax.devices()[0].device_kind, "cpus": os.cpu_count(), "jax": jax.__version__}
    for name, (model, fields, side) in NETS.items():
        resize = (Resize((side, side)),) if side != 8 else ()
        data = Data((side, side, 1), source=Digits(), augment=resize, preprocess=resize, batch_size=64)
        experiment = Experiment(
            create_model(model, **fields),
            data,
            optimizer=SGD(learning_rate=0.05),
            duration=epochs(arguments.epochs),
            log_every=steps(20),
        )
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            alone, losses = seconds(experiment, arguments.seeds, False, root / "alone")
            joined, others = seconds(experiment, arguments.seeds, True, root / "together")
            _, rounded = seconds(nudged(experiment), arguments.seeds, False, root / "nudged")
        report[name] = {
            "one by one, s": alone,
            "together, s": joined,
            "ratio": alone / joined,
            "largest difference of a test loss": largest(losses, others),
            "largest difference where pixels are 1e-4 of 255 darker": largest(losses, rounded),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
