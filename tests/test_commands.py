"""The `jaxcnn` command on a finished run: evaluate, predict, compare, data, models."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.synthetic import Synthetic
from tests.tiny_runs import ROOT, TINY, call, finish, kill_when, metrics, read, start

PHOTO = Synthetic(image_shape=(9, 9, 3), classes=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands") / "run"
    finish(TINY, "--workdir", folder)
    return folder


def jaxcnn(*arguments):
    return finish(*arguments, module="jaxcnn").stdout


def refused(*arguments, code=1):
    done = call(*arguments, module="jaxcnn")
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """One image file per class, from examples that the run did not train on."""
    folder = tmp_path_factory.mktemp("photos")
    for label in range(4):
        Image.fromarray(PHOTO.open("validation")[label]["image"]).save(folder / f"{label}.png")
    return sorted(folder.iterdir())


def test_evaluate_equals_the_training_figure_exactly(run):
    result = read(run, "result.json")
    assert result.pop("selection")["chose"] == ["best checkpoint", "learning rate (plateau)"]
    assert json.loads(jaxcnn("evaluate", run, "--json")) == result and next(iter(result)) == "test"


def test_evaluate_on_another_split_and_checkpoint(run):
    train = json.loads(jaxcnn("evaluate", run, "--split", "train", "--json"))
    assert train["train"]["count"] == 200 and train["train"]["accuracy"] > 0.9
    best = json.loads(jaxcnn("evaluate", run, "--checkpoint", "best", "--json"))
    evaluated = [line["accuracy"] for line in metrics(run) if line["split"] == "validation"]
    assert best["validation"]["accuracy"] == max(evaluated)


def test_evaluate_looks_into_a_run_that_is_under_way_and_leaves_it_alone(tmp_path):
    process = start(TINY, "--workdir", tmp_path / "run", "--duration", "100000steps")
    try:
        while not (tmp_path / "run" / "checkpoints" / "30").is_dir():
            assert process.poll() is None, process.communicate()
        result = call("evaluate", tmp_path / "run", "--json", module="jaxcnn")
        assert process.poll() is None
        # Its checkpoint may have been replaced by a newer one meanwhile; then the message says so.
        assert result.returncode == 0 or "try another --checkpoint" in result.stderr, result.stderr
    finally:
        process.kill()
        process.communicate()


def test_predict_names_the_classes(run, photos):
    predictions = json.loads(jaxcnn("predict", run, *photos, "--json", "--top", "3"))
    assert [prediction["image"] for prediction in predictions] == [str(photo) for photo in photos]
    for label, prediction in enumerate(predictions):
        names, probabilities = zip(*prediction["classes"], strict=True)
        assert names[0] == f"class{label}" and len(names) == 3
        assert list(probabilities) == sorted(probabilities, reverse=True) and 0.3 < sum(probabilities) <= 1 + 1e-6
    assert "class0" in jaxcnn("predict", run, photos[0], "--ema")


def test_predict_refuses_what_it_cannot_read(run, tmp_path, photos):
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(tmp_path / "small.png")
    assert "text.png cannot be read as an image" in refused("predict", run, tmp_path / "text.png")
    assert "small.png is 5x7" in refused("predict", run, tmp_path / "small.png")
    assert "none.png cannot be read" in refused("predict", run, tmp_path / "none.png")
    assert "at least one image" in refused("predict", run)


def test_wrong_runs_splits_and_checkpoints_are_named(run, tmp_path):
    assert "is not a run directory" in refused("evaluate", tmp_path)
    assert "does not exist" in refused("evaluate", tmp_path / "none")
    assert "did you mean 'test'" in refused("evaluate", run, "--split", "tset")
    assert "no checkpoint '7'; there are latest, best, " in refused("evaluate", run, "--checkpoint", "7")
    kill_when(start(TINY, "--workdir", tmp_path / "run"), (tmp_path / "run" / "config.json").exists)
    assert "has no checkpoint yet" in refused("evaluate", tmp_path / "run")


def test_compare_shows_figures_and_the_fields_that_differ(run, tmp_path):
    other = tmp_path / "other"
    finish(TINY, "--workdir", other, "--duration", "20steps", "--dropout", "0.5")
    rows = json.loads(jaxcnn("compare", run, other, "--json"))
    fields = rows[str(run)].keys()
    assert {"state", "step", "model.dropout", "duration.amount", "test accuracy", "test count"} <= fields
    assert "optimizer.learning_rate" not in fields
    assert rows[str(other)]["model.dropout"] == 0.5 and rows[str(run)]["step"] == 120
    table = jaxcnn("compare", run, other, "--plot", tmp_path / "curves.png")
    assert "model.dropout" in table
    assert np.asarray(Image.open(tmp_path / "curves.png")).std() > 0


def test_data_check_lists_broken_images_and_those_that_a_transform_does_not_take(tmp_path):
    assert "200 images, 0 broken" in jaxcnn("data", "check", TINY)
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(tmp_path / split / name / "1.png")
    (tmp_path / "train" / "a" / "2.jpg").write_bytes(b"")
    Image.new("RGB", (9, 5)).save(tmp_path / "train" / "b" / "3.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "test" / "b" / "4.png")
    (tmp_path / "test" / "a" / "1.png").unlink()
    text = TINY.read_text().replace("data.synthetic import Synthetic", "data.folder import Folder")
    source = "Synthetic(image_shape=(9, 9, 3), classes=4, train=200, test=50)"
    text = text.replace('"validation"', '"test"')
    text = text.replace("PadAndCrop(1)", "RandomCrop(7), Pad(1)").replace(
        "import HorizontalFlip, PadAndCrop", "import *"
    )
    (tmp_path / "folder.py").write_text(text.replace(source, f"Folder({str(tmp_path)!r})"))
    done = call("data", "check", tmp_path / "folder.py", module="jaxcnn")
    assert done.returncode == 1 and "3 broken images" in done.stderr
    found = {line.split(": ")[0].strip(): line for line in done.stdout.splitlines() if line.startswith("  ")}
    empty, small, other = (str(tmp_path / name) for name in ("train/a/2.jpg", "train/b/3.png", "test/b/4.png"))
    assert [*found] == [empty, small, other, "no image of a"]
    assert "RandomCrop(size=7): the image of 5 x 9 (height x width) is smaller" in found[small]
    assert "the image is (8, 8, 3), but data.image_shape is (9, 9, 3)" in found[other]


def test_models_lists_names():
    assert jaxcnn("models", "vgg16*", "--names").split() == ["vgg16", "vgg16_bn", "vgg16_c"]


def test_without_arguments_the_commands_are_shown():
    out = call(module="jaxcnn").stdout
    assert all(name in out for name in ("evaluate", "predict", "compare", "data", "models", "summary"))


def test_predict_works_on_the_digits_through_the_same_transforms(tmp_path):
    run = tmp_path / "run"
    finish(ROOT / "experiments" / "lenet_digits.py", "--debug", "--workdir", run)
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(tmp_path / "digit.png")
    (prediction,) = json.loads(jaxcnn("predict", run, tmp_path / "digit.png", "--json"))
    assert len(prediction["classes"]) == 5
