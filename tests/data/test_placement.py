"""What a net finds in a resized and padded image is told in the image that the source gave."""

import numpy as np
import pytest

import jaxcnn as jc
from jaxcnn.data.fields import PLACEMENT, box_fields, with_image
from jaxcnn.data.geometry import Geometry, to_original
from jaxcnn.data.memory import Memory, load
from jaxcnn.data.pipeline import EvaluationBatches
from jaxcnn.data.preparation import placed, transformed
from jaxcnn.metrics.average_precision import METRICS, measure

SIZES = ((40, 60), (90, 30), (33, 33))
MODES = {
    "stretched": (jc.Resize((32, 48)),),
    "letterbox": (jc.Fit((32, 48)), jc.PadTo((32, 48), 114)),
    "shorter side": (jc.Resize(20, longest=40), jc.PadTo((40, 40))),
    "cropped, mirrored": (jc.Resize(24), jc.CenterCrop(24), jc.HorizontalFlip(1.0)),
}


class Scenes:
    """Example i is of size SIZES[i], with a box in its middle."""

    name, version, split, classes = "scenes", "1", "train", ("thing",)

    def __len__(self):
        return len(SIZES)

    def __getitem__(self, i):
        height, width = SIZES[i]
        image = np.zeros((height, width, 3), np.uint8)
        box = np.array([[0.4 * width, 0.4 * height, 0.6 * width, 0.6 * height]], np.float32)
        image[int(0.4 * height) : int(0.6 * height), int(0.4 * width) : int(0.6 * width)] = 255
        return {"image": image, "boxes": box, "classes": np.zeros(1, np.int32)}

    def where(self, i):
        return f"scenes[{i}]"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loaded", [False, True])
def test_boxes_come_back_to_the_source_image(mode, loaded):
    transforms = MODES[mode]
    shape = (*{"stretched": (32, 48), "letterbox": (32, 48), "shorter side": (40, 40)}.get(mode, (24, 24)), 3)
    fields = with_image(shape, box_fields(2) | PLACEMENT)
    examples, rest = Scenes(), transforms
    if loaded:
        examples, rest = load(examples, transforms, fields, 2**20)
        assert isinstance(examples, Memory) and len(rest) == (mode == "cropped, mirrored")
    batch = EvaluationBatches(examples, rest, fields, 4)[0]
    assert batch["original_size"][:3].tolist() == [list(size) for size in SIZES]
    alone = placed(Scenes()[1]["image"], transforms, np.random.default_rng(0))
    assert np.array_equal(alone["image"], batch["image"][1]) and np.array_equal(
        alone["placement"], batch["placement"][1]
    )
    back = to_original(batch["boxes"], batch["placement"], batch["original_size"])
    for i in range(3):
        np.testing.assert_allclose(back[i, :1], Scenes()[i]["boxes"], atol=1e-3)


@pytest.mark.parametrize("mode", ["stretched", "letterbox", "shorter side"])
def test_pixels_lie_where_their_placement_says(mode):
    """The white rectangle of the moved image, brought back, is that of the source's image within half a pixel there."""
    for i in range(3):
        source = Scenes()[i]
        example = source | {"placement": np.array([1, 1, 0, 0], np.float32)}
        moved = transformed(example, MODES[mode][:1], np.random.default_rng(0))
        inside = moved["image"][..., 0] > 127
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        found = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], float)
        pixel = 1 / np.tile(moved["placement"][:2], 2)  # of the moved image, in the source's
        error = to_original(found, moved["placement"]) - source["boxes"].astype(int)
        assert (np.abs(error) <= 0.5 * np.maximum(pixel, 1) + 1e-3).all()


def test_a_letterbox_keeps_the_aspect_and_fills_one_side():
    fitted = {(40, 60, 3): (32, 48), (90, 30, 3): (32, 11), (30, 100, 3): (14, 48), (1, 999, 3): (1, 48)}
    for shape, size in fitted.items():
        assert jc.Fit((32, 48)).draw(shape, None).size == size
    faster = jc.Resize(600, longest=1000)  # py-faster-rcnn's TEST.SCALES and MAX_SIZE
    assert [faster.draw((*size, 3), None).size for size in ((375, 500), (500, 375), (300, 600), (333, 500))] == [
        (600, 800),
        (800, 600),
        (500, 1000),
        (600, 900),
    ]
    with pytest.raises(jc.UserError, match="longest bounds the side that size does not name"):
        jc.Resize(600, longest=500)


def test_a_turned_image_has_no_placement():
    placement = np.array([1, 1, 0, 0], np.float32)
    example = {"image": np.zeros((5, 5, 3), np.uint8), "placement": placement}

    class Turned(jc.Geometric):
        def draw(self, shape, rng):
            return Geometry(angle=90.0)

    assert np.isnan(transformed(example, (Turned(),), None)["placement"][:2]).all()


def test_a_box_that_is_cut_off_takes_its_area_with_it_and_a_resize_leaves_areas_alone():
    boxes = np.array([[0, 0, 4, 4], [20, 20, 30, 30]], np.float32)
    example = {"image": np.zeros((30, 30, 3), np.uint8), "boxes": boxes, "area": np.array([9, 80], np.float32)}
    moved = transformed(example, (jc.CenterCrop(20), jc.Resize(40)), np.random.default_rng(0))
    assert moved["boxes"].tolist() == [[30, 30, 40, 40]] and moved["area"].tolist() == [80]


@pytest.mark.parametrize("mode", ["stretched", "letterbox", "shorter side"])
def test_a_net_that_answers_the_boxes_of_its_batch_scores_one_in_the_photos_own_pixels(mode):
    shape = (*((40, 40) if mode == "shorter side" else (32, 48)), 3)
    fields = with_image(shape, box_fields(3) | PLACEMENT)
    batch = EvaluationBatches(Scenes(), MODES[mode], fields, len(SIZES))[0]
    found = {
        "boxes": to_original(batch["boxes"], batch["placement"], batch["original_size"]),
        "scores": np.ones_like(batch["classes"], float),
        "classes": batch["classes"],
    }
    truths = [Scenes()[i] for i in range(len(SIZES))]
    for protocol in METRICS:
        assert measure(protocol, found, truths, 1).value == pytest.approx(1)
        assert measure(protocol, found | {"boxes": batch["boxes"]}, truths, 1).value < 0.5  # in the net's pixels
