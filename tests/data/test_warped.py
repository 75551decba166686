"""Warped regions: R-CNN's crops against a slow reading of its code, and the set of classification that they make."""

import dataclasses
import json
import math
import pickle

import numpy as np
import pytest

import jaxcnn as jc
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.memory import Memory, load
from jaxcnn.data.splits import open_split
from jaxcnn.data.warped import regions_of
from tests.data.voc_folder import CAT, DOG

SCENES = jc.Synthetic((48, 64, 3), classes=2, train=6, test=5, parts=("boxes", "proposals"))


def matlab_round(value):
    return math.floor(abs(value) + 0.5) * (1 if value >= 0 else -1)


def cropped(image, box, size, padding, fill):
    """rcnn_im_crop.m ("warp"), pixel by pixel, with pixels counted from 1; float64 [size, size, C]."""
    height, width, channels = image.shape
    bbox = [box[0] + 1, box[1] + 1, box[2], box[3]]
    scale = size / (size - 2 * padding)
    half_height, half_width = (bbox[3] - bbox[1] + 1) / 2, (bbox[2] - bbox[0] + 1) / 2
    center = [bbox[0] + half_width, bbox[1] + half_height]
    bbox = [
        matlab_round(center[0] - half_width * scale),
        matlab_round(center[1] - half_height * scale),
        matlab_round(center[0] + half_width * scale),
        matlab_round(center[1] + half_height * scale),
    ]
    unclipped_height, unclipped_width = bbox[3] - bbox[1] + 1, bbox[2] - bbox[0] + 1
    pad_x1, pad_y1 = max(0, 1 - bbox[0]), max(0, 1 - bbox[1])
    bbox = [max(1, bbox[0]), max(1, bbox[1]), min(width, bbox[2]), min(height, bbox[3])]
    clipped_height, clipped_width = bbox[3] - bbox[1] + 1, bbox[2] - bbox[0] + 1
    scale_x, scale_y = size / unclipped_width, size / unclipped_height
    crop_width, crop_height = matlab_round(clipped_width * scale_x), matlab_round(clipped_height * scale_y)
    pad_x1, pad_y1 = matlab_round(pad_x1 * scale_x), matlab_round(pad_y1 * scale_y)
    crop_height, crop_width = min(crop_height, size - pad_y1), min(crop_width, size - pad_x1)
    window = np.empty((size, size, channels))
    window[:] = fill

    def samples(count, length):
        """The two pixels, from 0, and the second's share, of each of `count` samples."""
        for k in range(count):
            place = min(max((k + 0.5) * length / count - 0.5, 0), length - 1)
            low = min(int(place), length - 1)
            yield low, min(low + 1, length - 1), place - low

    for row, (top, bottom, down) in enumerate(samples(crop_height, clipped_height)):
        for column, (left, right, across) in enumerate(samples(crop_width, clipped_width)):
            y, x = bbox[1] - 1, bbox[0] - 1
            upper = image[y + top, x + left] * (1 - across) + image[y + top, x + right] * across
            lower = image[y + bottom, x + left] * (1 - across) + image[y + bottom, x + right] * across
            window[pad_y1 + row, pad_x1 + column] = upper * (1 - down) + lower * down
    return window


@pytest.mark.parametrize(("size", "padding"), [(27, 4), (32, 0), (14, 2), (32, 8)])
def test_crops_are_those_of_the_released_code(size, padding):
    rng = np.random.default_rng(size)
    image = rng.integers(0, 256, (40, 57, 3), np.uint8)
    low, sides = rng.uniform(-3, [45, 30], (30, 2)), rng.uniform(1, [57, 40], (30, 2))
    boxes = np.concatenate([low, low + sides], 1)
    boxes[:15] = np.rint(boxes[:15])
    boxes = np.clip(boxes, 0, [57, 40, 57, 40])
    boxes = np.concatenate([boxes, [[0, 0, 57, 40], [56, 39, 57, 40], [0, 0, 1, 40], [10, 10, 10.4, 10.3]]])
    at_left = [[x, y, x + w, y + w] for w in range(1, 36, 3) for x, y in ((0, 1), (1, 3))]  # halves of pixels round up
    boxes = np.concatenate([boxes, at_left])
    found = jc.warp_regions(image, boxes, size, padding, fill=(124, 117, 104))
    assert found.shape == (58, size, size, 3) and found.dtype == np.uint8
    for row, box in enumerate(boxes):
        expected = cropped(image.astype(float), box, size, padding, (124, 117, 104))
        np.testing.assert_allclose(found[row], expected, atol=0.51, err_msg=str(box))  # whole levels
    edge = jc.warp_regions(image, [[0, 0, 20, 20]], 27, 4, fill=7)[0]
    assert (edge[:3] == 7).all() and (edge[:, :3] == 7).all() and (edge[5:, 5:] != 7).any()
    assert jc.warp_regions(image, np.zeros((0, 4))).shape == (0, 227, 227, 3)


def test_a_region_is_of_the_object_that_it_overlaps_most():
    source = jc.WarpedRegions(SCENES, size=16, padding=2)
    examples = open_split(source, "train", None)
    assert examples.classes == ("background", "class0", "class1")
    expected = []
    for i in range(6):
        scene = SCENES.open("train")[i]
        for box in [*scene["boxes"], *scene["proposals"]]:
            best, label = 0.0, 0
            for truth, kind in zip(scene["boxes"], scene["classes"], strict=True):
                w, h = (min(box[k + 2], truth[k + 2]) - max(box[k], truth[k]) for k in (0, 1))
                inside = max(w, 0) * max(h, 0)
                areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, truth)]
                if inside / (sum(areas) - inside) > best:
                    best, label = inside / (sum(areas) - inside), 1 + int(kind)
            expected.append((examples.photos.where(i), tuple(box.tolist()), label if best >= 0.5 else 0))
    objects = [each for each in expected if each[2]]
    backgrounds = {each for each in expected if not each[2]}
    found = [
        (examples.where(i).split(" (")[0], tuple(map(float, examples.where(i).split(" (")[1][:-1].split(","))), label)
        for i, label in enumerate(examples.labels.tolist())
    ]
    assert [each for each in found if each[2]] == objects
    none = [each for each in found if not each[2]]
    assert {*none} <= backgrounds and len(none) == min(len(backgrounds), 3 * len(objects)) > 0
    first = examples[0]
    scene = SCENES.open("train")[0]
    assert first["label"] == 1 + scene["classes"][0]
    np.testing.assert_array_equal(first["image"], source.warp(scene["image"], scene["boxes"][:1])[0])
    again = pickle.loads(pickle.dumps(examples))
    np.testing.assert_array_equal(again[3]["image"], examples[3]["image"])
    assert open_split(source, "train[:50%]", None).photos.split == "train[:50%]"  # of photos


def test_backgrounds_are_chosen_once_and_to_a_share():
    few = jc.WarpedRegions(SCENES, size=16, padding=2, foreground=0.8)
    examples = few.open("train")
    objects = int((examples.labels > 0).sum())
    assert (examples.labels == 0).sum() == round(objects / 4)
    same = few.open("train")
    assert [same.where(i) for i in range(len(same))] == [examples.where(i) for i in range(len(examples))]


def test_a_classifier_is_trained_on_them():
    examples = jc.WarpedRegions(SCENES, size=16, padding=2).open("train")
    loaded, rest = load(examples, (), with_image((16, 16, 3), LABEL), 2**24)
    assert isinstance(loaded, Memory) and not rest and len(loaded) == len(examples)
    np.testing.assert_array_equal(loaded.arrays["label"], examples.labels)


def test_a_photo_is_decoded_once_for_regions_that_follow_one_another(monkeypatch):
    examples = jc.WarpedRegions(SCENES, size=16, padding=2).open("train")
    read, kind = [], type(examples.photos)
    before = kind.__getitem__
    monkeypatch.setattr(kind, "__getitem__", lambda self, i: read.append(i) or before(self, i))
    for i in range(len(examples)):
        examples[i]
    assert read == sorted({*read}) and len(read) == 6 < len(examples)
    assert not pickle.loads(pickle.dumps(examples))._kept and len(examples._kept) <= 8


def test_files_are_those_of_the_photos(voc, tmp_path):
    voc.add("b", [CAT, DOG]).add("a", [])
    (tmp_path / "x.json").write_text(json.dumps({"a": [[0, 0, 9, 9]], "b": [[10, 5, 30, 20], [40, 30, 50, 38]]}))
    photos = jc.WithProposals(jc.VOCDetection(str(voc.root)), str(tmp_path / "x.json"))
    examples = jc.WarpedRegions(photos, size=8, padding=1, foreground=0.1).open("train")
    assert examples.labels.tolist() == [1, 2, 1, 0, 0] and len({*examples.files.tolist()}) == 2
    assert examples.version == photos.open("train").version


def test_mistakes_are_named():
    without = dataclasses.replace(SCENES, parts=("boxes",))
    with pytest.raises(
        jc.UserError, match="synthetic/train has no proposals, of which regions are; give WithProposals"
    ):
        jc.WarpedRegions(without).open("train")
    with pytest.raises(jc.UserError, match="has no boxes, of which regions are"):
        regions_of(digits := jc.Synthetic().open("test"), digits[0])
    with pytest.raises(jc.UserError, match="padding is 16, on both sides of a size of 32"):
        jc.WarpedRegions(SCENES, size=32)
    with pytest.raises(jc.UserError, match="foreground is 0"):
        jc.WarpedRegions(SCENES, foreground=0)
