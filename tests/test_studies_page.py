"""docs/studies.md, its pictures and docs/studies_table.md against the stored results, these against their own figures,
their pinned claims and the files."""

import dataclasses
import itertools
import json
import re
import shutil
import tomllib
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from scipy import stats

from jaxcnn.studies.claims_page import MARKS, claims_page, pictures, stored_results, studies
from jaxcnn.studies.groups import all_arms
from jaxcnn.studies.pinned import CHANGED, DROPPED, claims_of, digest, matched, read, settled
from jaxcnn.studies.verdicts import ANEW, KEPT, again, judge_again, keep, study_of, table_page, write_pages
from tests.tiny_runs import ROOT

PEOPLE = ROOT / "docs" / "studies.md"
PICTURES = ROOT / "docs" / "images" / "studies"
TABLE = ROOT / "docs" / "studies_table.md"
STORED = sorted((ROOT / "docs" / "results" / "studies").glob("*/study.json"))
NAMES = [file.parent.name for file in STORED]
ON_PAGE = stored_results(ROOT)
"""The stored studies with the verdicts that both pages show."""
FILES = sorted((ROOT / "experiments" / "ablations").glob("*.py"))
ROWS = [
    re.split(r" (?<!\\)\| ", line[2:-2])
    for line in TABLE.read_text().splitlines()
    if re.match(r"\| [^|]+ \| \[\w+\]\(\.\./experiments", line)
]


def rows_of(name):
    return [row for row in ROWS if row[1] == f"[{name}](../experiments/ablations/{name}.py)"]


def test_the_pages_are_what_the_stored_results_make():
    """After a change: `python -m jaxcnn.studies.verdicts`."""
    told = studies(ROOT)
    assert PEOPLE.read_text() == claims_page(told)
    assert TABLE.read_text() == table_page()
    made = pictures(told)
    assert {file.name: file.read_text() for file in PICTURES.iterdir()} == made
    assert sum(map(len, made.values())) < 300_000  # they are part of every clone


def sections():
    """{study: its part of the page for people}."""
    parts = re.split(r'^<a id="(\w+)"></a>$', PEOPLE.read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_claim_is_on_the_page_for_people_in_the_order_of_the_course():
    headings = re.findall(r"^## C(\d+): ", PEOPLE.read_text(), re.M)
    assert list(dict.fromkeys(map(int, headings))) == list(range(1, 27))
    assert headings == sorted(headings, key=int)
    assert set(sections()) == {file.stem for file in FILES}
    glance = dict(re.findall(r"^\| \[\S+\]\(#(\w+)\): .* \| (.*) \|$", PEOPLE.read_text(), re.M))
    assert glance.keys() == sections().keys()
    for file in STORED:
        claims = ON_PAGE[file.parent.name]["claims"]
        marks = {"✓": "supported", "✗": "contradicted", "?": "inconclusive"}
        assert [marks[mark] for mark in glance[file.parent.name].split("<br>")[0].split()] == [
            claim["verdict"] for claim in claims
        ]


@pytest.mark.parametrize("file", STORED, ids=NAMES)
def test_the_page_for_people_has_verdict_size_and_uncertainty_of_each_part(file):
    """Read from the page's text; what is said in points is decided here by the figures' own names."""
    results, text = ON_PAGE[file.parent.name], sections()[file.parent.name]
    number = r"([+\N{MINUS SIGN}]?[\d,.e-]*\d)"
    parts = re.findall(r"^\*\*[✓✗?] (.*?)\*\*: (\w+)(?: \(\*\*.*\*\*\))?\\\n(.*)$", text, re.M)
    assert [(said, verdict) for said, verdict, _ in parts] == [(c["text"], c["verdict"]) for c in results["claims"]]
    read_number = lambda text: float(text.replace(",", "").replace("\N{MINUS SIGN}", "-"))  # noqa: E731
    for claim, (_, _, line) in zip(results["claims"], parts, strict=True):
        of_one = re.search(r"accuracy|^gap$|iou|map|MaxBoxAcc", claim["metric"]) and "epochs" not in claim["metric"]
        assert bool(of_one) == (" points" in line.split(" Published")[0])
        times, close = (100, {"abs": 0.051}) if of_one else (1, {"rel": 0.01, "abs": 1e-9})
        assert read_number(re.search(number, line)[1]) == pytest.approx(times * claim["difference"]["mean"], **close)
        found = re.search(rf"95% interval {number} to {number}, (\d+) seeds", line)
        if claim["metric"] in ("parameters", "multiply-adds", "megabytes kept"):
            assert found is None and "counted" in line
            continue
        low, high = (times * claim["difference"][end] for end in ("low", "high"))
        assert [read_number(found[1]), read_number(found[2])] == pytest.approx([low, high], **close)
        assert int(found[3]) == len(claim["difference"]["values"])
    assert results["command"] in text and "**What it means.**" in text


@pytest.mark.parametrize("file", STORED, ids=NAMES)
def test_the_pictures_show_what_was_measured(file):
    """Places in the SVG, read back through its ticks, and the side of the line on which the bar lies."""
    name, claims = file.parent.name, ON_PAGE[file.parent.name]["claims"]
    linked = re.findall(r'<img src="images/studies/(\w+\.svg)"', sections()[name])
    assert linked == [
        f"{name}_{number}.svg"
        for number, claim in enumerate(claims, 1)
        if claim["metric"] not in ("parameters", "multiply-adds", "megabytes kept")
    ]
    for picture in linked:
        claim = claims[int(re.search(r"_(\d+)\.svg", picture)[1]) - 1]
        root = ElementTree.parse(PICTURES / picture).getroot()
        kind = lambda tag: [each for each in root if each.tag.endswith(f"}}{tag}")]  # noqa: B023, E731
        labels = [(float(t.get("x")), t.text) for t in kind("text") if t.get("text-anchor") == "middle"]
        (at, value), (to, other) = ((x, float(t.replace("\N{MINUS SIGN}", "-"))) for x, t in (labels[0], labels[-1]))
        assert at < to
        unit = 100 if kind("text")[-1].text == "points" else 1
        place = lambda figure: at + (unit * figure - value) * (to - at) / (other - value)  # noqa: B023, E731
        bar = next(each for each in kind("path") if each.get("stroke-width") == "6")
        low, high = map(float, re.match(r"M([\d.]+) \d+H([\d.]+)", bar.get("d")).groups())
        line = float(next(each for each in kind("rect")).get("x"))
        big = [float(each.get("cx")) for each in kind("circle") if each.get("r") == "5"]
        small = [float(each.get("cx")) for each in kind("circle") if each.get("r") == "2.5"]
        difference = claim["difference"]
        assert [low, high, *big] == pytest.approx([place(difference[n]) for n in ("low", "high", "mean")], abs=0.3)
        assert small == pytest.approx([place(each) for each in difference["values"]], abs=0.3)
        assert line == pytest.approx(place(claim["margin"]), abs=0.3)
        sides = {"supported": low > line, "contradicted": high < line, "inconclusive": True}
        assert sides[claim["verdict"]]


def test_published_figures_beside_the_measured_ones_are_those_of_the_claims():
    """Each pair of meanings.toml stands in the claim's own text, in percent or as a count of ten thousand."""
    texts = tomllib.loads((ROOT / "experiments" / "ablations" / "meanings.toml").read_text())
    assert texts.keys() == {file.stem for file in FILES}
    for name, entry in texts.items():
        assert 30 < len(entry["meaning"].split()) < 100, name
        claims = {claim["text"]: claim["published"] for claim in claims_of(study_of(name))}
        stored = ROOT / "docs" / "results" / "studies" / name / "study.json"
        if stored.exists():
            claims |= {claim["text"]: claim["published"] for claim in json.loads(stored.read_text())["claims"]}
        for text, pair in entry.get("published", {}).items():
            said = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", claims[text])}
            for each in pair if isinstance(pair[0], list) else [pair]:
                assert all(number in {0.0} | said or round(100 * number) in said for number in each), (name, text)


def test_every_claim_of_every_study_has_its_row():
    """Read from the page's text, with the figures written by another function than the page's."""
    count = 0
    for file in FILES:
        stored = ROOT / "docs" / "results" / "studies" / file.stem / "study.json"
        rows = rows_of(file.stem)
        if not stored.exists():
            assert [(row[3], row[8]) for row in rows] == [("not run", "not run")]
            count += 1
            continue
        claims = ON_PAGE[file.stem]["claims"]
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


def test_a_claim_that_was_changed_after_its_run_says_so_on_both_pages(tmp_path):
    """As if the claims of the stored runs had been others."""
    for part in ("docs/results/studies/depth", "experiments/ablations"):
        shutil.copytree(ROOT / part, tmp_path / part)
    file = tmp_path / "docs/results/studies/depth/claims.json"
    pinned = json.loads(file.read_text())
    text = pinned["claims"][3]["text"]
    pinned["claims"][3]["margin"] = -0.02
    pinned["seeds"] = [0, 1, 2]
    file.write_text(json.dumps(pinned | {"digest": digest(pinned)}))
    judge_again("depth", tmp_path)
    write_pages(tmp_path)
    claim = json.loads((tmp_path / "docs/results/studies/depth/study.json").read_text())["claims"][3]
    assert (claim["change"], claim["margin"], claim["now"]["margin"]) == (CHANGED, -0.02, -0.01)
    table, people = ((tmp_path / "docs" / name).read_text() for name in ("studies_table.md", "studies.md"))
    assert "the seeds were 0, 1, 2 at the start and are 0, 1, 2, 3, 4, 5, 6, 7" in table
    for page in (table, people):
        assert page.count("**changed after the start**") == 1 + (
            "a claim that the study file has in another form" in page
        )
        assert text in page and "VGG-D - VGG-E > -0.01" in page


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


def test_what_was_said_of_runs_stays_when_their_study_is_registered_anew():
    """A file with other seeds tells of other runs: its words about the setting do not go to the stored ones."""
    results = json.loads((ROOT / "docs" / "results" / "studies" / "fc_vs_gap" / "study.json").read_text())
    study = study_of("fc_vs_gap")
    told = dataclasses.replace(study, claims=tuple(dataclasses.replace(c, different="told anew") for c in study.claims))
    pinned = read(ROOT / "docs" / "results" / "studies" / "fc_vs_gap" / "claims.json") | settled(study)
    pinned["digest"] = digest(pinned)
    same = again(results, pinned, told)
    assert {claim["different"] for claim in same["claims"]} == {"told anew"} and ANEW not in same["pinned"]["changes"]
    other = again(results, pinned, dataclasses.replace(told, seeds=(*study.seeds, 99)))
    assert [c["different"] for c in other["claims"]] == [c["different"] for c in results["claims"]]
    assert ANEW in other["pinned"]["changes"]


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

    arms = all_arms(results)

    def of(arm, metric):
        counts, cells = arms[arm]["counts"], arms[arm]["cells"]
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
        count = arms[claim["higher"]]["cells"][0]["figures"].get(f"{metric.split()[0]} count", np.inf)
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


def test_the_pages_correct_over_all_claims():
    """By the definition of Holm's step-down, from the stored p-values alone."""
    stored = {name: json.loads(file.read_text())["claims"] for name, file in zip(NAMES, STORED, strict=True)}
    every = [(claim, ON_PAGE[name]["claims"][at]) for name in NAMES for at, claim in enumerate(stored[name])]
    tested = sorted((pair for pair in every if pair[0]["p"] is not None), key=lambda pair: pair[0]["p"])
    rejected, lost = True, 0
    for rank, (alone, shown) in enumerate(tested):
        rejected = rejected and alone["p"] <= 0.05 / (len(tested) - rank)
        assert shown["verdict"] == (alone["alone"]["verdict"] if rejected else "inconclusive")
        assert shown["of_study"]["verdict"] == alone["verdict"]
        lost += alone["verdict"] != shown["verdict"]
    assert lost > 0 and len(tested) > 20
    assert all(own["verdict"] == shown["verdict"] for own, shown in every if own["p"] is None)


def test_a_study_that_was_not_run_says_so_and_keep_stores_it(tmp_path):
    (tmp_path / "experiments" / "ablations").mkdir(parents=True)
    file = tmp_path / "experiments" / "ablations" / FILES[0].name
    file.write_text(FILES[0].read_text())
    assert table_page(tmp_path).count("| not run | - | - | - | - | not run |") == 1
    write_pages(tmp_path)
    text = (tmp_path / "docs" / "studies.md").read_text()
    assert "| not run |" in text and "**Not run.**" in text and FILES[0].stem in text
    stored = STORED[0]
    (tmp_path / "experiments" / "ablations" / f"{stored.parent.name}.py").write_text(
        (ROOT / "experiments" / "ablations" / f"{stored.parent.name}.py").read_text()
    )
    keep(stored.parent, tmp_path)
    kept = tmp_path / "docs" / "results" / "studies" / stored.parent.name
    for name in KEPT:
        assert (kept / name).read_text() == (stored.parent / name).read_text()
    assert f"[{stored.parent.name}](results/studies/{stored.parent.name}/table.md)" in table_page(tmp_path)
    (tmp_path / "docs" / "images" / "studies" / "of_no_claim_1.svg").write_text("old")
    write_pages(tmp_path)
    names = {file.name for file in (tmp_path / "docs" / "images" / "studies").iterdir()}
    assert names == {"how_to_read.svg", *(n for n in pictures(studies(ROOT)) if n.startswith(stored.parent.name))}


def test_what_is_kept_names_no_folder_of_the_machine(tmp_path):
    name = "deformable_convolution"
    run = shutil.copytree(ROOT / "docs" / "results" / "studies" / name, tmp_path / "work" / "runs" / f"{name}_quick")
    text = (run / "study.json").read_text()
    assert text.count('"cutouts"') >= 2
    (run / "study.json").write_text(text.replace('"cutouts"', f'"{tmp_path}/work/cutouts"'))
    keep(run, tmp_path)
    kept = (tmp_path / "docs" / "results" / "studies" / name / "study.json").read_text()
    assert kept == text and str(tmp_path) not in kept


@pytest.mark.parametrize("form, flags", [("medium", " --medium"), ("full", "")])
def test_a_larger_form_is_kept_and_told_beside_the_quick_one(tmp_path, form, flags):
    for part in ("docs/results/studies/depth", "experiments/ablations"):
        shutil.copytree(ROOT / part, tmp_path / part)
    before = (tmp_path / "docs/results/studies/depth/study.json").read_text()
    results = json.loads(before)
    run = shutil.copytree(ROOT / "docs/results/studies/depth", tmp_path / "runs" / "depth")
    results["command"] = f"python -m jaxcnn.launch experiments/ablations/depth.py{flags}"
    (run / "study.json").write_text(json.dumps(results))
    keep(run, tmp_path)
    assert (tmp_path / "docs/results/studies/depth/study.json").read_text() == before
    write_pages(tmp_path)
    page = (tmp_path / "docs" / "studies.md").read_text()
    assert page.count(f"[every figure](results/studies/depth/{form}/table.md)") == 1
    (line,) = [line for line in page.splitlines() if f"/depth/{form}/" in line]
    assert [mark for mark in line if mark in MARKS.values()] == [MARKS[claim["verdict"]] for claim in results["claims"]]
    results["command"] += " --debug"
    (run / "study.json").write_text(json.dumps(results))
    with pytest.raises(SystemExit, match="was run with --debug"):
        keep(run, tmp_path)


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
