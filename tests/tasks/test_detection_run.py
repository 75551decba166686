"""A detector through the front door: trained, killed, resumed, evaluated, and asked about a photo."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.synthetic import Synthetic
from tests.tiny_runs import ROOT, assert_same_run, finish, kill_when, metrics, read, start

DETECT = ROOT / "tests" / "experiments" / "detect.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("detect") / "run"
    finish(DETECT, "--workdir", path)
    return path


def test_it_learns_and_every_metric_has_its_protocols_name(run):
    losses = [line["loss"] for line in metrics(run) if line["split"] == "train"]
    assert losses[-1] < 0.6 * losses[0]
    result = read(run, "result.json")["test"]
    assert result["count"] == 16 and result["voc07_map"] == pytest.approx(
        np.mean([result["voc07_ap_class0"], result["voc07_ap_class1"]])
    )


def test_killed_it_goes_on_to_the_same_run(run, tmp_path):
    killed = tmp_path / "run"
    kill_when(start(DETECT, "--workdir", killed), lambda: (killed / "checkpoints" / "10").is_dir())
    assert "resumed at step" in finish(DETECT, "--workdir", killed).stdout
    assert_same_run(killed, run)


def test_evaluate_gives_the_trainings_figures(run):
    out = finish("evaluate", run, "--split", "test", "--json", module="jaxcnn").stdout
    assert json.loads(out)["test"] == read(run, "result.json")["test"]


def test_predict_tells_boxes_in_the_photos_own_pixels_and_draws_them(run, tmp_path):
    example = Synthetic((24, 32, 3), classes=2, parts=("boxes",)).open("test")[0]
    photo = tmp_path / "photo.png"
    Image.fromarray(example["image"]).save(photo)
    out = finish("predict", run, photo, "--json", "--out", tmp_path / "drawn", module="jaxcnn").stdout
    (answer,) = json.loads(out[: out.rindex("]") + 1])
    boxes = np.array([found["box"] for found in answer["detections"]])
    assert len(boxes) and (boxes >= 0).all() and (boxes <= [32, 24, 32, 24]).all()
    assert [*answer["detections"][0]] == ["class", "score", "box"]
    with Image.open(tmp_path / "drawn" / "photo_boxes.png") as drawn:
        assert drawn.size[0] >= 300
