"""The learning rates of study C19 (experiments/ablations/fine_tuning.py), on data that the study does not test on.

    python -m benchmarks.fine_tuning_rates --start runs/lite0 [--out rates.json]

Every arm of its quick form is trained at each of the same four rates, once, with a seed that the study does not use, on
the study's number of images, and evaluated on as many others of the training split. Prints the accuracies and the best
rate of each arm.
"""

import argparse
import dataclasses
import pathlib
import tempfile

import jaxcnn as jc
from jaxcnn import files
from jaxcnn.experiment_file import load_module

STUDY = pathlib.Path(__file__).parents[1] / "experiments/ablations/fine_tuning.py"

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SEED = 100
SPLIT = "train[50%:]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", required=True)
    parser.add_argument("--out", type=pathlib.Path)
    given = parser.parse_args()
    table: dict[str, dict[str, float]] = {}
    study = load_module(STUDY)
    with tempfile.TemporaryDirectory() as folder:
        for name, arm in study.study(quick=True).arms.items():
            for rate in RATES:
                result = jc.train(
                    tuned(arm, rate, given.start, study.EACH), f"{folder}/{name}-{rate}", quiet=True
                ).result
                table.setdefault(name, {})[f"{rate:g}"] = result[SPLIT]["accuracy"]
                print(f"{name}, rate {rate:g}: {table[name][f'{rate:g}']:.4f}", flush=True)
    found = {
        "what": f"accuracy on {SPLIT} of the arms of fine_tuning.py --quick, seed {SEED}, by learning rate",
        "accuracy": table,
        "best": {name: max(row, key=row.__getitem__) for name, row in table.items()},
    }
    print(files.to_json(found, indent=2))
    if given.out:
        files.write_json(given.out, found)


def tuned(arm: jc.Experiment, rate: float, start: str, each: int) -> jc.Experiment:
    """An arm with other images: half of twice as many train it, the other half are evaluated."""
    few = jc.Few(jc.Tfds("tiny_imagenet20"), each=2 * each, classes=10)
    data = dataclasses.replace(
        arm.data, source=few, train_split="train[:50%]", evaluation_splits=(SPLIT,), test_splits=()
    )
    init_from = dataclasses.replace(arm.init_from, run=start if arm.init_from.run else None)
    return dataclasses.replace(
        arm, data=data, init_from=init_from, seed=SEED, optimizer=dataclasses.replace(arm.optimizer, learning_rate=rate)
    )


if __name__ == "__main__":
    main()
