"""Boxes from files: VOC's folders, COCO's JSON and TFDS give the objects where they are, and what is wrong with one is
kept, dropped with a note or refused by its name, as the rules say.
"""

import dataclasses
import json
import os
import pathlib
import pickle

import numpy as np
import pytest
from PIL import Image

import jaxcnn as jc
from jaxcnn.commands.data import check as check_command
from jaxcnn.data.box_rules import counts, notes_of
from jaxcnn.data.boxed import truths_of, upright
from jaxcnn.data.examples import BrokenExample, Examples, Source
from jaxcnn.data.fields import box_fields, with_image
from jaxcnn.data.images import TURNS
from jaxcnn.data.pipeline import EvaluationBatches
from jaxcnn.data.splits import open_split, shared
from jaxcnn.data.survey import survey
from jaxcnn.metrics.average_precision import check_truth

BCCD = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser().parent / "bccd"
CELLS = ("RBC", "WBC", "Platelets")
SIZE = (40, 60)  # height, width
EXIF_ORIENTATION = 0x0112


def painted(boxes, size=SIZE):
    """A black photo with each box (xmin, ymin, xmax, ymax), edges, in white."""
    image = np.zeros((*size, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 255
    return image


def around(image):
    """The edges of what is white in an image."""
    rows, columns = np.flatnonzero(image.max((1, 2)) > 127), np.flatnonzero(image.max((0, 2)) > 127)
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def xml(objects, size=SIZE):
    """Objects are (name, (xmin, ymin, xmax, ymax), difficult or not)."""
    sides = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>" if size else ""
    parts = [
        f"<object>{f'<name>{name}</name>' if name else ''}<difficult>{int(difficult)}</difficult><bndbox>"
        + "".join(
            f"<{edge}>{value}</{edge}>" for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        for name, box, difficult in objects
    ]
    return f"<annotation>{sides}{''.join(parts)}</annotation>"


class VOC:
    """A folder of VOC's layout; each photo is white where its first box is."""

    def __init__(self, root):
        self.root, self.names = root, []
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        (root / "classes.txt").write_text("cat\ndog\n")

    def add(self, name, objects, annotation=None, image=None):
        boxes = [(box[0] - 1, box[1] - 1, box[2], box[3]) for _, box, _ in objects[:1] if min(box) > 0]
        Image.fromarray(painted(boxes) if image is None else image).save(self.root / f"JPEGImages/{name}.png")
        (self.root / f"Annotations/{name}.xml").write_text(xml(objects) if annotation is None else annotation)
        self.names.append(name)
        self.write("train", self.names)
        return self

    def write(self, split, names):
        (self.root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in names))

    def open(self, split="train", **fields):
        return open_split(jc.VOCDetection(str(self.root), **fields), split)


CAT, DOG = ("cat", (11, 6, 30, 20), False), ("dog", (1, 1, 60, 40), True)


@pytest.fixture
def voc(tmp_path):
    return VOC(tmp_path / "pets")


def test_voc_boxes_lie_around_what_they_name(voc):
    voc.add("b", [CAT, DOG]).add("a", []).add("c", [("dog", (31, 21, 31, 40), False)])
    voc.write("val", ["c"])
    assert isinstance(voc.open(rules=jc.BoxRules(empty="drop")), Examples)
    assert isinstance(jc.VOCDetection(str(voc.root)), Source)
    examples = voc.open(rules=jc.BoxRules(empty="drop"))
    assert (examples.name, examples.split, examples.classes, len(examples)) == ("pets", "train", ("cat", "dog"), 3)
    first, second = examples[0], examples[1]
    assert first["boxes"].tolist() == [[10, 5, 30, 20], [0, 0, 60, 40]] and first["boxes"].dtype == np.float32
    assert first["boxes"][0].tolist() == around(first["image"])
    assert first["classes"].tolist() == [0, 1] and first["difficult"].tolist() == [False, True]
    assert not first["crowd"].any() and second["boxes"].shape == (0, 4)
    assert examples.where(0).endswith("JPEGImages/b.png")
    as_edges = voc.open(coordinates="edges", rules=jc.BoxRules(empty="drop"))[0]
    assert as_edges["boxes"].tolist() == [[11, 6, 30, 20], [1, 1, 60, 40]]
    assert voc.open("val", rules=jc.BoxRules(empty="drop", no_objects="refuse")).refused == {0: "it has no object"}


def test_splits_are_cut_joined_and_told_apart(voc, tmp_path):
    for i in range(10):
        voc.add(str(i), [CAT])
    voc.write("val", ["3"])
    half, other = voc.open("train[:50%]"), voc.open("train[50%:]")
    assert len(half) == len(other) == 5 and not shared(half, other)
    assert shared(voc.open(), voc.open("val")) == 1
    VOC(tmp_path / "new").add("z", [DOG])
    both = open_split(jc.VOCDetection(str(tmp_path), classes=("cat", "dog")), "pets/val+new/train")
    assert [os.path.basename(both.where(i)) for i in range(2)] == ["3.png", "z.png"]
    with pytest.raises(jc.UserError, match="holds new, pets: give one of these folders, or splits such as 'new/"):
        jc.VOCDetection(str(tmp_path)).open("train")


def test_boxed_examples_pickle_and_a_moved_box_changes_their_version(voc):
    voc.add("a", [CAT, DOG])
    before = voc.open()
    again = pickle.loads(pickle.dumps(before))
    assert all(np.array_equal(again[0][name], part) for name, part in before[0].items())
    (voc.root / "Annotations/a.xml").write_text(xml([("cat", (12, 6, 30, 20), False), DOG]))
    assert voc.open().version != before.version == again.version


KINDS = {
    "empty": (("cat", (5, 5, 5, 5), False), "boxes without area", "box 1 cat (5, 5, 5, 5) has no area"),
    "negative": (("cat", (30, 5, 10, 9), False), "boxes without area", "box 1 cat (30, 5, 10, 9) has no area"),
    "unlabeled": ((None, (5, 5, 9, 9), False), "boxes without a class", "box 1 (5, 5, 9, 9) has no class"),
    "outside": (("cat", (50, 5, 70, 9), False), "boxes over the edge", "box 1 cat (50, 5, 70, 9) reaches over"),
    "beyond": (("cat", (70, 5, 90, 9), False), "boxes outside", "box 1 cat (70, 5, 90, 9) lies outside"),
    "difficult": (("cat", (5, 5, 9, 9), True), "difficult boxes", "box 1 cat (5, 5, 9, 9) is difficult"),
    "unknown": (("cow", (5, 5, 9, 9), False), "boxes of other classes", "box 1 (5, 5, 9, 9) is of another class"),
}
FIELD = {"negative": "empty", "beyond": "outside"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_of_each_kind_is_dropped_with_a_note(voc, kind):
    wrong, what, text = KINDS[kind]
    voc.add("a", [CAT]).add("b", [CAT, wrong, ("dog", (1, 1, 60, 40), False)])
    examples = voc.open(rules=jc.BoxRules(**{FIELD.get(kind, kind): "drop"}))
    assert examples[1]["boxes"].tolist() == [[10, 5, 30, 20], [0, 0, 60, 40]] and not examples.refused
    assert [note.text.startswith(text) for note in examples.notes(1)] == [True] and not examples.notes(0)
    assert counts(notes_of(examples)) == [f"{what}: 1 dropped"]
    part = voc.open("train[50%:]+train[:50%]", rules=jc.BoxRules(**{FIELD.get(kind, kind): "drop"}))
    places = [os.path.basename(part.where(i)) for i in range(2)]
    assert part.noted == [places.index("b.png")] and len(part.notes(part.noted[0])) == 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("unknown", "difficult")])
def test_a_box_of_each_kind_makes_its_photo_a_broken_one_if_it_is_refused(voc, kind):
    wrong, _, text = KINDS[kind]
    voc.add("a", [CAT]).add("b", [CAT, wrong])
    examples = voc.open()
    assert examples[0]["boxes"].shape == (1, 4) and list(examples.refused) == [1]
    with pytest.raises(BrokenExample) as caught:
        examples[1]
    assert text in caught.value.cause and "rules=jc.BoxRules(" in caught.value.cause
    assert caught.value.where.endswith("b.png") and not counts(notes_of(examples))


def test_boxes_over_the_edge_are_clipped_with_a_note_and_by_a_pixel_without(voc):
    over = [("cat", (0.5, 5, 61, 9), False), ("cat", (50, 5, 70, 9), False), ("cat", (70, 5, 90, 9), False)]
    examples = voc.add("a", over, image=painted([])).open(rules=jc.BoxRules(outside="clip"))
    assert examples[0]["boxes"].tolist() == [[0, 4, 60, 9], [49, 4, 60, 9]]
    assert counts(notes_of(examples)) == ["boxes outside: 1 dropped", "boxes over the edge: 1 clipped"]
    strict = voc.open(rules=jc.BoxRules(tolerance=0.1))
    assert strict.refused[0].startswith("box 2 cat (70, 5, 90, 9) lies outside")


FORMATS = {
    "shares of the image": (0.1, 0.2, 0.9, 0.4),
    "(ymin, xmin, ymax, xmax)": (21, 30, 38, 59),
    "(x, y, width, height)": (35, 6, 20, 30),
    "(middle x, middle y, width, height)": (50, 30, 19, 19),
}


@pytest.mark.parametrize("form", FORMATS)
def test_the_format_that_wrong_boxes_seem_to_have_is_named(voc, form):
    examples = voc.add("a", [("cat", FORMATS[form], False)], image=painted([])).open(
        coordinates="inclusive" if form.startswith("shares") else "edges", rules=jc.BoxRules(tolerance=0)
    )
    assert f"; they look like {form}" in examples.refused[0]


def test_a_one_pixel_box_is_found_in_both_conventions(voc):
    voc.add("a", [("cat", (5, 5, 5, 9), False)])
    assert voc.open().refused and voc.open(coordinates="edges").refused


WRONG_FILES = {
    "no xml": ("<annotation><object>", "cannot be read as one of Pascal VOC: .*(no element|mismatched|unclosed)"),
    "empty": ("", "cannot be read as one of Pascal VOC"),
    "html": ("<html></html>", "its first element is <html>"),
    "no box": ("<annotation><object><name>cat</name></object></annotation>", "object 0 has no bndbox/xmin"),
    "words": (xml([("cat", (1, 2, "x", 4), False)]), "object 0 has 'x' for its bndbox/xmax"),
    "nan": (xml([("cat", (1, 2, "nan", 4), False)]), "not a number"),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_wrong_annotation_file_is_one_sentence(voc, kind):
    text, match = WRONG_FILES[kind]
    voc.add("a", [CAT]).add("b", [], annotation=text)
    examples = voc.open()
    assert examples[0]["boxes"].shape == (1, 4)
    with pytest.raises(BrokenExample, match=match):
        examples[1]


def test_a_class_that_is_not_in_the_list_stops_with_the_nearest(voc):
    voc.add("a", [CAT, ("dgo", (5, 5, 9, 9), False)])
    with pytest.raises(jc.UserError, match=r"'dgo' in .*a.xml; did you mean 'dog'\? the list is cat, dog"):
        voc.open()
    with pytest.raises(jc.UserError, match="the files have cat, dgo"):
        voc.open(classes=("cat", "horse"))


def test_a_set_without_any_object_is_refused(voc):
    with pytest.raises(jc.UserError, match=r"pets/train has no object: 2 images without a box$"):
        voc.add("a", []).add("b", []).open()
    (voc.root / "Annotations/b.xml").write_text(xml([KINDS["empty"][0]]))
    with pytest.raises(jc.UserError, match="1 were dropped by the rules"):
        voc.open(rules=jc.BoxRules(empty="drop"))


def test_images_without_objects_are_kept_dropped_or_refused(voc):
    voc.add("a", []).add("b", [CAT]).add("c", [])
    assert len(voc.open()) == 3 and not voc.open().refused
    dropped = voc.open(rules=jc.BoxRules(no_objects="drop"))
    assert [os.path.basename(dropped.where(i)) for i in range(len(dropped))] == ["b.png"]
    assert counts(notes_of(dropped)) == ["images without objects: 2 dropped"]
    assert dropped[0]["boxes"].shape == (1, 4)
    assert list(voc.open(rules=jc.BoxRules(no_objects="refuse")).refused) == [0, 2]
    voc.add("d", [CAT, KINDS["empty"][0]]).add("e", [CAT, KINDS["outside"][0]])
    later = voc.open(rules=jc.BoxRules(no_objects="drop", empty="drop"))
    assert later.noted == [1] and list(later.refused) == [2] and later.where(1).endswith("d.png")


def test_missing_files_are_named_or_dropped(voc):
    for name in "abcd":
        voc.add(name, [CAT])
    (voc.root / "JPEGImages/b.png").unlink()
    (voc.root / "Annotations/d.xml").unlink()
    with pytest.raises(jc.UserError, match=r"2 names of .*train.txt lack a file .*: b, d$"):
        voc.open()
    left = voc.open(rules=jc.BoxRules(missing="drop"))
    assert [os.path.basename(left.where(i)) for i in range(len(left))] == ["a.png", "c.png"]
    assert counts(notes_of(left)) == ["images without a file: 2 dropped"]


def test_wrong_lists_and_folders_of_voc_are_named(voc, tmp_path):
    voc.add("a", [CAT])
    with pytest.raises(jc.UserError, match="no split 'trian'; did you mean 'train'"):
        voc.open("trian")
    for text, match in (("a\na\n", "names twice: a"), ("", "no name"), ("a  -1\n", "the list of one class")):
        (voc.root / "ImageSets/Main/odd.txt").write_text(text)
        with pytest.raises(jc.UserError, match=match):
            voc.open("odd")
    with pytest.raises(jc.UserError, match=r"there is no folder .*JPEGImages; expected are PATH/JPEGImages"):
        jc.VOCDetection(str(tmp_path / "nothing")).open("train")
    with pytest.raises(jc.UserError, match=r"coordinates is 'edge'; did you mean 'edges'\?"):
        jc.VOCDetection("x", coordinates="edge")
    with pytest.raises(jc.UserError, match="outside is 'cut'; there is clip, drop, refuse"):
        jc.BoxRules(outside="cut")


# Photos that EXIF turns.


@pytest.mark.parametrize("number", range(1, 9))
def test_boxes_of_a_stored_photo_turn_as_its_pixels_do(number):
    box = (10, 5, 30, 12)
    stored = painted([box])
    seen = TURNS[number](stored) if number > 1 else stored
    assert upright(np.array([box], float), number, SIZE)[0].tolist() == around(seen)


def test_a_turned_photo_is_read_as_the_rules_say(voc):
    voc.add("a", [CAT], image=painted([]))
    image, exif = Image.fromarray(painted([(10, 5, 30, 20)])), Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    image.save(voc.root / "JPEGImages/a.png", exif=exif)
    with pytest.raises(
        BrokenExample, match=r"40 x 60 .* has 60 x 40: EXIF turns it \(orientation 6\).*turned=\"stored\""
    ):
        voc.open()[0]
    example = voc.open(rules=jc.BoxRules(turned="stored"))[0]
    assert example["image"].shape == (60, 40, 3) and example["boxes"][0].tolist() == around(example["image"])
    with pytest.raises(BrokenExample, match=r"turned by EXIF \(orientation 6\), which rules.turned refuses"):
        voc.open(rules=jc.BoxRules(turned="refuse"))[0]
    (voc.root / "Annotations/a.xml").write_text(xml([("cat", (21, 11, 35, 30), False)], (60, 40)))
    assert voc.open()[0]["boxes"][0].tolist() == around(example["image"])
    with pytest.raises(BrokenExample, match='turned="upright"'):
        voc.open(rules=jc.BoxRules(turned="stored"))[0]


def test_an_annotation_of_another_size_is_refused_and_one_without_size_is_checked_by_the_photo(voc):
    voc.add("a", [CAT], annotation=xml([CAT], (80, 120)))
    with pytest.raises(BrokenExample, match=r"of 80 x 120 pixels .* has 40 x 60"):
        voc.open()[0]
    over = ("cat", (50, 5, 70, 9), False)
    (voc.root / "Annotations/a.xml").write_text(xml([CAT, over], None))
    with pytest.raises(BrokenExample, match=r"box 1 cat \(50, 5, 70, 9\) reaches over"):
        voc.open()[0]
    assert voc.open(rules=jc.BoxRules(outside="clip"))[0]["boxes"].tolist() == [[10, 5, 30, 20], [49, 4, 60, 9]]


# COCO.


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


# Blood cells, by both ways, and through the commands.


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
    voc.add("a", [CAT, KINDS["empty"][0]]).add("b", [CAT] * 5).add("c", [CAT])
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

    def plan(*how):
        return make_plan(load_function(detector(tmp_path, voc, *how))())

    voc.add("a", [CAT]).add("b", [CAT, KINDS["empty"][0]]).add("c", [CAT])
    with pytest.raises(jc.UserError, match=r"^train: .*b.png: box 1 cat \(5, 5, 5, 5\) has no area; if such"):
        plan()
    assert plan("refuse", 1).total
    assert "train: boxes without area: 1 dropped; `jaxcnn data check` names each" in plan("drop").warnings()


def test_a_batch_of_photos_with_boxes_is_padded(voc):
    voc.add("a", [CAT, DOG]).add("b", [])
    fields = with_image((*SIZE, 3), box_fields(3))
    batch = EvaluationBatches(voc.open(), (), fields, 2)[0]
    assert batch["classes"].tolist() == [[0, 1, -1], [-1, -1, -1]] and batch["valid"].all()
    assert batch["boxes"][0].tolist() == [[10, 5, 30, 20], [0, 0, 60, 40], [0, 0, 0, 0]]
    assert batch["area"].tolist() == [[300, 2400, 0], [0, 0, 0]]
    assert survey(voc.open(), (), fields).boxes.tolist() == [1, 1]


def test_the_truth_is_known_without_reading_photos(voc):
    voc.add("a", [CAT, DOG]).add("b", []).add("c", [CAT, KINDS["empty"][0]])
    for photo in (voc.root / "JPEGImages").iterdir():
        photo.write_bytes(b"")
    for examples in (voc.open(), voc.open("train[:50%]+train[50%:]")):
        truths = sorted(truths_of(examples), key=lambda truth: -len(truth["boxes"]))
        assert [truth["boxes"].tolist() for truth in truths] == [[[10, 5, 30, 20], [0, 0, 60, 40]], []]
        check_truth("voc07", truths, 2)
