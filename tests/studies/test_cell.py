"""Figures of a cell: when a figure is reached, and which figures there will be."""

import dataclasses

import numpy as np
import pytest

from jaxcnn.errors import UserError
from jaxcnn.studies.cell import check_metrics, epochs_to, metric_names, points, reaches
from jaxcnn.studies.neighbours import Neighbours
from jaxcnn.studies.probes import Cost, Cropped, Generalization, Shifted
from jaxcnn.studies.study import Claim, Study
from jaxcnn.train.averages import EMA
from tests.experiments import tiny


def train(step, accuracy, loss=1.0):
    return {"step": step, "split": "train", "epoch": step / 10, "accuracy": accuracy, "loss": loss, "count": 200}


def evaluated(step, accuracy, split="test"):
    """As the loop writes it: without an epoch."""
    return {"step": step, "split": split, "accuracy": accuracy, "loss": 1 - accuracy, "count": 50}


def test_an_evaluation_before_the_first_logged_line_counts():
    lines = [evaluated(2, 0.9), train(5, 0.5), evaluated(6, 0.95), train(10, 0.6)]
    assert points(lines, "test", "accuracy") == [(0.2, 0.9), (pytest.approx(0.6), 0.95)]
    assert epochs_to(lines, "test", "accuracy", 0.9) == pytest.approx(0.2)
    assert epochs_to(lines, "test", "accuracy", 0.92) == pytest.approx(0.6)
    assert epochs_to(lines, "test", "loss", 0.1) == pytest.approx(0.2)
    assert epochs_to(lines, "test", "accuracy", 0.99) == 1.0 and not reaches(lines, "test", "accuracy", 0.99)
    assert epochs_to([evaluated(2, 0.9)], "test", "accuracy", 0.5) is None


def test_an_interval_without_a_figure_is_left_out():
    """All of its steps were skipped."""
    lines = [train(5, None), train(10, 0.8)]
    assert epochs_to(lines, "train", "accuracy", 0.7) == 1.0


@pytest.mark.parametrize("images, every", [(200, 1), (60, 2), (500, 2)])
def test_a_noisy_curve_is_not_early(images, every):
    """Against the epoch at which the curve behind the noise is there; the first crossing is up to a sixth early."""
    rng, threshold = np.random.default_rng(0), 0.75
    steps = np.arange(every, 101, every)
    chances = 0.9 * (1 - np.exp(-steps / 30))
    true = float(steps[np.argmax(chances >= threshold)]) / 10
    found, first = [], []
    for _ in range(400):
        accuracies = rng.binomial(images, chances) / images
        lines = [train(int(step), float(value)) for step, value in zip(steps, accuracies, strict=True)]
        found.append(epochs_to(lines, "train", "accuracy", threshold))
        first.append(steps[np.argmax(accuracies >= threshold)] / 10 if (accuracies >= threshold).any() else 10)
    assert np.mean(found) == pytest.approx(true, rel=0.03)
    assert np.mean(first) < np.mean(found)
    if images == 60:
        assert np.mean(first) < 0.87 * true


def study(**fields):
    base = tiny.experiment()
    arms = {"a": base, "b": dataclasses.replace(base, seed=0), "k": Neighbours(base)}
    return Study("?", **{"arms": arms, "claims": (Claim("c", "a", "b"),)} | fields)


def test_figures_that_will_be_there_are_accepted():
    claims = [
        Claim("c", "a", "b", metric=metric)
        for metric in (
            "test loss",
            "test_ema accuracy",
            "parameters",
            "train loss",
            "accuracy when shifted",
            "loss gap",
        )
    ]
    both = [Claim("c", "a", "k", metric=metric) for metric in ("test accuracy", "megabytes kept")]
    check_metrics(study(claims=(*claims, *both), probes=(Shifted(1), Generalization(), Cost())))
    reach = {"train accuracy": 0.5, "validation loss": 0.3}
    named = Claim("c", "a", "b", metric="epochs to train accuracy 0.5")
    check_metrics(study(claims=(named,), reach=reach, diverged={"test accuracy": 0.1}))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"claims": (Claim("c", "a", "b", metric="test acuracy"),)}, "'test acuracy'; did you mean 'test accuracy'"),
        ({"claims": (Claim("c", "a", "k", metric="test loss"),)}, "of the arm 'k': 'test loss'"),
        ({"claims": (Claim("c", "a", "b", beyond=("a", "k"), metric="train loss"),)}, "of the arm 'k'"),
        ({"claims": (Claim("c", "a", "b", metric="gap"),)}, "of the arm 'a': 'gap'"),
        ({"metric": "tset accuracy", "claims": ()}, "study.metric names no metric: 'tset accuracy'; did you mean"),
        ({"diverged": {"test acc": 0.1}}, "study.diverged names no metric: 'test acc'"),
        ({"reach": {"train acuracy": 0.5}}, "study.reach names no metric: 'train acuracy'; did you mean 'train accu"),
        ({"claims": (Claim("c", "a", "b", metric="epochs to train accuracy 0.5"),)}, "epochs to train accuracy 0.5"),
    ],
)
def test_a_misspelt_figure_is_refused_with_the_nearest(fields, message):
    with pytest.raises(UserError) as raised:
        check_metrics(study(**fields))
    assert message in str(raised.value)


def test_averaged_weights_have_figures_only_if_they_are_kept():
    one = dataclasses.replace(tiny.experiment(), ema=EMA(0.0))
    assert "test accuracy" in metric_names(one, study()) and "test_ema accuracy" not in metric_names(one, study())


def test_a_probe_that_does_not_tell_its_figures_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Mine:
        def measure(self, run):
            return {"mine": 1.0}

    with pytest.raises(UserError, match="Mine has no `metrics`"):
        check_metrics(study(probes=(Mine(),)))


def test_crops_are_declared():
    check_metrics(study(claims=(Claim("c", "a", "b", metric="accuracy lost to the crop"),), probes=(Cropped(5),)))
