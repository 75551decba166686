"""R-CNN on the features of a run that was fine-tuned on warped regions: machines, boxes, mean average precision.

    python -m benchmarks.rcnn runs/rcnn_bccd [--photos 60] [--out rcnn.json]

Fits support vector machines and regressions of boxes on the run's training photos (with --photos the first ones of its
split), and measures its first test split: jaxcnn/studies/rcnn.py. Prints what it measured, and writes it as JSON.
"""

import argparse
import os
import pathlib
import time

from jaxcnn import files
from jaxcnn.metrics.average_precision import METRICS
from jaxcnn.runs.restore import load_run
from jaxcnn.studies.rcnn import RCNN, WAYS, detect_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--photos", type=int)
    parser.add_argument("--out", type=pathlib.Path)
    given = parser.parse_args()
    run, settings = load_run(given.run), RCNN()
    data = run.experiment.data
    train = data.train_split if given.photos is None else f"{data.train_split}[:{given.photos}]"
    start = time.process_time()
    variables = {"params": run.state.params, **run.state.stats}
    found = detect_split(settings, run.experiment.model, variables, data, (train, data.test_splits[0]))
    score = METRICS[settings.protocol][0]
    names = run.classes[1:]
    result = {
        "what": f"R-CNN of {given.run.name} at step {run.step}, by {settings.protocol}",
        "training photos": found.photos[0],
        "test photos": found.photos[1],
        "proposals": found.recall,
        score: {way: float(found.measured[way].metrics[score]) for way in WAYS},
        "classes": {way: dict(zip(names, map(float, found.measured[way].classes), strict=True)) for way in WAYS},
        "seconds of processors": round(time.process_time() - start),
        "load average": os.getloadavg()[0],
    }
    print(files.to_json(result, indent=2))
    if given.out:
        files.write_json(given.out, result)


if __name__ == "__main__":
    main()
