"""Cell: one arm with one seed. It is a run directory of its own, and its figures are read from there.

Metrics, by name: "test loss" (any split and metric of result.json), "train loss" (any metric of the last logged
interval), "images per second" (median of the logged intervals), "epochs to train loss 0.75" (see Study.reach), and what
the study's probes measure. "parameters" and "multiply-adds" are
counted from the arm's model. All names are known before anything is run (`metric_names`), so that a misspelt one is
refused.
"""

import dataclasses
import json
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn import config, files
from jaxcnn.errors import UserError, did_you_mean
from jaxcnn.experiment import Experiment
from jaxcnn.runs.restore import load_run
from jaxcnn.runs.run_directory import RunDirectory, is_training, line_name, metrics_of
from jaxcnn.studies.study import EXACT, Arm, Probe, Study, folder, with_seed
from jaxcnn.studies.tuning import check_tuning
from jaxcnn.summary.summary import summarize
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.task import Direction

PROBES = "probes.json"
FINISHED = ("done", "diverged")
"""States of runs that are over; one that diverged would diverge again."""
Directions = Mapping[str, Direction]


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
        return RunDirectory(self.path).state() or "missing"

    def step(self) -> int:
        """Up to where it was trained, as status.json has it; 0 where it has not begun."""
        return RunDirectory(self.path).status().get("step", 0)

    def message(self) -> str:
        """Why it failed or diverged, "" elsewhere."""
        return RunDirectory(self.path).status().get("message", "")


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the figures of cells depend on: those of a study, of its trials, or of a sweep."""

    metric: str
    """The figure that is told of each."""
    reach: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """As Study has them."""
    probes: Sequence[Probe] = ()
    diverged: Mapping[str, float] = dataclasses.field(default_factory=dict)


def cells(study: Study, path: pathlib.Path) -> list[Cell]:
    """All cells of a study in `path`, arm by arm."""
    return [
        Cell(name, with_seed(arm, seed), seed, path / "cells" / folder(name) / f"seed{seed}")
        for name, arm in study.arms.items()
        for seed in study.seeds
    ]


def cell_metrics(cell: Cell, study: Study | Measured) -> dict[str, float]:
    """The figures of a finished cell; of a diverged one, what `study.diverged` says; {} of any other."""
    state = cell.state()
    if state == "diverged":
        return dict(study.diverged)
    if state != "done":
        return {}
    directory = RunDirectory(cell.path)
    found: dict[str, float] = {
        # A figure of one word is kept without a second.
        f"{line_name({'split': split})} {name}".rstrip(): value
        for split, line in directory.result().items()
        for name, value in line.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    found |= probed(cell)
    lines = directory.metrics()
    training = [line for line in lines if is_training(line)]
    if training:
        last = {f"train {name}": value for name, value in metrics_of(training[-1]).items()}
        found |= {name: value for name, value in last.items() if value is not None}
        found["images per second"] = statistics.median(line["examples_per_second"] for line in training)
    if isinstance(cell.arm, Experiment):
        for figure, threshold in study.reach.items():
            split, name = figure.rsplit(" ", 1)
            epoch = epochs_to(lines, split, name, threshold, cell.arm.task.directions)
            if epoch is not None:
                found[reach_name(figure, threshold)] = epoch
    return found


def reach_name(figure: str, threshold: float) -> str:
    """The name of the figure that an entry of Study.reach adds."""
    return f"epochs to {figure} {threshold:g}"


def steps(cell: Cell, study: Study | Measured) -> dict[str, float]:
    """{figure: the distance between two values that it can take} of a cell, as far as its lines tell.

    That of a share of a split's images follows from its count, see judge.step_of.
    """
    if not isinstance(cell.arm, Experiment) or cell.state() != "done":
        return {}
    lines, found = RunDirectory(cell.path).metrics(), {}
    training = [line for line in lines if is_training(line)]
    if training and training[-1].get("count"):
        found |= {f"train {name}": 1 / training[-1]["count"] for name in cell.arm.task.shares if name in training[-1]}
    for figure, threshold in study.reach.items():
        epochs = [epoch for epoch, _ in points(lines, *figure.rsplit(" ", 1))]
        if epochs:
            found[reach_name(figure, threshold)] = max(np.diff([0.0, *epochs]))
    return found


WINDOW = 5
"""Logged intervals of training whose mean `epochs_to` compares."""


def points(lines: list[dict[str, Any]], split: str, name: str) -> list[tuple[float, float]]:
    """(epoch, figure) of each line of a split; of an evaluation too, whose line may have its step alone."""
    rate = next((line["epoch"] / line["step"] for line in lines if line.get("epoch") and line["step"]), None)
    found = []
    for line in lines:
        epoch = line.get("epoch", None if rate is None else line["step"] * rate)
        if line_name(line) == split and line.get(name) is not None and epoch is not None:
            found.append((epoch, line[name]))
    return found


def smoothed(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The mean of each value and its neighbours, WINDOW in all, and as many to both sides: fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    reach = [min(i, len(values) - 1 - i, WINDOW // 2) for i in range(len(values))]
    return np.array([(sums[i + r + 1] - sums[i - r]) / (2 * r + 1) for i, r in enumerate(reach)])


def epochs_to(
    lines: list[dict[str, Any]],
    split: str,
    name: str,
    threshold: float,
    directions: Directions = Classification().directions,
) -> float | None:
    """The epoch at which the figure first is at least `threshold` (if lower is better, as of a loss: at most).

    An evaluation counts as it is. Figures of training are means over a few hundred images, whose first crossing would
    be early by chance, the earlier the more often they are logged: the centred mean of WINDOW logged intervals is
    compared. A run that never reaches the threshold counts with its whole length: a lower bound (`reaches`). None for a
    run without training.
    """
    found = points(lines, split, name)
    first = _first_crossing(found, split, threshold, directions.get(name, "higher"))
    if first is not None:
        return found[first][0]
    return max((line["epoch"] for line in lines if line.get("epoch") is not None), default=None)


def reaches(
    lines: list[dict[str, Any]],
    split: str,
    name: str,
    threshold: float,
    directions: Directions = Classification().directions,
) -> bool:
    """Whether a run ever reaches the threshold of `epochs_to`."""
    return _first_crossing(points(lines, split, name), split, threshold, directions.get(name, "higher")) is not None


def _first_crossing(found: list[tuple[float, float]], split: str, threshold: float, direction: Direction) -> int | None:
    if not found:
        return None
    values = np.array([value for _, value in found])
    values = smoothed(values) if split == "train" else values
    over = np.flatnonzero(values <= threshold if direction == "lower" else values >= threshold)
    return int(over[0]) if len(over) else None


def counts(arm: Arm) -> dict[str, float]:
    """Parameters, auxiliary heads included, and multiply-adds of one image; {} of an arm that is no network."""
    if not isinstance(arm, Experiment):
        return {}
    summary = summarize(arm.model, arm.data.image_shape)
    return {
        "parameters": summary.parameters + summary.auxiliary_parameters,
        "multiply-adds": summary.multiply_adds,
    }


def metric_names(arm: Arm, study: Study | Measured) -> list[str]:
    """The figures that a finished cell of this arm will have.

    Raises:
      UserError: a probe, or an arm that is no run, does not tell its figures.
    """
    if not isinstance(arm, Experiment):
        return [*_declared(arm)]
    splits = _with_averages(arm, (*arm.data.evaluation_splits, *arm.data.test_splits))
    found = [f"{split} {name}" for split in splits for name in (*arm.task.directions, "count")]
    found += [f"train {name}" for name in arm.task.directions] + ["images per second"]
    found += [reach_name(figure, threshold) for figure, threshold in study.reach.items()]
    found += [figure for each in study.probes for figure in _declared(each)]
    return [*found, *EXACT[:2]]


def check_metrics(study: Study) -> None:
    """Raises UserError, with the nearest name, if a claim, the study or its tuning names a figure that its arms
    will not have; or if they cannot be tuned as it says (tuning.check_tuning)."""
    arms = {name: metric_names(arm, study) for name, arm in study.arms.items()}
    for claim in study.claims:
        for side in (claim.higher, claim.lower, *(claim.beyond or ())):
            for arm in study.groups.get(side, (side,)):
                _known(f"the claim {claim.text!r}", claim.metric or study.metric, arms[arm], f" of the arm {arm!r}")
    every = [name for found in arms.values() for name in found]
    _known("study.metric", study.metric, every)
    for figure in study.diverged:
        _known("study.diverged", figure, every)
    for figure in study.deviation:
        _known("study.deviation", figure, every)
    for arm in study.arms.values():
        if isinstance(arm, Experiment):
            splits = _with_averages(arm, arm.data.evaluation_splits)
            logged = [f"{split} {name}" for split in ("train", *splits) for name in arm.task.directions]
            for figure in study.reach:
                _known("study.reach", figure, logged)
    check_tuning(study, arms)


def _known(what: str, figure: str, known: Sequence[str], of: str = "") -> None:
    if figure not in known:
        hint = did_you_mean(figure, known) or "; there is " + ", ".join(dict.fromkeys(known))
        raise UserError(f"{what} names no metric{of}: {figure!r}{hint}")


def _with_averages(arm: Experiment, splits: Sequence[str]) -> list[str]:
    """The names in lines and figures of these splits, and of the averaged weights on them."""
    own = [line_name({"split": split}) for split in splits]
    return own + [f"{split}_ema" for split in splits if arm.ema.on]


def _declared(measures: Any) -> Sequence[str]:
    try:
        return measures.metrics
    except AttributeError:
        kind = type(measures).__name__
        raise UserError(f"{kind} has no `metrics`: the names of what its measure() returns") from None


def probe(cell: Cell, study: Study | Measured) -> None:
    """Measures what the study's probes ask of a finished run, unless that is done."""
    if is_probed(cell, study):
        return
    run = load_run(cell.path)
    measured: dict[str, float] = {}
    for each in study.probes:
        measured |= each.measure(run)
    asked = [config.encode(probe) for probe in study.probes]
    files.write_json(cell.path / PROBES, {"probes": asked, "figures": measured})


def probed(cell: Cell) -> dict[str, float]:
    """What the probes measured, {} before."""
    return _probes(cell).get("figures", {})


def is_probed(cell: Cell, study: Study | Measured) -> bool:
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
