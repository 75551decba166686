"""The learning rates of study C19 (experiments/ablations/fine_tuning.py), on images that the study does not read.

    python -m benchmarks.fine_tuning_rates --start runs/lite0 [--out rates.json]

Every arm of its quick form that trains is trained at each of the same five rates, once, with a seed that the study does
not use, on as many images as there, and evaluated on as many others. Prints the accuracies and each arm's best rate;
what FILE has already is not run again.
"""

import argparse
import dataclasses
import json
import pathlib
import tempfile

import jaxcnn as jc
from jaxcnn import files
from jaxcnn.experiment_file import load_module

STUDY = pathlib.Path(__file__).parents[1] / "experiments/ablations/fine_tuning.py"
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
SEED = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", required=True)
    parser.add_argument("--out", type=pathlib.Path)
    given = parser.parse_args()
    table: dict[str, dict[str, float]] = {}
    if given.out and given.out.exists():
        table = json.loads(given.out.read_text())["accuracy"]
    arms = load_module(STUDY).study("quick").arms
    with tempfile.TemporaryDirectory() as folder:
        for name, arm in arms.items():
            for rate in RATES if isinstance(arm, jc.Experiment) else ():
                if f"{rate:g}" in table.get(name, {}):
                    continue
                made = tuned(arm, rate, given.start)
                result = jc.train(made, f"{folder}/{name}-{rate}", quiet=True).result
                table.setdefault(name, {})[f"{rate:g}"] = result[made.data.evaluation_splits[0]]["accuracy"]
                print(f"{name}, rate {rate:g}: {table[name][f'{rate:g}']:.4f}", flush=True)
                if given.out:
                    files.write_json(given.out, summary(table))
    print(files.to_json(summary(table), indent=2))


def summary(table: dict[str, dict[str, float]]) -> dict[str, object]:
    return {
        "what": f"validation accuracy of the arms of fine_tuning.py --quick that train, seed {SEED}, by learning rate",
        "accuracy": table,
        "best": {name: max(row, key=row.__getitem__) for name, row in table.items()},
    }


def tuned(arm: jc.Experiment, rate: float, start: str) -> jc.Experiment:
    """An arm with another rate, on the images of each class that come after the study's, and without a test."""
    few = arm.data.source
    assert isinstance(few, jc.Few)
    data = dataclasses.replace(arm.data, source=dataclasses.replace(few, first=few.each), test_splits=())
    init_from = dataclasses.replace(arm.init_from, run=start if arm.init_from.run else None)
    return dataclasses.replace(arm, data=data, init_from=init_from, seed=SEED, optimizer=jc.Adam(learning_rate=rate))


if __name__ == "__main__":
    main()
