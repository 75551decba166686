"""Judge: the claims of a study against the figures of its cells, both as study.json has them.

Stored results can be judged again without their runs: `python -m jaxcnn.studies.verdicts --again`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from scipy import stats

from jaxcnn.studies.statistics import CONFIDENCE, FEWEST, Difference, paired, rounding, side
from jaxcnn.studies.study import EXACT
from jaxcnn.tasks.classification import Classification

Results = dict[str, Any]
Verdict = Literal["supported", "contradicted", "inconclusive"]
SHARES = (*Classification().shares, "gap")
"""Words in the names of figures that are shares of images, or differences of such."""


def judge_claims(claims: Sequence[Results], arms: Results, seeds: Sequence[int]) -> list[Results]:
    """Each claim (see pinned.py) with "difference", "pairs", "missing", "bound", "step", "over_images", "verdict" and
    "reason".
    """
    return [claim | judge_claim(claim, arms, seeds) for claim in claims]


def judge_claim(claim: Results, arms: Results, seeds: Sequence[int]) -> Results:
    """What a claim gets from the cells.

    A pair of which a cell failed, diverged without a value in study.diverged, or was not run is missing: the seeds that
    are left are no fair sample of seeds, and nothing is decided.
    """
    metric, margin = claim["metric"], claim["margin"]
    names = [claim["higher"], claim["lower"], *(claim["beyond"] or ())]
    gone = [name for name in names if name not in arms]
    if gone:
        found: Results = {"difference": None, "pairs": f"0 of {len(seeds)} seeds", "missing": [], "bound": ""}
        reason = f"the study has no arm {gone[0]!r} any more"
        return found | {"step": 0.0, "over_images": None, "verdict": "inconclusive", "reason": reason}
    by_arm = [by_seed(arms[name], metric, seeds) for name in names]
    step = max(step_of(arms[name], metric) for name in names)
    difference = paired(by_arm, step)
    missing = [
        f"{name}, seed {seed} ({state_of(arms[name], seed)})"
        for name, values in zip(names, by_arm, strict=True)
        for seed in seeds
        if seed not in values
    ]
    bound = bound_of([arms[name] for name in names], metric)
    verdict, reason = decide(metric, margin, difference, step, len(names), missing, bound)
    return {
        "difference": None if difference is None else clean(vars(difference)),
        "pairs": f"{0 if difference is None else len(difference.values)} of {len(seeds)} seeds",
        "missing": missing,
        "bound": bound,
        "step": step,
        "over_images": over_images(difference, [arms[name] for name in names], by_arm, metric),
        "verdict": verdict,
        "reason": reason,
    }


def decide(
    metric: str,
    margin: float,
    difference: Difference | None,
    step: float = 0.0,
    sides: int = 2,
    missing: Sequence[str] = (),
    bound: str = "",
) -> tuple[Verdict, str]:
    """The verdict on one claim, and the reason.

    Supported if the whole interval lies above the margin and the sign test agrees, contradicted if below; inconclusive
    with fewer than FEWEST pairs, with a missing pair, and if figures are capped so that the difference may be on the
    other side. A counted figure needs neither interval nor seeds.
    """
    if difference is None:
        return "inconclusive", f"no pair has the figure: {missing[0]}" if missing else "no pair has the figure"
    values = np.array(difference.values)
    reach = float(rounding(values, margin))
    if metric in EXACT:
        return ("supported" if difference.mean > margin + reach else "contradicted"), "counted"
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return "inconclusive", f"a pair is missing: {missing[0]}{others}"
    if len(values) < FEWEST:
        return "inconclusive", f"too few seeds: {len(values)}, and at least {FEWEST} decide"
    found = int(side(values, margin, step, sides))
    if not found:
        if difference.high - difference.low <= reach and abs(difference.mean - margin) > reach:
            return "inconclusive", "all differences are equal, of a figure that is not rounded: no interval"
        if difference.low <= margin + reach and difference.high >= margin - reach:
            return "inconclusive", "the interval holds the margin"
        where, count = "above", int((values > margin + reach).sum())
        if difference.high < margin:
            where, count = "below", int((values < margin - reach).sum())
        return "inconclusive", f"only {count} of {len(values)} seeds lie {where} the margin: the sign test disagrees"
    if bound and bound != ("at least" if found > 0 else "at most"):
        how = f"{bound} what is shown" if bound.startswith("at") else "unknown, with capped figures on both sides"
        return "inconclusive", f"the difference is {how}"
    where = "above" if found > 0 else "below"
    return ("supported" if found > 0 else "contradicted"), f"the interval and the seeds lie {where} the margin"


def by_seed(arm: Results, metric: str, seeds: Sequence[int]) -> dict[int, float]:
    """{seed: figure} of an arm; a counted figure is that of every seed."""
    if metric in arm["counts"]:
        return {seed: arm["counts"][metric] for seed in seeds}
    found = {cell["seed"]: cell["figures"].get(metric) for cell in arm["cells"]}
    return {seed: value for seed, value in found.items() if value is not None and math.isfinite(value)}


def state_of(arm: Results, seed: int) -> str:
    """Why a cell lacks a figure."""
    state = next((cell["state"] for cell in arm["cells"] if cell["seed"] == seed), "missing")
    return "done, without the figure" if state == "done" else "not run" if state == "missing" else state


def step_of(arm: Results, metric: str) -> float:
    """The distance between two values that a figure of an arm can take, 0 if it is not rounded.

    A share of n images moves in steps of 1/n. Cells note others, such as the distance of two logged lines, as "steps".
    """
    steps = [0.0]
    for cell in arm["cells"]:
        noted = cell.get("steps", {}).get(metric)
        if noted is not None:
            steps.append(noted)
        elif is_share(metric):
            counts = [value for name, value in cell["figures"].items() if name.endswith(" count") and value]
            own = cell["figures"].get(f"{metric.rpartition(' ')[0]} count")
            steps += [1 / (own or counts[0])] if own or counts else []
    return max(steps)


def is_share(metric: str) -> bool:
    words = metric.split()
    return any(word in SHARES for word in words) and "loss" not in words and not metric.startswith("epochs to ")


def bound_of(arms: Sequence[Results], metric: str) -> str:
    """What capped figures make of the difference: "at least" or "at most" what is shown, or "capped on both sides:"."""
    raised = [arms[0], *arms[3:]]  # the difference grows with these; see statistics.paired
    capped = {
        more
        for more, group in ((True, raised), (False, arms[1:3]))
        for arm in group
        if any(metric in cell.get("unreached", ()) for cell in arm["cells"])
    }
    return {0: "", 1: "at least" if True in capped else "at most", 2: "capped on both sides:"}[len(capped)]


def over_images(
    difference: Difference | None, arms: Sequence[Results], by_arm: Sequence[Mapping[int, float]], metric: str
) -> list[float] | None:
    """Bounds over other seeds and other test images from the same source; None for a figure that is no share of images.

    A conservative bound, since cells keep how many images are right and not which: of two nets with error rates e and f
    at most e + f of the images have one right and the other wrong (at most all, and at most 2 - e - f), so that over
    images their difference d has at most the variance (min(e + f, 2 - e - f, 1) - d^2) / n. Deviations of two pairs
    add up at most. The half-width is the root of the sum of squares of the seeds' and the images'.
    """
    split, _, name = metric.rpartition(" ")
    counts = [cell["figures"].get(f"{split} count") for arm in arms for cell in arm["cells"]]
    counts = [count for count in counts if count]
    if name not in Classification().shares or not counts or difference is None or math.isnan(difference.low):
        return None
    seeds = sorted(set.intersection(*map(set, by_arm)))

    def deviation(one: Mapping[int, float], other: Mapping[int, float]) -> np.ndarray:
        p, q = (np.array([values[seed] for seed in seeds]) for values in (one, other))
        differ = np.minimum(np.minimum(2 - p - q, p + q), 1)
        return np.sqrt(np.maximum(differ - (p - q) ** 2, 0))

    whole = sum(deviation(*by_arm[i : i + 2]) for i in range(0, len(by_arm), 2))
    images = stats.norm.ppf((1 + CONFIDENCE) / 2) * math.sqrt(np.mean(whole**2) / min(counts))
    half = math.hypot((difference.high - difference.low) / 2, images)
    return [difference.mean - half, difference.mean + half]


def against_baseline(arm: Results, baseline: Results, metric: str, seeds: Sequence[int]) -> Results | None:
    """The difference of an arm to the baseline, with "pairs": how many of the seeds both have."""
    sides = [by_seed(each, metric, seeds) for each in (arm, baseline)]
    difference = paired(sides, max(step_of(each, metric) for each in (arm, baseline)))
    if difference is None:
        return None
    return clean(vars(difference)) | {"pairs": f"{len(difference.values)} of {len(seeds)} seeds"}


def clean(values: Mapping[str, Any]) -> Results:
    """NaN becomes None, which JSON has; tuples become lists."""
    return {
        name: None
        if isinstance(value, float) and math.isnan(value)
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in values.items()
    }
