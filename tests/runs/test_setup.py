"""What a start warns of, and how often it traces the model."""

import dataclasses
import json
import types
import warnings

import pytest

import jaxcnn as jc
from jaxcnn.errors import UserError
from jaxcnn.runs import initial_state, restore
from jaxcnn.runs.compare import curves
from jaxcnn.runs.debug import debug
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.warnings import warnings_of
from jaxcnn.train.init_from import InitFrom
from jaxcnn.train.schedules import StepDecay
from tests.experiments.tiny import experiment as tiny


def make(**fields):
    data = {name: fields.pop(name) for name in ("batch_size", "normalize", "sampling", "sizes") if name in fields}
    return jc.Experiment(jc.create_model("linear", classes=10), jc.Data((8, 8, 1), **data), **fields)


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"batch_size": 2000, "duration": jc.epochs(30)},
            "data.batch_size 2000 is more than the 1297 images of train[:90%]",
        ),
        ({"batch_size": 500, "duration": jc.epochs(3)}, "3 epochs are 8 steps of 500 images, too few to learn; try"),
        (
            {"duration": jc.epochs(20), "schedule": StepDecay((jc.epochs(10), jc.epochs(20), jc.epochs(30)))},
            "the run ends at step 203, before 2 of the 3 schedule.milestones (20 epochs, 30 epochs)",
        ),
    ],
)
def test_a_batch_for_a_larger_set_a_run_of_few_steps_and_late_milestones_are_warned_of(fields, message):
    assert any(line.startswith(message) for line in warnings_of(make_plan(make(**fields))))


@pytest.mark.parametrize("duration", [jc.epochs(10), jc.steps(3)])
def test_a_usual_run_and_one_whose_steps_are_counted_are_not(duration):
    assert warnings_of(make_plan(make(batch_size=128, duration=duration))) == []


def test_a_start_traces_the_model_once_beside_its_initialisation(monkeypatch, tmp_path):
    traced = []
    original = initial_state._init
    monkeypatch.setattr(initial_state, "_init", lambda *arguments: traced.append(0) or original(*arguments))
    jc.train(dataclasses.replace(tiny(), duration=jc.steps(3)), tmp_path / "run", quiet=True)
    assert len(traced) == 2


def test_fine_tuning_says_where_images_are_prepared_otherwise(tmp_path, capsys):
    first = jc.Normalize(mean=(10.0,), std=(20.0,))
    jc.train(make(normalize=first, duration=jc.steps(2)), tmp_path / "first", quiet=True)
    again = make(duration=jc.steps(2), init_from=InitFrom(str(tmp_path / "first")))
    jc.train(again, tmp_path / "second")
    said = capsys.readouterr().out.replace("\n", " ")
    assert (
        "was trained with data.normalize Normalize(mean=(10.0,), std=(20.0,)), and here it is Normalize(mean=(0.0,)"
        in said
    )
    assert "take theirs (--init-from.preparation), if" in said
    same = dataclasses.replace(again, data=dataclasses.replace(again.data, normalize=first))
    jc.train(same, tmp_path / "third")
    assert "was trained with" not in capsys.readouterr().out
    taken = dataclasses.replace(again, init_from=InitFrom(str(tmp_path / "first"), preparation=True))
    run = jc.train(taken, tmp_path / "fourth")
    said = capsys.readouterr().out.replace("\n", " ")
    assert "was trained with" not in said and "images are prepared as for" in said and "mean=(10.0,)" in said
    assert run.experiment.data.normalize == first
    stored = json.loads((tmp_path / "fourth" / "config.json").read_text())["data"]["normalize"]
    assert (stored["mean"], stored["std"]) == ([10.0], [20.0])  # what was used, and not what was asked for


def test_all_of_a_preparation_is_taken_over_and_another_interpolation_is_warned_of():
    theirs = jc.Data(
        (24, 24, 3),
        preprocess=(jc.Resize(30, method="bicubic"), jc.CenterCrop(24)),
        normalize=jc.Normalize((1.0,), (2.0,)),
    )
    ours = jc.Data((32, 32, 3), preprocess=(jc.Resize(32),), augment=(jc.HorizontalFlip(),))
    model = jc.create_model("resnet20_cifar")
    source = types.SimpleNamespace(experiment=jc.Experiment(model, theirs))
    here = jc.Experiment(model, ours, init_from=InitFrom("there"))
    lines = restore.prepared_otherwise(here, source)
    assert len(lines) == 3 and all(line.startswith("warning: ") for line in lines)
    assert "are resized by bicubic, and here by bilinear" in lines[2] and "(24, 24, 3)" in lines[0]
    asked = dataclasses.replace(here, init_from=InitFrom("there", preparation=True))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(restore, "open_run", lambda path: path)
        patched.setattr(restore, "load_experiment", lambda path: source.experiment)
        data = restore.prepared_as_source(asked).data
        assert restore.prepared_as_source(here) is here
    assert data == dataclasses.replace(theirs, augment=ours.augment)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: make(early_stopping=3), "early_stopping is an int, which lacks .*EarlyStopping\\(patience=3\\)"),
        (lambda: make(early_stopping=jc.EarlyStopping), "early_stopping is the class EarlyStopping; give an object"),
        (lambda: make(duration=5), r"duration is 5, and not a duration; give jc.steps\(5\) or jc.epochs\(5\)"),
        (lambda: jc.SWA(start=3), r"ema.start is 3, and not a duration; give jc.steps\(3\)"),
        (lambda: jc.Group("*", freeze_until="3"), "freeze_until of '\\*' is '3', and not a duration"),
        (lambda: make(layer_decay="0.5"), "layer_decay is '0.5'; it must be above 0"),
        (lambda: make(sampling=True), "data.sampling is a bool, which lacks"),
        (lambda: make(sampling=jc.Balanced), "data.sampling is the class Balanced; give an object"),
        (lambda: make(sizes=((0, 4),)), r"data.sizes are pairs of a duration and a side"),
        (lambda: make(sizes=(4, 8)), r"data.sizes are pairs of a duration and a side"),
        (lambda: jc.Classification(class_weights=2.0), "task.class_weights is 2.0; give a tuple of numbers"),
        (lambda: jc.Classification(class_weights={"cat": 2.0}), "task.class_weights is {'cat': 2.0}; give a tuple"),
        (lambda: jc.SAM(jc.SGD), "SAM holds an optimizer, such as SAM"),
        (lambda: make(batch_size=2.5), r"data\.batch_size is 2\.5; it must be a whole number"),
        (
            lambda: jc.Experiment(
                jc.create_model("linear", classes=10), jc.Data((8, 8, 3), jc.Synthetic((8, 8, 3), train=8.5))
            ),
            r"data\.source\.train is 8\.5; it must be a whole",
        ),
        (lambda: make(schedule=jc.Plateau(patience=1.5)), r"schedule\.patience is 1\.5; it must be a whole number"),
        (lambda: make(accumulate="2"), "accumulate is '2'; it must be a whole number"),
        (lambda: jc.SAM(0.1), "SAM holds an optimizer, such as SAM.*, and not 0.1"),
    ],
)
def test_a_value_of_another_kind_is_one_sentence(wrong, message):
    with pytest.raises(UserError, match=message):
        wrong()


def test_a_loss_that_is_0_throughout_is_drawn_without_a_warning(tmp_path):
    line = {"step": 1, "split": "train", "loss": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = curves({"": [line, line | {"step": 2}]}, ("loss",))
        figure.savefig(tmp_path / "x.png")
    assert figure.axes[0].get_yscale() == "linear"
    assert curves({"": [line | {"loss": 1.0}]}, ("loss",)).axes[0].get_yscale() == "log"


def test_debug_lowers_the_rate_with_the_batch():
    """VGG-A at the rate of its 256 images diverges on two within four steps (docs/design.md)."""
    made = debug(make(batch_size=256, optimizer=jc.SGD(learning_rate=0.01)))
    assert made.data.batch_size == 8 and made.optimizer.learning_rate == 0.01 * 8 / 256
    small = debug(make(batch_size=4, optimizer=jc.SGD(learning_rate=0.01)))
    assert small.optimizer.learning_rate == 0.01
