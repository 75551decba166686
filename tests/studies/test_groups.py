"""Groups of arms: means seed by seed, main effects and interactions of a factorial study against sums by hand."""

import dataclasses
import itertools

import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.studies.cell import check_metrics
from jaxcnn.studies.groups import factorial, grouped
from jaxcnn.studies.pinned import claims_of, digest, settled, summary
from jaxcnn.studies.study import Claim
from jaxcnn.studies.table import judged
from tests.experiments import paired

FACTORS = (("no norm", "norm"), ("plain", "residual"), ("10", "22"))
ARMS = [", ".join(levels) for levels in itertools.product(*FACTORS)]
SEEDS = range(5)
LOSSES = np.random.default_rng(0).normal(size=(2, 2, 2, 5)) + np.array([3.0, 1.0]).reshape(2, 1, 1, 1)


def results(missing=(), unreached=()):
    arms = {}
    for number, arm in enumerate(ARMS):
        cells = []
        for seed, loss in enumerate(LOSSES.reshape(8, 5)[number]):
            gone = (arm, seed) in missing
            figures = {} if gone else {"train loss": float(loss), "test accuracy": 0.5, "test count": 50.0}
            state = "failed" if gone else "done"
            late = ["train loss"] if (arm, seed) in unreached else []
            cells.append(
                {"seed": seed, "state": state, "figures": figures, "unreached": late, "steps": {"train loss": 0.1}}
            )
        arms[arm] = {"counts": {"parameters": 100.0 * number}, "figures": {}, "cells": cells}
    return {"arms": arms, "seeds": list(SEEDS), "metric": "train loss", "groups": grouped(factorial(*FACTORS), arms)}


def claim(**fields):
    whole = {"text": "c", "metric": "train loss", "beyond": None, "margin": 0.0, "change": "", "within": None}
    return whole | fields


def test_the_groups_of_three_factors_fix_one_level_or_two():
    groups = factorial(*FACTORS)
    assert len(groups) == 3 * 2 + 3 * 4
    assert groups["norm"] == ("norm, plain, 10", "norm, plain, 22", "norm, residual, 10", "norm, residual, 22")
    assert groups["plain, 22"] == ("no norm, plain, 22", "norm, plain, 22")
    assert all(set(arms) < set(ARMS) for arms in groups.values()) and not groups.keys() & set(ARMS)


def test_a_main_effect_and_an_interaction_are_those_of_the_means():
    main = claim(higher="no norm", lower="norm")
    interaction = claim(higher="no norm, 22", lower="norm, 22", beyond=["no norm, 10", "norm, 10"])
    found = judged(results(), [main, interaction])["claims"]
    effect = LOSSES.mean((1, 2))
    np.testing.assert_allclose(found[0]["difference"]["values"], effect[0] - effect[1])
    by_depth = LOSSES.mean(1)  # norm, depth, seed
    expected = (by_depth[0, 1] - by_depth[1, 1]) - (by_depth[0, 0] - by_depth[1, 0])
    np.testing.assert_allclose(found[1]["difference"]["values"], expected)
    assert found[0]["verdict"] == "supported"


def test_what_one_arm_lacks_its_groups_lack():
    missing, late = ("norm, plain, 22", 3), ("no norm, plain, 10", 1)
    whole = results([missing], [late])
    group = whole["groups"]["norm, 22"]
    assert group["of"] == ["norm, plain, 22", "norm, residual, 22"]
    assert [cell["state"] for cell in group["cells"]] == ["done"] * 3 + ["failed", "done"]
    assert group["cells"][3]["figures"] == {} and group["figures"]["train loss"]["n"] == 4
    found = judged(whole, [claim(higher="no norm", lower="norm")])["claims"][0]
    assert found["missing"] == ["norm, seed 3 (failed)"] and found["verdict"] == "inconclusive"
    assert found["bound"] == "at least" and found["step"] == 0.1
    counted = judged(whole, [claim(metric="parameters", higher="norm", lower="no norm")])["claims"][0]
    assert counted["difference"]["mean"] == 400.0


@pytest.fixture
def study():
    return dataclasses.replace(
        paired.study(),
        groups={"both": ("momentum", "plain")},
        claims=(Claim("momentum is better than the mean of both", "both", "momentum", metric="test loss"),),
    )


def test_groups_are_settled_with_the_claims(study):
    pinned = settled(study) | {"date": "", "origin": "", "late": False}
    pinned |= {"digest": digest(pinned)}
    assert summary(pinned, study)["changes"] == []
    other = dataclasses.replace(study, groups={"both": ("momentum",)})
    assert digest(settled(other)) != pinned["digest"]
    assert summary(pinned, other)["changes"] == ["the groups of arms were others at the start"]
    assert claims_of(study)[0]["higher"] == "both"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": {"both": ("momentum", "plane")}}, "the group 'both' names no arm 'plane'; did you mean 'plain'"),
        ({"groups": {"plain": ("momentum", "plain")}}, "the group 'plain' needs a name of its own"),
        ({"groups": {"both": ()}}, "the group 'both' needs a name of its own and at least one arm"),
        ({"groups": {"bothe": ("momentum", "plain")}}, "names no arm 'both'; did you mean 'bothe'"),
    ],
)
def test_a_wrong_group_is_one_message(study, change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(study, **change)


def test_the_figure_of_a_group_is_one_of_all_its_arms(study):
    check_metrics(study)
    with pytest.raises(UserError, match="no metric of the arm 'momentum': 'test los'; did you mean 'test loss'"):
        check_metrics(dataclasses.replace(study, claims=(Claim("c", "both", "plain", metric="test los"),)))
