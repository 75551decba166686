"""Pictures of maps: what is drawn where."""

import numpy as np

from jaxcnn.explain.overlay import LINE, draw_box, enlarge, grid, map_image, overlay, weights_image, zoom

PHOTO = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)


def test_only_what_is_above_zero_is_drawn():
    heat = np.full((8, 10), -3.0)
    np.testing.assert_array_equal(overlay(PHOTO, heat), PHOTO)
    np.testing.assert_array_equal(overlay(PHOTO, np.zeros((8, 10))), PHOTO)
    heat[2, 3], heat[5, 6] = 4, 1
    changed = (overlay(PHOTO, heat) != PHOTO).any(-1)
    assert changed[2, 3] and changed[5, 6] and changed.sum() == 2


def test_the_largest_value_is_red():
    grey = np.full((2, 2, 1), 100, np.uint8)
    red, green, blue = overlay(grey, np.array([[0, 0], [0, 7.0]]), opacity=1)[1, 1].astype(int)
    assert red > 100 > max(green, blue)


def test_a_box_is_an_outline_inside_its_edges():
    drawn = draw_box(PHOTO, np.array([1, 2, 9, 8]), (1, 2, 3), width=2)
    changed = (drawn == (1, 2, 3)).all(-1)
    expected = np.zeros((8, 10), bool)
    expected[2:8, 1:9] = True
    expected[4:6, 3:7] = False
    np.testing.assert_array_equal(changed, expected)
    np.testing.assert_array_equal(drawn[~expected], PHOTO[~expected])
    assert (draw_box(PHOTO, np.array([-5, -5, 50, 50]), (1, 2, 3), width=1)[1:-1, 1:-1] == PHOTO[1:-1, 1:-1]).all()
    assert (draw_box(PHOTO, np.array([4, 4, 6, 6]), (1, 2, 3), width=3)[4:6, 4:6] == (1, 2, 3)).all()


def test_weights_are_white_at_zero_blue_below_and_red_above():
    below, zero, above = weights_image(np.array([[-2.0, 0, 1]])[..., None], largest=2)[0].astype(int)
    assert below[2] > below[0] and (zero > 240).all() and above[0] > above[2]
    assert (weights_image(np.zeros((1, 1, 3))) == 128).all()  # 127.5, rounded
    np.testing.assert_array_equal(weights_image(np.array([[[1.0, -1, 0]]])), [[[255, 0, 128]]])


def test_a_map_without_contrast_is_dark():
    assert np.isfinite(map_image(np.full((2, 2), 5.0))).all()
    assert map_image(np.array([[0.0, 1.0]])).sum(-1).argmax() == 1


def test_grids_and_enlargement():
    tiles = [np.full((2, 3, 3), n, np.uint8) for n in range(5)]
    picture = grid(tiles)
    assert picture.shape == (2 * 4 - 2, 3 * 5 - 2, 3)
    assert picture[4, 5, 0] == 4 and (picture[2:4] == LINE).all() and (picture[4:, 10:] == 255).all()
    np.testing.assert_array_equal(enlarge(np.array([[1, 2]]), 2), [[1, 1, 2, 2], [1, 1, 2, 2]])
    assert zoom(8) == 28 and zoom(224) == zoom(500) == 1
