"""A claim against made-up cells: missing pairs, capped figures, rounding, and the interval over images."""

import numpy as np
import pytest

from jaxcnn.studies.figures import range_of, step_of
from jaxcnn.studies.judge import against_baseline, judge_claim, judge_claims, over_page
from jaxcnn.studies.power import smallest_effect
from jaxcnn.studies.table import measured

NOISE = np.array([0.011, -0.004, 0.002, 0.007, -0.009, 0.003])


def arm(values, states=None, count=1000, counts=(), metric="test accuracy", capped=()):
    """An arm of study.json; None for a value is a cell without figures."""
    states = states or ["done" if value is not None else "diverged" for value in values]
    return {
        "counts": dict(counts),
        "cells": [
            {
                "seed": seed,
                "state": state,
                "figures": {} if value is None else {metric: value, "test count": count},
                "unreached": [metric] if seed in capped else [],
            }
            for seed, (value, state) in enumerate(zip(values, states, strict=True))
        ],
    }


def claim(metric="test accuracy", margin=0.0, beyond=None):
    return {"metric": metric, "higher": "a", "lower": "b", "beyond": beyond, "margin": margin}


def judged(a, b, claim_=None, **more):
    arms = {"a": a, "b": b, **more}
    return judge_claim(claim_ or claim(), arms, [cell["seed"] for cell in a["cells"]])


def test_three_of_five_seeds_that_diverge_decide_nothing():
    """Two survive, both better: without the missing pairs, an interval of two."""
    found = judged(arm([0.95, 0.95, None, None, None]), arm(0.9 + NOISE[:5]))
    assert found["verdict"] == "inconclusive" and found["pairs"] == "2 of 5 seeds"
    assert found["missing"] == [f"a, seed {seed} (diverged)" for seed in (2, 3, 4)]
    assert "a pair is missing: a, seed 2 (diverged) and 2 more" in found["reason"]


@pytest.mark.parametrize("state, said", [("diverged", "diverged"), ("failed", "failed"), ("missing", "not run")])
def test_one_cell_of_many_that_is_missing_decides_nothing_and_is_named(state, said):
    """Also that of the arm that loses."""
    whole = judged(arm(0.95 + NOISE), arm(0.8 - NOISE))
    assert whole["verdict"] == "supported" and whole["missing"] == []
    states = ["done"] * 5 + [state]
    found = judged(arm(0.95 + NOISE), arm([*(0.8 - NOISE[:5]), None], states))
    assert found["verdict"] == "inconclusive" and f"b, seed 5 ({said})" in found["reason"]


def test_a_diverged_cell_counts_as_the_study_says():
    """Its figures are then those of Study.diverged: chance."""
    states = ["diverged"] * 3 + ["done"] * 3
    worst = arm([0.1] * 3 + [0.95] * 3, states)
    assert judged(worst, arm(0.9 + NOISE))["verdict"] == "inconclusive"
    assert judged(arm(0.9 + NOISE), arm([0.1] * 6, ["diverged"] * 6))["verdict"] == "supported"


def test_a_figure_that_is_not_finite_is_missing():
    found = judged(arm([*(0.95 + NOISE[:5]), float("nan")]), arm(0.8 - NOISE))
    assert found["verdict"] == "inconclusive" and "done, without the figure" in found["reason"]


def test_a_loss_of_exactly_the_margin_is_no_contradiction():
    for n in (5, 6):
        found = judged(arm([0.89] * n), arm([0.9] * n), claim(margin=-0.01))
        assert found["verdict"] == "inconclusive" and found["reason"] == "the interval holds the margin"


def test_equal_differences_have_a_width():
    found = judged(arm([0.9] * 5, count=200), arm([0.65] * 5, count=200))
    difference = found["difference"]
    assert found["step"] == 1 / 200 and difference["high"] - difference["low"] > 0.9 / 200
    assert found["verdict"] == "supported"
    one_step = judged(arm([0.9] * 3, count=200), arm([0.895] * 3, count=200))
    assert one_step["verdict"] == "inconclusive" and "too few seeds: 3" in one_step["reason"]


def test_the_step_is_that_of_the_count_or_the_noted_one():
    assert step_of(arm([0.5], count=400), "test accuracy") == 1 / 400
    assert step_of(arm([0.5], count=400, metric="gap"), "gap") == 1 / 400
    assert step_of(arm([0.5], count=400, metric="loss gap"), "loss gap") == 0
    noted = arm([2.5], metric="epochs to train accuracy 0.7")
    assert step_of(noted, "epochs to train accuracy 0.7") == 0
    noted["cells"][0]["steps"] = {"epochs to train accuracy 0.7": 0.25}
    assert step_of(noted, "epochs to train accuracy 0.7") == 0.25


@pytest.mark.parametrize(
    "capped, better, verdict, bound",
    [
        ("a", 1, "supported", "at least"),
        ("a", -1, "inconclusive", "at least"),
        ("b", 1, "inconclusive", "at most"),
        ("b", -1, "contradicted", "at most"),
        ("ab", 1, "inconclusive", "capped on both sides:"),
        ("", 1, "supported", ""),
    ],
)
def test_capped_figures_are_bounds(capped, better, verdict, bound):
    metric = "epochs to train accuracy 0.7"
    arms = [
        arm(10 + sign * better + NOISE * sign, metric=metric, capped=[1] if name in capped else [])
        for name, sign in (("a", 1), ("b", -1))
    ]
    found = judged(*arms, claim(metric))
    assert (found["verdict"], found["bound"]) == (verdict, bound)
    assert measured(found | {"metric": metric}).startswith(f"{bound} +" if better > 0 and bound else bound)


def test_capped_figures_of_a_difference_of_differences():
    metric, rest = "epochs to train accuracy 0.7", {"c": NOISE, "d": -NOISE}
    for name, bound in (("c", "at most"), ("d", "at least")):
        arms = {key: arm(5 + value, metric=metric, capped=[0] if key == name else []) for key, value in rest.items()}
        found = judged(
            arm(9 + NOISE, metric=metric), arm(5 - NOISE, metric=metric), claim(metric, beyond=["c", "d"]), **arms
        )
        assert found["bound"] == bound


def test_counted_figures_need_neither_seeds_nor_cells():
    a, b = arm([None], counts={"parameters": 5}), arm([None], counts={"parameters": 3})
    found = judged(a, b, claim("parameters"))
    assert (found["verdict"], found["missing"], found["reason"]) == ("supported", [], "counted")
    assert judged(b, a, claim("parameters"))["verdict"] == "contradicted"


def test_an_arm_that_the_study_no_longer_has():
    found = judge_claim(claim(), {"a": arm([0.5])}, [0])
    assert found["verdict"] == "inconclusive" and "no arm 'b'" in found["reason"]


def test_the_interval_over_images_covers_other_images_too():
    """Both nets' errors fall on images at random, as far apart as they can: the bound must hold the true difference."""
    rng, count, n, held, narrow = np.random.default_rng(0), 400, 5, 0, 0
    for _ in range(400):
        # Each image has a chance of its own to be right, for either net: the images matter, not the seeds alone.
        chances = rng.beta(2, 0.5, (2, 1, count))
        a, b = (rng.random((2, n, count)) < chances).mean(-1)
        found = judged(arm(a, count=count), arm(b, count=count))
        low, high = found["over_images"]
        held += low <= 0 <= high
        narrow += found["difference"]["low"] <= 0 <= found["difference"]["high"]
    assert held >= 0.95 * 400 > narrow  # the seeds' own interval alone does not


def test_the_interval_over_images_is_for_accuracies_alone():
    assert judged(arm([0.5] * 5, metric="gap"), arm([0.4] * 5, metric="gap"), claim("gap"))["over_images"] is None
    assert judged(arm([0.5]), arm([0.4]))["over_images"] is None


def test_the_difference_to_the_baseline_says_how_many_pairs_it_has():
    found = against_baseline(arm([0.5, None, 0.6]), arm([0.4, 0.4, 0.4]), "test accuracy", [0, 1, 2])
    assert found["pairs"] == "2 of 3 seeds"
    assert against_baseline(arm([None]), arm([0.4]), "test accuracy", [0]) is None


def test_a_missing_pair_is_taken_at_its_worst_value():
    """Any accuracy is from 0 to 1: five of six seeds that differ by 0.5 leave it open, twelve of thirteen do not."""
    few = judged(arm([*(0.95 + NOISE[:5]), None]), arm([*(0.45 - NOISE[:5]), 0.45]))
    assert few["verdict"] == "inconclusive" and "a pair is missing: a, seed 5" in few["reason"]
    noise = np.tile(NOISE, 2)
    many = judged(arm([*(0.95 + noise), None]), arm([*(0.2 - noise), 0.2]))
    assert many["verdict"] == "supported" and many["reason"].endswith("whatever the missing pairs are")
    assert many["pairs"] == "12 of 13 seeds" and 0 < many["p"] < 0.05
    loss = judged(
        arm([*(0.95 + noise), None], metric="test loss"),
        arm([*(0.2 - noise), 0.2], metric="test loss"),
        claim("test loss"),
    )
    assert loss["verdict"] == "inconclusive" and loss["p"] == 1  # a loss may be anything


def test_what_a_figure_can_be():
    assert range_of("test[:2000] accuracy") == range_of("test mean_iou") == range_of("MaxBoxAcc") == (0, 1)
    assert range_of("accuracy lost to the shift") == range_of("gap") == (-1, 1)
    assert range_of("test loss") == range_of("epochs to train accuracy 0.7") == (0, np.inf)
    assert range_of("loss gap") == range_of("relative gain") == (-np.inf, np.inf)


def test_alike_is_decided_by_both_sides():
    alike = claim() | {"within": 0.02}
    found = judged(arm(0.9 + NOISE / 2), arm(0.9 - NOISE / 4), alike)
    assert (found["verdict"], found["reason"]) == ("supported", "the interval and the seeds lie between the margins")
    assert judged(arm(0.95 + NOISE), arm(0.9 - NOISE), alike)["verdict"] == "contradicted"
    assert judged(arm(0.9 + 3 * NOISE), arm(0.9 - 3 * NOISE), alike)["reason"] == "the interval holds a margin"
    a, b = arm([None], counts={"parameters": 5}), arm([None], counts={"parameters": 3})
    assert judged(a, b, claim("parameters") | {"within": 3})["verdict"] == "supported"
    assert judged(a, b, claim("parameters") | {"within": 2})["verdict"] == "contradicted"


@pytest.mark.parametrize("better", [1, -1])
def test_alike_is_never_said_of_capped_figures(better):
    metric = "epochs to train accuracy 0.7"
    arms = [arm(10 + sign * better * 0.01 + NOISE * sign / 100, metric=metric) for sign in (1, -1)]
    assert judged(*arms, claim(metric) | {"within": 1.0})["verdict"] == "supported"
    arms[0]["cells"][0]["unreached"] = [metric]
    assert judged(*arms, claim(metric) | {"within": 1.0})["verdict"] == "inconclusive"


def test_claims_of_a_page_are_corrected_together():
    """The second is below 5% alone, and not among twelve of which the others show nothing."""
    arms = {
        "a": arm(0.95 + NOISE),
        "b": arm(0.9 - NOISE),
        "c": arm(0.9195 + 0.9 * NOISE),
        "n": arm(0.9 + 2 * NOISE[::-1]),
    }
    claims = [claim(), claim() | {"higher": "c"}, *[claim() | {"higher": "n"}] * 10]
    seeds = range(6)
    found = judge_claims(claims, arms, seeds)
    own = [judge_claim(each, arms, seeds) for each in claims]
    assert own[1]["verdict"] == "supported" and 0.005 < own[1]["p"] < 0.05
    assert [each["verdict"] for each in found[:2]] == ["supported", "inconclusive"]
    assert (
        found[1]["alone"]["verdict"] == "supported" and "not beyond chance among 12 claims: alone" in found[1]["reason"]
    )
    assert found[0]["p_holm"] == pytest.approx(12 * own[0]["p"], rel=1e-4)
    assert found[1]["p_holm"] == pytest.approx(11 * own[1]["p"], rel=1e-4)
    # Two pages of these are corrected over both, and each claim keeps what its own study says.
    page = over_page({"one": {"claims": found}, "two": {"claims": found}})
    first = page["two"]["claims"][0]
    assert first["p_holm"] == pytest.approx(2 * found[0]["p_holm"], rel=1e-4)
    assert first["of_study"] == {"verdict": "supported", "p_holm": found[0]["p_holm"]}


def test_counted_figures_and_too_few_seeds_take_no_part_in_the_correction():
    a, b = arm(0.95 + NOISE, counts={"parameters": 5}), arm(0.9 - NOISE, counts={"parameters": 3})
    found = judge_claims([claim(), claim("parameters")], {"a": a, "b": b}, range(6))
    assert found[0]["p_holm"] == found[0]["p"] and found[1]["p_holm"] is found[1]["p"] is None
    few = judge_claims([claim()] * 3, {"a": a, "b": b}, range(4))
    assert [each["p"] for each in few] == [None] * 3 and "too few seeds: 4" in few[0]["reason"]


def test_the_smallest_effect_is_by_the_deviation_that_was_found():
    found = judged(arm(0.95 + NOISE), arm(0.9 - NOISE))
    values = np.array(found["difference"]["values"])
    assert found["smallest"] == pytest.approx(smallest_effect(6, values.std(ddof=1)), rel=1e-4)
    assert judged(arm([0.9] * 4), arm([0.8] * 4))["smallest"] is None
