"""docs/studies.md against the stored results, these against their own figures, their pinned claims and the files."""

import itertools
import json
import re
import shutil

import numpy as np
import pytest
from scipy import stats

from jaxcnn.studies.judge import over_page
from jaxcnn.studies.pinned import CHANGED, DROPPED, claims_of, matched, read
from jaxcnn.studies.verdicts import KEPT, again, judge_again, keep, page, stored_results, study_of
from tests.tiny_runs import ROOT

PAGE = ROOT / "docs" / "studies.md"
STORED = sorted((ROOT / "docs" / "results" / "studies").glob("*/study.json"))
NAMES = [file.parent.name for file in STORED]
FILES = sorted((ROOT / "experiments" / "ablations").glob("*.py"))
ROWS = [
    re.split(r" (?<!\\)\| ", line[2:-2])
    for line in PAGE.read_text().splitlines()
    if re.match(r"\| C\d+ \| \[\w+\]", line)
]


def rows_of(name):
    return [row for row in ROWS if row[1] == f"[{name}](../experiments/ablations/{name}.py)"]


def test_the_page_is_what_the_stored_results_make():
    assert PAGE.read_text() == page()


def test_every_claim_of_every_study_has_its_row():
    """Read from the page's text, with the figures written by another function than the page's."""
    count, corrected = 0, over_page(stored_results())
    for file in FILES:
        stored = ROOT / "docs" / "results" / "studies" / file.stem / "study.json"
        rows = rows_of(file.stem)
        if not stored.exists():
            assert [(row[3], row[8]) for row in rows] == [("not run", "not run")]
            count += 1
            continue
        claims = corrected[file.stem]["claims"]
        assert len(rows) == len(claims)
        count += len(claims)
        for claim, (_, _, said, measured, _, wider, p, _, verdict, _, _) in zip(claims, rows, strict=True):
            assert said.startswith(claim["text"] + " (")
            assert verdict == f"**{claim['verdict']}** ({claim['reason']})"
            assert p == "-" if claim["p"] is None else p.startswith(f"{claim['p']:.2g} alone, ")
            number = float(re.search(r"[+-][\d.,e+-]*\d", measured)[0].replace(",", ""))
            assert number == pytest.approx(claim["difference"]["mean"], rel=1e-3)
            if claim["over_images"]:
                low, high = (float(bound) for bound in wider.strip("[]").split(", "))
                assert (low, high) == pytest.approx(claim["over_images"], rel=1e-3)
                assert low < claim["difference"]["low"] and claim["difference"]["high"] < high
    assert count == len(ROWS)


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_claim_is_marked(name):
    """The page and the stored results against the pinned claims and the study file as it is now.

    After a change of a study file: `python -m jaxcnn.studies.verdicts --again`.
    """
    folder = ROOT / "docs" / "results" / "studies" / name
    pinned, present = read(folder / "claims.json"), claims_of(study_of(name))
    stored = json.loads((folder / "study.json").read_text())["claims"]
    expected = matched(pinned, present)
    assert [(c["text"], c["margin"], c["change"], c["now"]) for c in stored] == [
        (c["text"], c["margin"], c["change"], c["now"]) for c in expected
    ]
    texts = {claim["text"] for claim in pinned["claims"]}
    for claim, row in zip(stored, rows_of(name), strict=True):
        assert claim["change"] in row[2] and claim["change"] in (folder / "table.md").read_text()
        assert claim["text"] in texts or claim["change"]
        if claim["now"]:
            assert claim["now"]["text"] in row[2] and claim["now"]["text"] in {one["text"] for one in present}


def test_the_claim_that_was_changed_after_its_run_says_so():
    claim = json.loads((ROOT / "docs/results/studies/depth/study.json").read_text())["claims"][3]
    assert claim["change"] == CHANGED and claim["text"] == "E is better than D by less than one point"
    assert claim["now"]["text"] == "E is at most one point better than D"
    assert "the seeds were 0, 1, 2 at the start and are 0, 1, 2, 3, 4" in PAGE.read_text()


def test_a_margin_that_is_moved_later_changes_no_verdict():
    """What a researcher might do, on stored results: the claim that is judged stays the pinned one, with a mark."""
    folder = ROOT / "docs" / "results" / "studies" / "fc_vs_gap"
    results, pinned = json.loads((folder / "study.json").read_text()), read(folder / "claims.json")
    study = study_of("fc_vs_gap")
    before = again(results, pinned, study)
    moved = [claim | {"margin": claim["margin"] - 1} for claim in claims_of(study)]
    found = [claim | {"verdict": None} for claim in matched(pinned, moved)]
    assert {claim["change"] for claim in found} == {CHANGED}
    assert [claim["margin"] for claim in found] == [claim["margin"] for claim in before["claims"]]
    assert {claim["change"] for claim in matched(pinned, [])} == {DROPPED}


@pytest.mark.parametrize("file", STORED, ids=NAMES)
def test_a_stored_study_is_whole(file):
    """Each verdict follows from the cells' own figures; the runs are of a commit without changes."""
    results = json.loads(file.read_text())
    assert results["command"] == f"python -m jaxcnn.launch experiments/ablations/{file.parent.name}.py --quick"
    assert results["environment"]["commit"] and results["environment"]["dirty"] == [False]
    table = (file.parent / "table.md").read_text()
    assert table.startswith(f"# {results['question']}\n") and "treated as fixed" in table
    for arm in results["arms"].values():
        assert [cell["seed"] for cell in arm["cells"]] == results["seeds"]
        assert {cell["state"] for cell in arm["cells"]} <= {"done", "diverged"}

    def of(arm, metric):
        counts = results["arms"][arm]["counts"]
        cells = results["arms"][arm]["cells"]
        values = [counts[metric] if metric in counts else cell["figures"].get(metric, np.nan) for cell in cells]
        return np.array(values, float)

    decided = []
    for claim in results["claims"]:
        metric, margin = claim["metric"], claim["margin"]
        values = of(claim["higher"], metric) - of(claim["lower"], metric)
        if claim["beyond"]:
            values -= of(claim["beyond"][0], metric) - of(claim["beyond"][1], metric)
        if metric in ("parameters", "multiply-adds", "megabytes kept"):
            assert claim["verdict"] == ("supported" if values.mean() > margin else "contradicted")
            continue
        if np.isnan(values).any() or len(values) < 5:
            assert claim["verdict"] == "inconclusive"
            continue
        # A share of n images moves in steps of 1/n; what a probe found has no count and is taken as it is.
        count = results["arms"][claim["higher"]]["cells"][0]["figures"].get(f"{metric.split()[0]} count", np.inf)
        spread = max(values.std(ddof=1), np.sqrt(2 / 12) / count)
        low, _ = stats.t.interval(0.95, len(values) - 1, values.mean(), spread / np.sqrt(len(values)))
        assert claim["difference"]["low"] == pytest.approx(low, rel=1e-6, abs=1e-9)
        sided = []
        for over in (values - margin, margin - values):
            t = stats.t.sf(over.mean() / spread * np.sqrt(len(over)), len(over) - 1)
            over = np.where(np.abs(over) < 1e-12, 0, over)
            flips = [(np.array(signs) * over).sum() for signs in itertools.product((1, -1), repeat=len(over))]
            flip = np.mean(np.array(flips) >= over.sum() - 1e-12)
            sided.append(t if flip <= max(0.025, 0.5 ** len(over)) else max(t, flip))
        p = min(1.0, 2 * min(sided))
        assert claim["p"] == pytest.approx(p, rel=1e-4)
        decided.append((p, "supported" if sided[0] < sided[1] else "contradicted", claim))
    rejected = True
    for rank, (p, verdict, claim) in enumerate(sorted(decided, key=lambda each: each[0])):
        rejected = rejected and p <= 0.05 / (len(decided) - rank)
        assert claim["verdict"] == (verdict if rejected else "inconclusive")


def test_a_study_that_was_not_run_says_so_and_keep_stores_it(tmp_path):
    (tmp_path / "experiments" / "ablations").mkdir(parents=True)
    file = tmp_path / "experiments" / "ablations" / FILES[0].name
    file.write_text(FILES[0].read_text())
    assert page(tmp_path).count("| not run | - | - | - | - | not run |") == 1
    stored = STORED[0]
    (tmp_path / "experiments" / "ablations" / f"{stored.parent.name}.py").write_text(
        (ROOT / "experiments" / "ablations" / f"{stored.parent.name}.py").read_text()
    )
    keep(stored.parent, tmp_path)
    kept = tmp_path / "docs" / "results" / "studies" / stored.parent.name
    for name in KEPT:
        assert (kept / name).read_text() == (stored.parent / name).read_text()
    assert f"[{stored.parent.name}](results/studies/{stored.parent.name}/table.md)" in page(tmp_path)


def test_what_is_kept_names_no_folder_of_the_machine(tmp_path):
    name = "deformable_convolution"
    run = shutil.copytree(ROOT / "docs" / "results" / "studies" / name, tmp_path / "work" / "runs" / f"{name}_quick")
    text = (run / "study.json").read_text()
    assert text.count('"cutouts"') >= 2
    (run / "study.json").write_text(text.replace('"cutouts"', f'"{tmp_path}/work/cutouts"'))
    keep(run, tmp_path)
    kept = (tmp_path / "docs" / "results" / "studies" / name / "study.json").read_text()
    assert kept == text and str(tmp_path) not in kept


def test_judging_again_changes_nothing_but_what_is_judged(tmp_path):
    """From the old verdicts' place: a study file whose claim has another margin now, and a verdict that was edited."""
    name = "depth"
    for part in (f"docs/results/studies/{name}", "experiments/ablations"):
        shutil.copytree(ROOT / part, tmp_path / part)
    folder = tmp_path / "docs" / "results" / "studies" / name
    before = json.loads((folder / "study.json").read_text())
    edited = json.loads((folder / "study.json").read_text())
    edited["claims"][0]["verdict"] = "supported"
    (folder / "study.json").write_text(json.dumps(edited))
    judge_again(name, tmp_path)
    assert json.loads((folder / "study.json").read_text()) == before
    assert (folder / "table.md").read_text() == (STORED[NAMES.index(name)].parent / "table.md").read_text()
