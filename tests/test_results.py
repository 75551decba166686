"""What the README and docs claim: the first command, LeNet-5 on real data, and every stored number."""

import dataclasses
import json
import os
import re
import runpy

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import changes, encode, upgraded
from jaxcnn.data.digits import Digits
from jaxcnn.flags import parse
from jaxcnn.metrics.average_precision import measure
from jaxcnn.studies.statistics import paired
from tests.slow import slow
from tests.tiny_runs import ROOT, finish, metrics, read

README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "docs" / "results.md").read_text()
PHOTOS = (ROOT / "docs" / "photos.md").read_text()
ROWS = re.findall(
    r"^\| `([^`]+)` \| ([\d.]+) \| ([\d.]+) \| ([\d,]+) \| \[(\S+)\]\((\S+)\) \|$",
    RESULTS,
    re.M,
)
SEGMENTED = re.findall(
    r"^\| `([^`]+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d,]+) \| \[(\S+)\]\((\S+)\) \|$", RESULTS, re.M
)
DETECTED = re.findall(
    r"^\| `([^`]+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \| \[(\S+)\]\((\S+)\) \|$", RESULTS, re.M
)
BY_CLASS = re.findall(r"^\| (\w+) \| (0\.\d{3}) \| (0\.\d{3}) \|$", RESULTS, re.M)


def test_the_readmes_first_command_reaches_its_accuracy(tmp_path):
    command = README.split("```sh\n")[1].splitlines()[0].split(" && ")[1].split()
    assert command[:3] == ["python", "-m", "jaxcnn.launch"]
    finish(*command[3:], "--workdir", tmp_path / "run")
    result = read(tmp_path / "run", "result.json")["test"]
    assert result["accuracy"] >= 0.985 and result["count"] == 355


@pytest.mark.skipif(not os.environ.get("TFDS_DATA_DIR"), reason="TFDS_DATA_DIR not set: real-data test not run")
def test_lenet5_learns_fashion_mnist(tmp_path):
    """One epoch of a third of the images, 0.807 when this was written; five of all reach PyTorch's figure, below."""
    short = ("--duration", "1epochs", "--data.train-split", "train[:20000]")
    finish(ROOT / "experiments" / "lenet_fashion_mnist.py", "--workdir", tmp_path, *short)
    result = read(tmp_path, "result.json")["test"]
    assert result["count"] == 10_000 and result["accuracy"] >= 0.75
    losses = [line["loss"] for line in metrics(tmp_path) if line["split"] == "train"]
    assert losses[-1] < 0.7 * losses[0]


@slow
@pytest.mark.skipif(not os.environ.get("TFDS_DATA_DIR"), reason="TFDS_DATA_DIR not set: real-data test not run")
@pytest.mark.parametrize("seed", [0, 1])
def test_lenet5_on_fashion_mnist_reaches_the_pytorch_figure(seed, tmp_path):
    """0.889 and 0.890 on two seeds, by PyTorch on all 60,000 images; here on 54,000."""
    finish(ROOT / "experiments" / "lenet_fashion_mnist.py", "--workdir", tmp_path, "--seed", seed)
    result = read(tmp_path, "result.json")["test"]
    assert result["count"] == 10_000 and result["accuracy"] >= 0.890
    losses = [line["loss"] for line in metrics(tmp_path) if line["split"] == "train"]
    assert losses[-1] < 0.5 * losses[0]


def test_there_are_results():
    assert len(ROWS) >= 5


@pytest.mark.parametrize("command, accuracy, loss, count, name, link", ROWS, ids=[row[4] for row in ROWS])
def test_every_number_comes_from_its_stored_run(command, accuracy, loss, count, name, link):
    folder = ROOT / "docs" / link
    result = json.loads((folder / "result.json").read_text())["test"]
    assert f"{result['accuracy']:.4f}" == accuracy and f"{result['loss']:.4f}" == loss
    assert f"{result['count']:,}" == count
    selection = json.loads((folder / "result.json").read_text())["selection"]
    assert selection["split"] == "train[90%:]" and "best checkpoint" in selection["chose"]
    config = upgraded(json.loads((folder / "config.json").read_text()))
    assert f"--seed {config['seed']}" in command or (config["seed"] == 0 and "--seed" not in command)
    file = re.search(r"experiments/\S+\.py", command)[0]
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["git"]["commit"] and not environment["git"]["dirty"]
    now = dataclasses.replace(parse(ROOT / file, []).experiment, seed=config["seed"])
    assert changes(config, encode(now)) == {}  # what the file says now is what was run
    (last,) = [line for line in metrics(folder) if line["split"] == "test"]  # read once
    assert last["accuracy"] == result["accuracy"]


@pytest.mark.parametrize("command, iou, accuracy, loss, count, name, link", SEGMENTED, ids=[r[5] for r in SEGMENTED])
def test_every_number_of_segmentation_comes_from_its_stored_run(command, iou, accuracy, loss, count, name, link):
    folder = ROOT / "docs" / link
    stored = json.loads((folder / "result.json").read_text())
    result = stored["test"]
    assert [f"{result[metric]:.4f}" for metric in ("mean_iou", "pixel_accuracy", "loss")] == [iou, accuracy, loss]
    assert f"{result['count']:,}" == count and stored["selection"]["split"] == "val"
    each = {metric.removeprefix("iou_"): value for metric, value in result.items() if metric.startswith("iou_")}
    assert len(each) == 11 and np.mean(list(each.values())) == pytest.approx(result["mean_iou"])
    column = 1 + [row[5] for row in SEGMENTED].index(name)
    assert {row[0]: row[column] for row in BY_CLASS} == {label: f"{value:.3f}" for label, value in each.items()}
    file, *given = command.split()
    config = upgraded(json.loads((folder / "config.json").read_text()))
    assert changes(config, encode(parse(ROOT / file, given).experiment)) == {}  # what the file says is what was run
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["git"]["commit"] and not environment["git"]["dirty"]
    (last,) = [line for line in metrics(folder) if line["split"] == "test"]  # read once
    assert last["mean_iou"] == result["mean_iou"]


def test_trained_convolutions_beat_random_ones():
    """The claim of fcn_camvid.py: the two runs differ in nothing but where they start."""
    (trained, random) = SEGMENTED
    configs = [upgraded(json.loads((ROOT / "docs" / row[6] / "config.json").read_text())) for row in (trained, random)]
    assert {path.split(".")[0] for path in changes(*configs)} == {"init_from"}
    assert float(trained[1]) > float(random[1]) and "--start" in trained[0] and "--start" not in random[0]


def test_two_detectors_are_stored():
    assert [row[6] for row in DETECTED] == ["yolo_bccd", "faster_rcnn_bccd", "mean_layout.json"]


@pytest.mark.parametrize("row", DETECTED[:-1], ids=[row[6] for row in DETECTED[:-1]])
def test_every_number_of_detection_comes_from_its_stored_run(row):
    layout = DETECTED[-1]
    folder = ROOT / "docs" / row[7]
    stored = json.loads((folder / "result.json").read_text())
    names = ("voc07_map", *(f"voc07_ap_{name}" for name in ("RBC", "WBC", "Platelets")))
    assert [f"{stored['test'][name]:.4f}" for name in names] == [*row[1:5]]
    assert np.mean([stored["test"][name] for name in names[1:]]) == pytest.approx(stored["test"]["voc07_map"])
    assert stored["test"]["count"] == int(row[5]) and stored["selection"]["split"] == "val"
    config = upgraded(json.loads((folder / "config.json").read_text()))
    assert changes(config, encode(parse(ROOT / row[0].split()[-1], []).experiment)) == {}
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["git"]["commit"] and not environment["git"]["dirty"]
    lines = metrics(folder)
    (last,) = [line for line in lines if line["split"] == "test"]  # read once
    assert last["voc07_map"] == stored["test"]["voc07_map"]
    rising = [f"{line['voc07_map']:.3f}" for line in lines if line["split"] == "val"]
    assert ", ".join(rising) in RESULTS and rising[-1] > rising[0]
    blind = json.loads((ROOT / "docs" / layout[7]).read_text())["test"]
    assert [f"{blind[name]:.4f}" for name in names] == [*layout[1:5]] and blind["count"] == int(layout[5])
    page = (ROOT / "docs" / "detection.md").read_text()
    assert f"mAP of {stored['test']['voc07_map']:.3f} on the" in page and f"has {blind['voc07_map']:.3f}" in page
    assert all(stored["test"][name] > 2 * blind[name] for name in names)  # it sees something


def test_every_number_of_rcnn_comes_from_its_stored_run():
    rows = re.findall(r"^\| ([\w ]+) \| (0\.\d{4}) \| (0\.\d{4}) \| (0\.\d{4}) \| (0\.\d{4}) \|$", RESULTS, re.M)
    folder = ROOT / "docs" / "results" / "rcnn_bccd"
    stored = json.loads((folder / "rcnn.json").read_text())
    classes = ("RBC", "WBC", "Platelets")
    assert rows == [
        (way, *(f"{value:.4f}" for value in (score, *(stored["classes"][way][name] for name in classes))))
        for way, score in stored["voc07_map"].items()
    ]
    for way, score in stored["voc07_map"].items():
        assert np.mean([*stored["classes"][way].values()]) == pytest.approx(score)
    assert (stored["training photos"], stored["test photos"]) == (205, 72)
    assert f"finds {stored['proposals']['recall_50']:.3f} of the test photos' objects" in RESULTS.replace("\n", " ")
    page = (ROOT / "docs" / "detection.md").read_text()
    assert f"it has a mAP of {stored['voc07_map']['SVMs and boxes']:.3f}" in page.replace("\n", " ")
    config = upgraded(json.loads((folder / "config.json").read_text()))
    assert changes(config, encode(parse(ROOT / "experiments" / "rcnn_bccd.py", []).experiment)) == {}
    losses = [line["loss"] for line in metrics(folder) if line["split"] == "train"]
    assert losses[-1] < 0.5 * losses[0]


def test_the_number_of_the_page_about_photos_comes_from_its_stored_run():
    folder = ROOT / "docs" / "results" / "finetune_photos"
    result = json.loads((folder / "result.json").read_text())["train[85%:]"]
    (last,) = [line for line in metrics(folder) if line["split"] == "train[85%:]"]  # read once
    assert last["accuracy"] == result["accuracy"] and result["count"] == 32
    page = (ROOT / "docs" / "photos.md").read_text().replace("\n", " ")
    assert f"an accuracy of {result['accuracy']:.4f} on 32 test photos after {last['step']} steps" in page
    losses = [line["loss"] for line in metrics(folder) if line["split"] == "train"]
    assert losses[-1] < 0.5 * losses[0]


def test_the_localizer_is_above_what_costs_nothing():
    """Its box is right more often than the whole image is, and than a box in the middle."""
    (row,) = re.findall(r"^\| `localize_tiny_imagenet.py` \| (.+) \| \[.*\]\((\S+)\) \|$", RESULTS, re.M)
    folder = ROOT / "docs" / row[1]
    stored = json.loads((folder / "result.json").read_text())["validation"]
    names = ("top1_localization", "gt_known_localization", "accuracy", "mean_box_iou")
    names += ("whole_image_localization", "center_box_localization")
    assert row[0].split(" | ") == [f"{stored[name]:.3f}" for name in names] and stored["count"] == 1000
    assert stored["gt_known_localization"] > max(stored[name] for name in names[4:])
    config = upgraded(json.loads((folder / "config.json").read_text()))
    assert changes(config, encode(parse(ROOT / "experiments" / "localize_tiny_imagenet.py", []).experiment)) == {}
    assert not json.loads((folder / "environment.json").read_text())["git"]["dirty"]
    losses = [line["loss"] for line in metrics(folder) if line["split"] == "train"]
    assert losses[-1] < 0.5 * losses[0]


def test_the_mean_layout_finds_what_is_always_there():
    """Every photo has the same box of class 0, every other one a box of class 1, and none one of class 2."""
    layout = runpy.run_path(str(ROOT / "benchmarks" / "mean_layout.py"))["layout"]
    always, often = np.array([0.1, 0.1, 0.3, 0.4]), np.array([0.5, 0.4, 0.9, 0.8])
    truths = [{"boxes": np.array([always]), "classes": np.array([0])}] * 2
    truths += [{"boxes": np.array([always, often]), "classes": np.array([0, 1])}] * 2
    answer = layout(truths, 3)
    measured = measure("voc10", [answer] * 4, truths, 3)
    assert measured.classes[0] == 1 and measured.classes[1] == pytest.approx(0.5) and np.isnan(measured.classes[2])
    best = [answer["scores"][answer["classes"] == kind].max() for kind in (0, 1)]
    assert best == [1.0, 0.5] and (np.diff(answer["scores"]) <= 0).all()


def test_every_file_that_the_readme_names_exists():
    for link in re.findall(r"\]\(([^)h][^)]*)\)", README):
        name, _, anchor = link.partition("#")
        assert (ROOT / name).exists(), link
        titles = re.findall(r"^#+ (.*)$", (ROOT / name).read_text(), re.M) if anchor else [""]
        assert anchor in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], link
    for command in re.findall(r"jaxcnn\.launch (experiments/\S+\.py)", README):
        assert (ROOT / command).exists(), command


def test_the_example_of_an_experiment_learns_from_a_small_folder(tmp_path):
    """On 90 images of three classes, as PNG files in a folder of class folders; chance is a third."""
    digits, counts = Digits().open("train"), dict.fromkeys((0, 1, 4), 0)
    for example in digits:
        label = example["label"]
        if counts.get(label, 30) < 30:
            folder = tmp_path / "photos" / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(example["image"][..., 0]).save(folder / f"{counts[label]}.png")
            counts[label] += 1
    file = tmp_path / "photos.py"
    page = (ROOT / "docs" / "experiments.md").read_text()
    file.write_text(page.split("```python\n")[1].split("```")[0])
    finish(file, "--classes", 3, "--data.source.path", tmp_path / "photos", "--workdir", tmp_path / "run")
    result = read(tmp_path / "run", "result.json")
    # Of 30 images a class 70% and 85% are cut at 21 and, halves down, at 25.
    assert (result["train[70%:85%]"]["count"], result["train[85%:]"]["count"]) == (12, 15)
    assert result["train[85%:]"]["accuracy"] > 0.8


def test_every_figure_of_the_operators_speed_comes_from_its_stored_output():
    page = (ROOT / "docs" / "detection.md").read_text()
    stored = json.loads((ROOT / "docs" / "results" / "detection_ops.json").read_text())
    rows = re.findall(r"^\| (.+?) \| ([\d.,]+) \| ([\d.,]+) \| ([\d.]+) \(([\d.]+) to ([\d.]+)\) \|$", page, re.M)
    assert [row[0] for row in rows] == [name for name, value in stored.items() if isinstance(value, dict)]
    for name, *shown in rows:
        measured, ratio = stored[name], stored[name]["torchvision over jaxcnn"]
        assert measured["same results"]
        values = (measured["jaxcnn, ms"], measured["torchvision, ms"], ratio["median"], *ratio["quartiles"])
        for text, value in zip(shown, values, strict=True):
            decimals = len(text.partition(".")[2])
            assert abs(float(text.replace(",", "")) - value) <= 0.5 * 10**-decimals + 1e-9, (name, text, value)


def test_the_speed_of_detectors_is_their_stored_output():
    page = (ROOT / "docs" / "detection.md").read_text()
    stored = json.loads((ROOT / "docs" / "results" / "detector_inference.json").read_text())
    rows = re.findall(r"^\| (\d+x\d+) \| (\S+) \| (\S+) \| (\S+) \((\S+) to (\S+)\) \| (\d+) \|$", page, re.M)
    assert [row[0] for row in rows] == [name for name, value in stored.items() if isinstance(value, dict)]
    for size, *shown in rows:
        measured, ratio = stored[size], stored[size]["jaxcnn over torchvision"]
        speeds = (measured["jaxcnn, images/s"], measured["torchvision, images/s"])
        assert [*map(float, shown)] == [*speeds, ratio["median"], *ratio["quartiles"], measured["detections"][0]]
        assert measured["largest difference of the 20 best scores"] < 1e-5
    for name, size, speed in (("yolo_v1_fast", 448, "2.1"), ("yolo_v1_small", 224, "27")):
        assert f"{stored[f'{name}, {size}x{size}, images/s']:.2g}" == speed
    assert "`yolo_v1_fast` at 448x448 took 2.1 images" in page and "`yolo_v1_small` at 224x224 27." in page


def test_the_page_about_photos_shows_the_means_of_c19():
    """The table has three digits."""
    stored = json.loads((ROOT / "docs/results/studies/fine_tuning/study.json").read_text())
    means = [round(arm["figures"][stored["metric"]]["mean"], 3) for arm in stored["arms"].values()]
    shown = re.findall(r"^\| (?:Lite0|VGG-16)[^|]* \| (0\.\d{3}) \|$", PHOTOS, re.M)
    assert [*map(float, shown)] == sorted(means, reverse=True)
    best = stored["claims"][1]
    assert (best["higher"], best["lower"]) == ("fine-tuned", "Lite0's features")
    mean, low, high = (f"{100 * best['difference'][name]:.1f}" for name in ("mean", "low", "high"))
    said = f"by {mean} points over the features as they are (95% interval over the seeds: {low} to {high})"
    assert said in " ".join(PHOTOS.split())


def test_the_page_about_photos_says_what_five_seeds_gave():
    """Fine-tuned beats from scratch, and a classifier of random features, with intervals over the seeds."""
    stored = json.loads((ROOT / "docs/results/photos_seeds.json").read_text())
    (differences,) = (stored[name] for name in stored if "95% interval" in name)
    accuracy = {name: {int(seed): value for seed, value in row.items()} for name, row in stored["accuracy"].items()}
    counts = np.array([*stored["photos that train, choose, test"].values()])
    assert len(counts) == 5 and (counts.sum(1) == 208).all() and counts[:, 2].sum() == 208  # each tests once
    tuned = accuracy["fine-tuned, all layers"]
    shown = re.findall(r"^\| (.+?) \| (0\.\d{3}) \| (?:(\S+) \((\S+) to (\S+)\))? *\|$", PHOTOS, re.M)
    assert [name for name, *_ in shown] == [*accuracy] and f"at {stored['side']} pixels instead of 224" in PHOTOS
    for (name, row), (_, mean, *figures) in zip(accuracy.items(), shown, strict=True):
        assert sorted(row) == [0, 1, 2, 3, 4] and f"{np.mean([*row.values()]):.3f}" == mean
        if name in differences:
            found = paired((tuned, row))
            bounds = [differences[name]["mean"], *differences[name]["interval"]]
            assert bounds == pytest.approx([found.mean, found.low, found.high], abs=1e-12)
            assert [f"{value:.3f}" for value in (found.mean, found.low, found.high)] == figures
    assert all(differences[name]["interval"][0] > 0 for name in ("from scratch", "linear probe of random features"))
