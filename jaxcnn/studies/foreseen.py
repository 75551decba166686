"""Foreseen: the smallest effect that a study will be able to see, before its cells are run (power.py)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnn.experiment import Experiment
from jaxcnn.runs.setup import open_evaluations
from jaxcnn.studies.cell import cell_metrics
from jaxcnn.studies.figures import is_share
from jaxcnn.studies.power import in_deviations, smallest_effect
from jaxcnn.studies.significance import FEWEST, LEVEL
from jaxcnn.studies.study import EXACT, Study
from jaxcnn.studies.trials import Trial, chosen_trials

Results = dict[str, Any]


def foreseen(study: Study, found: Sequence[Trial] = (), read_images: bool = False) -> list[Results]:
    """Of each measured figure that a claim names, in their order; with `read_images` the test split is opened to count.

    {"metric", "seeds", "claims": measured claims of the study, "deviation": of the paired differences between seeds, or
    None, "from": "stated" (Study.deviation), "tuning" (the chosen trials of the arms, if they have two seeds or more)
    or "", "step": of a share of test images, 0 if unknown, "sides", "alone": the smallest effect beyond the margin that
    a claim alone shows in 80% of such studies, None if unknown, "first": the same at the level of the first of all
    claims in Holm's correction}.
    """
    measured = [claim for claim in study.claims if (claim.metric or study.metric) not in EXACT]
    by_metric = {claim.metric or study.metric: 4 if claim.beyond else 2 for claim in measured}
    rows = []
    for metric, sides in by_metric.items():
        deviation, origin = study.deviation.get(metric), "stated"
        if deviation is None:
            deviation, origin = tuned_deviation(study, found, metric), "tuning"
        row: Results = {"metric": metric, "seeds": len(study.seeds), "claims": len(measured), "sides": sides}
        row |= {
            "deviation": deviation,
            "from": "" if deviation is None else origin,
            "step": step_before(study, metric) if read_images else 0.0,
        }
        for name, level in (("alone", LEVEL), ("first", LEVEL / len(measured))):
            effect = smallest_effect(len(study.seeds), deviation or 0.0, row["step"], sides, level)
            row[name] = effect if deviation is not None and math.isfinite(effect) else None
        rows.append(row)
    return rows


def foreseen_text(row: Results) -> str:
    """As a sentence, without a full stop."""
    seeds, metric = row["seeds"], row["metric"]
    if seeds < FEWEST:
        return f"{metric}: {seeds} seeds decide nothing, whatever the effect; at least {FEWEST} do"
    if row["alone"] is not None:
        among = f"; as the first of {row['claims']} claims {row['first']:.2g}" if row["claims"] > 1 else ""
        how = "stated" if row["from"] == "stated" else "found in the tuning"
        return (
            f"{metric}: with {seeds} seeds an effect under about {row['alone']:.2g} beyond the margin can't be seen"
            f"{among} (differences deviate by {row['deviation']:.2g}, as {how})"
        )
    least = smallest_effect(seeds, 0.0, row["step"], row["sides"])
    rounding = f", and none under {least:.2g}, by the number of test images" if row["step"] else ""
    return (
        f"{metric}: with {seeds} seeds an effect under about {in_deviations(seeds):.2g} deviations of the paired "
        f"differences can't be seen{rounding}; Study.deviation tells what they deviate by"
    )


def tuned_deviation(study: Study, found: Sequence[Trial], metric: str) -> float | None:
    """The deviation of paired differences between the chosen trials of the baseline and of the other arms, pooled; None
    if the tuning is not finished, has one seed alone, or compares another kind of figure."""
    arms = [arm for arm in study.arms.values() if isinstance(arm, Experiment)]
    if study.tuning is None or len(study.tuning.seeds) < 2 or len(arms) < 2 or not all(each.finished for each in found):
        return None
    judged_by = study.tuning.metric_of(arms[0])
    if judged_by.rpartition(" ")[2] != metric.rpartition(" ")[2]:
        return None
    values = [
        np.array([cell_metrics(cell, study).get(judged_by, math.nan) for cell in trial.cells])
        for trial in chosen_trials(study, found).values()
    ]
    variances = [float(np.var(each - values[0], ddof=1)) for each in values[1:]]
    known = [variance for variance in variances if math.isfinite(variance)]
    return math.sqrt(sum(known) / len(known)) if known else None


def step_before(study: Study, metric: str) -> float:
    """1 over the number of test images of the first arm that trains, if the figure is a share of them; else 0."""
    split = metric.rpartition(" ")[0]
    for arm in study.arms.values():
        if isinstance(arm, Experiment) and is_share(metric) and split in arm.data.test_splits:
            return 1 / len(open_evaluations(arm, (split,))[split])
    return 0.0
