"""What proposals cover: the recall at an IoU of 0.5 and 0.7 of the objects of a split, by the number of proposals.

    python -m benchmarks.proposals bccd test --write proposals.npz --out docs/results/bccd_proposals.json

Searches every photo of a split of PATH, in Pascal VOC's layout with boxes as edges, by SelectiveSearch as it is, and
measures what the first 100, 300 and all of them cover. --write keeps the proposals of all splits that are named.
"""

import argparse
import os
import pathlib
import time

import numpy as np

import jaxcnn as jc
from jaxcnn import files
from jaxcnn.data.proposals import image_id
from jaxcnn.metrics.proposal_recall import proposal_recall

CLASSES = ("RBC", "WBC", "Platelets")
NUMBERS = (100, 300, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=pathlib.Path)
    parser.add_argument("splits", nargs="+")
    parser.add_argument("--write", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    given = parser.parse_args()
    photos = jc.VOCDetection(str(given.path), CLASSES, coordinates="edges", rules=jc.BoxRules(empty="drop"))
    source, stored, results = jc.WithProposals(photos), {}, {}
    for split in given.splits:
        examples, found, truths, seconds = source.open(split), [], [], 0.0
        for i in range(len(examples)):
            example = examples.examples[i]
            start = time.process_time()
            found.append(source.propose(example["image"], ""))
            seconds += time.process_time() - start
            truths.append(example)
            stored[image_id(examples.where(i))] = found[-1]
        results[split] = {
            "photos": len(found),
            "objects": sum(len(truth["boxes"]) for truth in truths),
            "proposals of a photo": float(np.mean([len(boxes) for boxes in found])),
            "seconds of a processor for a photo": round(seconds / len(found), 3),
            "recall": {str(most or "all"): proposal_recall(found, truths, most=most) for most in NUMBERS},
        }
        print(split, files.to_json(results[split], indent=2), flush=True)
    if given.write:
        jc.write_proposals(given.write, stored)
    if given.out:
        files.write_json(given.out, {"search": str(source.search), "load average": os.getloadavg()[0], **results})


if __name__ == "__main__":
    main()
