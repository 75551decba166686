"""Claims are those of the first start: what a study file says later is shown, and judged never silently."""

import dataclasses
import json

import pytest

from jaxcnn.errors import UserError
from jaxcnn.studies.cell import cells
from jaxcnn.studies.pinned import (
    ADDED,
    CHANGED,
    DROPPED,
    LATE,
    NAME,
    arm_digest,
    claims_of,
    digest,
    keep_copy,
    matched,
    pin,
    read,
    same_registration,
    summary,
)
from jaxcnn.studies.study import Claim, Study
from jaxcnn.studies.tuning import Tuning
from jaxcnn.train.duration import steps
from tests.experiments import tiny


def study(*claims, **fields):
    base = tiny.experiment()
    arms = {"a": base, "b": base, "c": base}
    return Study("?", arms, claims or (Claim("a is better", "a", "b", margin=0.01),), **fields)


def begin(path, one):
    """The study's cells as if they had been started."""
    pinned = pin(path, one, cells(one, path))
    for cell in cells(one, path):
        cell.path.mkdir(parents=True)
        (cell.path / "config.json").write_text("{}")
        keep_copy(cell.path, pinned)
    return pinned


@pytest.mark.parametrize(
    "changed, change",
    [
        (Claim("a is better", "a", "b", margin=0.0), CHANGED),
        (Claim("a is better", "b", "a", margin=0.01), CHANGED),
        (Claim("a is a little better", "a", "b", margin=0.01), CHANGED),
        (Claim("a is better", "a", "b", metric="test loss", margin=0.01), CHANGED),
        (Claim("a is better", "a", "b", margin=0.01, beyond=("a", "c")), CHANGED),
        (Claim("a is better", "a", "b", within=0.01), CHANGED),
        (Claim("a is better", "a", "b", margin=0.01, published="ImageNet", different="smaller"), ""),
    ],
)
def test_the_verdict_is_that_of_the_claim_at_the_first_start(changed, change, tmp_path):
    first = study()
    begin(tmp_path, first)
    later = study(changed)
    (found,) = matched(pin(tmp_path, later, cells(later, tmp_path)), claims_of(later))
    assert found["change"] == change
    assert {name: found[name] for name in ("text", "metric", "higher", "lower", "beyond", "margin")} == {
        **{"text": "a is better", "metric": "test accuracy", "higher": "a", "lower": "b", "beyond": None},
        "margin": 0.01,
    }
    assert (found["now"] is None) == (not change)
    if change:
        assert found["now"]["text"] == changed.text and found["now"]["margin"] == changed.margin


def test_claims_that_are_added_dropped_or_moved(tmp_path):
    one, two, three = Claim("one", "a", "b"), Claim("two", "b", "c"), Claim("three", "a", "c")
    begin(tmp_path, study(one, two))
    later = study(three, two)
    found = matched(pin(tmp_path, later, cells(later, tmp_path)), claims_of(later))
    assert [(claim["text"], claim["change"]) for claim in found] == [("one", DROPPED), ("two", ""), ("three", ADDED)]


def test_seeds_and_thresholds_that_are_changed_are_told(tmp_path):
    first = study(seeds=(0, 1, 2), reach={"train accuracy": 0.5})
    begin(tmp_path, first)
    later = study(seeds=(0, 1, 2, 3, 4), reach={"train accuracy": 0.4}, diverged={"test accuracy": 0.1})
    changes = summary(pin(tmp_path, later, cells(later, tmp_path)), later, cells(later, tmp_path))["changes"]
    assert changes == [
        "the seeds were 0, 1, 2 at the start and are 0, 1, 2, 3, 4",
        "the thresholds to reach were train accuracy 0.5 at the start and are train accuracy 0.4",
        "the figures of a diverged run were none at the start and are test accuracy 0.1",
    ]


def test_a_file_that_is_gone_comes_back_from_the_cells(tmp_path):
    pinned = begin(tmp_path, study())
    (tmp_path / NAME).unlink()
    later = study(Claim("a is better", "a", "b", margin=-1.0))
    assert pin(tmp_path, later, cells(later, tmp_path)) == pinned == read(tmp_path / NAME)


def test_runs_that_began_before_claims_were_pinned_are_told(tmp_path):
    one = study()
    begin(tmp_path, one)
    for file in [tmp_path / NAME, *tmp_path.glob(f"cells/*/*/{NAME}")]:
        file.unlink()
    pinned = pin(tmp_path, one, cells(one, tmp_path))
    assert pinned["late"] and [claim["change"] for claim in matched(pinned, claims_of(one))] == [LATE]


def test_an_edited_file_is_refused(tmp_path):
    begin(tmp_path, study())
    found = json.loads((tmp_path / NAME).read_text())
    found["claims"][0]["margin"] = -1.0
    (tmp_path / NAME).write_text(json.dumps(found))
    with pytest.raises(UserError, match="changed by hand"):
        pin(tmp_path, study(), [])
    (tmp_path / NAME).write_text("[]")
    with pytest.raises(UserError, match="cannot be read"):
        pin(tmp_path, study(), [])


def test_cells_of_other_claims_are_told(tmp_path):
    one = study()
    pinned = begin(tmp_path, one)
    other = tmp_path / "other"
    other.mkdir()
    changed = pin(other, study(Claim("other", "a", "b")), [])
    (tmp_path / "cells" / "a" / "seed1" / NAME).write_text(json.dumps(changed))
    (change,) = summary(pinned, one, cells(one, tmp_path))["changes"]
    assert change == "these cells were run under other claims: a, seed 1"


def test_two_shares_that_start_at_once_have_one_file(tmp_path, monkeypatch):
    """The slower one finds the other's when it comes to write."""
    from jaxcnn.studies import pinned as module

    first = study()
    made = pin(tmp_path, first, [])
    monkeypatch.setattr(module.pathlib.Path, "exists", lambda *_: False)
    assert pin(tmp_path, dataclasses.replace(first, claims=()), []) == made


def test_the_whole_registration_is_pinned_and_changes_are_told(tmp_path):
    first = study(tuning=Tuning({"optimizer.learning_rate": (0.1, 0.2)}))
    pinned = begin(tmp_path, first)
    assert pinned["question"] == "?" and pinned["metric"] == "test accuracy" and "every seed" in pinned["stopping"]
    assert len({pinned["arms"][name] for name in "abc"}) == 1 and same_registration(pinned, first)
    other = dataclasses.replace(first.arms["b"], duration=steps(7))
    later = dataclasses.replace(
        first, question="!", metric="test loss", arms={"a": first.arms["a"], "b": other, "d": other}, claims=()
    )
    changes = summary(pinned, later)["changes"]
    assert changes == [
        "the question was '?' at the start and is '!'",
        "the metric was 'test accuracy' at the start and is 'test loss'",
        "the arm 'b' had another configuration",
        "the arm 'd' was not there at the start",
        "the arm 'c' of the start is gone",
    ]
    assert not same_registration(pinned, later)
    assert digest(pinned | {"question": "!"}) != pinned["digest"] != digest(pinned | {"stopping": "when it is seen"})
    assert digest(pinned | {"arms": {**pinned["arms"], "b": "0"}}) != pinned["digest"]


def test_the_digest_of_an_arm_is_of_what_is_compared():
    """Not of its seed, of where its data lie, nor of what the tuning sets; and a field that is off is not in it."""
    arm = tiny.experiment()
    assert arm_digest(dataclasses.replace(arm, seed=7)) == arm_digest(arm)
    moved = dataclasses.replace(arm, data=dataclasses.replace(arm.data, data_dir="elsewhere"))
    assert arm_digest(moved) == arm_digest(arm)
    faster = dataclasses.replace(arm, optimizer=dataclasses.replace(arm.optimizer, learning_rate=0.77))
    assert arm_digest(faster) != arm_digest(arm)
    rates = Tuning({"optimizer.learning_rate": (0.1, 0.77)})
    assert arm_digest(faster, rates) == arm_digest(arm, rates)


def test_claims_of_before_keep_their_digest(tmp_path):
    """A file as it was stored when claims, seeds, thresholds and diverged figures were all, with its digest."""
    claim = {
        "text": "LRN adds at most one point to VGG-A",
        "metric": "test[:2000] accuracy",
        "higher": "VGG-A",
        "lower": "VGG-A-LRN",
        "beyond": None,
        "margin": -0.01,
        "published": "ImageNet, top-1 error: A 29.6, A-LRN 29.7",
        "different": "VGG-A of three stages, an eighth as wide, on 2,000 images of Fashion-MNIST",
    }
    old = {"date": "2026-11-25", "origin": "as first stored, commit 0e1817f", "late": False, "claims": [claim]}
    old |= {"seeds": [0, 1, 2, 3, 4], "reach": {}, "diverged": {}}
    old["digest"] = "90b19b5ad49fde04e9ba2950073f7f2d65a5efd14ad26fea4bcd4667edd60196"
    (tmp_path / NAME).write_text(json.dumps(old))
    assert read(tmp_path / NAME) == old
