"""Fast R-CNN on given proposals, from an experiment to the boxes in a photo; and the recall of what it looks at."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxcnn as jc
from jaxcnn import __main__ as command
from jaxcnn.data.draws import EVALUATION, Draws
from jaxcnn.data.pipeline import EvaluationBatches
from jaxcnn.data.preparation import read
from jaxcnn.metrics.proposal_recall import proposal_recall
from jaxcnn.models.rpn import Proposals
from jaxcnn.report.detections import detect_split
from jaxcnn.report.predictions import show
from jaxcnn.runs.batch_shapes import batch_fields
from jaxcnn.runs.debug import debug
from jaxcnn.runs.setup import make_plan, open_evaluations
from jaxcnn.tasks.detection import covered
from tests.compilation import quick

SIZE = (48, 64)
SCENES = jc.Synthetic((24, 32, 3), classes=2, train=8, test=5, parts=("boxes", "proposals"))
PHOTO = SCENES.open("test")[0]["image"]


def model():
    """As narrow as can be."""
    trunk = {"stages": (((3, 4, 4),), ((3, 8, 2),)), "norm": "none"}
    return jc.create_model("faster_rcnn_small", classes=2, width=0.1, detections=10, rpn=None, **trunk)


def experiment(source=SCENES, room=10):
    return jc.Experiment(
        model=model(),
        task=jc.Detection(jc.FastRCNNLoss(regions=8), protocol="voc07", max_boxes=4, max_proposals=room),
        data=jc.Data(
            (*SIZE, 3),
            source=source,
            train_split="train",
            evaluation_splits=(),
            test_splits=("test",),
            augment=(jc.HorizontalFlip(), jc.Resize(SIZE)),
            preprocess=(jc.Resize(SIZE),),
            batch_size=2,
            evaluation_batch_size=1,  # as a photo comes: what predicts is compiled once
        ),
        optimizer=jc.Adam(1e-3),
        duration=jc.steps(2),
        log_every=jc.steps(1),
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Proposals of all scenes and of one photo, as a file."""
    path = tmp_path_factory.mktemp("proposals") / "scenes.npz"
    stored = {}
    for split in ("train", "test"):
        examples = SCENES.open(split)
        stored |= {examples.where(i): examples[i]["proposals"] for i in range(len(examples))}
    jc.write_proposals(path, stored | {"photo": SCENES.open("test")[0]["proposals"]})
    return path


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    """Trained in this process for two steps on the file's."""
    source = jc.WithProposals(dataclasses.replace(SCENES, parts=("boxes",)), str(files))
    path = tmp_path_factory.mktemp("run") / "run"
    jc.train(experiment(source), path, quiet=True)
    return path


def test_a_run_trains_and_evaluates_on_the_proposals_of_a_file(run):
    result = json.loads((run / "result.json").read_text())["test"]
    assert result["count"] == 5 and result["recall_50"] == result["recall_70"] == 1.0 and np.isfinite(result["loss"])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in lines) and "recall_50" not in lines[0]


def test_predict_looks_at_the_photos_own_proposals(run, tmp_path, capsys):
    """By the photo's name; what is found is in the photo's own pixels, and the page has the same."""
    for name in ("photo", "unknown"):
        Image.fromarray(PHOTO).save(tmp_path / f"{name}.png")
    loaded = jc.load_run(run)
    example = SCENES.open("test")[0]
    (found,) = loaded.predict(tmp_path / "photo.png")
    fields = batch_fields(loaded.experiment, evaluated=True)
    row = read(SCENES.open("test"), 0, loaded.experiment.data.preprocess, Draws(EVALUATION).at(0), fields)
    assert np.array_equal(row["proposals"][: len(example["proposals"])], 2 * example["proposals"])
    expected = loaded.net.predict(row["image"][None], proposals=row["proposals"][None])
    count = int(expected.count[0])
    boxes = [detection["box"] for detection in found.answer.values["detections"]]
    assert count and len(boxes) == count
    np.testing.assert_allclose(boxes, np.asarray(expected.boxes[0, :count]) / 2, atol=0.02)
    one = np.zeros_like(row["proposals"])
    one[0] = [4, 4, 40, 30]
    alone = loaded.net.predict(row["image"][None], proposals=one[None])
    assert 0 < int(alone.count[0]) <= 2  # a proposal is a detection of each class at most

    assert command.main(["predict", str(run), str(tmp_path / "unknown.png"), "--out", str(tmp_path)]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "this run looks at proposals, and" in told and "scenes.npz has none of 'unknown'" in told
    assert "it has those of 14 images" in told and "jc.write_proposals" in told
    with pytest.raises(jc.UserError, match="has none of 'the image'"):
        loaded.predict(PHOTO)
    (examples,) = open_evaluations(loaded.experiment, ("test",)).values()
    detected = detect_split(loaded.net, examples)
    assert detected.count == 5
    assert detected.measured.value == json.loads((run / "result.json").read_text())["test"]["voc07_map"]
    assert [len(each.answer.values["detections"]) for each in show(loaded.net, examples) if "[0]" in each.where] == [
        count
    ]


def test_a_source_that_searches_finds_them_in_any_photo(run):
    loaded = jc.load_run(run)
    searching = jc.WithProposals(SCENES, search=jc.SelectiveSearch(("rgb",), scales=(20.0,), smallest=2))
    data = dataclasses.replace(loaded.experiment.data, source=searching)
    net = dataclasses.replace(loaded.net, experiment=dataclasses.replace(loaded.experiment, data=data))
    assert net.answer_for(PHOTO, "any photo").values["detections"]
    data = dataclasses.replace(data, source=SCENES)
    net = dataclasses.replace(net, experiment=dataclasses.replace(loaded.experiment, data=data))
    with pytest.raises(jc.UserError, match="reads proposals beside a photo, and its source, a Synthetic, has them of"):
        net.answer_for(PHOTO, "any photo")


def test_what_padding_holds_and_how_much_there_is_change_nothing():
    variables = jax.jit(lambda: model().init(jax.random.key(0), jnp.zeros((1, *SIZE, 3)), train=False))()
    task = jc.Detection(jc.FastRCNNLoss(regions=8), protocol="voc07", max_boxes=4, max_proposals=10)
    fields = batch_fields(experiment(), evaluated=True)
    (batch,) = (EvaluationBatches(SCENES.open("test"), (jc.Resize(SIZE),), fields, 5)[0],)
    batch = {name: jnp.asarray(array) for name, array in batch.items() if name != "broken"}
    batch["image"] = batch["image"] / 255.0

    @quick
    def look(proposals):
        return task.predict(model(), variables, batch["image"], proposals)

    room = jnp.pad(batch["proposals"], ((0, 0), (0, 4), (0, 0)))
    found = look(room)
    garbage = room.at[:, -1].set(jnp.array([9.0, 9, 9, 30]))  # without area
    moved = look(jnp.concatenate([garbage[:, :3], garbage[:, -2:], garbage[:, 3:-2]], 1))
    assert found.count.min() > 0
    for name in ("boxes", "scores", "classes"):
        np.testing.assert_allclose(getattr(found, name), getattr(moved, name), atol=1e-5)
    assert (look(0 * room).classes == -1).all()


def test_the_recall_is_that_of_the_metric():
    rng = np.random.default_rng(0)
    low, size = rng.uniform(0, 60, (6, 9, 2)), rng.uniform(5, 30, (6, 9, 2))
    truths = np.concatenate([low, low + size], -1).astype(np.float32)
    near = truths + rng.normal(0, 1.5, (6, 9, 4)).astype(np.float32)
    valid = rng.random((6, 9)) < 0.7
    batch = {
        "boxes": truths,
        "classes": np.where(rng.random((6, 9)) < 0.8, rng.integers(0, 3, (6, 9)), -1),
        "difficult": rng.random((6, 9)) < 0.2,
        "crowd": rng.random((6, 9)) < 0.1,
        "valid": np.array([True] * 5 + [False]),
    }
    given = Proposals(jnp.asarray(near), jnp.ones((6, 9)), jnp.asarray(valid))
    sums = covered(given, {name: jnp.asarray(array) for name, array in batch.items()})
    rows = [{name: array[i] for name, array in batch.items()} for i in range(5)]
    expected = proposal_recall([near[i][valid[i]] for i in range(5)], rows)
    assert 0.1 < expected["recall_70"] < expected["recall_50"] < 1
    losses = {"loss": 1.0, "class_loss": 1.0, "box_loss": 1.0, "count": 5}
    found = jc.Detection(jc.FastRCNNLoss()).metrics(losses | {name: np.asarray(s) for name, s in sums.items()}, {})
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert [*jc.Detection(jc.RPNLoss()).directions][-2:] == [*expected]
    assert [*jc.Detection(jc.FasterRCNNLoss()).directions][-2:] == [*expected] and not {*expected} & {
        *jc.Detection().directions
    }


def test_debug_makes_proposals_up():
    source = debug(experiment(jc.WithProposals(SCENES))).data.source
    assert source.parts == ("boxes", "proposals")


def test_mistakes_are_named():
    with pytest.raises(jc.UserError, match=r"task\.max_proposals is -1"):
        jc.Detection(jc.FastRCNNLoss(), max_proposals=-1)
    without = dataclasses.replace(SCENES, parts=("boxes",))
    with pytest.raises(jc.UserError, match="WithProposals adds proposals to a source"):
        make_plan(experiment(without))
    with pytest.raises(jc.UserError, match=r"has proposals, and the task reads none: .*max_proposals=2000"):
        make_plan(experiment(jc.WithProposals(SCENES), room=0))
    yolo = dataclasses.replace(
        experiment(),
        model=jc.create_model("yolo_v1_small", classes=2),
        task=jc.Detection(protocol="voc07", max_boxes=4, max_proposals=10),
    )
    with pytest.raises(jc.UserError, match="max_proposals is 10, but this model finds its regions itself"):
        make_plan(yolo)
