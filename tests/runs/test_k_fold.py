"""k-fold: k ordinary runs over folds that test each image once, stopped and gone on with, and their mean."""

import json

import numpy as np
import pytest

import jaxcnn as jc
from jaxcnn import UserError
from jaxcnn.__main__ import main as jaxcnn
from jaxcnn.runs.k_fold import SUMMARY, k_fold
from tests.nets import TinyNet
from tests.tiny_runs import ROOT

FILE = str(ROOT / "experiments" / "linear_digits.py")


def experiment(**fields):
    data = jc.Data((9, 9, 3), jc.Synthetic((9, 9, 3), classes=4, train=23, test=5), batch_size=8)
    return jc.Experiment(TinyNet(), data, duration=jc.steps(3), ema=jc.EMA(0.9), **fields)


def test_every_image_is_tested_once_and_the_mean_is_that_of_the_runs(tmp_path):
    asked = iter([False] * 5 + [True] + [False] * 100)
    assert k_fold(experiment(), tmp_path, folds=2, stop=lambda: next(asked)) is None
    assert not (tmp_path / SUMMARY).exists()
    found = k_fold(experiment(), tmp_path, folds=2)
    results = [json.loads((tmp_path / f"fold{k}" / "result.json").read_text()) for k in (1, 2)]
    figures = [result[f"train[fold {k}/2]"] for k, result in enumerate(results, 1)]
    assert [each["count"] for each in figures] == [12, 11] and found.count == 23
    assert found.mean["loss"] == pytest.approx(np.mean([each["loss"] for each in figures]))
    assert found.deviation["loss"] == pytest.approx(np.std([each["loss"] for each in figures], ddof=1)) != 0
    averaged = [result[f"train[fold {k}/2]_ema"]["loss"] for k, result in enumerate(results, 1)]
    assert found.mean["loss_ema"] == pytest.approx(np.mean(averaged)) != found.mean["loss"]
    assert list(found.mean) == ["accuracy", "loss", "accuracy_ema", "loss_ema"]
    stored = json.loads((tmp_path / SUMMARY).read_text())
    assert stored["mean"] == found.mean and stored["count"] == 23 and len(stored["folds"]) == 2
    run = jc.load_run(tmp_path / "fold2")  # the same net, by hand, on the images that it has not trained on
    assert run.experiment.data.train_split == "train[not fold 2/2]" and run.experiment.data.evaluation_splits == ()
    images = jc.Synthetic((9, 9, 3), classes=4, train=23).open("train[fold 2/2]")
    right = [run.probabilities(images[i]["image"])[0].argmax() == images[i]["label"] for i in range(11)]
    assert figures[1]["accuracy"] == np.mean(right)


def test_what_would_choose_by_test_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="the schedule Plateau watches an evaluation, and k-fold has none"):
        k_fold(experiment(schedule=jc.Plateau()), tmp_path)
    with pytest.raises(UserError, match="early_stopping watches an evaluation, and k-fold has none"):
        k_fold(experiment(early_stopping=jc.EarlyStopping(patience=2)), tmp_path)
    with pytest.raises(UserError, match=r"cuts a whole split, such as train, not 'train\[:50%\]'"):
        k_fold(experiment(), tmp_path, split="train[:50%]")
    with pytest.raises(UserError, match="at most the split's 23 images"):
        k_fold(experiment(), tmp_path, folds=24)


def test_other_code_is_accepted_and_a_source_may_be_gone_when_folds_go_on(tmp_path, monkeypatch):
    asked = []

    def start(path, encoded, file, dataset, accept_code):
        asked.append(accept_code)
        raise UserError("enough")

    monkeypatch.setattr("jaxcnn.runs.k_fold.start_run", start)
    where = ["--folds", "2", "--workdir", str(tmp_path)]
    assert jaxcnn(["k-fold", FILE, *where]) == 1 and asked == [False]
    assert jaxcnn(["k-fold", FILE, *where, "--accept-code"]) == 1 and asked == [False, True]
    fine_tuned = experiment(init_from=jc.InitFrom(str(tmp_path / "gone")))
    with pytest.raises(UserError, match="gone does not exist"):
        k_fold(fine_tuned, tmp_path, folds=2)
    (tmp_path / "fold1" / "checkpoints" / "2").mkdir(parents=True)
    with pytest.raises(UserError, match="enough"):
        k_fold(fine_tuned, tmp_path, folds=2)
