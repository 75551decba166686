"""Classes by what a person calls them; answers for files and folders, good and bad."""

import io
import json
import os
import re

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcnn import __main__ as command
from jaxcnn.data import imagenet
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.data.transforms import CenterCrop, Resize
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.models import create_model
from jaxcnn.runs import prediction as predict
from jaxcnn.runs.prediction import Net
from jaxcnn.tasks.classification import most_probable

IMAGENET = Net(None, tuple(imagenet.names()), {}, 0)


def test_a_class_is_found_by_its_name_its_index_and_wordnets_words():
    for name in ("n02123045", "281", "tabby", "Tabby Cat"):
        assert IMAGENET.index(name) == 281
    digits = Net(None, ("5", "7", "3"), {}, 0)
    assert digits.index("7") == 1 and digits.index("2") == 2  # the name comes before the index


def test_a_word_for_two_classes_is_refused_with_both():
    with pytest.raises(UserError, match=r"'crane' is n02012849 crane and n03126707 crane; give its id"):
        IMAGENET.index("crane")


def test_an_unknown_class_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"no class 'tabbi'; did you mean 'tabby'"):
        IMAGENET.index("tabbi")
    with pytest.raises(UserError, match=r"no class '1000'; it has 1000 classes, from 0"):
        IMAGENET.index("1000")


def test_the_most_probable_come_first_and_of_equal_ones_the_lower_index():
    assert most_probable(np.array([0.25, 0.5, 0.25]), ("a", "b", "c"), 2) == [("b", 0.5), ("a", 0.25)]


@pytest.fixture
def net(monkeypatch):
    """A linear net of made-up weights and three classes, one whose name is not UTF-8, for images of 8x8x1."""
    data = Data(source=Synthetic(), image_shape=(8, 8, 1), preprocess=(Resize(8), CenterCrop(8)))
    model = create_model("linear", classes=3)
    variables = model.init(jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32), train=False)
    made = Net(Experiment(model=model, data=data), ("cat", os.fsdecode(b"caf\xe9"), "dog"), variables, 0)
    monkeypatch.setattr(predict, "load_net", lambda *_, **__: made)
    return made


@pytest.fixture
def images(tmp_path):
    """A folder of six paths of which two can be read: one in a folder inside, one with a name that is not UTF-8."""
    levels = np.random.default_rng(0).integers(0, 256, (9, 12), np.uint8)
    folder = tmp_path / "images"
    (folder / "inside").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in (b"inside/a.PNG", b"caf\xe9.png", b".hidden/b.png"):
        Image.fromarray(levels).save(os.path.join(os.fsencode(folder), name), "PNG")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "again").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_the_good_images_of_a_folder_are_answered_and_the_bad_ones_named(net, images, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # so that no path is broken over lines
    assert command.main(["predict", "run", str(images), "--top", "2"]) == 1
    shown = capsys.readouterr()
    assert "caf\N{REPLACEMENT CHARACTER}" in shown.out and "a.PNG" in shown.out and ".hidden" not in shown.out
    for name, cause in {
        "broken.jpg": "",
        "loop.png": "a link that leads back to itself",
        "pipe.png": "a named pipe (FIFO), not a regular file",
        "zero.png": "a device, not a regular file",
    }.items():
        assert re.search(f"error: .*{name} cannot be read as an image: .*{re.escape(cause)}", shown.err)
    assert shown.err.count("error:") == 4


def test_answers_as_json_hold_the_failures_in_the_order_of_the_images(net, images, capsys):
    assert command.main(["predict", "run", str(images / "pipe.png"), str(images / "inside"), "--json"]) == 1
    bad, good = json.loads(capsys.readouterr().out)
    assert bad["image"].endswith("pipe.png") and "named pipe" in bad["error"]
    assert good["image"].endswith("a.PNG") and len(good["classes"]) == 3
    assert sum(probability for _, probability in good["classes"]) == pytest.approx(1, abs=1e-5)


def test_a_terminal_without_unicode_shows_what_it_can(net, images, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    written = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", written)
    assert command.main(["predict", "run", str(images / "inside")]) == 0
    written.seek(0)
    assert "caf?" in written.read()


def test_a_folder_without_images_is_refused(net, tmp_path):
    with pytest.raises(UserError, match=r"has no images: no file in it ends in one of \.jpg"):
        predict.predict_run(tmp_path, [tmp_path])
