"""report.html: every finished run has one, with every part, and its failure is not the run's."""

import base64
import io
import re
import shutil
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from jaxcnn import __main__ as command
from jaxcnn.report import predictions as predictions_module
from jaxcnn.report import run as run_module
from jaxcnn.report.predictions import Predictions, predict_split
from jaxcnn.report.run import write_report
from jaxcnn.runs.prediction import load_net
from jaxcnn.runs.setup import open_evaluations
from tests.tiny_runs import TINY, finish, read


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "run"
    assert f"page {folder / 'report.html'}" in finish(TINY, "--workdir", folder, report=True).stdout
    return folder


@pytest.fixture(scope="module")
def predictions(run):
    net = load_net(run)
    return predict_split(net, open_evaluations(net.experiment, ("test",))["test"])


def test_a_finished_run_has_a_page_with_every_part(run):
    page = (run / "report.html").read_text()
    parts = re.findall(r"<h[23]>(.*)</h[23]>", page)
    assert parts == [
        *("Final figures", "Curves", "Confusion matrix", "Precision and recall", "Most confident mistakes", "Model"),
        "Environment",
    ]
    result, bare = read(run, "result.json"), re.sub(' data-name="[^"]*"', "", page)
    for split in ("test", "test_ema", "validation", "validation_ema"):
        accuracy, loss = (f"<td>{result[split][name]:.4f}</td>" for name in ("accuracy", "loss"))
        assert f"<td>{split}</td>{accuracy}{loss}<td>50</td>" in bare
    assert "validation chose: best checkpoint, learning rate (plateau)" in page and "test was read once" in page
    assert page.count("<svg") == 3 and "50 of the 50 images of the split test" in page
    assert f"{100 * result['test']['accuracy']:.2f}%" in page
    assert "conv1" in page and "fc1" in page and "jaxlib" in page and "optimizer.learning_rate" in page
    assert "synthetic" in page and read(run, "environment.json")["dataset"]["label_hash"] in page
    assert 'name="viewport"' in page and not re.search('(src|href)="http', page)


def test_the_matrix_counts_what_the_run_counted(run, predictions):
    result = read(run, "result.json")["test"]
    assert predictions.count == predictions.total == result["count"] == 50
    assert predictions.right == round(result["accuracy"] * 50)
    assert len(predictions.mistakes) == 50 - predictions.right


def test_mistakes_are_the_most_confident_first(run, monkeypatch):
    net = load_net(run)
    examples = open_evaluations(net.experiment, ("test",))["test"]
    last = net.variables["params"]["fc1"]
    last["kernel"] = -last["kernel"]  # so that there are enough of them
    every = predict_split(net, examples)
    monkeypatch.setattr(predictions_module, "MISTAKES", 5)
    some = predict_split(net, examples)
    found = [mistake.probability for mistake in every.mistakes]
    assert len(found) > 10 and found == sorted(found, reverse=True) and found[0] > found[-1]
    assert [mistake.where for mistake in some.mistakes] == [mistake.where for mistake in every.mistakes[:5]]
    for mistake in every.mistakes:
        assert mistake.label != mistake.predicted
        scores = net.probabilities(mistake.image[None])[0]
        assert scores.argmax() == mistake.predicted and scores.max() == pytest.approx(mistake.probability, rel=1e-5)
        assert ((every.labels == mistake.label) & (every.predicted == mistake.predicted)).any()


def test_the_bounds_hold_and_are_said(run, monkeypatch):
    monkeypatch.setattr(predictions_module, "IMAGES", 20)
    assert "20 of the 50 images of the split test" in write_report(run).read_text()
    monkeypatch.setattr(predictions_module, "SECONDS", 0)
    page = write_report(run).read_text()
    assert "16 of the 50 images" in page and "a fair sample" in page  # one batch, and then the time is over
    monkeypatch.undo()
    assert "16 of the 50 images" in write_report(run, stop=lambda: True).read_text()
    write_report(run)


def test_the_command_writes_the_page_again_also_of_another_split(run, capsys):
    (run / "report.html").unlink()
    assert command.main(["report", str(run), "--split", "train"]) == 0
    assert "200 of the 200 images of the split train" in (run / "report.html").read_text()
    assert command.main(["report", str(run)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert command.main(["report", str(run.parent)]) == 1
    assert "is not a run directory" in capsys.readouterr().err
    assert command.main(["report", str(run), "--split", "tset"]) == 1
    assert "did you mean 'test'" in capsys.readouterr().err


def test_the_same_command_gives_a_finished_run_the_page_that_it_lacks(run):
    (run / "report.html").unlink()
    out = finish(TINY, "--workdir", run, report=True).stdout
    assert "already done" in out and (run / "report.html").exists()


def test_a_page_that_cannot_be_written_leaves_the_run_done(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.html").symlink_to("missing/report.html")
    done = finish(TINY, "--workdir", tmp_path / "run", "--duration", "10steps", report=True)
    assert "warning: report.html was not written" in done.stderr and "jaxcnn report" in done.stderr
    assert "Traceback" not in done.stderr and read(tmp_path / "run", "status.json")["state"] == "done"


def test_a_run_whose_data_is_gone_has_a_page_that_says_so(tmp_path):
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(tmp_path / "photos" / split / name / "1.png")
    text = TINY.read_text().replace("data.synthetic import Synthetic", "data.folder import Folder")
    text = text.replace(
        "Synthetic(image_shape=(9, 9, 3), classes=4, train=200, test=50)", f"Folder({str(tmp_path / 'photos')!r})"
    )
    text = text.replace('"validation"', '"test"')
    (tmp_path / "folder.py").write_text(text.replace("TinyNet(", "TinyNet(classes=2, "))
    finish(tmp_path / "folder.py", "--workdir", tmp_path / "run", "--duration", "4steps", report=True)
    assert "2 of the 2 images" in (tmp_path / "run" / "report.html").read_text()
    shutil.rmtree(tmp_path / "photos")
    page = write_report(tmp_path / "run").read_text()
    assert "photos" in page.split("Confusion matrix")[1].split("<h2>")[0] and "Final figures" in page


def predictions_of(matrix):
    """Predictions whose confusion matrix is this one."""
    labels, predicted = np.nonzero(matrix)
    times = matrix[labels, predicted]
    return Predictions("test", int(matrix.sum()), labels.repeat(times), predicted.repeat(times), [])


def test_many_classes_become_a_picture_and_the_largest_confusions():
    matrix = np.diag(np.full(30, 10))
    matrix[3, 7], matrix[4, 5] = 6, 2
    names = [f"name{i}" for i in range(30)]
    shown = run_module._matrix(predictions_of(matrix), names)
    assert shown["largest"] == [("name3", "name7", 6), ("name4", "name5", 2)] and "<img" in shown["picture"]
    few = run_module._matrix(predictions_of(matrix[:2, :2]), names[:2])
    assert few["rows"] == [[(10, 1.0), (0, 0.0)], [(0, 0.0), (10, 1.0)]]


def test_what_a_page_holds_does_not_grow_with_the_square_of_the_classes():
    """10,000 classes: their matrix has 800 MB as int64, and there were five of them."""
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 10_000, (2, 2_000))
    predicted[::2] = labels[::2]
    labels[:5], predicted[:5] = 17, 9_999
    predictions = Predictions("test", 2_000, labels, predicted, [])
    names = [f"name{i}" for i in range(10_000)]
    tracemalloc.start()
    shown, rows = run_module._matrix(predictions, names), run_module._per_class(predictions, names)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    assert shown["largest"][0] == ("name17", "name9999", 5) and shown["block"] == 25
    (picture,) = re.findall('base64,(.*?)"', shown["picture"])
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (400, 400)
    assert {row[0] for row in rows} == {names[i] for i in np.union1d(labels, predicted)}
    assert next(row for row in rows if row[0] == "name17")[1] == (labels == 17).sum()


def test_precision_and_recall_of_a_class_that_never_occurs():
    rows = run_module._per_class(predictions_of(np.array([[9, 1, 0], [2, 8, 0], [0, 0, 0]])), ["a", "b", "c"])
    assert rows == [("a", 10, "81.8%", "90.0%"), ("b", 10, "88.9%", "80.0%"), ("c", 0, "–", "–")]  # noqa: RUF001
