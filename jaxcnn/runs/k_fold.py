"""k-fold cross-validation: k runs, each tested on the part of a split that the others train on."""

import dataclasses
import math
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

import jax
from rich.console import Console

from jaxcnn import config, files
from jaxcnn.data.splits import open_split
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.runs import checkpoint
from jaxcnn.runs.display import Display
from jaxcnn.runs.loop import run
from jaxcnn.runs.restore import check_init_from
from jaxcnn.runs.run_directory import RunDirectory
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.start import start_run
from jaxcnn.runs.teacher import check_teacher
from jaxcnn.text import print_plain

SUMMARY = "k_fold.json"


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """What came out of all folds: figures by name, "NAME_ema" those of averaged weights."""

    split: str
    folds: tuple[dict[str, float], ...]
    """The test figures of each."""
    mean: dict[str, float]
    deviation: dict[str, float]
    """Of the folds, sample standard deviation (divided by k - 1). They share training images, so that it is no
    standard error of the mean (Bengio & Grandvalet 2004)."""
    count: int
    """Images that were tested, each once."""


def folds_of(experiment: Experiment, split: str, folds: int) -> list[Experiment]:
    """One experiment for each fold of the split: it trains on the others and tests that one after its last step.

    Nothing is evaluated in training, so that no image that tests has chosen anything. Splits that the experiment itself
    tests are not read.

    Raises:
      UserError: the split has fewer images than folds, or is a part of one; the experiment's schedule or its early
        stopping watches an evaluation.
    """
    if "[" in split or "+" in split:
        raise UserError(f"k-fold cuts a whole split, such as train, not {split!r}")
    if hasattr(experiment.schedule, "metric"):
        raise UserError(
            f"the schedule {type(experiment.schedule).__name__} watches an evaluation, and k-fold has none: its images "
            "train or test; take another schedule"
        )
    if experiment.early_stopping.on:
        raise UserError(
            "early_stopping watches an evaluation, and k-fold has none: its images train or test; leave it out "
            "(--early-stopping.patience 0) and give a duration"
        )
    found = []
    for number in range(1, folds + 1):
        data = dataclasses.replace(
            experiment.data,
            train_split=f"{split}[not fold {number}/{folds}]",
            evaluation_splits=(),
            test_splits=(f"{split}[fold {number}/{folds}]",),
        )
        found.append(dataclasses.replace(experiment, data=data))
    return found


def k_fold(
    experiment: Experiment,
    path: pathlib.Path,
    *,
    file: pathlib.Path | None = None,
    split: str = "train",
    folds: int = 5,
    console: Console | None = None,
    stop: Callable[[], bool] = lambda: False,
    accept_code: bool = False,
) -> CrossValidation | None:
    """Runs every fold that is not done, in PATH/fold1, PATH/fold2, ..., each a run directory, and writes
    PATH/k_fold.json; None if it was told to stop, when the same call goes on.

    Args:
      experiment: of each fold, all with its seed.
      path: the folder of the runs.
      file: the experiment's.
      split: what is cut.
      folds: how many.
      console: where lines are shown.
      stop: whether to stop.
      accept_code: go on with code that is another than the folds began with.

    Raises:
      UserError: as `folds_of` and as any run; a fold diverged.
    """
    console = console or Console(quiet=True)
    made = folds_of(experiment, split, folds)
    results = []
    for number, own in enumerate(made, 1):
        directory = RunDirectory(path / f"fold{number}")
        plan = make_plan(own)
        if not checkpoint.steps(directory.checkpoints):  # a run that goes on has its weights
            check_init_from(own, plan.mesh)
        check_teacher(plan)
        with (
            start_run(directory.path.absolute(), config.encode(own), file, plan.dataset(), accept_code) as held,
            Display(console, lines=False) as display,
        ):
            outcome = run(plan, held, display, stop)
        jax.clear_caches()
        if outcome.state == "preempted":
            return None
        if outcome.state != "done":
            raise UserError(f"fold {number}: {outcome.message}")
        results.append(_flat(outcome.result, f"{split}[fold {number}/{folds}]"))
        told = "  ".join(f"{name} {value:.4f}" for name, value in results[-1].items() if name != "count")
        print_plain(console, f"fold {number}/{folds}: {told}  ({int(results[-1]['count'])} images)")
    return _summary(path, split, results, len(open_split(experiment.data.source, split, experiment.data.data_dir)))


def _flat(result: dict[str, Any], split: str) -> dict[str, float]:
    """The test figures of a fold by name; those of averaged weights have "_ema" behind theirs."""
    averaged = {f"{name}_ema": value for name, value in result.get(f"{split}_ema", {}).items() if name != "count"}
    return {**result[split], **averaged}


def _summary(path: pathlib.Path, split: str, results: list[dict[str, float]], images: int) -> CrossValidation:
    count = int(sum(result["count"] for result in results))
    if count > images:
        raise RuntimeError(f"{split}: {count} images were tested of {images}")
    # A figure of nothing, such as the precision of a class that a fold lacks, is left out of the mean.
    values = {
        name: [float(each[name]) for each in results if name in each and math.isfinite(each[name])]
        for name in results[0]
        if name != "count"
    }
    found = CrossValidation(
        split,
        tuple(results),
        {name: statistics.fmean(each) for name, each in values.items() if each},
        {name: statistics.stdev(each) for name, each in values.items() if len(each) > 1},
        count,
    )
    files.write_json(path / SUMMARY, dataclasses.asdict(found))
    return found
