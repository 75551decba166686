"""Right: which images the net of a finished cell has right, measured once and kept as right.json in its directory.

With it the interval over seeds and images (images.py) knows on which images two nets differ.
"""

import base64
import itertools
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxcnn import files
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs.evaluation import compile_evaluation, measure_restored
from jaxcnn.runs.restore import load_run
from jaxcnn.runs.setup import open_evaluations
from jaxcnn.studies.cell import Cell
from jaxcnn.studies.figures import Results
from jaxcnn.studies.study import Study
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.task import score_of

NAME = "right.json"
FIGURE = score_of(Classification())
"""The last word of the figures that are shares of right images."""


def keep_right(study: Study, cells: Sequence[Cell], stop: Callable[[], bool], warn: Callable[[str], None]) -> None:
    """Measures it for the finished cells that lack it, on the splits whose accuracies the study's claims compare.

    A cell that cannot be measured any more, such as one without checkpoints, is told to `warn`.
    """
    figures = {claim.metric or study.metric for claim in study.claims}
    for _, of_arm in itertools.groupby(cells, key=lambda cell: cell.arm_name):
        compiled = None  # serves all seeds of the arm
        for cell in of_arm:
            wanted = _wanted(cell, figures)
            if wanted.keys() <= right_of(cell).keys() or cell.state() != "done":
                continue
            if stop():
                return
            splits = tuple(dict.fromkeys(wanted.values()))
            try:
                run = load_run(cell.path)
                if compiled is None:
                    compiled = compile_evaluation(run, run.experiment, open_evaluations(run.experiment, splits))
                experiment, step = compiled
                measured = measure_restored(run, experiment, splits, step)
                right = {figure: measured[figure.removesuffix(f" {FIGURE}")][1]["right"] for figure in wanted}
                files.write_json(cell.path / NAME, {figure: encoded(images) for figure, images in right.items()})
            except (UserError, OSError) as error:
                warn(f"which images {cell.name} has right is not kept: {error}")


def _wanted(cell: Cell, figures: set[str]) -> dict[str, str]:
    """{figure: the split that it speaks of}, as far as the cell evaluates it and its images are right or wrong."""
    arm = cell.arm
    if not isinstance(arm, Experiment) or not isinstance(arm.task, Classification):
        return {}
    splits = (*arm.data.evaluation_splits, *arm.data.tested)
    found = {f"{name}{suffix} {FIGURE}": name for name in splits for suffix in ("", "_ema")[: 1 + arm.ema.on]}
    return {figure: name for figure, name in found.items() if figure in figures}


def right_of(cell: Cell) -> dict[str, list[str]]:
    """{figure: [which images are right, as `encoded`]} of a cell, {} if it is not kept."""
    try:
        found = json.loads((cell.path / NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return {name: [bits] for name, bits in found.items()}


def encoded(right: np.ndarray) -> str:
    """Bits in base64, of bool [images]."""
    return base64.b64encode(np.packbits(right.astype(bool)).tobytes()).decode()


def decoded(bits: str, count: int) -> np.ndarray:
    """bool [count]."""
    return np.unpackbits(np.frombuffer(base64.b64decode(bits), np.uint8), count=count).astype(bool)


def right_images(arm: Results, metric: str, by_seed: Mapping[int, float], seeds: Sequence[int]) -> np.ndarray | None:
    """The share of an arm's nets that have an image right, [seeds, images]; of a single arm 0 or 1. None if it is not
    kept, or is not what the figures say."""
    cells = {cell["seed"]: cell for cell in arm["cells"]}
    rows = []
    for seed in seeds:
        cell = cells[seed]
        count, kept = cell["figures"].get(f"{metric.rpartition(' ')[0]} count"), cell.get("right", {}).get(metric)
        if not count or not kept:
            return None
        row = np.mean([decoded(bits, int(count)) for bits in kept], axis=0)
        if abs(row.mean() - by_seed[seed]) > 0.5 / count:
            return None
        rows.append(row)
    return np.array(rows) if len({len(row) for row in rows}) == 1 else None
