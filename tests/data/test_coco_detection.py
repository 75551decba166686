"""COCODetection: the objects of COCO's JSON, their ids, wrong files; and blood cells, by VOC's way and by COCO's."""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

import jaxcnn as jc
from jaxcnn.data.box_rules import counts, notes_of
from jaxcnn.data.splits import open_split
from tests.data.voc_folder import around, painted

BCCD = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser().parent / "bccd"
CELLS = ("RBC", "WBC", "Platelets")


@pytest.fixture
def coco(tmp_path):
    for name in ("a", "b", "c"):
        Image.fromarray(painted([(10, 5, 30, 20)] if name == "b" else [])).save(tmp_path / f"{name}.png")
    content = {
        "images": [
            {"id": 900 - i, "file_name": f"{name}.png", "height": 40, "width": 60} for i, name in enumerate("abc")
        ],
        "annotations": [
            {"id": 7, "image_id": 898, "category_id": 90, "bbox": [0.5, 1, 3, 4], "iscrowd": 1, "area": 9},
            {"id": 3, "image_id": 899, "category_id": 18, "bbox": [10, 5, 20, 15], "iscrowd": 0},
            {"id": 5, "image_id": 898, "category_id": 18, "bbox": [1, 1, 2, 2]},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    }

    def write(split="train", **changed):
        (tmp_path / f"{split}.json").write_text(json.dumps(content | changed))
        return jc.COCODetection(str(tmp_path), f"{tmp_path}/{{split}}.json")

    write.content = content
    return write


def test_coco_ids_with_gaps_become_labels(coco):
    examples = coco().open("train")
    assert examples.classes == ("person", "dog", "toothbrush") and len(examples) == 3
    assert [examples[i]["boxes"].tolist() for i in range(3)] == [
        [],
        [[10, 5, 30, 20]],
        [[0.5, 1, 3.5, 5], [1, 1, 3, 3]],
    ]
    assert examples[1]["boxes"][0].tolist() == around(examples[1]["image"])
    assert examples[2]["area"].tolist() == [9, 4] and examples[1]["area"].tolist() == [300]
    assert examples[2]["classes"].tolist() == [2, 1] and examples[2]["crowd"].tolist() == [True, False]
    assert examples.image_ids.tolist() == [900, 899, 898] and examples.category_ids.tolist() == [1, 18, 90]
    chosen = dataclasses.replace(coco(), classes=("dog", "person"), rules=jc.BoxRules(unknown="drop")).open("train")
    assert chosen[2]["classes"].tolist() == [0] and chosen.category_ids.tolist() == [18, 1]
    part = open_split(coco(), "train[:34%]+train[34%:]")
    assert len(part) == 3


def entry(**changed):
    return {"id": 3, "image_id": 899, "category_id": 18, "bbox": [10, 5, 20, 15]} | changed


MISTAKES = {
    "results": ({"annotations": None}, "lists images, annotations, categories"),
    "a box of three": ({"annotations": [entry(bbox=[1, 2, 3])]}, r"annotation 3 has the bbox \[1, 2, 3\]"),
    "no box": ({"annotations": [{"image_id": 899}]}, "entry 0 of annotations has no 'bbox'"),
    "category": ({"annotations": [entry(category_id=2)]}, "1 annotations are of category 2, .*person 1, dog 18"),
    "image": ({"annotations": [entry(), entry(id=4, image_id=1)]}, "annotation 4 of image 1; leave them out by"),
    "ids": ({"images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]}, "ids of images .*twice: 1"),
    "file": ({"images": [{"id": 899, "file_name": "z.png"}]}, "1 images of .*train.json are not in .*: z.png"),
    "nothing": ({"annotations": []}, "has no object: 3 images without a box"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_wrong_coco_file_is_one_sentence(coco, kind):
    changed, match = MISTAKES[kind]
    with pytest.raises(jc.UserError, match=match) as caught:
        coco(**changed).open("train")
    assert "\n" not in str(caught.value)


def test_wrong_names_of_coco_files_and_classes_are_named(coco):
    source = coco()
    with pytest.raises(jc.UserError, match=r"no file .*trian.json; for {split} there is train$"):
        source.open("trian")
    pathlib.Path(source.annotations.replace("{split}", "train")).write_text("{")
    with pytest.raises(jc.UserError, match=r"train.json cannot be read as JSON"):
        source.open("train")
    with pytest.raises(jc.UserError, match=r"no category 'dgo'; did you mean 'dog'\?"):
        dataclasses.replace(coco(), classes=("dgo",)).open("train")


def test_coco_boxes_of_each_kind_are_kept_or_dropped(coco):
    boxes = [entry(), entry(bbox=[1, 1, 0, 5]), entry(id=9, category_id=None), entry(id=10, image_id=1)]
    source = coco(annotations=boxes, images=[*coco.content["images"], {"id": 5, "file_name": "gone.png"}])
    rules = jc.BoxRules(empty="drop", duplicate_ids="drop", unlabeled="drop", missing="drop")
    examples = dataclasses.replace(source, rules=rules).open("train")
    assert [len(examples[i]["boxes"]) for i in range(3)] == [0, 1, 0]
    assert counts(notes_of(examples)) == [
        "images without a file: 1 dropped",
        "boxes of images that are not listed: 1 dropped",
        "boxes with an id twice: 1 dropped",
        "boxes without a class: 1 dropped",
    ]
    kept = dataclasses.replace(source, rules=dataclasses.replace(rules, duplicate_ids="keep")).open("train")
    assert "boxes without area: 1 dropped" in counts(notes_of(kept))
    refused = dataclasses.replace(source, rules=dataclasses.replace(rules, duplicate_ids="refuse")).open("train")
    assert refused.refused == {1: "box 1 dog (1, 1, 0, 5) has the id of a box before it"}
    crowds = dataclasses.replace(coco(), rules=jc.BoxRules(crowd="drop")).open("train")
    assert crowds[2]["boxes"].tolist() == [[1, 1, 3, 3]] and counts(notes_of(crowds)) == ["crowd boxes: 1 dropped"]


@pytest.mark.skipif(not BCCD.exists(), reason=f"needs {BCCD}")
def test_bccd_is_the_same_as_voc_and_as_coco_and_its_traps_are_named():
    rules = jc.BoxRules(empty="drop")
    voc = jc.VOCDetection(str(BCCD), classes=CELLS, coordinates="edges", rules=rules)
    coco = jc.COCODetection(f"{BCCD}/JPEGImages", f"{BCCD}/coco/instances_{{split}}.json", classes=CELLS, rules=rules)
    texts = []
    for split, images, boxes in (("train", 205, 2804), ("val", 87, 1137), ("test", 72, 945)):
        one, other = open_split(voc, split), open_split(coco, split)
        assert len(one) == len(other) == images
        for i in (0, images // 2, images - 1):
            for name, part in one[i].items():
                np.testing.assert_array_equal(part, other[i][name])
        assert one._first[-1] == boxes == other._first[-1]
        assert one._kept.boxes.tolist() == other._kept.boxes.tolist()
        assert [note.what for note in notes_of(one)] == [note.what for note in notes_of(other)]
        texts += [f"{os.path.basename(one.where(i))}: {one.notes(i)[0].text}" for i in one.noted]
        refused = open_split(dataclasses.replace(voc, rules=jc.BoxRules()), split)
        assert list(refused.refused) == one.noted
    assert texts == [
        "BloodImage_00343.jpg: box 3 RBC (181, 329, 181, 329) has no area: dropped",
        "BloodImage_00338.jpg: box 12 RBC (504, 337, 504, 337) has no area: dropped",
    ]
