"""Tuning: every arm tries as many values on validation data, and the verdict's cells have the best of them."""

import dataclasses
import fcntl
import io
import json
import shutil

import pytest
from rich.console import Console

import jaxcnn as jc
from jaxcnn.data.splits import may_share
from jaxcnn.errors import UserError
from jaxcnn.studies import runner
from jaxcnn.studies.axes import at_edge, point_folder, point_text, points, with_values
from jaxcnn.studies.cell import check_metrics
from jaxcnn.studies.command import parse_flags, run_study
from jaxcnn.studies.pinned import digest, read, settled, summary
from jaxcnn.studies.trials import best
from jaxcnn.studies.tuning import Tuning
from tests.experiments import tuned
from tests.tiny_runs import ROOT, metrics

FILE = ROOT / "tests" / "experiments" / "tuned.py"


def run(path, *flags, stop=lambda: False, study=tuned.study):
    """The study in this process; how it ended, and what it printed."""
    console = Console(file=io.StringIO(), width=200)
    chosen, made = parse_flags(study, FILE, ["--workdir", str(path), *flags], "")
    return run_study(chosen, made, FILE, console, stop), console.file.getvalue()


def results(path):
    """study.json without what is measured in seconds."""
    found = json.loads((path / "study.json").read_text())
    for arm in found["arms"].values():
        for figures in (arm["figures"], *(cell["figures"] for cell in arm["cells"])):
            figures.pop("images per second", None)
    return {name: found[name] for name in ("arms", "claims", "tuning", "matched")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("tuned") / "study"
    ended, out = run(path)
    assert ended.finished and not ended.failed
    return path, out


def test_the_start_says_what_can_be_seen(whole):
    assert "test loss: 2 seeds decide nothing, whatever the effect; at least 5 do" in whole[1]


def rates(path):
    """{arm: the rates of its cells}, as they were run."""
    return {
        arm: {json.loads((cell / "config.json").read_text())["optimizer"]["learning_rate"] for cell in found.iterdir()}
        for arm in ("momentum", "plain")
        for found in [path / "cells" / arm]
    }


def test_each_arm_is_run_with_the_best_of_its_values(whole):
    """The best by the runs' own lines, read here anew; a rate that diverges is none."""
    path, out = whole
    found = results(path)["tuning"]["arms"]
    for arm, values in {"momentum": (0.001, 0.02, 1e38), "plain": (0.01, 0.2, 1e38)}.items():
        assert [trial["point"] for trial in found[arm]["trials"]] == [{"optimizer.learning_rate": v} for v in values]
        losses = {}
        for value, trial in zip(values, found[arm]["trials"], strict=True):
            (cell,) = trial["cells"]
            lines = [line for line in metrics(path / cell["path"]) if line["split"] == "validation"]
            if cell["state"] == "done":
                losses[value] = lines[-1]["loss"]
            assert trial["score"] == losses.get(value)
        assert 1e38 not in losses and len(losses) == 2
        best_value = min(losses, key=losses.__getitem__)
        assert rates(path)[arm] == {best_value} and values[found[arm]["chosen"]] == best_value
        assert f"tuned {arm}: learning_rate {best_value:g} (validation loss" in out
    assert results(path)["matched"] == "Matched by epochs: every arm that trains has 4 steps."


def test_no_test_image_and_no_seed_of_the_verdict_is_in_a_tuning_run(whole):
    path, _ = whole
    runs = [file.parent for file in path.glob("tuning/*/*/*/config.json")]
    assert len(runs) == 6
    for run in runs:
        assert json.loads((run / "config.json").read_text())["seed"] == 100
        assert "test" not in {line["split"] for line in metrics(run)}
        if (run / "result.json").exists():
            assert set(json.loads((run / "result.json").read_text())) <= {"validation", "selection"}


def test_the_grid_is_pinned_and_a_change_of_it_is_told(whole):
    path, _ = whole
    pinned = read(path / "claims.json")
    assert pinned["tuning"]["axes"] == {"optimizer.learning_rate": [0.001, 0.02, 1e38]}
    assert (next(path.glob("tuning/*/*/*")) / "claims.json").exists()
    study = tuned.study()
    without = settled(dataclasses.replace(study, tuning=None))
    assert digest(without) == digest({name: value for name, value in without.items() if name != "tuning"})
    wider = Tuning({"optimizer.learning_rate": (0.001, 0.02, 0.3)}, metric="validation loss", own=study.tuning.own)
    assert digest(settled(dataclasses.replace(study, tuning=wider))) != pinned["digest"] == digest(settled(study))
    assert summary(pinned, study)["changes"] == []
    assert summary(pinned, dataclasses.replace(study, tuning=wider))["changes"] == [
        "the tuning was another one at the start"
    ]


def begun(whole, path, *missing):
    """A copy of the whole study without some of its folders, as if they had not been run."""
    shutil.copytree(whole[0], path)
    for folder in missing:
        shutil.rmtree(path / folder)
    return path


def test_stopped_anywhere_it_goes_on_to_the_same_study(whole, tmp_path):
    """Told to stop after so many looks: in the tuning, between it and the verdict, and in that."""
    path, stops = begun(whole, tmp_path / "study", "tuning/plain", "cells"), 0
    for looks in (3, 9, 15, 20, 25, 1000):
        left = iter([False] * looks)
        ended, _ = run(path, stop=lambda left=left: next(left, True))
        stops += not ended.finished
        states = [json.loads(file.read_text())["state"] for file in path.glob("tuning/*/*/*/status.json")]
        tuned_now = len(states) == 6 and set(states) <= {"done", "diverged"}
        assert tuned_now or not (path / "cells").exists()
        if ended.finished:
            break
    assert stops >= 3
    assert results(path) == results(whole[0])


class Printed(io.StringIO):
    """Calls a function when a text is printed."""

    def __init__(self, text, call):
        super().__init__()
        self.text, self.call = text, call

    def write(self, text):
        if self.text in text:
            self.call()
        return super().write(text)


def test_a_share_runs_what_the_others_leave_and_waits_for_what_they_run(whole, tmp_path, monkeypatch):
    """Share 1 has the trials 1, 3 and 5. Trial 2 was left, and trial 4 is being run by another process for a while."""
    monkeypatch.setattr(runner, "WAIT", 0.01)
    path = begun(whole, tmp_path / "study", "tuning/momentum/learning-rate-1e38", "cells/momentum/seed1")
    held = path / "tuning" / "plain" / "learning-rate-0.2" / "seed100"
    (held / "status.json").write_text('{"state": "running", "step": 0}')
    with (held / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        printed = Printed("waiting for 1 runs of other processes", lambda: fcntl.flock(lock, fcntl.LOCK_UN))
        chosen, study = parse_flags(tuned.study, FILE, ["--workdir", str(path), "--index", "1", "--of", "2"], "")
        ended = run_study(chosen, study, FILE, Console(file=printed, width=200), lambda: False)
    assert ended.finished and not ended.failed and "waiting for 1 runs" in printed.getvalue()
    run(path, "--report-only")
    assert results(path) == results(whole[0])


def test_report_only_of_an_unfinished_tuning_says_what_is_there(whole, tmp_path):
    path = begun(whole, tmp_path / "study", "tuning/plain/learning-rate-0.2", "cells")
    ended, out = run(path, "--report-only")
    found = results(path)["tuning"]["arms"]
    assert ended.failed and "tuned plain: not finished" in out
    assert found["plain"]["chosen"] is None and found["momentum"]["trials"][0]["score"] is not None


def test_debug_tunes_by_one_point_at_the_rate_of_its_batches(whole):
    _, shrunk = parse_flags(tuned.study, FILE, ["--debug"], "")
    rate = {name: own["optimizer.learning_rate"] for name, own in shrunk.tuning.own.items()}
    assert rate == {"momentum": (0.001 * 8 / 16,), "plain": (0.01 * 8 / 16,)}
    check_metrics(shrunk)


def changed(**fields):
    study = tuned.study()
    return dataclasses.replace(study, tuning=dataclasses.replace(study.tuning, **fields))


def on(split, test="test"):
    study = tuned.study()
    arms = {
        name: dataclasses.replace(
            arm, data=dataclasses.replace(arm.data, evaluation_splits=(split,), test_splits=(test,))
        )
        for name, arm in study.arms.items()
    }
    return dataclasses.replace(study, arms=arms, claims=(), metric="train loss", tuning=Tuning(study.tuning.axes))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: changed(seeds=(1, 2)), "tuning.seeds and the study's seeds share 1"),
        (lambda: changed(metric="test loss"), "of the test images: nothing may be chosen by these"),
        (lambda: changed(metric="validation los"), "'validation los'; did you mean 'validation loss'"),
        (lambda: changed(metric="images per second"), "names nothing to choose by: 'images per second'"),
        (lambda: changed(axes={"optimizer.lerning_rate": (1.0,)}, own={}), "did you mean 'optimizer.learning_rate'"),
        (lambda: changed(axes={"learning_rate": (1.0,)}, own={}), "did you mean 'optimizer.learning_rate'?"),
        (lambda: changed(axes={"optimizer.learning_rate": ("a", "b", "c")}, own={}), "is 0.5 here, and cannot be 'a'"),
        (lambda: changed(axes={"seed": (1, 2)}, own={}), "the seed is no axis"),
        (lambda: changed(axes={"optimizer.learning_rate": (0.1, 0.1)}, own={}), "has a value twice"),
        (lambda: changed(own={"plain": {"optimizer.learning_rate": (0.1, 0.2)}}), "every arm has the same budget"),
        (lambda: changed(own={"plan": {"optimizer.learning_rate": (0.1, 0.2, 0.3)}}), "did you mean 'plain'"),
        (lambda: on("test"), "is evaluated on 'test' and tested on 'test', which can share images"),
        (lambda: on("test[:20]", "test[10:]"), "which can share images"),
    ],
)  # fmt: skip
def test_a_wrong_tuning_is_refused_before_anything_is_run(make, message):
    with pytest.raises(UserError) as error:
        check_metrics(make())
    assert message in str(error.value)


def test_slices_that_do_not_meet_are_no_reason_to_refuse():
    check_metrics(on("test[:50%]", "test[50%:]"))
    assert may_share("train", "train[:10]") and may_share("a+b[:10%]", "b[5%:]") and may_share("a[:10]", "a[-5:]")
    assert may_share("a[fold 1/5]", "a[:10]") and not may_share("a[:10]", "a[10:]") and not may_share("a", "b")


def test_of_equal_scores_the_first_is_chosen_and_an_edge_is_told():
    assert best([0.5, 0.7, 0.7], "higher") == 1 and best([0.5, 0.3, 0.3, None], "lower") == 1
    assert best([None, -0.2, None], "higher") == 1 and best([None, None], "higher") == 0
    axes = {"optimizer.learning_rate": (0.1, 0.01, 1.0), "data.batch_size": (8, 16)}
    assert at_edge(axes, {"optimizer.learning_rate": 1.0, "data.batch_size": 8}) == ["optimizer.learning_rate"]
    assert at_edge(axes, {"optimizer.learning_rate": 0.1, "data.batch_size": 8}) == []


def test_points_have_names_and_change_fields_of_any_part():
    axes = {"optimizer.learning_rate": (0.1, 0.2), "model.kernel_init": ("zeros", "he_fan_in")}
    base = tuned.study().arms["plain"]
    with pytest.raises(UserError, match="did you mean"):
        with_values(base, {"model.kernel_ini": "zeros"})
    assert [point_text(point) for point in points({"data.batch_size": (8, 16), "schedule": (jc.Cosine(),)})] == [
        "batch_size 8, schedule Cosine()",
        "batch_size 16, schedule Cosine()",
    ]
    names = {point_folder({"schedule": each}) for each in (jc.Cosine(), jc.Cosine(warmup=jc.steps(3)), jc.OneCycle())}
    assert len(names) == 3 and point_folder({"optimizer.learning_rate": 0.1}) == "learning-rate-0.1"
    assert len({point_folder({"optimizer.learning_rate": rate}) for rate in (1e6, 1e-6, -1e6, -1e-6)}) == 4
    made = with_values(base, {"model.head.kernel_init": "he_fan_in", "data.batch_size": 4})
    assert made.model.head.kernel_init == "he_fan_in" and made.data.batch_size == 4
    assert len(points(axes)) == 4


def test_what_is_said_to_be_matched_is_checked():
    study = tuned.study()
    longer = dataclasses.replace(study.arms["plain"], duration=jc.steps(5))
    arms = study.arms | {"plain": longer}
    with pytest.raises(UserError, match="'momentum' and 'plain' differ: 4 steps of 'train' in batches of 16, and 5"):
        dataclasses.replace(study, arms=arms)
    with pytest.raises(UserError, match="takes 80% of the multiply-adds"):
        dataclasses.replace(study, arms=arms, matched="compute")
    dataclasses.replace(study, arms=arms, matched="")
    small = dataclasses.replace(
        study.arms["plain"],
        duration=jc.epochs(3),
        data=dataclasses.replace(study.arms["plain"].data, batch_size=8),
    )
    arms = {"momentum": dataclasses.replace(study.arms["momentum"], duration=jc.epochs(3)), "plain": small}
    assert dataclasses.replace(study, arms=arms).matched == "epochs"
    with pytest.raises(UserError, match="in batches of 8"):
        dataclasses.replace(study, arms=arms, matched="steps")
