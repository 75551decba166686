"""The stored error rates of verdicts: within what is promised, and a sample of them computed again."""

import runpy

import numpy as np
import pytest
from scipy import stats

from jaxcnn.studies.error_rates import error_rates_table, error_rates_text, read_error_rates
from jaxcnn.studies.significance import LEVEL
from tests.tiny_runs import ROOT

STORED = read_error_rates(ROOT)
ROWS = {(row["situation"], row["seeds"]): row for row in STORED["rows"]}
SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "verdict_error_rates.py"))
FEW = 600


def highest(share, studies):
    """What a share measured in so many studies is at most, in all but 1 of 10,000 such tables."""
    return stats.binom.isf(1e-4 / len(ROWS), studies, share) / studies


def test_every_situation_is_stored_for_every_number_of_seeds():
    assert ROWS.keys() == {(name, n) for name in SCRIPT["SITUATIONS"] for n in SCRIPT["SEEDS"]}
    assert STORED["studies"] == SCRIPT["STUDIES"] and STORED["level"] == LEVEL
    assert min(SCRIPT["SEEDS"]) == 5 and max(SCRIPT["SEEDS"]) == 10


def test_what_is_promised_holds():
    for (name, n), row in ROWS.items():
        if row["promise"] == "promised":
            assert max(row["above"], row["below"]) <= highest(LEVEL, STORED["studies"]), (name, n)
            assert row.get("t", 1) >= 0.93, (name, n)
        if row["promise"].startswith("worst"):
            assert max(row["above"], row["below"]) <= highest(max(LEVEL, 0.5**n), STORED["studies"])
        if not name.startswith("one arm"):
            assert row.get("either", 1) >= 0.925, (name, n)
    for page in STORED["pages"]:
        studies = STORED["studies"] // 5
        assert page["with"] <= highest(2 * LEVEL, studies) and page["without"] > 0.3
    for row in STORED["power"]:
        assert row["decided"] == pytest.approx(0.8, abs=0.03)


def test_the_interval_over_seeds_and_images_holds_what_it_promises():
    """And that over seeds alone does not; a few studies of each are drawn again."""
    assert {(row["seeds"], row["images"]) for row in STORED["images"]} == {(n, c) for n in (5, 8) for c in (355, 2000)}
    for row in STORED["images"]:
        assert row["both"] >= 0.95 > row["seeds alone"]
        again = SCRIPT["images"](row["seeds"], row["images"], 100, seed=4)
        # Six standard errors of a share of 100 studies.
        assert abs(again["both"] - row["both"]) < 0.1 and abs(again["seeds alone"] - row["seeds alone"]) < 0.2


def test_five_seeds_do_not_see_every_collapse():
    """No method can know of a collapse that no seed has shown: 0.8^5 = 0.33 of such studies have none."""
    for n in (5, 10):
        row = ROWS["one arm alone at chance in one seed of five, 0.02 better elsewhere", n]
        assert row["promise"] == "not promised" and 0.6 * 0.8**n < row["above"] <= 0.8**n + 0.02


@pytest.mark.parametrize("number", range(5))
def test_a_sample_of_the_rows_is_computed_again(number):
    """With other draws: each share within what chance does in both, and a third of the situations each time."""
    names = list(SCRIPT["SITUATIONS"])
    for name in names[number::5]:
        n = SCRIPT["SEEDS"][number]
        row, again = ROWS[name, n], SCRIPT["rates"](name, n, FEW, seed=1)
        assert row.keys() == again.keys()
        for figure in row.keys() - {"situation", "promise", "seeds"}:
            share = (row[figure] * STORED["studies"] + again[figure] * FEW) / (STORED["studies"] + FEW)
            error = np.sqrt(share * (1 - share) * (1 / FEW + 1 / STORED["studies"]))
            assert abs(row[figure] - again[figure]) <= 4.5 * error + 1 / FEW, (name, n, figure)


def test_the_table_and_its_sentences_have_these_figures():
    table, text = error_rates_table(STORED), error_rates_text(STORED)
    assert len(table.splitlines()) == 2 + len(ROWS)
    name = "skewed differences, their mean at the margin, above it in 63% of the seeds"
    row = ROWS[name, 5]
    said = f"| {name} (**not promised**) | 5 | {row['above']:.1%} | {row['below']:.1%} | {row['t']:.1%} |"
    assert said in table and row["above"] > 0.05 > row["below"] and table.count("(**not promised**)") == 10
    assert f"{STORED['studies']:,} simulated studies" in text
