"""The anchor grid of the palm detector."""

from __future__ import annotations

import numpy as np

from models.hands.anchors import ANCHOR_COUNT, anchor_centres


def test_there_are_as_many_anchors_as_the_network_has_rows():
    assert anchor_centres().shape == (ANCHOR_COUNT, 2) == (2016, 2)


def test_first_layer_has_two_anchors_in_each_cell_of_eight_pixels_row_by_row():
    centres = anchor_centres() * 192
    np.testing.assert_allclose(centres[:4], [[4, 4], [4, 4], [12, 4], [12, 4]])
    np.testing.assert_allclose(centres[2 * 24], [4, 12])
    np.testing.assert_allclose(centres[2 * 24 * 24 - 1], [188, 188])


def test_second_layer_has_six_anchors_in_each_cell_of_sixteen_pixels():
    centres = anchor_centres()[2 * 24 * 24 :] * 192
    assert len(centres) == 6 * 12 * 12
    np.testing.assert_allclose(centres[:7], [[8, 8]] * 6 + [[24, 8]])
