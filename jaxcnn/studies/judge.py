"""Judge: the claims of a study against the figures of its cells, both as study.json has them.

Stored results can be judged again without their runs: `python -m jaxcnn.studies.verdicts --again`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxcnn.studies.bootstrap import studentized
from jaxcnn.studies.figures import Results, bound_of, by_seed, range_of, state_of, step_of
from jaxcnn.studies.images import over_images
from jaxcnn.studies.power import smallest_effect
from jaxcnn.studies.significance import FEWEST, LEVEL, Evidence, Tails, exact_level, holm, tails, worst_evidence
from jaxcnn.studies.statistics import SIGNS, Difference, paired, rounding
from jaxcnn.studies.study import EXACT

Verdict = Literal["supported", "contradicted", "inconclusive"]
DIGITS = 6
"""Of p-values and bootstrap intervals that are stored: what is the same on every machine."""


def judge_claims(claims: Sequence[Results], arms: Results, seeds: Sequence[int]) -> list[Results]:
    """Each claim (see pinned.py) with what `judge_claim` finds, and a verdict that is corrected for all of them."""
    return corrected([claim | judge_claim(claim, arms, seeds) for claim in claims])


def judge_claim(claim: Results, arms: Results, seeds: Sequence[int]) -> Results:
    """What a claim gets from the cells, if it is the only one.

    {"difference": its mean, bounds and values, "pairs", "missing": the cells without the figure, "bound": see
    figures.bound_of, "step", "over_images", "bootstrap": [low, high] from FEWEST pairs on, "tests": {name: one-sided
    p-value on the side of the mean}, "p": of both sides, 1 if it cannot be decided, None if it needs no test or has too
    few seeds, "smallest": the smallest effect that could have been seen, "alone": {"verdict", "reason"}}, and as long
    as `corrected` says nothing else, "p_holm" and the same "verdict" and "reason".

    A pair of which a cell failed, diverged without a value in study.diverged, or was not run is missing: a claim is
    decided only if it would be with every value that the figure can take.
    """
    metric, within = claim["metric"], claim.get("within")
    names = [claim["higher"], claim["lower"], *(claim["beyond"] or ())]
    gone = [name for name in names if name not in arms]
    if gone:
        found: Results = {"difference": None, "pairs": f"0 of {len(seeds)} seeds", "missing": [], "bound": ""}
        found |= {"step": 0.0, "over_images": None, "bootstrap": None, "tests": None, "p": None, "smallest": None}
        return found | _verdict("inconclusive", f"the study has no arm {gone[0]!r} any more")
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
    values = np.array(difference.values if difference else (), np.float64)
    measured, several = metric not in EXACT, len(values) > 1
    lowest, highest = possible(by_arm, seeds, range_of(metric))
    p: float | None = None
    if measured and len(seeds) >= FEWEST:
        found_evidence = worst_evidence(lowest, highest, claim["margin"], step, len(names), within)
        decided = allowed(found_evidence, bound, within, values)
        p, direction = float(decided.p), int(decided.direction)
    else:
        direction = 0
    deviation = float(np.std(values, ddof=1)) if several else math.nan
    smallest = smallest_effect(len(values), deviation, step, len(names)) if measured and several else math.inf
    return {
        "difference": None if difference is None else clean(vars(difference)),
        "pairs": f"{len(values)} of {len(seeds)} seeds",
        "missing": missing,
        "bound": bound,
        "step": step,
        "over_images": over_images(difference, [arms[name] for name in names], by_arm, metric),
        "bootstrap": _bootstrap(values, step, len(names)) if measured and len(values) >= FEWEST else None,
        "tests": _tests(values, claim["margin"], step, len(names), within) if measured and several else None,
        "p": None if p is None else _rounded(p),
        "smallest": _rounded(smallest) if math.isfinite(smallest) else None,
    } | _verdict(*decide(claim, difference, direction, step, len(names), missing, bound, len(seeds)))


def _verdict(verdict: Verdict, reason: str) -> Results:
    said = {"verdict": verdict, "reason": reason}
    return {"alone": said, "p_holm": None} | said


def corrected(claims: Sequence[Results]) -> list[Results]:
    """The claims of one page with verdicts that Holm's correction leaves: all of them together are wrong in at most
    5% of such pages, and not each of them.

    "p_holm" is the p-value to be compared with 5%, and a claim whose own is below and this is not becomes inconclusive.
    Counted figures are not among them, since they cannot be wrong by chance, nor claims that too few seeds were planned
    for, since they could not be decided. The claims of several studies can be corrected together: "alone" and "p"
    are what counts.
    """
    family = [claim for claim in claims if claim["p"] is not None]
    adjusted = dict(zip(map(id, family), holm([claim["p"] for claim in family]), strict=True))
    found = []
    for claim in claims:
        p, own = adjusted.get(id(claim)), claim["alone"]
        said = own
        if p is not None and own["verdict"] != "inconclusive" and p > 2 * LEVEL:
            reason = (
                f"not beyond chance among {len(family)} claims: alone it would be {own['verdict']} "
                f"(p = {claim['p']:.2g}; {p:.2g} with Holm's correction)"
            )
            said = {"verdict": "inconclusive", "reason": reason}
        found.append(claim | said | {"p_holm": None if p is None else _rounded(p)})
    return found


def over_page(studies: Mapping[str, Results]) -> dict[str, Results]:
    """Studies, as their study.json has them, with the verdicts of their claims corrected over the claims of all.

    Each claim has "of_study" beside: its "verdict" and "p_holm" among the claims of its own study.
    """
    every = corrected([claim for results in studies.values() for claim in results["claims"]])
    left, found = iter(every), {}
    for name, results in studies.items():
        claims = [
            next(left) | {"of_study": {"verdict": claim["verdict"], "p_holm": claim["p_holm"]}}
            for claim in results["claims"]
        ]
        found[name] = results | {"claims": claims}
    return found


def decide(
    claim: Results,
    difference: Difference | None,
    direction: int,
    step: float = 0.0,
    sides: int = 2,
    missing: Sequence[str] = (),
    bound: str = "",
    planned: int | None = None,
) -> tuple[Verdict, str]:
    """The verdict on one claim, and the reason.

    Args:
      claim: for its metric, margin and "within".
      difference: of the pairs that are there.
      direction: what significance.Evidence says: 1, -1 or 0.
      step: see `statistics.interval`, as for `sides`.
      missing: cells without the figure.
      bound: see figures.bound_of.
      planned: seeds of the study; None: as many as there are pairs.
    """
    margin, within = claim["margin"], claim.get("within")
    if difference is None:
        return "inconclusive", f"no pair has the figure: {missing[0]}" if missing else "no pair has the figure"
    values = np.array(difference.values)
    limits = (margin,) if within is None else (-within, within)
    reach = float(rounding(values, max(limits, key=abs)))
    if claim["metric"] in EXACT:
        holds = difference.mean > margin + reach if within is None else abs(difference.mean) < within - reach
        return ("supported" if holds else "contradicted"), "counted"
    others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    planned = len(values) if planned is None else planned
    if planned < FEWEST:
        return "inconclusive", f"too few seeds: {planned}, and at least {FEWEST} decide"
    if missing and not direction:
        return "inconclusive", f"a pair is missing: {missing[0]}{others}"
    if not direction:
        return "inconclusive", undecided(values, difference, limits, step, sides, reach, bound)
    whatever = ", whatever the missing pairs are" if missing else ""
    if within is not None:
        where = "between the margins" if direction > 0 else "beyond a margin"
    else:
        where = "above the margin" if direction > 0 else "below the margin"
    return ("supported" if direction > 0 else "contradicted"), f"the interval and the seeds lie {where}{whatever}"


def undecided(
    values: np.ndarray,
    difference: Difference,
    limits: Sequence[float],
    step: float,
    sides: int,
    reach: float,
    bound: str,
) -> str:
    """Why whole pairs decide nothing."""
    if difference.high - difference.low <= reach and all(abs(difference.mean - limit) > reach for limit in limits):
        return "all differences are equal, of a figure that is not rounded: no interval"
    held = [limit for limit in limits if difference.low <= limit + reach and difference.high >= limit - reach]
    if held:
        return "the interval holds the margin" if len(limits) == 1 else "the interval holds a margin"
    found = [min((tails(sign * values, sign * limit, step, sides) for sign in (1, -1)), key=_flips) for limit in limits]
    worst = max(map(_flips, found))
    if bound and worst <= exact_level(len(values)):
        how = f"{bound} what is shown" if bound.startswith("at") else "unknown, with capped figures on both sides"
        return f"the difference is {how}"
    return f"the sign-flip test disagrees with the interval (p = {worst:.2g} on one side)"


def _flips(found: Tails) -> float:
    return float(found.sign_flip)


def possible(
    by_arm: Sequence[Mapping[int, float]], seeds: Sequence[int], range_: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest difference of every seed, [seeds] each: of a missing figure, any in its range."""
    ends = []
    for end in (0, 1):
        takes = [range_[end] if sign > 0 else range_[1 - end] for sign in SIGNS]
        pairs = [
            sum(sign * values.get(seed, open_) for sign, values, open_ in zip(SIGNS, by_arm, takes, strict=False))
            for seed in seeds
        ]
        ends.append(np.array(pairs, np.float64))
    return ends[0], ends[1]


def allowed(found: Evidence, bound: str, within: float | None, values: np.ndarray) -> Evidence:
    """The evidence without what capped figures leave open: "at least" what is shown can only be above a margin."""
    if not bound:
        return found
    one = np.array(1.0)
    up, down = bound == "at least", bound == "at most"
    if within is None:
        return Evidence(found.supported if up else one, found.contradicted if down else one)
    beyond = (up and values.mean() > 0) or (down and values.mean() < 0)
    return Evidence(one, found.contradicted if beyond else one)


def _tests(values: np.ndarray, margin: float, step: float, sides: int, within: float | None) -> dict[str, float]:
    """The one-sided p-values of each test on the side of the mean; for nearness, of the worse of both margins."""
    if within is None:
        sign = 1.0 if values.mean() >= margin else -1.0
        found = [tails(sign * values, sign * margin, step, sides)]
    else:
        found = [tails(sign * values, -within, step, sides) for sign in (1.0, -1.0)]
    return {name: _rounded(max(float(getattr(each, name)) for each in found)) for name in ("t", "sign_flip", "sign")}


def _bootstrap(values: np.ndarray, step: float, sides: int) -> list[float] | None:
    low, high = (float(end) for end in studentized(values, step, sides))
    return [_rounded(low), _rounded(high)] if math.isfinite(low) and math.isfinite(high) else None


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


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
