"""A study's own page: what was settled, the tuning, each seed's pair and what could have been seen, from study.json."""

import json

import pytest

from jaxcnn.studies.details import details, pairs, power, preregistration, tuning_rows
from jaxcnn.studies.interval_plot import interval_svg
from jaxcnn.studies.plots import pair_plot
from tests.tiny_runs import ROOT


@pytest.fixture
def results():
    return json.loads((ROOT / "docs" / "results" / "studies" / "depth" / "study.json").read_text())


def test_what_was_settled_has_its_date_its_digest_and_what_changed(results):
    rows = preregistration(results)
    told = dict(rows)
    pinned = json.loads((ROOT / "docs" / "results" / "studies" / "depth" / "claims.json").read_text())
    assert pinned["date"] in told["settled"] and pinned["digest"][:10] in told["settled"]
    assert [text for name, text in rows if name == "claim"] == [
        *(claim["text"] for claim in pinned["claims"][:3]),
        "E is better than D by less than one point (by more than \N{MINUS SIGN}1.0 points), changed after the start",
    ]
    assert any("the seeds were 0, 1, 2 at the start" in text for name, text in rows if name == "changed since")
    results["pinned"]["late"] = True
    assert "after cells had begun" in dict(preregistration(results))["settled"]


def test_each_seed_has_its_pair_also_where_one_side_is_missing(results):
    claim = results["claims"][0]
    high, low = (
        [cell["figures"]["test accuracy"] for cell in results["arms"][arm]["cells"]] for arm in ("VGG-B", "VGG-A")
    )
    found = pairs(results, claim)
    assert [row[:3] for row in found] == [
        (str(seed), f"{100 * one:.1f}%", f"{100 * other:.1f}%")
        for seed, one, other in zip(results["seeds"], high, low, strict=True)
    ]
    (axes,) = pair_plot(results, claim).axes
    hollow, filled = ([line for line in axes.lines if line.get_label() == name] for name in ("VGG-A", "VGG-B"))
    assert hollow[0].get_xdata()[0] == pytest.approx(100 * low[0]) and hollow[0].get_markerfacecolor() == "white"
    assert filled[0].get_xdata()[0] == pytest.approx(100 * high[0])
    assert len(axes.get_yticks()) == 5
    del results["arms"]["VGG-A"]["cells"][1]["figures"]["test accuracy"]
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
