"""Anchors against the table that the paper's released code quotes, and torchvision's generator."""

import numpy as np
import pytest

from jaxcnn.ops import anchors
from jaxcnn.ops import boxes as box
from tests.torchvision_ops import torch, torchvision_ops

MATLAB = """
-83 -39 100 56
-175 -87 192 104
-359 -183 376 200
-55 -55 72 72
-119 -119 136 136
-247 -247 264 264
-35 -79 52 96
-79 -167 96 184
-167 -343 184 360
"""
"""As generate_anchors.py quotes the paper's MATLAB code, which counts pixels from 1, the last one included."""


def test_the_papers_anchors_are_its_table():
    table = np.array(MATLAB.split(), np.float32).reshape(9, 4)
    cell = anchors.faster_rcnn_cell()
    np.testing.assert_array_equal(cell, table + np.array([-1, -1, 0, 0]))
    np.testing.assert_array_equal(np.asarray(box.to_inclusive(cell)) + 1, table)


def test_the_12_anchors_of_coco_have_one_scale_more():
    cell = anchors.faster_rcnn_cell(scales=(4, 8, 16, 32))
    assert cell.shape == (12, 4)
    np.testing.assert_array_equal(cell[[1, 2, 3, 5, 6, 7, 9, 10, 11]], anchors.faster_rcnn_cell())


def test_torchvisions_first_rows():
    cell = anchors.cell((128, 256, 512))
    np.testing.assert_array_equal(
        cell[:4], [[-91, -45, 91, 45], [-181, -91, 181, 91], [-362, -181, 362, 181], [-64] * 2 + [64] * 2]
    )


@pytest.mark.parametrize("sizes", [((32,), (64,), (128,), (256,), (512,)), ((32, 64, 128), (100, 200, 333))])
def test_cells_and_grids_of_several_levels_are_torchvisions(sizes):
    torchvision_ops()
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    ratios, shapes, image = (0.5, 1.0, 2.0), [(25 >> i, 38 >> i) for i in range(len(sizes))], (200, 304)
    generator = AnchorGenerator(sizes, (ratios,) * len(sizes))
    images = ImageList(torch.zeros(1, 3, *image), [image])
    wanted = generator(images, [torch.zeros(1, 1, *shape) for shape in shapes])[0].numpy()
    cells = [anchors.cell(each, ratios) for each in sizes]
    for cell, theirs in zip(cells, generator.cell_anchors, strict=True):
        np.testing.assert_array_equal(cell, theirs.numpy())
    strides = [(image[0] // rows, image[1] // columns) for rows, columns in shapes]
    np.testing.assert_array_equal(anchors.pyramid(cells, shapes, strides), wanted)


def test_unrounded_cells_have_the_area_and_the_ratio_asked_for():
    cell = anchors.cell((30, 61), ratios=(0.5, 3), rounded=False)
    sides = cell[:, 2:] - cell[:, :2]
    np.testing.assert_allclose(sides.prod(1), [900, 3721, 900, 3721], rtol=1e-5)
    np.testing.assert_allclose(sides[:, 1] / sides[:, 0], [0.5, 0.5, 3, 3], rtol=1e-5)


def test_a_grid_goes_row_by_row_with_anchors_fastest_and_starts_at_its_offset():
    cell = np.array([[0, 0, 1, 1], [0, 0, 2, 2]], np.float32)
    found = anchors.grid(cell, (2, 3), (10, 100))
    wanted = [[100 * x, 10 * y, 100 * x + s, 10 * y + s] for y in range(2) for x in range(3) for s in (1, 2)]
    np.testing.assert_array_equal(found, wanted)
    moved = anchors.grid(cell, (2, 3), (10, 100), offset=0.5)
    np.testing.assert_array_equal(moved - found, np.tile([50, 5, 50, 5], (12, 1)))
    assert anchors.grid(anchors.faster_rcnn_cell(), (38, 50), (16, 16)).shape == (17_100, 4)
