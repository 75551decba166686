"""A study through the front door: every cell in the table, pairs that are pairs, kills, shares, and wrong files."""

import csv
import dataclasses
import fcntl
import importlib.util
import io
import json
import re
import shutil
from typing import Literal

import pytest
from rich.console import Console

import jaxcnn as jc
from jaxcnn.errors import UserError
from jaxcnn.runs import restore
from jaxcnn.studies.command import parse_flags, run_study
from jaxcnn.studies.pinned import ADDED, CHANGED
from jaxcnn.studies.probes import WithoutBlocks
from jaxcnn.studies.study import Claim, Study, folder
from tests.experiments import tiny
from tests.tiny_runs import ROOT, assert_same_run, call, finish, metrics, read, start, wait_until

FILE = ROOT / "tests" / "experiments" / "study.py"
CELLS = [f"{arm}/seed{seed}" for arm in ("none", "same", "half", "wild") for seed in (0, 1)]


def load_study(file):
    """study() of a study file."""
    spec = importlib.util.spec_from_file_location("study_file", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The study run once, and what it printed."""
    path = tmp_path_factory.mktemp("study") / "study"
    return path, finish(FILE, "--workdir", path).stdout


def test_every_cell_is_a_run_and_in_the_table(study):
    path, _ = study
    results = read(path, "study.json")
    states = {f"{arm['folder']}/seed{c['seed']}": c["state"] for arm in results["arms"].values() for c in arm["cells"]}
    assert states == {cell: "diverged" if cell.startswith("wild") else "done" for cell in CELLS}
    for cell in CELLS:
        losses = [line["loss"] for line in metrics(path / "cells" / cell) if line["split"] == "train"]
        if cell.startswith("wild"):  # a rate of 1e25: the second step is not finite, and that is what is recorded
            status = read(path / "cells" / cell, "status.json")
            assert losses == [] and status["step"] == 2 and "not finite" in status["message"]
            assert not (path / "cells" / cell / "result.json").exists()
        else:
            assert losses[-1] < losses[0]
    rows = list(csv.DictReader((path / "table.csv").open()))
    assert [row["path"] for row in rows] == [f"cells/{cell}" for cell in CELLS]
    assert float(rows[0]["test accuracy"]) == read(path / "cells" / CELLS[0], "result.json")["test"]["accuracy"]
    assert rows[-1]["state"] == "diverged" and float(rows[-1]["test accuracy"]) == 0.25


def test_equal_arms_differ_by_exactly_nothing(study):
    path, _ = study
    claim = read(path, "study.json")["claims"][1]
    assert claim["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "values": [0.0, 0.0]}
    assert claim["verdict"] == "inconclusive"
    versus = read(path, "study.json")["arms"]["same"]["versus_baseline"]
    assert versus["mean"] == 0 and versus["high"] > 0.01  # accuracies over 50 images are rounded to 0.02
    for seed in (0, 1):
        assert_same_run(path / "cells" / "none" / f"seed{seed}", path / "cells" / "same" / f"seed{seed}")


def test_the_page_the_table_and_the_terminal_have_every_part(study):
    path, out = study
    page, table = (path / "study.html").read_text(), (path / "table.md").read_text()
    for text in (
        "Does dropout slow a tiny net down?",
        "diverged",
        "Learning curves",
        "none - wild &gt; 0",
        "epochs to",
    ):
        assert text in page
    sentences = re.findall(r'<p class="quiet">(.*?)</p>', page, re.S)
    assert len(sentences) > 5 and not [text for text in sentences if re.search(r"[a-z)\]][.;:](?=[A-Z(\[])", text)]
    assert page.count("<svg") == 4 + 2 * 3  # and for each claim its interval and its pairs
    assert "Settled before the first run" in page and "Reproduce" in page and "--workdir" not in page
    assert not re.search(r"""(src|href)=["'](?!data:|cells/|#)""", page)  # nothing is fetched from elsewhere
    assert "| wild |" in table and "0 of 2" in table and "diverged (seed 0), diverged (seed 1)" in table
    for claim in read(path, "study.json")["claims"]:
        assert f"**{claim['verdict']}** ({claim['reason']})" in table and f"{claim['verdict']}: {claim['text']}" in out
        assert claim["text"] in page and claim["reason"] in page
        for seed, (low, high) in enumerate(
            zip(*(of_cells(path, claim[arm], claim["metric"]) for arm in ("lower", "higher")), strict=True)
        ):
            times, form = (100, ".1f") if "accuracy" in claim["metric"] else (1, ".3g")
            assert re.search(rf"- seed {seed}: {times * high:{form}}%? against {times * low:{form}}%?, ", table)
    for text in (page, table):
        assert "the test images are the same ones for all, and treated as fixed" in text
    assert "Over seeds and images: [" in page and "over seeds and images" in table
    assert all(f'href="cells/{cell}/' in page for cell in CELLS)


def of_cells(path, arm, metric):
    return [cell["figures"][metric] for cell in read(path, "study.json")["arms"][arm]["cells"]]


def test_a_finished_study_runs_nothing_again(study):
    path, _ = study
    before = {file: file.stat().st_mtime_ns for file in (path / "cells").rglob("*") if file.is_file()}
    table = (path / "table.md").read_text()
    out = finish(FILE, "--workdir", path).stdout
    assert out.count("finished before") == len(CELLS)
    assert finish(FILE, "--workdir", path, "--report-only").stdout.count("finished before") == 0
    assert {file: file.stat().st_mtime_ns for file in (path / "cells").rglob("*") if file.is_file()} == before
    assert (path / "table.md").read_text() == table


def table_without_speed(path):
    """study.json's arms and claims without images per second."""
    results = json.loads((path / "study.json").read_text())
    for arm in results["arms"].values():
        arm["figures"].pop("images per second", None)
        for cell in arm["cells"]:
            cell["figures"].pop("images per second", None)
    return results["arms"], results["claims"]


def test_shares_of_the_cells_make_up_the_study(study, tmp_path):
    shares = tmp_path / "study"
    out = finish(FILE, "--workdir", shares, "--index", "1", "--of", "2").stdout
    assert "share 1 of 2" in out and not (shares / "study.json").exists()
    assert sorted(file.parent.name for file in shares.glob("cells/*/*/result.json")) == ["seed1"] * 3
    finish(FILE, "--workdir", shares, "--index", "0", "--of", "2")
    finish(FILE, "--workdir", shares, "--report-only")
    assert table_without_speed(shares) == table_without_speed(study[0])


def test_vmapped_seeds_equal_seeds_one_by_one(study, tmp_path):
    """The same figures to rounding, in run directories of the same form, and resumed after a kill."""
    path, vmapped = study[0], tmp_path / "study"
    process = start(FILE, "--workdir", vmapped, "--vmap-seeds", "yes")
    wait_until(lambda: any(vmapped.glob("cells/none/*/checkpoints/15")), process)
    process.kill()
    process.communicate()
    out = finish(FILE, "--workdir", vmapped, "--vmap-seeds", "yes").stdout
    assert out.count("2 seeds as one program") == 4
    for cell in CELLS:
        one, other = path / "cells" / cell, vmapped / "cells" / cell
        assert read(one, "status.json")["state"] == read(other, "status.json")["state"]
        if cell.startswith("wild"):
            continue
        expected, found = metrics(one), metrics(other)
        assert [(line["step"], line["split"], line["count"]) for line in found] == [
            (line["step"], line["split"], line["count"]) for line in expected
        ]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-3)
    finish("evaluate", vmapped / "cells" / CELLS[0], module="jaxcnn")


def test_claims_that_are_changed_after_the_start_are_judged_as_pinned(study, tmp_path):
    """--report-only with another margin and another claim: both texts are shown, the verdict is the first one's."""
    path = tmp_path / "study"
    shutil.copytree(study[0], path)
    changed = tmp_path / "study.py"
    text = FILE.read_text().replace("seeds=(0, 1)", "seeds=(0, 1, 2)")
    text = text.replace('"a wild rate does worse", "none", "wild"', '"a wild rate is bad", "none", "wild", margin=-1.0')
    text = text.replace("claims=(", 'claims=(Claim("half is worse", "none", "half"), ')
    assert text.count("is bad") == text.count("half is worse") == text.count("(0, 1, 2)") == 1
    changed.write_text(text)
    console = Console(file=io.StringIO(), width=200)
    flags, later = parse_flags(load_study(changed), changed, ["--report-only", "--workdir", str(path)], "")
    assert run_study(flags, later, changed, console, lambda: False).finished
    before, after = read(study[0], "study.json"), read(path, "study.json")
    marks = {claim["text"]: claim["change"] for claim in after["claims"]}
    assert list(marks) == [claim["text"] for claim in before["claims"]] + ["half is worse"]
    assert [*marks.values()] == ["", "", CHANGED, ADDED]
    assert after["claims"][2]["margin"] == 0.0 and after["claims"][2]["now"]["margin"] == -1.0
    for text in ((path / "study.html").read_text(), (path / "table.md").read_text(), console.file.getvalue()):
        assert "a wild rate does worse" in text and CHANGED in text and ADDED in text
    for text in ((path / "study.html").read_text(), (path / "table.md").read_text()):
        assert "a wild rate is bad" in text and "the seeds were 0, 1 at the start and are 0, 1, 2" in text
    assert after["claims"][0]["missing"] == ["half, seed 2 (not run)", "none, seed 2 (not run)"]


def test_a_cell_that_another_process_runs_is_left_to_it(study, tmp_path):
    """And no failure; one that fails is, and so is one whose probe fails."""
    path = tmp_path / "study"
    shutil.copytree(study[0], path)
    for seed in (0, 1):
        (path / "cells" / "half" / f"seed{seed}" / "status.json").write_text('{"state": "running", "step": 3}')
    console = Console(file=io.StringIO(), width=200)
    flags, one = parse_flags(load_study(FILE), FILE, ["--workdir", str(path), "--index", "0", "--of", "2"], "")
    with (path / "cells" / "half" / "seed0" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended = run_study(flags, one, FILE, console, lambda: False)
    assert ended.finished and ended.failed == () and "1 cells are left to the process that runs them" in ended.message
    assert "half, seed 0: another process runs it" in console.file.getvalue()


def test_a_probe_that_fails_is_a_failure(study, tmp_path):
    path = tmp_path / "study"
    shutil.copytree(study[0], path)
    flags, one = parse_flags(load_study(FILE), FILE, ["--workdir", str(path), "--index", "0", "--of", "2"], "")
    one = dataclasses.replace(one, probes=(WithoutBlocks(),))
    ended = run_study(flags, one, FILE, Console(quiet=True), lambda: False)
    assert ended.failed == ("none, seed 0", "same, seed 0", "half, seed 0")


def test_a_signal_while_the_study_file_loads_stops_it(tmp_path):
    """Sent by the file itself while it is read."""
    file = tmp_path / "study.py"
    file.write_text(FILE.read_text() + "\nimport os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    done = call(file, "--workdir", tmp_path / "run")
    assert done.returncode == 75 and "the same command continues" in done.stderr
    assert not list((tmp_path / "run").glob("cells/*/*/config.json"))


def test_a_changed_arm_in_an_old_directory_is_refused(study, tmp_path):
    path, _ = study
    changed = tmp_path / "study.py"
    changed.write_text(FILE.read_text().replace("dropout=0.5", "dropout=0.6"))
    done = call(changed, "--workdir", path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "model.dropout was 0.5 and is 0.6" in done.stderr


@pytest.mark.parametrize(
    "change, message",
    [
        (('"half", "none", metric', '"haf", "none", metric'), "names no arm 'haf'; did you mean 'half'"),
        (("seeds=(0, 1)", "seeds=()"), "there must be one at least"),
        (('"train loss"', '"train los"'), "no metric of the arm 'half': 'train los'; did you mean 'train loss'"),
        (("question=", "qestion="), "unexpected keyword argument 'qestion'"),
        (("return Study(", "return dict("), "study() returned dict and not a Study"),
    ],
)
def test_a_wrong_study_is_one_message(change, message, tmp_path):
    file = tmp_path / "study.py"
    file.write_text(FILE.read_text().replace(*change))
    done = call(file, "--workdir", tmp_path / "run")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_wrong_flags_are_one_message(tmp_path):
    done = call(FILE, "--index", "3", "--of", "2", "--workdir", tmp_path / "run")
    assert done.returncode == 2 and "--index is 3" in done.stderr
    done = call(FILE, "--report-only", "--workdir", tmp_path / "run")
    assert done.returncode == 2 and "no study to report on" in done.stderr


def test_debug_shrinks_every_cell(tmp_path):
    _, shrunk = parse_flags(load_study(FILE), FILE, ["--debug"], "")
    assert {str(arm.duration) for arm in shrunk.arms.values()} == {"6 steps"}
    finish(FILE, "--debug", "--workdir", tmp_path / "run", "--index", "0", "--of", "8")
    assert [status["step"] for status in _statuses(tmp_path / "run") if status["state"] == "done"] == [6]


@pytest.mark.parametrize(
    "annotation, flags, called",
    [
        ("scale: jc.Scale = 'full'", [], "full"),
        ("scale: jc.Scale = 'full'", ["--medium"], "medium"),
        ("scale: jc.Scale = 'full'", ["--medium", "--debug"], "medium"),
        ("scale: jc.Scale = 'full'", ["--debug"], "quick"),
        ("scale: Literal['medium', 'full'] = 'full'", ["--debug"], "full"),
        ("", ["--debug"], None),
        ("", [], None),
        ("scale: jc.Scale = 'full'", ["--quick", "--medium"], "two scales; give one of them"),
        ("scale: Literal['quick', 'full'] = 'full'", ["--medium"], "has no medium form; it has the forms quick, full"),
        ("", ["--quick"], "study.py has no quick form; it has one form, without a flag"),
        ("quick: bool = False", [], "study(quick): it takes nothing, or `scale: jc.Scale"),
        ("scale: str = 'full'", [], "study(scale): it takes nothing, or `scale: jc.Scale"),
    ],
)  # fmt: skip
def test_the_scale_is_what_the_flags_ask_for_and_the_study_has(annotation, flags, called):
    names = {"jc": jc, "Literal": Literal, "made": load_study(FILE), "asked": []}
    given = annotation.partition(":")[0] or "None"
    exec(f"def study({annotation}):\n    asked.append({given})\n    return made()", names)
    if called in ("quick", "medium", "full", None):
        parse_flags(names["study"], FILE, flags, "")
        assert names["asked"] == [called]
    else:
        with pytest.raises(UserError) as error:
            parse_flags(names["study"], FILE, flags, "")
        assert called in str(error.value) and names["asked"] == []


def test_an_arm_takes_over_the_preparation_that_it_asks_for(monkeypatch):
    """Or it would be trained on images that are prepared otherwise, and say that they are not."""
    asks = jc.InitFrom("there", preparation=True)
    normalize = jc.Normalize((1.0,), (2.0,))
    source = dataclasses.replace(
        tiny.experiment(), data=dataclasses.replace(tiny.experiment().data, normalize=normalize)
    )
    monkeypatch.setattr(restore, "open_run", lambda path: path)
    monkeypatch.setattr(restore, "load_experiment", lambda path: source)

    def study():
        made = load_study(FILE)()
        run = dataclasses.replace(made.arms["half"], init_from=asks)
        return dataclasses.replace(made, arms=dict.fromkeys(made.arms, run) | {"none": made.arms["none"]})

    for flags in ([], ["--debug"]):
        arms = parse_flags(study, FILE, flags, "")[1].arms
        assert arms["half"].data.normalize == normalize != arms["none"].data.normalize


def _statuses(path):
    return [json.loads(file.read_text()) for file in path.glob("cells/*/*/status.json")]


def test_arms_that_would_share_a_folder_are_refused():
    assert folder("VGG A, no LRN") == "vgg-a-no-lrn"
    names = [folder(arm) for arm in ("大", "小", "\udcff", "..")]
    assert len(set(names)) == 4 and all(name.startswith("arm-") for name in names)
    arms = {"a b": tiny.experiment(), "a-b": tiny.experiment()}
    with pytest.raises(UserError, match="same folder"):
        Study("?", arms, (Claim("", "a b", "a-b"),))
