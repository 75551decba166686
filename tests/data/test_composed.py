"""Composed cutouts: what is pasted is what boxes, masks and labels say, the same at every call, and no cutout is in two
splits. The real set is read if it is there."""

import dataclasses
import itertools
import math
import pathlib

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.checks import check_example
from jaxcnn.data.composed import ComposedCutouts
from jaxcnn.data.deformation import Deformation, deform, draw
from jaxcnn.data.splits import open_split
from jaxcnn.errors import UserError

CUTOUTS = pathlib.Path(__file__).parents[3] / "shared" / "data" / "cutouts"
NAMES = ("cats", "dogs", "eels")
NUMBER = 6


def color(kind, number):
    """Of a cutout; each has its own."""
    return (250, 60 * kind + 5, 30 * number + 5)


@pytest.fixture
def folder(tmp_path):
    """Rectangles in the middle of a transparent picture, six of each class."""
    for kind, name in enumerate(NAMES):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(NUMBER):
            pixels = np.zeros((40, 50, 4), np.uint8)
            pixels[5:35, 8 : 28 + number] = (*color(kind, number), 255)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{number}.png")
    (tmp_path / "set" / "COPYING").write_text("not an image")
    return tmp_path / "set"


def nearest(pixel):
    """(class, number) of the cutout whose color this is; None of the ground."""
    kind, number = round((int(pixel[1]) - 5) / 60), round((int(pixel[2]) - 5) / 30)
    near = kind in range(3) and number in range(NUMBER)
    return (kind, number) if near and np.abs(np.int32(pixel) - color(kind, number)).max() < 4 else None


def shown(example):
    """The cutout at the middle of the box of each object."""
    middles = ((example["boxes"][:, :2] + example["boxes"][:, 2:]) / 2).astype(int)
    return [nearest(example["image"][y, x]) for x, y in middles.tolist()]


def test_labels_boxes_and_masks_say_what_is_pasted(folder):
    source = ComposedCutouts(str(folder), (48, 64, 3), mask=True, mirror=False)
    examples = source.open("train")
    assert examples.classes == ("background", *NAMES) and len(examples) == 4000
    assert examples.labels[:4].tolist() == [1, 2, 3, 1]
    for i in range(9):
        example = check_example(examples, i, examples[i], ("image", "label", "boxes", "classes", "mask"))
        assert example["label"] == examples.labels[i] == example["classes"][0] == 1 + shown(example)[0][0]
        rows, columns = np.nonzero(example["mask"] == example["label"])
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert example["boxes"].tolist() == [tight] and len(example["classes"]) == 1
        left, top, right, bottom = tight
        assert len(rows) == (right - left) * (bottom - top) and 0.4 * 48 - 1 <= bottom - top <= 0.8 * 48 + 1
        inside = example["image"][top + 2 : bottom - 2, left + 2 : right - 2]
        assert np.ptp(inside.astype(int), axis=(0, 1)).max() <= 2  # one color, and nothing of the transparent ground
        assert nearest(example["image"][0, 0]) is None or (left, top) == (0, 0)


def test_the_mask_of_a_turned_object_is_what_is_seen_of_it(folder):
    examples = ComposedCutouts(str(folder), (64, 64, 3), size=(0.7, 0.7), rotation=60, mask=True).open("train")
    for i in range(4):
        example, kind = examples[i], examples.labels[i] - 1
        colors = [color(kind, number) for number in range(NUMBER)]
        near = [(np.abs(example["image"].astype(int) - each).max(-1) < 4).sum() for each in colors]
        inside = (example["mask"] > 0).sum()
        assert max(near) <= inside <= 1.25 * max(near)  # all but the pixels of the edge, which are blended


def test_an_example_is_a_function_of_seed_split_and_index(folder):
    source = ComposedCutouts(str(folder), (32, 32, 3), objects=(1, 3), deformation=0.05, rotation=40, train=30, test=20)
    first, again = source.open("train"), source.open("train")
    _ = again[7]  # whatever was read before
    for i in (0, 3, 29):
        assert all(np.array_equal(first[i][name], again[i][name]) for name in ("image", "boxes", "classes"))
    others = [source.open("test"), dataclasses.replace(source, seed=1).open("train")]
    assert not any(np.array_equal(first[3]["image"], other[3]["image"]) for other in others)
    assert not np.array_equal(first[3]["image"], first[4]["image"]) and "label" not in first[3]
    assert len(source.open("validation")) == 20
    with pytest.raises(IndexError):
        first[30]


def test_splits_show_different_cutouts_unless_they_share_them(folder):
    source = ComposedCutouts(str(folder), (32, 32, 3), train=120, test=120)
    seen = {split: {shown(each)[0][1] for each in source.open(split)} for split in ("train", "validation", "test")}
    assert seen == {"train": {0, 1, 2, 5}, "validation": {3}, "test": {4}}
    shared = dataclasses.replace(source, shared_cutouts=True)
    assert {shown(each)[0][1] for each in shared.open("test")} == {*range(NUMBER)}
    part = open_split(source, "test[:50%]")
    assert np.bincount(part.labels).tolist() == [20, 20, 20]


def test_several_objects_are_inside_and_hide_each_other_as_much_as_is_said(folder):
    source = ComposedCutouts(str(folder), (64, 64, 3), objects=(2, 5), size=(0.2, 0.6), overlap=0.1, rotation=20)
    counts, apart = [], source.open("train")
    for i in range(30):
        boxes = apart[i]["boxes"]
        counts.append(len(boxes))
        assert (boxes >= 0).all() and (boxes <= 64).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        for one, other in itertools.combinations(boxes, 2):
            sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
            # Boxes of what is seen are within those that were placed, so that their shares may be a little larger.
            assert np.maximum(sides, 0).prod() <= 0.15 * min((each[2:] - each[:2]).prod() for each in (one, other))
    assert {2, 3, 4} <= {*counts} <= {1, 2, 3, 4, 5}
    heap = dataclasses.replace(source, objects=(5, 5), overlap=1.0, mask=True, rotation=0).open("train")
    assert any(len(heap[i]["boxes"]) < 5 for i in range(30))  # hidden as a whole
    for i in range(10):
        example = heap[i]
        assert example["mask"].any() and set(example["classes"]) == set(np.unique(example["mask"])) - {0}


def test_a_bend_changes_the_form_and_neither_the_ground_nor_the_choice(folder):
    plain = ComposedCutouts(str(folder), (48, 48, 3), size=(0.4, 0.5))
    bent = dataclasses.replace(plain, deformation=0.1)
    changed = 0
    for i in range(6):
        one, other = plain.open("train")[i], bent.open("train")[i]
        assert shown(one) == shown(other)
        boxes = np.concatenate([one["boxes"], other["boxes"]])
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        assert np.abs(middles[0] - middles[1]).max() < 5  # the same place, as far as the form lets it
        ground = np.ones((48, 48), bool)
        for left, top, right, bottom in boxes.astype(int):
            ground[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = False
        assert np.array_equal(one["image"][ground], other["image"][ground])
        changed += not np.array_equal(one["image"], other["image"])
    assert changed == 6


def picture():
    rng = np.random.default_rng(0)
    pixels = np.full((21, 31, 4), 255, np.uint8)
    pixels[..., :3] = np.kron(rng.integers(0, 255, (3, 1, 3)), np.ones((7, 31, 1))).astype(np.uint8)
    pixels[3:9, 20:25, :3] = (255, 0, 0)
    return pixels


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (Deformation(31), lambda x: x),
        (Deformation(31, mirrored=True), lambda x: x[:, ::-1]),
        (Deformation(31, angle=math.pi / 2), lambda x: np.rot90(x)),
        (Deformation(31, angle=-math.pi / 2, mirrored=True), lambda x: np.rot90(x[:, ::-1], -1)),
        (Deformation(31, field=np.full((3, 3, 2), 0.1, np.float32)), lambda x: x),
    ],
    ids=["nothing", "mirrored", "a quarter", "mirrored, then a quarter back", "moved as a whole"],
)
def test_a_deformation_is_what_it_says(by, expected):
    assert by.field is not None or np.array_equal(deform(picture(), by), expected(picture()))
    found, wanted = deform(picture(), by), expected(picture())
    if by.field is not None:  # by a part of a pixel: its colors are between two
        found, wanted = found[2:-2, 2:-2], wanted[2:-2, 2:-2]
        found = found[: wanted.shape[0], : wanted.shape[1]]
        assert np.median(np.abs(found.astype(int) - wanted[: found.shape[0], : found.shape[1]])) <= 1


def test_edges_keep_their_color_and_are_half_transparent():
    red = np.zeros((30, 30, 4), np.uint8)
    red[5:25, 5:25] = (200, 100, 50, 255)
    turned = deform(red, Deformation(20, angle=0.5))
    faint = (turned[..., 3] > 30) & (turned[..., 3] < 220)
    assert faint.sum() > 20 and np.abs(turned[faint][:, :3].astype(int) - (200, 100, 50)).max() <= 4


def test_a_field_bends_by_its_own_deviation():
    """The middle of a long stick moves up where the field says so, and its ends stay."""
    stick = np.zeros((41, 41, 4), np.uint8)
    stick[19:22] = 255
    field = np.zeros((3, 3, 2), np.float32)
    field[:, 1, 1] = 0.2  # what is below comes up
    bent = deform(stick, Deformation(41, field=field))
    rows = [float(np.nonzero(bent[:, column, 3] > 128)[0].mean()) for column in (2, bent.shape[1] // 2, -3)]
    assert rows[0] == pytest.approx(rows[2], abs=1.5) and rows[0] - rows[1] == pytest.approx(0.2 * 41, rel=0.2)
    many = [draw(np.random.default_rng(i), (20, 40), 30, True, 0.05) for i in range(300)]
    assert np.std([each.field for each in many]) == pytest.approx(0.05, rel=0.05)
    assert 20 <= min(each.size for each in many) < 21 and 39 < max(each.size for each in many) <= 40
    assert max(abs(math.degrees(each.angle)) for each in many) <= 30
    assert 0.4 < np.mean([each.mirrored for each in many]) < 0.6


def test_photos_as_grounds_are_not_shared_by_splits_either(folder, tmp_path):
    grounds = tmp_path / "photos"
    grounds.mkdir()
    for number in range(10):
        Image.new("RGB", (90, 60), (0, 20 * number, 200)).save(grounds / f"{number}.png")
    source = ComposedCutouts(str(folder), (32, 40, 3), size=(0.2, 0.3), backgrounds=str(grounds), train=60, test=60)

    def levels(split):
        pixels = [np.median(each["image"].reshape(-1, 3), axis=0) for each in source.open(split)]
        assert all(blue == 200 and red == 0 for red, _, blue in pixels)
        return {int(green) // 20 for _, green, _ in pixels}

    assert (levels("train"), levels("validation"), levels("test")) == ({0, 1, 2, 5, 6, 7}, {3, 8}, {4, 9})
    assert source.open("train").version != dataclasses.replace(source, backgrounds=None).open("train").version
    few = dataclasses.replace(source, backgrounds=str(folder / "cats" / "none"))
    with pytest.raises(UserError, match="none, which has 0 photos; 5 are needed"):
        few.open("train")


def test_another_file_is_another_version(folder):
    source = ComposedCutouts(str(folder), (32, 32, 3))
    before = source.open("train").version
    assert before == source.open("test").version and before.startswith("1-")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 4), np.uint8)).save(folder / "cats" / "9.png")
    assert source.open("train").version != before


def test_a_folder_that_does_not_fit_is_one_sentence(folder, tmp_path):
    def told(path=folder):
        with pytest.raises(UserError) as error:
            ComposedCutouts(str(path), (32, 32, 3)).open("train")
        return str(error.value)

    assert "there is no folder" in told(tmp_path / "gone")
    assert "has no class folders; expected is" in told(folder / "cats")
    Image.new("RGB", (9, 9)).save(folder / "cats" / "0.png")
    assert f"{folder / 'cats' / '0.png'} has no transparency; cut the object out" in told()
    Image.new("RGBA", (9, 9), (1, 2, 3, 0)).save(folder / "cats" / "1.png")
    Image.new("RGBA", (9, 9), (1, 2, 3, 255)).save(folder / "cats" / "2.png")
    (folder / "cats" / "5.png").write_bytes(b"nothing")
    words = told()
    for part in (
        "0.png has no",
        "1.png is transparent everywhere",
        "2.png is opaque everywhere",
        "5.png cannot be read",
    ):
        assert part in words
    for number in (0, 1):
        (folder / "cats" / f"{number}.png").unlink()
    assert "cats has 4 cutouts, and a class needs 5: train, validation and test" in told()


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("objects", (0, 2), "objects is (0, 2); it is (least, most), from 1 to 100"),
        ("size", (0.8, 0.4), "size is (0.8, 0.4)"),
        ("deformation", 1.0, "deformation is 1.0; it must be in 0 to 0.3"),
        ("image_shape", (8, 32, 3), "sides of at least 16 pixels"),
        ("train", 0, "train must be at least 1"),
        ("seed", -1, "seed must be in"),
    ],
)
def test_a_wrong_value_is_named(field, value, told):
    with pytest.raises(UserError) as error:
        ComposedCutouts("set", **{field: value})
    assert told in str(error.value)


@pytest.mark.skipif(not CUTOUTS.is_dir(), reason=f"not run: the photos of {CUTOUTS} are not here")
def test_the_real_cutouts_compose():
    source = ComposedCutouts(str(CUTOUTS), (96, 96, 3), objects=(1, 4), size=(0.2, 0.5), deformation=0.1, rotation=30)
    examples = source.open("train")
    assert len(examples.classes) == 8 and examples.classes[0] == "birds"
    for i in range(12):
        example = check_example(examples, i, examples[i], ("image", "boxes", "classes"))
        sides = example["boxes"][:, 2:] - example["boxes"][:, :2]
        assert len(sides) and (sides >= 3).all() and sides.max() <= 96
