"""Multi-label: losses are PyTorch's, metrics scikit-learn's and plain loops', labels those of the files."""

import itertools
import os
import pathlib
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

import jaxcnn as jc
from jaxcnn import UserError
from jaxcnn.data.splits import open_split
from jaxcnn.metrics.ranking import average_precisions
from jaxcnn.report.predictions import show
from jaxcnn.runs.debug import debug
from jaxcnn.runs.setup import make_plan
from jaxcnn.tasks.task import Drawing, Task, score_of
from tests.compilation import quick
from tests.data.voc_folder import CAT, DOG, VOC
from tests.nets import TinyNet
from tests.torchvision_ops import torch

BCCD = pathlib.Path(__file__).parents[3] / "shared" / "data" / "bccd"
RNG = np.random.default_rng(0)
CLASSES = 4


class Given:
    """A net whose logits are its images."""

    classes = CLASSES

    def apply(self, variables, images, **keywords):
        return images


def labeled(truth):
    """[B, classes] of 1, 0, -1 as a batch's lists, padded with -1."""
    lists = {"labels": 1, "unsure": -1}
    return {
        name: jnp.asarray(
            [np.pad(k := np.flatnonzero(row == state), (0, 6 - len(k)), constant_values=-1) for row in truth]
        )
        for name, state in lists.items()
    }


def scored(count=40, unsure=True):
    """Logits of few values, so that many are equal, and a truth that they have to do with."""
    logits = RNG.integers(-3, 4, (count, CLASSES)) / 2
    truth = (logits + RNG.normal(size=logits.shape) * 1.5 > 0.5).astype(np.int8)
    if unsure:
        truth[RNG.random(truth.shape) < 0.15] = -1
    return logits.astype(np.float32), truth


def evaluated(task, logits, truth, valid=None):
    batch = labeled(truth) | {
        "image": jnp.asarray(logits),
        "valid": np.ones(len(truth), bool) if valid is None else valid,
    }
    sums, records = jax.device_get(quick(lambda batch: task.outputs(Given(), {}, batch))(batch))
    return task.metrics(sums, {name: array[batch["valid"]] for name, array in records.items()})


def test_average_precision_is_scikit_learns_and_vocs_that_of_loops_over_thresholds():
    logits, truth = scored()
    found = average_precisions(logits, truth)
    for k in range(CLASSES):
        told = truth[:, k] >= 0
        scores, right = logits[told, k], truth[told, k] == 1
        assert found["plain"][k] == pytest.approx(average_precision_score(right, scores), abs=1e-12)
        points = [((right & (scores >= t)).sum() / right.sum(), right[scores >= t].mean()) for t in np.unique(scores)]
        largest = lambda least, points=points: max((p for r, p in points if r >= least), default=0)  # noqa: E731
        assert found["voc07"][k] == pytest.approx(np.mean([largest(0.1 * i) for i in range(11)]), abs=1e-12)
        recalls = sorted({0.0, *(r for r, _ in points)})
        envelope = sum((b - a) * largest(b) for a, b in itertools.pairwise(recalls))
        assert found["voc10"][k] == pytest.approx(envelope, abs=1e-12)
    nowhere = average_precisions(logits, np.where(np.arange(CLASSES) == 1, 0, truth))
    assert np.isnan(nowhere["plain"]).tolist() == [False, True, False, False]
    assert np.isnan(average_precisions(logits[:0], truth[:0])["voc07"]).all()


def test_figures_are_scikit_learns_over_the_images_that_count():
    logits, truth = scored(unsure=False)
    valid = np.arange(40) < 33
    found = evaluated(jc.MultiLabel(threshold=0.6, classes=tuple("abcd")), logits, truth, valid)
    kept, yes = truth[:33], (1 / (1 + np.exp(-logits[:33])) > 0.6).astype(int)
    assert found["count"] == 33
    assert found["f1"] == pytest.approx(f1_score(kept, yes, average="micro"), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(f1_score(kept, yes, average="macro"), abs=1e-12)
    assert found["exact_match"] == pytest.approx(accuracy_score(kept, yes), abs=1e-12)
    assert found["mean_ap"] == pytest.approx(average_precision_score(kept, logits[:33], average="macro"), abs=1e-12)
    each = average_precision_score(kept, logits[:33], average=None)
    assert [found[f"ap_{name}"] for name in "abcd"] == pytest.approx(each, abs=1e-12)
    assert found["mean_ap_voc07"] != found["mean_ap_voc10"] != found["mean_ap"]
    assert set(found) == {*jc.MultiLabel(classes=tuple("abcd")).directions, "count"}


def test_a_class_of_which_an_image_does_not_tell_counts_nowhere():
    logits, truth = scored()
    yes = logits > 0
    found = evaluated(jc.MultiLabel(), logits, truth)
    told = truth >= 0
    assert found["f1"] == pytest.approx(f1_score(truth[told], yes[told]), abs=1e-12)
    assert found["exact_match"] == ((yes == (truth == 1)) | ~told).all(1).mean()
    other = np.where(told, logits, 9 - logits).astype(np.float32)
    assert evaluated(jc.MultiLabel(), other, truth) == found


def test_the_loss_and_its_gradient_are_pytorchs():
    pytest.importorskip("torch")
    _logits, truth = scored(12)
    weights = (1.0, 2.5, 0.5, 4.0)
    net = TinyNet(norm=False)
    images = RNG.normal(size=(12, 9, 9, 3)).astype(np.float32)
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), images, train=False))
    variables = jax.tree.map(lambda x: RNG.normal(size=x.shape).astype(np.float32), variables)
    task = jc.MultiLabel(positive_weights=weights)
    batch = labeled(truth) | {"image": images}
    loss = quick(jax.value_and_grad(lambda v: task.loss(net, v, batch, train=True, rngs={})[0]))
    value, gradient = loss(variables)
    theirs = torch.tensor(np.asarray(net.apply(variables, images, train=False)), requires_grad=True)
    made = torch.nn.BCEWithLogitsLoss(
        weight=torch.tensor((truth >= 0).astype(np.float32)), pos_weight=torch.tensor(weights)
    )
    expected = made(theirs, torch.tensor((truth == 1).astype(np.float32)))
    expected.backward()
    assert float(value) == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(gradient["params"]["fc1"]["bias"], theirs.grad.sum(0).numpy(), atol=1e-6)


def test_labels_of_boxes_are_the_classes_of_the_files():
    if not BCCD.is_dir():
        pytest.skip(f"needs the blood cells in {BCCD}")
    names = ("Platelets", "RBC", "WBC")
    source = jc.ImageLabels(jc.VOCDetection(str(BCCD), names, rules=jc.BoxRules(empty="drop", outside="clip")))
    examples = open_split(source, "train[:20]")
    seen = set()
    for i in range(0, 20, 4):
        file = BCCD / "Annotations" / f"{pathlib.Path(examples.where(i)).stem}.xml"
        there = {element.findtext("name") for element in ElementTree.parse(file).iter("object")}
        assert [names[label] for label in examples[i]["labels"]] == sorted(there) and not len(examples[i]["unsure"])
        seen.add(tuple(examples[i]["labels"]))
    assert len(seen) > 1 and len(examples) == 20


def test_a_class_whose_objects_are_all_difficult_is_not_told(tmp_path):
    voc = VOC(tmp_path / "pets")
    hard = ("dog", (1, 1, 9, 9), True)
    voc.add("b", [CAT, hard]).add("c", [(*DOG[:2], False), hard]).add("d", [])
    examples = jc.ImageLabels(jc.VOCDetection(str(voc.root), ("cat", "dog"))).open("train")
    found = [(examples[i]["labels"].tolist(), examples[i]["unsure"].tolist()) for i in range(3)]
    assert found == [([0], [1]), ([1], []), ([], [])]
    assert (
        examples.version and examples.where(0).endswith("b.png") and set(examples[0]) == {"image", "labels", "unsure"}
    )


@pytest.fixture
def table(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("1.png", "2.png", "3.png"):
        Image.fromarray(RNG.integers(0, 256, (12, 10, 3), np.uint8)).save(tmp_path / "photos" / name)

    def write(text, **fields):
        (tmp_path / "labels.csv").write_text(text)
        return jc.LabelTable(str(tmp_path / "labels.csv"), str(tmp_path / "photos"), **fields)

    return write


def lists(examples):
    return [(examples[i]["labels"].tolist(), examples[i]["unsure"].tolist()) for i in range(len(examples))]


def test_a_table_has_a_column_for_each_class_or_one_with_names(table):
    columns = table("image,sky,road\n1.png,1,0\n2.png,0,0\n3.png,-1,1\n").open("train")
    assert columns.classes == ("sky", "road") and lists(columns) == [([0], []), ([], []), ([1], [0])]
    assert columns[1]["image"].shape == (12, 10, 3) and os.path.basename(columns.where(2)) == "3.png"
    source = table("file,split,tags\n1.png,train,road|sky\n2.png,train,\n3.png,test,sky\n")
    names = source.open("train")
    assert names.classes == ("road", "sky") and lists(names) == [([0, 1], []), ([], [])]
    assert lists(source.open("test")) == [([1], [])] and names.version != columns.version
    spaced = table('image, split, tags\n 1.png, train,"road, sky"\n2.png , train, sky\n').open("train")
    assert spaced.classes == ("road", "sky") and lists(spaced) == [([0, 1], []), ([1], [])]
    assert lists(table("i,l\n1.png,sky\n", classes=("car", "sky")).open("train")) == [([1], [])]
    assert len(open_split(table("image,sky\n1.png,1\n2.png,0\n3.png,1\n"), "train[:2]")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,sky,road\n1.png,1,maybe\n", "row 2: road is 'maybe'; a column of a class holds 1, 0 or -1"),
        # Empty rows, as people put between groups and spreadsheets write them, count as rows of the file.
        ("\nimage,sky,road\n\n1.png,1,0\n,,\n2.png,1,maybe\n", "row 6: road is 'maybe'"),
        ("image,sky\n\n\n1.png,0\n2.png\n", "row 5 has 1 columns, and the first 2"),
        ("image,sky\n1.png,1\n1.png,0\n", "has 1.png twice"),
        ("image,sky\n1.png\n", "row 2 has 1 columns, and the first 2"),
        ("image,sky,sky\n1.png,1,0\n", "names a column twice"),
        ("image\n", "needs a first row"),
        ("1.png,sky\n2.png,road\n", "the first row of .* is of the image 1.png; put a row before it"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_the_row(table, text, message):
    with pytest.raises(UserError, match=message):
        table(text).open("train")


def test_a_table_refuses_names_and_splits_that_it_does_not_know(table):
    with pytest.raises(UserError, match="row 4: 'see' is not among the classes sky"):
        table("i,l\n1.png,sky\n\n2.png,see\n", classes=("sky",)).open("train")
    assert lists(table("i,l\n\n1.png,sky\n,\n2.png,\n").open("train")) == [([0], []), ([], [])]
    with pytest.raises(UserError, match="no split 'test'; it has train"):
        table("i,l\n1.png,sky\n").open("test")
    with pytest.raises(UserError, match="no column 'lake'; it has sky"):
        table("i,sky\n1.png,1\n", classes=("lake",)).open("train")


def experiment(**fields):
    source = jc.Synthetic((12, 12, 3), CLASSES, train=32, test=11, parts=("labels",))
    data = jc.Data((12, 12, 3), source, "train", ("validation",), ("test",), batch_size=8, augment=(jc.RandAugment(),))
    return jc.Experiment(TinyNet(), data, task=jc.MultiLabel(), duration=jc.steps(4), **fields)


def test_a_run_is_trained_evaluated_and_asked(tmp_path):
    run = jc.train(experiment(), tmp_path / "run", quiet=True)
    test = run.result["test"]
    assert test["count"] == 11 and jc.evaluate(run)["test"] == test and 0 < test["mean_ap"] <= 1
    examples = run.experiment.data.source.open("test")
    images = np.stack([examples[i]["image"] for i in range(11)])
    truth = np.array([np.isin(np.arange(CLASSES), examples[i]["labels"]) for i in range(11)])
    probabilities = run.net.predict(images)
    expected = [average_precision_score(truth[:, k], probabilities[:, k]) for k in range(CLASSES)]
    assert test["mean_ap"] == pytest.approx(np.mean(expected), abs=1e-9)
    answer = jc.predict(run, images[0])[0].answer
    assert list(answer.values["probabilities"].values()) == pytest.approx(probabilities[0].tolist(), abs=1e-6)
    found = show(run.net, examples)
    assert len(found) == 8 and all(each.truth.shape[1] >= 300 and each.answer.rows for each in found)


def test_the_answer_is_every_class_above_the_threshold():
    task = jc.MultiLabel(threshold=0.4)
    image = np.zeros((8, 8, 3), np.uint8)
    answer = task.answer(np.array([0.45, 0.1, 0.9, 0.4]), image, tuple("abcd"), top=1)
    assert answer.rows == [("c", "0.9000"), ("a", "0.4500")] and answer.values["labels"] == [("c", 0.9), ("a", 0.45)]
    none = task.answer(np.array([0.2, 0.3, 0.1, 0.1]), image, tuple("abcd"))
    assert none.rows == [("none above 0.4; nearest: b", "0.3000")] and none.values["labels"] == []
    truth = {"labels": np.array([1, -1]), "unsure": np.array([2, -1])}
    drawn = task.draw_truth(truth, image, tuple("abcd"))
    assert drawn.shape == (320 + 18, 320, 3) and (drawn[320:] < 128).any()
    assert isinstance(task, Task) and isinstance(task, Drawing) and score_of(task) == "mean_ap"


def test_mistakes_are_one_sentence():
    assert make_plan(debug(experiment())).train.source.parts == ("labels",)
    boxes = jc.Synthetic((12, 12, 3), CLASSES, parts=("boxes",))
    with pytest.raises(UserError, match=r"but an example is a dict with .*ImageLabels\(source\) makes labels of boxes"):
        make_plan(jc.Experiment(TinyNet(), jc.Data((12, 12, 3), boxes), task=jc.MultiLabel()))
    with pytest.raises(UserError, match="and the source gives no boxes"):
        jc.ImageLabels(jc.Synthetic()).open("train")[0]
    with pytest.raises(UserError, match=r"task.threshold is 1"):
        jc.MultiLabel(threshold=1)
    with pytest.raises(UserError, match=r"task.positive_weights has 2 entries"):
        jc.MultiLabel(positive_weights=(1, 2)).check(TinyNet(), jc.Synthetic(classes=4).open("train"))
