"""Graph-based segmentation and selective search: against slow readings of the papers, and on painted scenes."""

import itertools

import numpy as np
import pytest

from jaxcnn.data import graph_segmentation
from jaxcnn.data.graph_segmentation import segment
from jaxcnn.data.selective_search import Regions, SelectiveSearch, hierarchy
from jaxcnn.errors import UserError
from jaxcnn.metrics.proposal_recall import proposal_recall


def segmented(image, scale, min_size):
    """Algorithm 1 of Felzenszwalb & Huttenlocher 2004, over all edges, with sets of pixels."""
    height, width = image.shape[:2]
    pixels = [*itertools.product(range(height), range(width))]
    edges = []
    for (down, right), (y, x) in itertools.product(((0, 1), (1, 0), (1, 1), (1, -1)), pixels):
        if y + down < height and 0 <= x + right < width:
            other = (y + down, x + right)
            weight = np.sqrt(np.square(image[y, x].astype(np.float32) - image[other].astype(np.float32)).sum())
            edges.append((weight, (y, x), other))
    edges.sort(key=lambda edge: edge[0])
    region, inner = {pixel: frozenset([pixel]) for pixel in pixels}, {}

    def merge(one, other):
        joined = one | other
        region.update(dict.fromkeys(joined, joined))
        return joined

    for weight, a, b in edges:
        one, other = region[a], region[b]
        if one is not other and weight <= min(inner.get(each, 0) + scale / len(each) for each in (one, other)):
            inner[merge(one, other)] = weight
    for _, a, b in edges:
        one, other = region[a], region[b]
        if one is not other and min(len(one), len(other)) < min_size:
            merge(one, other)
    return {region[pixel] for pixel in pixels}


def as_sets(regions):
    return {frozenset(map(tuple, np.argwhere(regions == number).tolist())) for number in range(regions.max() + 1)}


@pytest.mark.parametrize("seed", range(6))
def test_the_segmentation_is_that_of_all_edges(seed, monkeypatch):
    """A few levels only, so that many edges are equally heavy."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 4, (9, 11, 3), np.uint8) * 10 + np.where(np.arange(11) < 5, 0, 60)[:, None].astype(np.uint8)
    for scale, least, parts in ((5.0, 0, 1), (40.0, 0, 2), (40.0, 0, 16), (40.0, 9, 3), (300.0, 4, 2)):
        monkeypatch.setattr(graph_segmentation, "PARTS", parts)  # regions grow within one
        found = segment(image, scale, sigma=0, min_size=least)
        assert as_sets(found) == segmented(image, scale, least)
        assert found.max() > 0 and found[0, 0] == 0


def grouped(image, textures, regions, similarities):
    """Algorithm 1 of Uijlings et al. 2013, everything computed anew from the pixels of the two regions."""
    pixels = [regions == number for number in range(regions.max() + 1)]

    def histogram(mask, bins, number):
        counts = [np.bincount(bins[..., c][mask], minlength=number) for c in range(bins.shape[-1])]
        return np.concatenate(counts) / (mask.sum() * bins.shape[-1])

    def box(mask):
        rows, columns = np.nonzero(mask)
        return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1

    def touching(a, b):
        return any(
            (np.roll(a, 1, axis) & b)[s].any() or (np.roll(b, 1, axis) & a)[s].any()
            for axis, s in ((0, np.s_[1:]), (1, np.s_[:, 1:]))
        )

    def similarity(a, b):
        left, top, right, bottom = box(a | b)
        both = (a | b).sum() / a.size
        parts = {
            "color": np.minimum(*(histogram(m, image.astype(int) * 25 // 256, 25) for m in (a, b))).sum(),
            "texture": np.minimum(*(histogram(m, textures, 10) for m in (a, b))).sum(),
            "size": 1 - both,
            "fill": 1 - ((right - left) * (bottom - top) / a.size - both),
        }
        return sum(parts[name] for name in similarities)

    boxes = [box(mask) for mask in pixels]
    while len(pixels) > 1:
        pairs = [
            (similarity(a, b), i, j)
            for (i, a), (j, b) in itertools.combinations(enumerate(pixels), 2)
            if touching(a, b)
        ]
        _, i, j = max(pairs)
        joined = pixels[i] | pixels[j]
        pixels = [mask for k, mask in enumerate(pixels) if k not in (i, j)] + [joined]
        boxes.append(box(joined))
    return np.array(boxes)


@pytest.mark.parametrize(
    "similarities", [("color", "texture", "size", "fill"), ("texture", "size", "fill"), ("color",)]
)
def test_the_hierarchy_is_that_of_the_pixels(similarities):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (12, 15, 3), np.uint8)
    textures = rng.integers(0, 10, (12, 15, 6), np.uint8)
    regions = np.repeat(np.repeat(np.arange(12).reshape(3, 4), 4, 0), [3, 4, 5, 3], 1)
    regions[5, 5] = 12
    found = hierarchy(Regions(image, textures, regions), similarities)
    np.testing.assert_array_equal(found, grouped(image, textures, regions, similarities))


def scene(size=(96, 128)):
    """Four painted objects, one of two colors, on a ground."""
    image = np.full((*size, 3), (60, 90, 60), np.uint8)
    boxes = [(8, 10, 40, 44), (60, 8, 76, 20), (90, 50, 120, 88), (20, 60, 64, 84)]
    colors = [(220, 40, 40), (40, 60, 230), (240, 220, 40), (200, 60, 220)]
    for (left, top, right, bottom), color in zip(boxes, colors, strict=True):
        image[top:bottom, left:right] = color
    image[60:84, 42:64] = (150, 30, 170)
    return image, np.array(boxes)


@pytest.mark.parametrize("color", ["hsv", "lab", "rgb"])
def test_every_object_of_a_painted_scene_is_proposed(color):
    image, boxes = scene()
    found = SelectiveSearch(colors=(color,), sigma=0)(image)
    truth = [{"boxes": boxes, "classes": np.zeros(4)}]
    assert proposal_recall([found], truth, (0.95,)) == {"recall_95": 1.0}
    assert found.dtype == np.float32 and len(np.unique(found, axis=0)) == len(found) < 100
    assert [0, 0, 128, 96] in found[:3].tolist()  # what is high in a hierarchy comes early
    np.testing.assert_array_equal(found, SelectiveSearch(colors=(color,), sigma=0)(image))


def test_a_large_photo_is_searched_in_a_small_form_and_answered_in_its_own_pixels():
    image, boxes = scene()
    large = np.repeat(np.repeat(image, 4, 0), 4, 1)
    found = SelectiveSearch(longest=128)(large)
    assert proposal_recall([found], [{"boxes": 4 * boxes, "classes": np.zeros(4)}]) == dict(recall_50=1, recall_70=1)
    assert found[:, 2].max() == 512 and found[:, 3].max() == 384


def test_images_of_one_color_of_one_channel_and_of_one_row_have_a_proposal():
    for shape in ((20, 30, 3), (20, 30, 1), (1, 40, 3), (1, 1, 3)):
        found = SelectiveSearch()(np.full(shape, 7, np.uint8))
        assert found.tolist() == [[0, 0, shape[1], shape[0]]]


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match="colors has 'hvs'; did you mean 'hsv'"):
        SelectiveSearch(colors=("hvs",))
    with pytest.raises(UserError, match="similarities has 'colour'; did you mean 'color'"):
        SelectiveSearch(similarities=(("colour",),))
    with pytest.raises(UserError, match="scales is empty"):
        SelectiveSearch(scales=())
