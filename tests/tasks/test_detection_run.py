"""A detector through the front door: trained, killed, resumed, evaluated, asked about a photo, and its page."""

import json
import re
import types

import numpy as np
import pytest
from PIL import Image

import jaxcnn as jc
import jaxcnn.runs.evaluation as evaluation_module
from jaxcnn import __main__ as command
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.flags import parse
from jaxcnn.metrics.average_precision import METRICS
from jaxcnn.models.detector import Detections
from jaxcnn.report.detections import detect_split
from jaxcnn.report.run import write_report
from jaxcnn.report.target import target_of
from jaxcnn.runs.coco_results import coco_results
from jaxcnn.runs.prediction import Net, Prediction
from jaxcnn.runs.setup import open_evaluations
from jaxcnn.tasks import drawn_boxes
from jaxcnn.tasks.task import Answer
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
    (answer,) = json.loads(out)
    boxes = np.array([found["box"] for found in answer["detections"]])
    assert len(boxes) and (boxes >= 0).all() and (boxes <= [32, 24, 32, 24]).all()
    assert [*answer["detections"][0]] == ["class", "score", "box"]
    with Image.open(tmp_path / "drawn" / "photo_boxes.png") as drawn:
        assert drawn.size[0] >= 300


@pytest.fixture
def photo(tmp_path):
    example = Synthetic((24, 32, 3), classes=2, parts=("boxes",)).open("test")[0]
    Image.fromarray(example["image"]).save(tmp_path / "0012.png")
    return tmp_path / "0012.png"


def test_predict_writes_cocos_results(run, photo, tmp_path, capsys):
    file = tmp_path / "results.json"
    assert command.main(["predict", str(run), str(photo), "--json", "--coco", str(file), "--out", str(tmp_path)]) == 0
    out, told = capsys.readouterr()
    assert f"coco {file}" in told and "from 1 in the order of the labels: 1 class0, 2 class1" in told
    every = json.loads(out)[0]["detections"]  # which is all of it: what was written is told on stderr
    results = json.loads(file.read_text())
    assert len(results) == len(every) > 0
    for result, found in zip(results, every, strict=True):
        left, top, width, height = result["bbox"]
        assert [left, top, left + width, top + height] == pytest.approx(found["box"], abs=0.011)
        assert result["image_id"] == 12 and result["score"] == found["score"]
        assert result["category_id"] == {"class0": 1, "class1": 2}[found["class"]]


def test_cocos_results_have_the_ids_of_the_annotations(tmp_path):
    """Labels are in the order of `classes`, and ids have gaps."""
    name = tmp_path / "photos" / "a7.png"
    name.parent.mkdir()
    Image.new("RGB", (32, 24)).save(name)
    kinds = [{"id": 9, "name": "bird"}, {"id": 3, "name": "car"}]
    box = {"id": 1, "image_id": 70, "category_id": 9, "bbox": [1, 2, 10, 12]}
    listed = {"images": [{"id": 70, "file_name": "a7.png", "width": 32, "height": 24}], "annotations": [box]}
    (tmp_path / "boxes.json").write_text(json.dumps(listed | {"categories": kinds}))
    source = jc.COCODetection(str(name.parent), str(tmp_path / "boxes.json"), classes=("bird", "car"))
    data = jc.Data((24, 32, 3), source=source, train_split="train[:50%]+train[50%:]", test_splits=())
    found = {"detections": [{"class": "car", "score": 0.5, "box": [1.0, 2.0, 5.5, 4.0]}]}
    answers = [Prediction(str(path), Answer(("", ""), [], found)) for path in (name, tmp_path / "unlisted.png")]
    experiment = types.SimpleNamespace(data=data)
    results, told = coco_results(answers, experiment, ("bird", "car"))
    assert [result["image_id"] for result in results] == [70, "unlisted"] and "boxes.json" in told
    assert all(result["category_id"] == 3 and result["bbox"] == [1.0, 2.0, 4.5, 2.0] for result in results)
    again = [answers[1], Prediction("elsewhere/unlisted.jpg", answers[1].answer)]
    with pytest.raises(jc.UserError, match="would both have the image_id 'unlisted'"):
        coco_results(again, experiment, ("bird", "car"))


def test_evaluate_measures_by_another_protocol(run, capsys):
    assert command.main(["evaluate", str(run), "--split", "test", "--protocol", "coco", "--json"]) == 0
    by_coco = json.loads(capsys.readouterr().out)["test"]
    stored = read(run, "result.json")["test"]
    # Another protocol keeps another number of boxes: another program, whose sums may be rounded otherwise.
    assert by_coco["loss"] == pytest.approx(stored["loss"], rel=1e-6) and "voc07_map" not in by_coco
    assert by_coco["coco_ap"] < by_coco["coco_ap50"] and [*by_coco][: len(METRICS["coco"])] == [*METRICS["coco"]]
    assert command.main(["evaluate", str(run), "--protocol", "voc7"]) == 1
    assert "--protocol is 'voc7'; did you mean 'voc07' or 'voc10'?" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("asked", [["evaluate", "RUN", "--protocol", "coco"], ["predict", "RUN", "x", "--coco", "y"]])
def test_what_is_for_boxes_alone_says_so_of_another_run(asked, tmp_path, capsys, monkeypatch):
    other = jc.Experiment(model=jc.create_model("linear", classes=10), data=jc.Data((28, 28, 1)))
    monkeypatch.setattr(evaluation_module, "load_run", lambda *given: types.SimpleNamespace(experiment=other))
    monkeypatch.setattr("jaxcnn.runs.restore.load_experiment", lambda directory: other)
    monkeypatch.setattr("jaxcnn.runs.run_directory.open_run", lambda path: path)
    assert command.main([str(tmp_path) if word == "RUN" else word for word in asked]) == 1
    message = " ".join(capsys.readouterr().err.split())
    assert f"{asked[2 if asked[0] == 'evaluate' else 3]} is for a run that detects objects" in message
    assert "this run's task is Classification" in message


def test_the_page_has_the_truth_the_curves_and_the_mistakes(run):
    page = write_report(run).read_text()
    parts = re.findall(r"<h[23]>(.*)</h[23]>", page)
    assert parts == [
        *("Final figures", "Curves", "Predictions", "Precision and recall", "Worst misses", "False alarms", "Model"),
        "Environment",
    ]
    result = read(run, "result.json")["test"]
    for name in ("class0", "class1"):
        assert f'<td data-name="average precision">{result[f"voc07_ap_{name}"]:.4f}</td>' in page
        assert f"{name} {result[f'voc07_ap_{name}']:.3f}" in page  # in the legend of the curves
    assert "16 of the 16 images of the split test" in page and "Average precisions are by voc07" in page
    assert page.count("<svg") == 5 and "voc07_map by step" in page and page.count(": the truth") == 8


def test_explain_says_what_shows_a_detector():
    net = types.SimpleNamespace(experiment=types.SimpleNamespace(task=jc.Detection()))
    with pytest.raises(jc.UserError, match="the run's task is Detection; what it answers is shown by --method predict"):
        target_of(net, np.zeros((8, 8, 3), np.uint8), None)


class Oracle(Net):
    """Finds what `finds` says of each image, by its bytes."""

    def predict(self, images):
        rows = [self.finds.get(image.tobytes(), ([], [], [])) for image in images]
        found = Detections(np.zeros((len(images), 9, 4)), np.zeros((len(images), 9)), np.full((len(images), 9), -1), 0)
        for i, (boxes, scores, kinds) in enumerate(rows):
            found.boxes[i, : len(boxes)] = np.reshape(boxes, (-1, 4))
            found.scores[i, : len(boxes)], found.classes[i, : len(boxes)] = scores, kinds
        return found


def test_misses_are_the_largest_first_and_false_alarms_the_surest():
    experiment = parse(DETECT, []).experiment
    (examples,) = open_evaluations(experiment, ("test",)).values()
    net = Oracle(experiment, examples.classes, {}, 0)
    truths = [(e["boxes"].tolist(), [0.9] * len(e["boxes"]), e["classes"].tolist()) for e in examples]
    finds = {e["image"].tobytes(): [list(part) for part in truth] for e, truth in zip(examples, truths, strict=True)}
    object.__setattr__(net, "finds", finds)
    perfect = detect_split(net, examples)
    assert perfect.count == perfect.total == 16 and perfect.measured.value == 1
    assert not perfect.misses and not perfect.alarms
    assert all(each.found == each.objects > 0 and not each.alarms for each in perfect.classes)

    areas = [max((b[2] - b[0]) * (b[3] - b[1]) for b in boxes) for boxes, _, _ in truths]
    first, second = np.argsort(areas)[[-1, 0]]  # a large and a small miss
    for image in (first, second):
        boxes, scores, _ = finds[examples[image]["image"].tobytes()]
        row = int(np.argmax([(b[2] - b[0]) * (b[3] - b[1]) for b in boxes]))
        scores[row] = 0.1  # below what a person is shown
    for image, score in ((3, 0.5), (5, 0.3), (5, 0.8), (7, 0.15)):
        boxes, scores, kinds = finds[examples[image]["image"].tobytes()]
        boxes.append([0, 0, 1, 1]), scores.append(score), kinds.append(1)
    boxes, scores, kinds = finds[examples[9]["image"].tobytes()]
    boxes.append(boxes[0]), scores.append(0.6), kinds.append(kinds[0])  # found twice
    found = detect_split(net, examples)
    assert [miss.where for miss in found.misses] == [examples.where(first), examples.where(second)]
    assert f"{areas[first] / (24 * 32):.1%} of the image" in found.misses[0].told
    assert [alarm.where for alarm in found.alarms] == [examples.where(i) for i in (5, 9, 3)]
    told = [alarm.told.split(": ")[1] for alarm in found.alarms]
    assert told == ["no class1 is there", "a second box on one object", "no class1 is there"]
    assert found.alarms[0].told.startswith("class1 with a score of 0.80")  # the surest of two in its photo
    assert sum(each.alarms for each in found.classes) == 4
    assert sum(each.objects - each.found for each in found.classes) == 2
    assert found.misses[0].picture.shape[1] >= 300


def test_the_truth_is_drawn_without_padding_and_free_boxes_have_a_mark(monkeypatch):
    drawn = []
    monkeypatch.setattr(drawn_boxes, "draw_boxes", lambda *given, **more: drawn.append(given))
    truth = {"boxes": np.arange(12.0).reshape(3, 4), "classes": np.array([1, 0, -1])}
    truth |= {"difficult": np.array([False, True, False]), "crowd": np.zeros(3, bool)}
    jc.Detection().draw_truth(truth, np.zeros((8, 8, 3), np.uint8), ("a", "b"))
    ((_, boxes, labels, texts),) = drawn
    assert boxes.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]] and labels == [1, 0] and texts == ["b", "a?"]


def test_a_segmenters_truth_shows_the_photo_where_nothing_counts():
    mask = np.array([[0, 1], [255, 7]], np.uint8)
    image = np.full((2, 2, 3), 200, np.uint8)
    drawn = jc.Segmentation().draw_truth({"mask": mask}, image, ("a", "b"))
    large = drawn[:320]
    assert (large[160:, :] == 200).all() and (large[:160, 160:] != 200).any()
