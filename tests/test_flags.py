"""Flags: one way to pass an experiment's to every command that takes its file, and hints that lead on."""

import dataclasses
import json

import pytest

import jaxcnn.__main__ as command
from jaxcnn.data.examples import Source
from jaxcnn.data.transforms import Transform
from jaxcnn.errors import UserError
from jaxcnn.flags import parse
from jaxcnn.models import create_model
from jaxcnn.runs.memory import largest_batch
from jaxcnn.tasks.losses import Loss
from jaxcnn.tasks.task import Task
from jaxcnn.train.optimizers import Optimizer
from jaxcnn.train.schedules import Schedule
from tests.tiny_runs import ROOT, TINY

DIGITS = ROOT / "experiments" / "linear_digits.py"


def run(capsys, *words):
    code = command.main([*map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_bool_argument_of_experiment_is_a_flag_without_a_value(tmp_path):
    file = tmp_path / "narrow.py"
    file.write_text(
        "import jaxcnn as jc\n"
        "def experiment(narrow: bool = False, grey: bool = True):\n"
        "    width = 0.5 if narrow else 1.0\n"
        "    model = jc.create_model('vgg11', classes=10, width=width)\n"
        "    return jc.Experiment(model, jc.Data((32, 32, 1 if grey else 3)))\n"
    )
    for given, width, channels in (([], 1, 1), (["--narrow"], 0.5, 1), (["--narrow", "--no-grey"], 0.5, 3)):
        made = parse(file, [*given, "--optimizer.lr", "0.3"]).experiment
        assert made.model.backbone.width == width and made.data.image_shape[2] == channels
        assert made.optimizer.learning_rate == 0.3


@pytest.mark.parametrize(
    "flag, hint",
    [
        ("--lr", r"no flag --lr; did you mean '--optimizer.lr'\?"),
        ("--batch-size=4", r"did you mean '--data.batch-size'"),
        ("--momentum", r"did you mean '--optimizer.momentum'"),
        ("--optimzer.lr", r"did you mean '--optimizer.lr'"),
    ],
)
def test_a_flag_without_its_part_is_answered_with_the_whole_one(flag, hint):
    with pytest.raises(UserError, match=hint):
        parse(TINY, [flag, "1"])


@pytest.mark.parametrize("field", ["pretrained", "weights"])
def test_weights_are_said_to_come_from_a_file(field):
    with pytest.raises(UserError, match=r"no weights.*jaxcnn import-weights resnet50 FILE --out RUN.*--init-from.run"):
        create_model("resnet50", **{field: True})


@pytest.mark.parametrize("between", [(), ("--",)])
def test_data_check_takes_the_experiments_flags(between, capsys):
    code, out, _ = run(
        capsys, "data", "check", TINY, *between, "--data.source.train", "40", "--data.test-splits", "test"
    )
    assert code == 0 and "40 images, 0 broken" in out
    code, _, errors = run(capsys, "data", "check", TINY, *between, "--data.sorce.train", "40")
    assert code == 1 and "did you mean '--data.source.train'" in errors


def test_the_score_of_a_task_that_a_flag_changes_is_the_new_tasks():
    """What watches a metric that the file does not name watches the score, which is another with another protocol."""
    file = ROOT / "experiments" / "yolo_bccd.py"
    assert parse(file, []).experiment.checkpoints.metric == "voc07_map"
    flags = ["--early-stopping.patience", "3", "--task.protocol", "coco"]
    made = parse(file, flags).experiment
    assert made.checkpoints.metric == made.early_stopping.metric == "coco_ap"
    again = dataclasses.replace(made, task=dataclasses.replace(made.task, protocol="voc10"))
    assert again.checkpoints.metric == "voc10_map"
    assert parse(file, [*flags, "--checkpoints.metric", "coco_ap50"]).experiment.checkpoints.metric == "coco_ap50"
    with pytest.raises(UserError, match=r"checkpoints\.metric: Detection has no metric 'voc07_map'"):
        parse(file, [*flags, "--checkpoints.metric", "voc07_map"])


def test_fit_batch_takes_the_experiments_flags_and_no_more_than_the_images(capsys):
    flags = ("--data.source.train", "48", "--accumulate", "3")
    code, out, _ = run(capsys, "fit-batch", TINY, "--json", *flags)
    found = json.loads(out)
    assert code == 0 and found["examples"] == 48 and found["batch_size"] == 48


def test_fit_batch_leaves_a_part_of_a_cpus_memory(capsys, monkeypatch):
    from jaxcnn.runs import fit_batch

    monkeypatch.setattr(fit_batch, "device_memory", lambda mesh: 2**30)
    code, out, _ = run(capsys, "fit-batch", DIGITS, "--data.train-split", "train[:100]", "--data.batch-size", "64")
    assert code == 0 and "of 768 MiB" in out and "largest batch 100 (there are 100 images)" in out


@pytest.mark.parametrize("most, found", [(None, 90), (64, 60), (90, 90), (91, 90), (200, 90), (7, 5)])
def test_the_largest_batch_is_at_most_what_is_asked(most, found):
    assert largest_batch(lambda size: 100 * size, 5, 9000, 20, most)[0] == found


def test_help_has_a_line_for_every_command(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in (
        "prove-resume Interrupt an experiment",
        "data Prepare, pack and check data sets",
        "fit-batch The largest",
    ):
        assert words in said
    with pytest.raises(SystemExit):
        command.main(["data", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in ("check Read every example", "prepare Download", "pack Make the images of a set smaller"):
        assert words in said


def test_the_averages_switch_says_what_it_switches(capsys):
    with pytest.raises(SystemExit):
        parse(TINY, ["--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--ema.no-warm Warm, the decay rises as" in said and "not warm, it is `decay` from the first update" in said


def test_models_are_listed_without_counting_anything(capsys, monkeypatch):
    from jaxcnn.summary import overview

    monkeypatch.setattr(overview, "summarize", lambda *_: pytest.fail("counted"))
    code, out, _ = run(capsys, "models", "--markdown")
    assert code == 0 and out.strip() == overview.block((ROOT / "docs" / "models.md").read_text())


def test_the_summary_of_a_run_is_that_of_its_net(capsys, tmp_path):
    import jaxcnn as jc

    made = jc.Experiment(create_model("linear", classes=10), jc.Data((8, 8, 1)), duration=jc.steps(2))
    jc.train(made, tmp_path / "run", quiet=True)
    code, out, _ = run(capsys, "summary", tmp_path / "run", "--json")
    assert code == 0 and json.loads(out)["parameters"] == 650
    code, _, errors = run(capsys, "summary", tmp_path / "run", "--classes", "3")
    assert code == 1 and "leave --classes out" in errors


def test_the_protocols_of_parts_have_methods_only():
    """With an attribute among them a protocol has no subclasses for Python, and its part would lose its flags."""
    for protocol in (Task, Loss, Optimizer, Schedule, Source, Transform):
        assert not issubclass(int, protocol)
