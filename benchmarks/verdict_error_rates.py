"""How often verdicts and intervals of studies are wrong: simulated studies of known truth, by situation and seeds.

python benchmarks/verdict_error_rates.py [--studies 10000] [--out docs/results/verdict_error_rates.json]

Each row is a situation in which the true difference is at the margin, so that every verdict is a false one: "above" and
"below" are the shares of studies that get it, each at most 2.5% if it is promised, and "t", "bootstrap" and "either"
the shares whose 95% interval holds the true mean (of the percentile bootstrap too, which is not used). A verdict calls
the arms apart by mean and median: where these lie on different sides of the margin, and no seed may have shown what
sets them apart, nothing is promised, and the row says so. "pages" are of 20 claims each: the share with a false verdict
on any of them, with and without Holm's correction. "images" are studies whose test images are drawn anew too, for arms
that are equally right over all seeds and images: the shares whose interval over seeds and images holds that, and whose
interval over seeds alone does. "power" is the share of studies that decide a claim whose effect is
the smallest that power.py names, 80% by its definition.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcnn import files
from jaxcnn.studies.bootstrap import percentile, studentized
from jaxcnn.studies.images import error_over_images, with_images
from jaxcnn.studies.judge import allowed
from jaxcnn.studies.power import in_deviations
from jaxcnn.studies.significance import LEVEL, Evidence, evidence, holm, worst_evidence
from jaxcnn.studies.statistics import bounds

ROOT = pathlib.Path(__file__).parents[1]
OUT = ROOT / "docs" / "results" / "verdict_error_rates.json"
SEEDS = (5, 6, 7, 8, 10)
STUDIES = 10_000
CLAIMS = 20
Draw = Callable[[np.random.Generator, tuple[int, int]], dict[str, Any]]


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
    return {"differences": rng.normal(0, 0.01, shape)}


def rounded(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
    a, b = np.round(rng.normal(0.9, 0.004, (2, *shape)) * 200) / 200
    return {"differences": a - b, "step": 1 / 200}


def collapsing(share: float) -> Draw:
    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
        a, b = np.where(rng.random((2, *shape)) < share, 0.1, rng.normal(0.9, 0.01, (2, *shape)))
        return {"differences": a - b}

    return draw


def unequal(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
    return {"differences": rng.normal(0, 0.03, shape) - rng.normal(0, 0.01, shape)}


def uneven(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
    """Every seed has a deviation of its own, such as of the order of its batches."""
    return {"differences": rng.normal(0, 0.01, shape) * np.exp(rng.normal(0, 1, shape))}


def skewed(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
    a, b = 0.9 - rng.exponential(0.01, (2, *shape))
    return {"differences": a - b}


def two_values(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
    return {"differences": np.where(rng.random(shape) < 0.5, 0.01, -0.01), "step": 1 / 2000}


def missing(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
    """What collapses has no figure: it lies anywhere from 0 to 1."""
    a, b = rng.normal(0.9, 0.01, (2, *shape))
    gone_a, gone_b = rng.random((2, *shape)) < 0.1
    lowest = np.where(gone_a, 0, a) - np.where(gone_b, 1, b)
    highest = np.where(gone_a, 1, a) - np.where(gone_b, 0, b)
    return {"lowest": lowest, "highest": highest}


def capped(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
    """Epochs to a threshold of runs that end after ten."""
    epochs = rng.normal(9, 1.2, (2, *shape))
    over = np.any(epochs > 10, axis=-1)
    a, b = np.minimum(epochs, 10)
    bound = np.array(["", "at least", "at most", "capped on both sides:"])[over[0] + 2 * over[1]]
    return {"differences": a - b, "bound": bound}


def near(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
    """A claim that the difference is less than 0.02, of arms that differ by just that: "above" is "supported"."""
    return {"differences": rng.normal(0.02, 0.01, shape), "within": 0.02, "mean": 0.02}


def skewed_difference(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
    """The mean is at the margin, and in 63% of the seeds the difference is above it."""
    return {"differences": 0.01 - rng.exponential(0.01, shape)}


def one_collapses(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
    collapsed = rng.random(shape) < 0.2
    return {"differences": np.where(collapsed, -0.8, 0.02) + rng.normal(0, 0.01, shape), "mean": -0.144}


SITUATIONS: dict[str, tuple[Draw, str]] = {
    "equal arms, normal differences": (normal, "promised"),
    "equal arms, accuracies over 200 images, deviation 0.8 of a step": (rounded, "promised"),
    "equal arms, one seed in five of each at chance": (collapsing(0.2), "promised"),
    "equal arms, every second seed of each at chance": (collapsing(0.5), "promised"),
    "equal means, deviations 3 to 1": (unequal, "promised"),
    "equal means, each seed with a deviation of its own": (uneven, "promised"),
    "equal arms, skewed accuracies": (skewed, "promised"),
    "equal arms, one cell in ten is missing": (missing, "promised"),
    "equal arms, runs that end before one in five is there": (capped, "promised"),
    '"nearer than 0.02" of arms that differ by 0.02': (near, "promised"),
    "equal means, the difference is +0.01 or -0.01 in every seed": (two_values, "worst symmetric case"),
    "skewed differences, their mean at the margin, above it in 63% of the seeds": (skewed_difference, "not promised"),
    "one arm alone at chance in one seed of five, 0.02 better elsewhere": (one_collapses, "not promised"),
}


def rates(situation: str, seeds: int, studies: int, seed: int = 0) -> dict[str, Any]:
    """One row."""
    draw, promise = SITUATIONS[situation]
    drawn = draw(np.random.default_rng([seed, seeds, list(SITUATIONS).index(situation)]), (studies, seeds))
    row: dict[str, Any] = {"situation": situation, "promise": promise, "seeds": seeds}
    found = judged(drawn)
    row |= {"above": share(found.direction == 1), "below": share(found.direction == -1)}
    if "differences" in drawn and "bound" not in drawn:
        row |= coverage(drawn["differences"], drawn.get("mean", 0.0), drawn.get("step", 0.0))
    return row


def judged(drawn: dict[str, Any]) -> Evidence:
    """By the functions that judge real studies."""
    if "lowest" in drawn:
        each = [worst_evidence(low, high) for low, high in zip(drawn["lowest"], drawn["highest"], strict=True)]
        return Evidence(np.array([e.supported for e in each]), np.array([e.contradicted for e in each]))
    differences = drawn["differences"]
    found = evidence(differences, step=drawn.get("step", 0.0), within=drawn.get("within"))
    if "bound" not in drawn:
        return found
    each = [
        allowed(Evidence(up, down), bound, None, values)
        for up, down, bound, values in zip(
            found.supported, found.contradicted, drawn["bound"], differences, strict=True
        )
    ]
    return Evidence(np.array([e.supported for e in each]), np.array([e.contradicted for e in each]))


def coverage(differences: np.ndarray, mean: float, step: float) -> dict[str, float]:
    """How often each interval holds the true mean."""
    _, *by_t = bounds(differences, step)
    near_ = 1e-9
    holds = lambda ends: (ends[0] <= mean + near_) & (ends[1] >= mean - near_)  # noqa: E731
    t, bootstrap = holds(by_t), holds(studentized(differences, step))
    return {
        "t": share(t),
        "bootstrap": share(bootstrap),
        "either": share(t | bootstrap),
        "percentile": share(holds(percentile(differences))),
    }


def pages(seeds: int, studies: int) -> dict[str, Any]:
    """Of pages of CLAIMS claims on equal arms with normal differences: how many have a false verdict."""
    rng = np.random.default_rng([1, seeds])
    p = evidence(rng.normal(0, 0.01, (studies, CLAIMS, seeds))).p
    left = np.array([holm(page) for page in p])
    return {
        "seeds": seeds,
        "claims": CLAIMS,
        "without": share((p <= 2 * LEVEL).any(1)),
        "with": share((left <= 2 * LEVEL).any(1)),
    }


def power(seeds: int, studies: int) -> dict[str, Any]:
    deviations = in_deviations(seeds)
    drawn = np.random.default_rng([2, seeds]).normal(deviations, 1, (studies, seeds))
    return {
        "seeds": seeds,
        "effect in deviations": deviations,
        "decided": share(evidence(drawn).direction == 1),
    }


def images(seeds: int, count: int, studies: int, seed: int = 3) -> dict[str, Any]:
    """Each image has its chance to be right, mostly the same for both arms; a net is a little better or worse."""
    rng = np.random.default_rng([seed, seeds, count])
    held = alone = 0
    for _ in range(studies):
        shared, own = rng.beta(2, 0.4, count), rng.beta(2, 0.4, (2, 1, count))
        chances = np.where(rng.random((2, 1, count)) < 0.8, shared, own)
        right = rng.random((2, seeds, count)) < chances ** np.exp(rng.normal(0, 0.15, (2, seeds, 1)))
        mean, low, high = map(float, bounds(right[0].mean(-1) - right[1].mean(-1), 1 / count))
        alone += low <= 0 <= high
        held += abs(mean) <= with_images((high - low) / 2, error_over_images([*right]))
    return {"seeds": seeds, "images": count, "both": held / studies, "seeds alone": alone / studies}


def share(found: Any) -> float:
    return float(np.mean(found))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=STUDIES)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    chosen = parser.parse_args(arguments)
    results = {
        "command": "python benchmarks/verdict_error_rates.py",
        "studies": chosen.studies,
        "level": LEVEL,
        "rows": [rates(situation, n, chosen.studies) for situation in SITUATIONS for n in SEEDS],
        "pages": [pages(n, chosen.studies // 5) for n in SEEDS],
        "images": [images(n, count, chosen.studies // 5) for n in (5, 8) for count in (355, 2000)],
        "power": [power(n, chosen.studies) for n in SEEDS],
    }
    files.write_json(chosen.out, results)


if __name__ == "__main__":
    main(sys.argv[1:])
