"""VOCDetection: the objects of Pascal VOC's XML are where they are, and what is wrong with one is kept, dropped with a
note or refused by its name, as the rules say.
"""

import os

import numpy as np
import pytest
from PIL import Image

import jaxcnn as jc
from jaxcnn.data.box_rules import counts, notes_of
from jaxcnn.data.boxed import upright
from jaxcnn.data.examples import BrokenExample, Examples, Source
from jaxcnn.data.images import TURNS
from jaxcnn.data.splits import open_split, shared
from tests.data.voc_folder import CAT, DOG, EMPTY, SIZE, VOC, around, painted, xml

EXIF_ORIENTATION = 0x0112


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


KINDS = {
    "empty": (EMPTY, "boxes without area", "box 1 cat (5, 5, 5, 5) has no area"),
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
    (voc.root / "Annotations/b.xml").write_text(xml([EMPTY]))
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
