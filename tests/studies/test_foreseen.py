"""What a study will be able to see, before it is run: from the stated deviation, the tuning, or the images alone."""

import dataclasses
import json

import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.studies.cell import check_metrics
from jaxcnn.studies.foreseen import foreseen, foreseen_text
from jaxcnn.studies.power import in_deviations, smallest_effect
from jaxcnn.studies.study import Claim, Study
from jaxcnn.studies.trials import trials
from jaxcnn.studies.tuning import Tuning
from tests.experiments import tiny


def study(**fields):
    base = tiny.experiment()
    claims = (
        Claim("better", "a", "b"),
        Claim("lower", "b", "a", metric="test loss"),
        Claim("few", "a", "b", "parameters"),
    )
    return Study("?", {"a": base, "b": base}, claims, **{"seeds": (0, 1, 2, 3, 4)} | fields)


def test_a_stated_deviation_is_what_it_is_computed_from():
    accuracy, loss = foreseen(study(deviation={"test accuracy": 0.5}))
    assert (accuracy["metric"], loss["metric"]) == ("test accuracy", "test loss")
    assert accuracy["alone"] == smallest_effect(5, 0.5) and accuracy["first"] == smallest_effect(5, 0.5, level=0.0125)
    text = foreseen_text(accuracy)
    assert "under about 0.9 beyond the margin can't be seen; as the first of 2 claims 1 (" in text
    assert text.endswith("(differences deviate by 0.5, as stated)")
    assert loss["alone"] is None and "under about 1.8 deviations of the paired differences" in foreseen_text(loss)


def test_the_images_alone_leave_something_unseen():
    (row, _) = foreseen(study(), read_images=True)
    assert foreseen(study())[0]["step"] == 0  # a report reads no data
    images = len(tiny.experiment().data.source.open("test", None))
    assert row["step"] == 1 / images
    least = smallest_effect(5, 0.0, 1 / images)
    assert f"none under {least:.2g}, by the number of test images" in foreseen_text(row)
    assert least == pytest.approx(in_deviations(5) * (2 / 12) ** 0.5 / images)
    (few, _) = foreseen(study(seeds=(0, 1, 2), deviation={"test accuracy": 0.5}))
    assert few["alone"] is None and "3 seeds decide nothing" in foreseen_text(few)


def test_the_tuning_tells_what_seeds_deviate_by(tmp_path):
    """From made-up trials of three seeds, of which the second is chosen in either arm."""
    rng = np.random.default_rng(0)
    one = study(tuning=Tuning({"optimizer.learning_rate": (0.1, 0.2)}, seeds=(100, 101, 102)))
    found, chosen = trials(one, tmp_path), []
    for trial in found:
        values = rng.normal(0.9 if trial.point["optimizer.learning_rate"] == 0.2 else 0.5, 0.01, 3)
        chosen += [values] if trial.point["optimizer.learning_rate"] == 0.2 else []
        for cell, value in zip(trial.cells, values, strict=True):
            cell.path.mkdir(parents=True)
            (cell.path / "status.json").write_text(json.dumps({"state": "done", "step": 1}))
            (cell.path / "result.json").write_text(
                json.dumps({one.tuning.metric_of(cell.arm).split()[0]: {"accuracy": value}})
            )
    accuracy, loss = foreseen(one, found)
    assert accuracy["from"] == "tuning" and loss["from"] == ""
    assert accuracy["deviation"] == pytest.approx(np.std(chosen[1] - chosen[0], ddof=1))
    assert "as found in the tuning" in foreseen_text(accuracy)
    (found[0].cells[0].path / "status.json").write_text(json.dumps({"state": "running", "step": 1}))
    assert foreseen(one, found)[0]["from"] == ""


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_wrong_deviation_is_refused(value):
    with pytest.raises(UserError, match=r"study.deviation\['test accuracy'\]"):
        study(deviation={"test accuracy": value})
    with pytest.raises(UserError, match=r"study.deviation names no metric: 'test acuracy'; did you mean"):
        check_metrics(dataclasses.replace(study(), deviation={"test acuracy": 0.1}))
