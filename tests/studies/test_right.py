"""Which images are right: kept by cells as measured, and what the interval over seeds and images makes of it."""

import json
import math
import shutil

import numpy as np
import pytest

from jaxcnn.studies.figures import by_seed
from jaxcnn.studies.groups import grouped
from jaxcnn.studies.judge import judge_claim
from jaxcnn.studies.right import decoded, encoded, right_images
from tests.tiny_runs import ROOT, finish, read

METRIC = "test accuracy"
CLAIM = {"metric": METRIC, "higher": "a", "lower": "b", "beyond": None, "margin": 0.0}


def arm(right, kept=True):
    """An arm of study.json whose nets have these images right, bool [seeds, images]."""
    cells = [
        {
            "seed": seed,
            "state": "done",
            "figures": {METRIC: float(row.mean()), "test count": float(len(row))},
            "unreached": [],
            "steps": {},
            "right": {METRIC: [encoded(row)]} if kept else {},
        }
        for seed, row in enumerate(right)
    ]
    return {"counts": {}, "figures": {}, "cells": cells}


def judged(**arms):
    return judge_claim(CLAIM | {"beyond": ["c", "d"] if "c" in arms else None}, arms, range(len(arms["a"]["cells"])))


def drawn(rng, seeds=8, images=400, arms=2, shared=0.9):
    """Nets whose errors fall mostly on the same images: an image's chance is the same for all arms, but for some."""
    chances = rng.beta(2, 0.4, (1, 1, images))
    own = np.where(rng.random((arms, 1, images)) < shared, chances, rng.beta(2, 0.4, (arms, 1, images)))
    return rng.random((arms, seeds, images)) < own


@pytest.mark.parametrize("count", [1, 7, 8, 355])
def test_bits_come_back(count):
    right = np.random.default_rng(count).random(count) < 0.8
    np.testing.assert_array_equal(decoded(encoded(right), count), right)


def test_a_study_keeps_which_images_are_right(tmp_path):
    """As many as the result says; a cell that cannot be measured any more is told, and the report is made."""
    file, path = ROOT / "tests" / "experiments" / "study.py", tmp_path / "study"
    finish(file, "--workdir", path)
    results = read(path, "study.json")
    for name in ("none", "same", "half"):
        for cell in results["arms"][name]["cells"]:
            (bits,) = cell["right"][METRIC]
            found = read(path / cell["path"], "result.json")["test"]
            assert decoded(bits, found["count"]).mean() == found["accuracy"]
            assert json.loads((path / cell["path"] / "right.json").read_text()) == {METRIC: bits}
    assert [cell["right"] for cell in results["arms"]["wild"]["cells"]] == [{}, {}]  # diverged
    assert results["arms"]["none"]["cells"][0]["right"] == results["arms"]["same"]["cells"][0]["right"]
    first = path / results["arms"]["half"]["cells"][0]["path"]
    before = read(first, "right.json")
    (first / "right.json").unlink()
    finish(file, "--workdir", path)
    assert read(first, "right.json") == before
    (first / "right.json").unlink()
    shutil.rmtree(first / "checkpoints")
    said = " ".join(finish(file, "--workdir", path).stdout.split())
    assert "warning: which images half, seed 0 has right is not kept:" in said and "has no checkpoint yet" in said
    assert read(path, "study.json")["arms"]["half"]["cells"][0]["right"] == {}


def test_the_interval_over_images_holds_the_difference_and_is_narrower_than_the_bound():
    rng, held, seeds_alone, ratios = np.random.default_rng(0), 0, 0, []
    for _ in range(400):
        a, b = drawn(rng)
        found, bound = judged(a=arm(a), b=arm(b)), judged(a=arm(a, kept=False), b=arm(b, kept=False))
        assert found["difference"] == bound["difference"]
        low, high = found["over_images"]
        held += low <= 0 <= high
        seeds_alone += found["difference"]["low"] <= 0 <= found["difference"]["high"]
        ratios.append((high - low) / (bound["over_images"][1] - bound["over_images"][0]))
    assert held >= 0.94 * 400 > seeds_alone
    assert max(ratios) < 1 and np.median(ratios) < 0.6


def test_the_interval_over_images_by_hand():
    a, b = drawn(np.random.default_rng(1), seeds=5, images=50)
    found = judged(a=arm(a), b=arm(b))
    differences = a.mean(0) - b.mean(0)
    images = 1.959964 * differences.std(ddof=1) / math.sqrt(50)
    half = math.hypot((found["difference"]["high"] - found["difference"]["low"]) / 2, images)
    mean = found["difference"]["mean"]
    assert found["over_images"] == pytest.approx([mean - half, mean + half], rel=1e-6)
    four = dict(zip("abcd", map(arm, drawn(np.random.default_rng(2), 5, 50, 4)), strict=True))
    by_hand = sum(
        sign * np.mean([decoded(*cell["right"][METRIC], 50) for cell in four[name]["cells"]], 0)
        for sign, name in zip((1, -1, -1, 1), "abcd", strict=True)
    )
    found = judged(**four)
    low, high = found["over_images"]
    seeds = (found["difference"]["high"] - found["difference"]["low"]) / 2
    images = 1.959964 * by_hand.std(ddof=1) / math.sqrt(50)
    assert (high - low) / 2 == pytest.approx(math.hypot(seeds, images), rel=1e-6)


def test_a_group_has_the_mean_of_its_arms():
    a, b = drawn(np.random.default_rng(3), seeds=5, images=50)
    both = grouped({"both": ("a", "b")}, {"a": arm(a), "b": arm(b)})["both"]
    seeds = range(5)
    np.testing.assert_allclose(right_images(both, METRIC, by_seed(both, METRIC, seeds), seeds), (a + 1.0 * b) / 2)


def test_images_that_are_not_what_the_figures_say_are_not_used():
    """Such as those of a run that was evaluated on another machine, where rounding decided otherwise."""
    a, _ = drawn(np.random.default_rng(4), seeds=5, images=50)
    stored, seeds = arm(a), range(5)
    assert right_images(stored, METRIC, by_seed(stored, METRIC, seeds), seeds) is not None
    stored["cells"][2]["figures"][METRIC] -= 1 / 50
    assert right_images(stored, METRIC, by_seed(stored, METRIC, seeds), seeds) is None
    stored["cells"][2]["figures"][METRIC] += 1 / 50
    stored["cells"][3]["right"] = {}
    assert right_images(stored, METRIC, by_seed(stored, METRIC, seeds), seeds) is None
