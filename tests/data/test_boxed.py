"""Boxed examples on their way: pickled, listed by the command, planned with, padded to a batch."""

import pickle

import numpy as np
import pytest

import jaxcnn as jc
from jaxcnn.commands.data import check as check_command
from jaxcnn.data.boxed import truths_of
from jaxcnn.data.fields import box_fields, with_image
from jaxcnn.data.pipeline import EvaluationBatches
from jaxcnn.data.survey import survey
from jaxcnn.metrics.average_precision import check_truth
from tests.data.voc_folder import CAT, DOG, EMPTY, SIZE, xml


def test_boxed_examples_pickle_and_a_moved_box_changes_their_version(voc):
    voc.add("a", [CAT, DOG])
    before = voc.open()
    again = pickle.loads(pickle.dumps(before))
    assert all(np.array_equal(again[0][name], part) for name, part in before[0].items())
    (voc.root / "Annotations/a.xml").write_text(xml([("cat", (12, 6, 30, 20), False), DOG]))
    assert voc.open().version != before.version == again.version


DETECTOR = """
import dataclasses
import jaxcnn as jc
from jaxcnn.data.fields import box_fields


@dataclasses.dataclass(frozen=True)
class Boxes(jc.Classification):
    def fields(self, image_shape):
        return box_fields(4)

    def loss(self, model, variables, batch, **how):
        return super().loss(model, variables, batch | {{"label": batch["classes"][:, 0]}}, **how)


def experiment():
    source = jc.VOCDetection({path!r}, rules=jc.BoxRules(empty={empty!r}))
    data = jc.Data((48, 64, 3), source, train_split="train", evaluation_splits=(), test_splits=(),
                   augment=(jc.PadTo((48, 64)),), batch_size=1, tolerate_broken={tolerate})
    return jc.Experiment(jc.create_model("linear", classes=2), data, task=Boxes())
"""


def detector(tmp_path, voc, empty="refuse", tolerate=0):
    file = tmp_path / f"{empty}_{tolerate}.py"
    file.write_text(DETECTOR.format(path=str(voc.root), empty=empty, tolerate=tolerate))
    return file


def test_data_check_lists_what_was_dropped_and_what_is_broken(voc, tmp_path, capsys):
    voc.add("a", [CAT, EMPTY]).add("b", [CAT] * 5).add("c", [CAT])
    with pytest.raises(jc.UserError, match="1 broken images"):
        check_command([str(detector(tmp_path, voc, "drop"))])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pets train: 3 images, 1 broken"
    assert lines[1].endswith("b.png: there are 5 boxes, and a batch takes 4 of an image; let the task take more")
    assert lines[2] == "  boxes without area: 1 dropped"
    assert lines[3].endswith("a.png: box 1 cat (5, 5, 5, 5) has no area: dropped")
    assert lines[4] == "  no box of dog"
    with pytest.raises(jc.UserError, match="2 broken images"):
        check_command([str(detector(tmp_path, voc))])
    assert "a.png: box 1 cat (5, 5, 5, 5) has no area; if such" in capsys.readouterr().out


def test_a_plan_refuses_boxes_before_anything_is_compiled_and_tells_what_was_dropped(voc, tmp_path):
    from jaxcnn.experiment_file import load_function
    from jaxcnn.runs.setup import make_plan
    from jaxcnn.runs.warnings import warnings_of

    def plan(*how):
        return make_plan(load_function(detector(tmp_path, voc, *how))())

    voc.add("a", [CAT]).add("b", [CAT, EMPTY]).add("c", [CAT])
    with pytest.raises(jc.UserError, match=r"^train: .*b.png: box 1 cat \(5, 5, 5, 5\) has no area; if such"):
        plan()
    assert plan("refuse", 1).total
    assert "train: boxes without area: 1 dropped; `jaxcnn data check` names each" in warnings_of(plan("drop"))


def test_a_batch_of_photos_with_boxes_is_padded(voc):
    voc.add("a", [CAT, DOG]).add("b", [])
    fields = with_image((*SIZE, 3), box_fields(3))
    batch = EvaluationBatches(voc.open(), (), fields, 2)[0]
    assert batch["classes"].tolist() == [[0, 1, -1], [-1, -1, -1]] and batch["valid"].all()
    assert batch["boxes"][0].tolist() == [[10, 5, 30, 20], [0, 0, 60, 40], [0, 0, 0, 0]]
    assert batch["area"].tolist() == [[300, 2400, 0], [0, 0, 0]]
    assert survey(voc.open(), (), fields).boxes.tolist() == [1, 1]


def test_the_truth_is_known_without_reading_photos(voc):
    voc.add("a", [CAT, DOG]).add("b", []).add("c", [CAT, EMPTY])
    for photo in (voc.root / "JPEGImages").iterdir():
        photo.write_bytes(b"")
    for examples in (voc.open(), voc.open("train[:50%]+train[50%:]")):
        truths = sorted(truths_of(examples), key=lambda truth: -len(truth["boxes"]))
        assert [truth["boxes"].tolist() for truth in truths] == [[[10, 5, 30, 20], [0, 0, 60, 40]], []]
        check_truth("voc07", truths, 2)
