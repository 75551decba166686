"""One draw moves every part: boxes painted as masks, points painted as dots, and the image itself say the same."""

import dataclasses

import numpy as np
import pytest

from jaxcnn.data import transforms as T
from jaxcnn.data.checks import check_example
from jaxcnn.data.colors import ColorJitter, Noise
from jaxcnn.data.geometry import Geometry, move
from jaxcnn.data.preparation import TransformMistake, transformed

SIZE = (150, 200)
GEOMETRIC = [
    T.Resize(120),
    T.Resize((190, 130)),
    T.CenterCrop((110, 150)),
    T.RandomCrop((100, 140)),
    T.Pad((11, 7)),
    T.PadTo((200, 180)),
    T.PadAndCrop(40),
    T.RandomResizedCrop((120, 160), scale=(0.3, 1.0)),
    T.ScaleJitter(100, 300),
    T.HorizontalFlip(),
    T.VerticalFlip(),
    T.Rotate(180.0),
]
DRAWS = 1000


def names(transform):
    return type(transform).__name__


def box_around(mask):
    """(xmin, ymin, xmax, ymax) of the pixels that are 1."""
    rows, columns = np.flatnonzero((mask == 1).any(1)), np.flatnonzero((mask == 1).any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) if len(rows) else np.zeros(4)


def overlap(one, other):
    """Intersection over union of two boxes."""
    sides = np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0)
    both = sides.prod()
    return both / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - both)


def drawn_box(rng, size=SIZE):
    """A box with edges between pixels, at least 30 pixels long and wide."""
    xmin, ymin = rng.integers(size[1] - 30), rng.integers(size[0] - 30)
    return [xmin, ymin, rng.integers(xmin + 30, size[1] + 1), rng.integers(ymin + 30, size[0] + 1)]


def painted(box, size=SIZE):
    xmin, ymin, xmax, ymax = box
    mask = np.zeros(size, np.uint8)
    mask[ymin:ymax, xmin:xmax] = 1
    return mask


@pytest.mark.parametrize("transform", GEOMETRIC, ids=names)
def test_boxes_painted_as_masks_and_moved_both_ways_agree(transform):
    rng, image = np.random.default_rng(0), np.zeros((*SIZE, 1), np.uint8)
    large = gone = 0
    for draw in range(DRAWS):
        box = drawn_box(rng)
        boxes = np.array([[0, 0, SIZE[1], SIZE[0]], box], np.float32)
        example = {"image": image, "label": draw, "mask": painted(box), "boxes": boxes, "classes": np.array([7, draw])}
        moved = transformed(example, (transform,), rng)
        assert moved["label"] == draw and moved["mask"].shape == moved["image"].shape[:2]
        assert set(np.unique(moved["mask"])) <= {0, 1, 255}
        assert moved["boxes"].dtype == np.float32 and moved["classes"].tolist() == [7, draw][: len(moved["boxes"])]
        height, width = moved["mask"].shape
        whole = moved["boxes"][0]
        assert (whole >= 0).all() and (whole[[2, 3]] <= (width, height)).all()
        seen = box_around(moved["mask"])
        if len(moved["boxes"]) == 1:  # what is left of it is no pixel wide, or nothing
            gone += 1
            assert (seen[2:] - seen[:2]).min() <= 1
            continue
        found = moved["boxes"][1]
        if min(found[2:] - found[:2]) < 10:  # the tip of a turned box can be thinner than a pixel, and long
            assert min(seen[2:] - seen[:2]) < 12
            continue
        assert np.abs(seen - found).max() <= 2  # a pixel is in the mask if its middle is in the box
        if min(found[2:] - found[:2]) >= 30:
            large += 1
            assert overlap(seen, found) > 0.9
    assert large > 0.6 * DRAWS and gone < 0.15 * DRAWS


@pytest.mark.parametrize("transform", GEOMETRIC, ids=names)
def test_points_and_the_image_go_where_the_mask_goes(transform):
    """A bright square is found again at its point, and the mask of the square covers it."""
    if hasattr(transform, "pairs"):
        transform = dataclasses.replace(transform, pairs=())
    rng, shown = np.random.default_rng(1), 0
    for _ in range(100):
        x, y = rng.integers(12, SIZE[1] - 12), rng.integers(12, SIZE[0] - 12)
        image, mask = np.zeros((*SIZE, 3), np.uint8), painted((x - 9, y - 9, x + 9, y + 9))
        image[mask == 1] = 255
        points = np.array([[x, y], [np.nan, np.nan]], np.float32)
        moved = transformed({"image": image, "mask": mask, "points": points}, (transform,), rng)
        assert moved["points"].shape == (2, 2) and np.isnan(moved["points"][1]).all()
        bright, inside = moved["image"][..., 0] > 127, moved["mask"] == 1
        assert (bright != inside).sum() <= 0.15 * max(bright.sum(), inside.sum()) + 8
        height, width = bright.shape
        (px, py), _ = moved["points"]
        if np.isnan(px):
            continue
        assert 0 <= px <= width and 0 <= py <= height
        if 16 < px < width - 16 and 16 < py < height - 16 and not touches_padding(moved["mask"], px, py):
            shown += 1
            rows, columns = np.nonzero(inside)
            assert abs(columns.mean() + 0.5 - px) < 0.7 and abs(rows.mean() + 0.5 - py) < 0.7
    assert shown > 30


def touches_padding(mask, x, y):
    return (mask[max(int(y) - 16, 0) : int(y) + 16, max(int(x) - 16, 0) : int(x) + 16] == 255).any()


def scene(points=5):
    rng = np.random.default_rng(3)
    boxes = np.array([drawn_box(rng) for _ in range(4)], np.float32)
    return {
        "image": rng.integers(0, 256, (*SIZE, 3), np.uint8),
        "mask": rng.integers(0, 5, SIZE, np.uint8),
        "boxes": boxes,
        "classes": np.arange(4, dtype=np.int32),
        "difficult": np.array([True, False, False, True]),
        "crowd": np.array([False, True, False, True]),
        "points": (rng.random((points, 2)) * SIZE[::-1]).astype(np.float32),
    }


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize("flip", [T.HorizontalFlip, T.VerticalFlip])
def test_flipping_twice_is_the_identity_and_pairs_change_places(flip):
    example, rng = scene(), np.random.default_rng(0)
    example["points"] = np.round(example["points"])
    transform = flip(1.0, pairs=((0, 3), (1, 2)))
    once = transformed(example, (transform,), rng)
    axis = 1 if flip is T.HorizontalFlip else 0
    np.testing.assert_array_equal(once["image"], np.flip(example["image"], axis))
    np.testing.assert_array_equal(once["mask"], np.flip(example["mask"], axis))
    mirrored = example["points"][[3, 2, 1, 0, 4]]
    mirrored[:, 1 - axis] = SIZE[axis] - mirrored[:, 1 - axis]
    np.testing.assert_array_equal(once["points"], mirrored)
    same(transformed(once, (transform,), rng), example)


def test_every_draw_of_a_flip_is_the_same_for_all_parts():
    example, rng = scene(), np.random.default_rng(0)
    kinds = set()
    for _ in range(50):
        moved = transformed(example, (T.HorizontalFlip(pairs=()), T.VerticalFlip(pairs=())), rng)
        flips = tuple(
            next(k for k in range(4) if np.array_equal(moved[part], example[part][:: 1 - k % 2 * 2, :: 1 - k // 2 * 2]))
            for part in ("image", "mask")
        )
        kinds.add(flips)
        assert flips[0] == flips[1]
        x, y = flips[0] // 2, flips[0] % 2
        assert moved["boxes"][0, 0] == (SIZE[1] - example["boxes"][0, 2] if x else example["boxes"][0, 0])
        assert moved["boxes"][0, 3] == (SIZE[0] - example["boxes"][0, 1] if y else example["boxes"][0, 3])
    assert len(kinds) == 4


def test_a_box_that_leaves_the_image_goes_with_all_that_is_said_of_it():
    example = scene()
    example["boxes"] = np.array([[0, 0, 40, 40], [60, 60, 100, 90], [40, 40, 60, 60], [10, 0, 30, 50]], np.float32)
    moved = move(example, Geometry(window=(40, 40, 100, 100)))
    np.testing.assert_array_equal(moved["boxes"], [[20, 20, 60, 50], [0, 0, 20, 20]])
    assert moved["classes"].tolist() == [1, 2] and moved["difficult"].tolist() == [False, False]
    assert moved["crowd"].tolist() == [True, False] and len(moved["points"]) == len(example["points"])
    nothing = move(example, Geometry(window=(500, 500, 10, 10)))
    assert nothing["boxes"].shape == (0, 4) and nothing["classes"].shape == (0,)
    assert np.isnan(nothing["points"]).all() and (nothing["mask"] == 255).all() and not nothing["image"].any()
    check_example(Named(tuple("abcde")), 0, nothing, nothing)


def test_a_quarter_turn_is_exact():
    example = {"image": scene()["image"][:, :150], "mask": scene()["mask"][:, :150]}
    example["boxes"] = np.array([[10, 20, 40, 30]], np.float32)
    example["points"] = np.array([[10, 20]], np.float32)
    moved = move(example, Geometry(angle=90.0))
    np.testing.assert_array_equal(moved["mask"], np.rot90(example["mask"]))
    np.testing.assert_allclose(moved["boxes"], [[20, 110, 30, 140]], atol=1e-3)
    np.testing.assert_allclose(moved["points"], [[20, 140]], atol=1e-3)


@dataclasses.dataclass(frozen=True)
class Named:
    classes: tuple[str, ...]

    def where(self, i):
        return f"named[{i}]"


@dataclasses.dataclass(frozen=True)
class Halved:
    """A user's own, which sees the image alone."""

    def __call__(self, image, rng):
        return image[::2, ::2]


@dataclasses.dataclass(frozen=True)
class LeftHalf(T.Geometric):
    """A user's own, which moves everything."""

    def draw(self, shape, rng):
        return Geometry(window=(0, 0, shape[0], shape[1] // 2))


def test_a_transform_of_a_users_own_moves_what_it_draws():
    moved = transformed(scene(), (LeftHalf(),), np.random.default_rng(0))
    np.testing.assert_array_equal(moved["mask"], scene()["mask"][:, :100])
    np.testing.assert_array_equal(LeftHalf()(scene()["image"], np.random.default_rng(0)), moved["image"])


@pytest.mark.parametrize("part", ["mask", "boxes", "points"])
def test_an_image_that_changes_its_size_alone_is_refused_if_something_lies_in_it(part):
    example = {name: value for name, value in scene().items() if name in ("image", part)}
    with pytest.raises(TransformMistake, match=rf"Halved\(\) makes .*\(150, 200\).*\(75, 100\).*{part}.*Geometry"):
        transformed(example, (Halved(),), np.random.default_rng(0))
    alone = transformed({"image": example["image"], "label": 3}, (Halved(),), np.random.default_rng(0))
    assert alone["image"].shape == (75, 100, 3) and alone["label"] == 3


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_points_need_pairs_to_be_mirrored_whatever_is_drawn(probability):
    with pytest.raises(TransformMistake, match=r"HorizontalFlip\(.*the example has points; .*pairs=\(\(0, 1\),\)"):
        transformed(scene(), (T.HorizontalFlip(probability),), np.random.default_rng(0))


def test_photometric_transforms_change_the_image_alone():
    example, rng = scene(), np.random.default_rng(0)
    moved = transformed(example, (ColorJitter(0.4, 0.4, 0.4, 0.1), Noise(9.0)), rng)
    assert (moved["image"] != example["image"]).any()
    same(moved | {"image": 0}, example | {"image": 0})


@pytest.mark.parametrize("transform", [*GEOMETRIC, ColorJitter(0.3), Noise(3.0)], ids=names)
def test_an_image_is_drawn_the_same_with_and_without_other_parts(transform):
    example = scene()
    del example["points"]
    for seed in range(5):
        alone, together = np.random.default_rng(seed), np.random.default_rng(seed)
        image = transform(example["image"], alone)
        np.testing.assert_array_equal(transformed(example, (transform,), together)["image"], image)
        assert alone.random() == together.random()


def test_what_was_handed_in_is_not_written_to():
    example, kept = scene(), scene()
    for part in example.values():
        part.flags.writeable = False
    for transform in GEOMETRIC:
        if hasattr(transform, "pairs"):
            transform = dataclasses.replace(transform, pairs=((0, 1),))
        transformed(example, (transform,), np.random.default_rng(0))
    same(example, kept)
