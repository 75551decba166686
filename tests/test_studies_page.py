"""docs/studies.md against the stored results of the studies, and these against their own figures."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from jaxcnn.studies.verdicts import keep, page
from tests.runs import ROOT

PAGE = ROOT / "docs" / "studies.md"
STORED = sorted((ROOT / "docs" / "results" / "studies").glob("*/study.json"))
FILES = sorted((ROOT / "experiments" / "ablations").glob("*.py"))
ROWS = re.findall(
    r"^\| (C\d+) \| \[(\w+)\]\(\S+\) \| (.*?) \| (.*?) \| (\S+|not run) \| (.*?) ?\| (.*?) ?\|$", PAGE.read_text(), re.M
)


def test_the_page_is_what_the_stored_results_make():
    assert PAGE.read_text() == page()


def test_every_claim_of_every_study_has_its_row():
    """Read from the page's text, with the figures written by another function than the page's."""
    found = {(name, claimed): (measured, verdict) for _, name, claimed, measured, verdict, _, _ in ROWS}
    assert len(found) == len(ROWS)
    expected = {}
    for file in FILES:
        stored = ROOT / "docs" / "results" / "studies" / file.stem / "study.json"
        if not stored.exists():
            assert [row[3:5] for row in ROWS if row[1] == file.stem] == [("not run", "not run")]
            expected[file.stem, next(row[2] for row in ROWS if row[1] == file.stem)] = None
            continue
        for claim in json.loads(stored.read_text())["claims"]:
            key = next(key for key in found if key[0] == file.stem and key[1].startswith(claim["text"] + " ("))
            expected[key] = None
            measured, verdict = found[key]
            assert verdict == f"**{claim['verdict']}**"
            difference = claim["difference"]
            if difference is None:
                assert measured.startswith("-")
                continue
            number = float(re.match(r"[+-][\d.,e+-]*\d", measured)[0].replace(",", ""))
            assert number == pytest.approx(difference["mean"], rel=1e-3)
    assert found.keys() == expected.keys()


@pytest.mark.parametrize("file", STORED, ids=[file.parent.name for file in STORED])
def test_a_stored_study_is_whole(file):
    """Each verdict follows from the cells' own figures; the runs are of a commit without changes."""
    results = json.loads(file.read_text())
    assert results["command"] == f"python -m jaxcnn.launch experiments/ablations/{file.parent.name}.py --quick"
    assert results["environment"]["commit"] and results["environment"]["dirty"] == [False]
    assert (file.parent / "table.md").read_text().startswith(f"# {results['question']}\n")
    for arm in results["arms"].values():
        assert [cell["seed"] for cell in arm["cells"]] == results["seeds"]
        assert {cell["state"] for cell in arm["cells"]} <= {"done", "diverged"}

    def of(arm, metric):
        counts = results["arms"][arm]["counts"]
        cells = results["arms"][arm]["cells"]
        values = [counts[metric] if metric in counts else cell["figures"].get(metric, np.nan) for cell in cells]
        return np.array(values, float)

    for claim in results["claims"]:
        metric, margin = claim["metric"], claim["margin"]
        values = of(claim["higher"], metric) - of(claim["lower"], metric)
        if claim["beyond"]:
            values -= of(claim["beyond"][0], metric) - of(claim["beyond"][1], metric)
        values = values[~np.isnan(values)]
        if metric in ("parameters", "multiply-adds"):
            verdict = "supported" if values.mean() > margin else "contradicted"
        elif values.std() == 0:
            verdict = {1: "supported", -1: "contradicted", 0: "inconclusive"}[int(np.sign(values.mean() - margin))]
        else:
            low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
            verdict = "supported" if low > margin else "contradicted" if high < margin else "inconclusive"
            assert claim["difference"]["low"] == pytest.approx(low, rel=1e-6, abs=1e-9)
        assert claim["verdict"] == verdict


def test_a_study_that_was_not_run_says_so_and_keep_stores_it(tmp_path):
    (tmp_path / "experiments" / "ablations").mkdir(parents=True)
    file = tmp_path / "experiments" / "ablations" / FILES[0].name
    file.write_text(FILES[0].read_text())
    assert page(tmp_path).count("| not run | not run |") == 1
    stored = STORED[0]
    (tmp_path / "experiments" / "ablations" / f"{stored.parent.name}.py").write_text(
        (ROOT / "experiments" / "ablations" / f"{stored.parent.name}.py").read_text()
    )
    keep(stored.parent, tmp_path)
    kept = tmp_path / "docs" / "results" / "studies" / stored.parent.name
    assert (kept / "study.json").read_text() == stored.read_text() and (kept / "table.md").exists()
    assert f"[{stored.parent.name}](results/studies/{stored.parent.name}/table.md)" in page(tmp_path)
