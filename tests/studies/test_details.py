"""A study's own page: what was settled, the tuning, each seed's pair and what could have been seen, from study.json."""

import re

import pytest

from jaxcnn.studies.details import details, pairs, power, preregistration, tuning_rows
from jaxcnn.studies.interval_plot import interval_svg
from jaxcnn.studies.plots import pair_plot

HIGH, LOW = (0.91, 0.90, 0.95, 0.88, 0.92), (0.90, 0.91, 0.90, 0.875, 0.90)


def claim_of(text, **fields):
    values = [high - low for high, low in zip(HIGH, LOW, strict=True)]
    difference = {"mean": sum(values) / 5, "low": -0.02, "high": 0.05, "values": values}
    claim = {"text": text, "metric": "test accuracy", "higher": "B", "lower": "A", "beyond": None, "margin": 0.0}
    claim |= {"change": "", "within": None, "difference": difference, "over_images": None, "verdict": "inconclusive"}
    return claim | fields


@pytest.fixture
def results():
    arms = {
        name: {
            "counts": {},
            "cells": [{"seed": seed, "figures": {"test accuracy": v}} for seed, v in enumerate(values)],
        }
        for name, values in (("A", LOW), ("B", HIGH))
    }
    claims = [
        claim_of("B is better"),
        claim_of("B loses at most a point", margin=-0.01, change="changed after the start"),
        claim_of("they are alike", within=0.02),
    ]
    pinned = {"date": "2026-11-25 10:00 UTC", "origin": "the first start", "digest": "0123456789abcdef", "late": False}
    pinned["changes"] = ["the seeds were 0, 1, 2 at the start and are 0, 1, 2, 3, 4"]
    found = {"command": "python -m jaxcnn.launch b.py", "question": "Is B better?", "metric": "test accuracy"}
    return found | {"seeds": [0, 1, 2, 3, 4], "arms": arms, "claims": claims, "pinned": pinned}


def test_what_was_settled_has_its_date_its_digest_and_what_changed(results):
    rows = preregistration(results)
    told = dict(rows)
    assert "2026-11-25 10:00 UTC" in told["settled"] and "0123456789" in told["settled"]
    assert [text for name, text in rows if name == "claim"] == [
        "B is better",
        "B loses at most a point (by more than \N{MINUS SIGN}1.0 points), changed after the start",
        "they are alike (within 2.0 points)",
    ]
    assert told["question"] == "Is B better?" and told["arms"] == "A, B" and told["seeds"].startswith("0, 1, 2, 3, 4; ")
    assert told["changed since"] == results["pinned"]["changes"][0]
    results["pinned"]["late"] = True
    assert "after cells had begun" in dict(preregistration(results))["settled"]


def test_each_seed_has_its_pair_also_where_one_side_is_missing(results):
    claim = results["claims"][0]
    found = pairs(results, claim)
    assert found[0] == ("0", "91.0%", "90.0%", "+1.0 points") and found[1][3] == "\N{MINUS SIGN}1.0 points"
    assert [row[0] for row in found] == list("01234")
    (axes,) = pair_plot(results, claim).axes
    hollow, filled = ([line for line in axes.lines if line.get_label() == name] for name in ("A", "B"))
    assert hollow[0].get_xdata()[0] == pytest.approx(90) and hollow[0].get_markerfacecolor() == "white"
    assert filled[0].get_xdata()[0] == pytest.approx(91)
    assert len(axes.get_yticks()) == 5
    del results["arms"]["A"]["cells"][1]["figures"]["test accuracy"]
    assert pairs(results, claim)[1][2:] == ("missing", "-")
    assert len(pair_plot(results, claim).axes[0].get_yticks()) == 4
    assert (
        pairs(results, claim | {"metric": "parameters"}) == []
        and pair_plot(results, claim | {"metric": "parameters"}) is None
    )


def test_the_tuning_shows_the_whole_grid_and_what_was_chosen(results):
    assert tuning_rows(results) == [] and "Tuning" not in "\n".join(details(results))
    trials = [
        {"text": f"learning_rate {rate}", "score": score} for rate, score in ((0.1, 0.5), (0.3, 0.75), (1.0, None))
    ]
    arm = {"metric": "validation accuracy", "trials": trials, "chosen": 1, "edge": [], "all_failed": False}
    arms = {
        "inside": arm,
        "edge": arm | {"chosen": 0, "edge": ["learning_rate"]},
        "going on": arm | {"chosen": None},
        "wild": arm | {"chosen": 0, "all_failed": True},
    }
    results["tuning"] = {"seeds": [100], "fields": ["optimizer.learning_rate"], "arms": arms}
    rows = tuning_rows(results)
    tried = "learning_rate 0.1: 50.0%; learning_rate 0.3: 75.0%; learning_rate 1.0: diverged or failed"
    assert {row["tried, with its validation accuracy"] for row in rows} == {tried}
    assert [row["chosen"] for row in rows] == [
        "learning_rate 0.3",
        "learning_rate 0.1, at the edge of what was tried",
        "not finished",
        "learning_rate 0.1, the first, since none has a figure",
    ]
    text = "\n".join(details(results))
    assert tried in text and "by seeds 100, which no verdict uses" in text


def test_what_could_have_been_seen_is_told_if_it_is_known(results):
    claim = {name: value for name, value in results["claims"][0].items() if name != "smallest"}
    assert power(claim) == "" and power(claim | {"smallest": None}) == ""
    assert "a difference that is 1.8 points beyond the margin" in power(claim | {"smallest": 0.018})


def test_the_page_ends_with_its_command(results):
    assert details(results)[-3:] == ["```sh", results["command"], "```"]


def test_an_interval_plot_without_an_interval_is_none(results):
    claim = results["claims"][0]
    assert interval_svg(claim | {"metric": "parameters"}, (), "") is None
    assert interval_svg(claim | {"difference": None}, (), "") is None
    assert interval_svg(claim | {"difference": claim["difference"] | {"low": None}}, (), "") is None
    assert "<script>" not in interval_svg(claim, [0.9], "<script>")


def test_of_a_claim_of_nearness_the_shade_has_two_sides(results):
    one, alike = (interval_svg(claim, (), "") for claim in (results["claims"][0], results["claims"][2]))
    assert one.count('stroke-width="2"/>') == 1 and alike.count('stroke-width="2"/>') == 2
    width = [float(re.search(r'<rect x="[\d.]+" y="4" width="([\d.]+)"', svg)[1]) for svg in (one, alike)]
    start, end = (float(place) for place in re.findall(r'd="M([\d.]+) 4V', alike))
    assert width[1] == pytest.approx(end - start, abs=0.2) and "as claimed \N{RIGHTWARDS ARROW}" not in alike
