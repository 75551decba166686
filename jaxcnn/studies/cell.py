"""Cell: one arm with one seed. It is a run directory of its own, and its figures are read from there.

Figures, by name: "test accuracy", "test loss" (and any other split and metric of result.json), "train loss" and
"train accuracy" (mean of the last logged interval), "images per second" (median of the logged intervals), "epochs to
train accuracy 0.75" (see Study.reach), and what the study's probes measure. "parameters" and "multiply-adds" are
counted from the arm's model.
"""

import dataclasses
import json
import pathlib
import statistics
from typing import Any

from jaxcnn import config, files
from jaxcnn.experiment import Experiment
from jaxcnn.explain.summary import summarize
from jaxcnn.studies.study import Arm, Study, folder, with_seed
from jaxcnn.train.record import Record, is_training, line_name
from jaxcnn.train.saved import load_run

PROBES = "probes.json"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One arm with one seed, in its own directory."""

    arm_name: str
    arm: Arm
    seed: int
    path: pathlib.Path

    @property
    def name(self) -> str:
        return f"{self.arm_name}, seed {self.seed}"

    def state(self) -> str:
        """The run's state as status.json has it; "missing" where it has not begun."""
        return Record(self.path).state() or "missing"

    def message(self) -> str:
        """Why it failed or diverged, "" elsewhere."""
        return Record(self.path).status().get("message", "")


def cells(study: Study, path: pathlib.Path) -> list[Cell]:
    """All cells of a study in `path`, arm by arm."""
    return [
        Cell(name, with_seed(arm, seed), seed, path / "cells" / folder(name) / f"seed{seed}")
        for name, arm in study.arms.items()
        for seed in study.seeds
    ]


def figures(cell: Cell, study: Study) -> dict[str, float]:
    """The figures of a finished cell; of a diverged one, what `study.diverged` says; {} of any other."""
    state = cell.state()
    if state == "diverged":
        return dict(study.diverged)
    if state != "done":
        return {}
    record = Record(cell.path)
    found = {
        f"{line_name({'split': split})} {name}": value
        for split, line in record.result().items()
        for name, value in line.items()
    }
    found |= probed(cell)
    lines = record.metrics()
    training = [line for line in lines if is_training(line)]
    if training:
        found |= {f"train {name}": training[-1][name] for name in ("loss", "accuracy")}
        found["images per second"] = statistics.median(line["examples_per_second"] for line in training)
    for figure, threshold in study.reach.items():
        split, _, name = figure.rpartition(" ")
        epoch = epochs_to(lines, split, name, threshold)
        if epoch is not None:
            found[f"epochs to {figure} {threshold:g}"] = epoch
    return found


def epochs_to(lines: list[dict[str, Any]], split: str, name: str, threshold: float) -> float | None:
    """The epoch at whose logged interval or evaluation the figure first is at least `threshold` (a loss: at most).

    A run that never reaches it counts as reaching it at its end: a lower bound. None for a run without training.
    """
    epoch, reached = None, lambda value: value <= threshold if name == "loss" else value >= threshold
    for line in lines:
        epoch = line.get("epoch", epoch)
        if line_name(line) == split and reached(line[name]) and epoch is not None:
            return epoch
    return epoch


def reaches(lines: list[dict[str, Any]], split: str, name: str, threshold: float) -> bool:
    """Whether a run ever reaches the threshold of `epochs_to`."""
    values = [line[name] for line in lines if line_name(line) == split]
    return any(value <= threshold if name == "loss" else value >= threshold for value in values)


def counts(arm: Arm) -> dict[str, float]:
    """Parameters, auxiliary heads included, and multiply-adds of one image; {} of an arm that is no network."""
    if not isinstance(arm, Experiment):
        return {}
    summary = summarize(arm.model, arm.data.image_shape)
    return {
        "parameters": summary.parameters + summary.auxiliary_parameters,
        "multiply-adds": summary.multiply_adds,
    }


def probe(cell: Cell, study: Study) -> None:
    """Measures what the study's probes ask of a finished run, unless that is done."""
    if is_probed(cell, study):
        return
    saved = load_run(cell.path)
    measured: dict[str, float] = {}
    for each in study.probes:
        measured |= each.measure(saved)
    asked = [config.encode(probe) for probe in study.probes]
    files.write_json(cell.path / PROBES, {"probes": asked, "figures": measured})


def probed(cell: Cell) -> dict[str, float]:
    """What the probes measured, {} before."""
    return _probes(cell).get("figures", {})


def is_probed(cell: Cell, study: Study) -> bool:
    """Whether all that the study's probes ask of this cell is measured; of a run that is not done nothing is asked."""
    if not study.probes or not isinstance(cell.arm, Experiment) or cell.state() != "done":
        return True
    return _probes(cell).get("probes") == [config.encode(probe) for probe in study.probes]


def _probes(cell: Cell) -> dict[str, Any]:
    """What probes.json holds; {} if it is not there or damaged, for it can be measured again."""
    try:
        return json.loads((cell.path / PROBES).read_bytes())
    except (OSError, ValueError):
        return {}
