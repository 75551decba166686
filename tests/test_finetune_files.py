"""experiments/finetune_boxes.py and finetune_masks.py on folders of one's own: what is read, what is taken over."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

import jaxcnn as jc
from jaxcnn import experiment_file, flags
from jaxcnn.errors import UserError
from jaxcnn.runs.initial_state import abstract_state
from jaxcnn.runs.setup import make_plan
from jaxcnn.train.groups import members
from jaxcnn.train.init_from import chosen
from tests.data.test_voc_detection import CAT, DOG
from tests.data.voc_folder import VOC
from tests.tiny_runs import ROOT

boxes = experiment_file.load_function(ROOT / "experiments" / "finetune_boxes.py")
masks = experiment_file.load_function(ROOT / "experiments" / "finetune_masks.py")


CLASSIFICATION = {"task": jc.Classification(), "checkpoints": jc.Checkpoints()}


def splits(experiment):
    return experiment.data.train_split, *experiment.data.evaluation_splits, *experiment.data.test_splits


def voc(folder, photos=20):
    made = VOC(folder)
    for number in range(photos):
        made.add(f"{number:02}", [CAT] if number % 2 else [DOG])
    return made


def coco(folder, file="boxes.json", images="images"):
    (folder / images).mkdir(parents=True)
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / images / "a.png")
    (folder / file).write_text(
        json.dumps(
            {
                "images": [{"id": 7, "file_name": "a.png", "width": 60, "height": 40}],
                "categories": [{"id": 3, "name": name} for name in ["cup"]],
                "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 30, 20]}],
            }
        )
    )


def segmented(folder, classes=("ground", "roof", "tree")):
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            shape = (30, 40, 3) if name == "images" else (30, 40)
            Image.fromarray(np.full(shape, number % 3, np.uint8)).save(folder / name / f"{number}.png")
    (folder / "classes.txt").write_text("\n".join(classes) + "\n\n")


def test_a_folder_in_vocs_layout_is_read_with_its_classes_and_split_as_its_lists_say(tmp_path):
    made = voc(tmp_path / "photos")
    read = boxes(str(made.root))
    assert read.task.classes == ("cat", "dog") and read.model.classes == 2
    assert splits(read) == ("train[:70%]", "train[70%:85%]", "train[85%:]")
    parts = [{str(file) for file in read.data.source.open(split).files} for split in splits(read)]
    assert [len(part) for part in parts] == [14, 3, 3] and len(set.union(*parts)) == 20
    example = read.data.source.open("train")[1]
    assert example["boxes"].tolist() == [list(CAT[1])]  # edges, as labelImg writes them
    made.write("val", made.names[:6])
    assert splits(boxes(str(made.root))) == ("train", "val[:50%]", "val[50%:]")
    made.write("test", made.names[:2])
    assert splits(boxes(str(made.root))) == ("train", "val", "test")
    (made.root / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"has no classes\.txt; write the names"):
        boxes(str(made.root))


def test_a_folder_with_one_json_file_is_cocos_and_a_flag_chooses_among_several(tmp_path):
    coco(tmp_path)
    read = boxes(str(tmp_path))
    assert isinstance(read.data.source, jc.COCODetection) and read.task.classes == ("cup",)
    assert read.data.source.images == str(tmp_path / "images") and read.model.classes == 1
    coco(tmp_path, "of_others.json", images="more")
    with pytest.raises(UserError, match=r"and 2 JSON files \(COCO's\); --annotations FILE says"):
        boxes(str(tmp_path))
    assert boxes(str(tmp_path), annotations=str(tmp_path / "boxes.json")).data.source == read.data.source
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no folder Annotations \(Pascal VOC's layout\) and no JSON files"):
        boxes(str(tmp_path / "empty"))


def taken(experiment, source):
    """The paths that are taken from a run of `source`, and those that keep their bits."""
    mesh = make_plan(experiment).mesh
    state = abstract_state(experiment, mesh)
    number = members(state.params, experiment.groups)
    kept = {path for path, i in number.items() if i is not None and experiment.groups[i].freeze}
    return set(chosen(state, abstract_state(source, mesh), experiment.init_from)), kept


def all_of(experiment):
    return set(members(abstract_state(experiment, make_plan(experiment).mesh).params, ()))


def test_only_the_layers_of_the_classes_are_new_after_another_detector(tmp_path):
    made = voc(tmp_path / "photos")
    made.root.joinpath("classes.txt").write_text("cat\ndog\nbird\nfish\n")
    ours = boxes(str(made.root), start="runs/other")
    loaded, kept = taken(ours, boxes("no such folder"))
    assert all_of(ours) - loaded == {
        f"params/head/{name}/{kind}" for name in ("cls_score", "bbox_pred") for kind in ("kernel", "bias")
    }
    names = {path.split("/")[2] for path in kept}
    assert names == {"conv1", "conv2", "bn1", "bn2"} and kept <= loaded
    assert ours.init_from.preparation and boxes(str(made.root)).groups == ()


def test_a_detector_and_a_segmenter_on_vgg_take_its_convolutions_and_keep_the_first_four(tmp_path):
    segmented(tmp_path)
    made = voc(tmp_path / "photos")
    vgg = dataclasses.replace(boxes("no such folder"), model=jc.create_model("vgg16"), **CLASSIFICATION)
    first = {f"conv{stage}_{layer}" for stage in (1, 2) for layer in (1, 2)}
    for ours in (boxes(str(made.root), start="runs/vgg16", net="vgg16"), masks(str(tmp_path), start="runs/vgg16")):
        loaded, kept = taken(ours, vgg)
        assert loaded == {path for path in all_of(ours) if path.startswith("params/backbone/")} and len(loaded) == 26
        assert {path.split("/")[2] for path in kept} == first and len(kept) == 8


def test_a_folder_of_images_and_masks_is_read_with_its_classes(tmp_path):
    segmented(tmp_path / "photos")
    read = masks(str(tmp_path / "photos"))
    assert read.task.classes == ("ground", "roof", "tree") and read.model.classes == 3 and read.groups == ()
    parts = [{str(file) for file in read.data.source.open(split).files} for split in splits(read)]
    assert [len(part) for part in parts] == [6, 1, 1] and len(set.union(*parts)) == 8
    assert np.unique(read.data.source.open("train")[2]["mask"]).tolist() == [2]
    (tmp_path / "photos" / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"classes\.txt cannot be read .* one a line, label 0's first"):
        masks(str(tmp_path / "photos"))


def figure(run: str, metric: str) -> str:
    """Of the test, as the pages have it."""
    result = json.loads((ROOT / "docs" / "results" / run / "result.json").read_text())["test"]
    return f"{result[metric]:.3f} on {result['count']} test photos"


def test_the_figures_of_the_pages_come_from_stored_runs():
    page = (ROOT / "docs" / "boxes.md").read_text().replace("\n", " ")
    assert f"(`voc07`) of {figure('faster_rcnn_bccd', 'voc07_map')}" in page
    page = (ROOT / "docs" / "masks.md").read_text().replace("\n", " ")
    assert f"a mean IoU of {figure('fcn_camvid_vgg16', 'mean_iou')}" in page
    assert f"random ones {figure('fcn_camvid_random', 'mean_iou').split()[0]} " in page


@pytest.mark.parametrize("page", ["boxes", "masks"])
def test_the_flags_of_the_pages_trainings_and_checks_are_known(page, monkeypatch, tmp_path):
    """Without their --start, a run that is not there; tests/test_docs.py runs no block of text."""
    monkeypatch.chdir(tmp_path)
    lines = re.findall(
        r"^(?:python -m jaxcnn\.launch|jaxcnn data check) (.+)$", (ROOT / f"docs/{page}.md").read_text(), re.M
    )
    assert len(lines) >= 2
    for file, *words in map(str.split, lines):
        if "--start" in words:
            del words[words.index("--start") : words.index("--start") + 2]
        assert flags.parse(ROOT / file, words).experiment.data.source
