"""Rotated squares: the geometry, against its own inverse and against what it should do to a picture."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.hands.landmarks import COUNT, project, turn
from models.hands.regions import (
    Region,
    crop,
    overlap,
    region_of_landmarks,
    region_of_palm,
    without_repeats,
)

places = st.floats(-500, 2500)
sides = st.floats(5, 1500)
angles = st.floats(-math.pi, math.pi)
regions = st.builds(Region, places, places, sides, angles)


@given(regions)
def test_centre_and_sides_of_the_square_land_where_they_should(region):
    image_from_unit = region.image_from_unit()
    centre = image_from_unit @ [0.5, 0.5, 1]
    np.testing.assert_allclose(centre, [region.centre_x_px, region.centre_y_px], atol=1e-6)
    right, down = image_from_unit[:, 0], image_from_unit[:, 1]
    np.testing.assert_allclose(np.linalg.norm(right), region.side_px)
    np.testing.assert_allclose(
        right, region.side_px * np.array([math.cos(region.rotation_rad), math.sin(region.rotation_rad)])
    )
    np.testing.assert_allclose(down @ right, 0, atol=1e-6 * region.side_px**2)


@given(regions, st.integers(0, 2**32 - 1))
def test_projected_points_go_back_to_the_crop(region, seed):
    points = np.random.default_rng(seed).uniform(0, 224, (COUNT, 3))
    image = project(points, region)
    matrix = region.image_from_unit()
    unit = np.linalg.solve(matrix[:, :2], (image[:, :2].astype(np.float64) - matrix[:, 2]).T).T
    np.testing.assert_allclose(unit * 224, points[:, :2], atol=0.02)
    np.testing.assert_allclose(image[:, 2], points[:, 2] / 224 / 0.4 * region.side_px, rtol=1e-5)


@given(angles, st.integers(0, 2**32 - 1))
def test_turning_keeps_lengths_and_depth(angle, seed):
    points = np.random.default_rng(seed).normal(size=(COUNT, 3)).astype(np.float32)
    turned = turn(points, angle)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(points, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(turned[:, 2], points[:, 2])


def test_turn_is_clockwise_as_seen():
    up = np.array([[0, -1, 0]], np.float32)
    np.testing.assert_allclose(turn(up, math.pi / 2), [[1, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("direction, rotation", [((0, -1), 0), ((1, 0), math.pi / 2), ((-1, 0), -math.pi / 2)])
def test_palm_region_stands_with_the_fingers_up_and_moves_towards_them(direction, rotation):
    keypoints = np.zeros((7, 2), np.float32)
    keypoints[0] = (300, 200)
    keypoints[2] = np.add((300, 200), np.multiply(direction, 40))
    region = region_of_palm(np.array([270, 170, 330, 230], np.float32), keypoints)
    assert region.rotation_rad == pytest.approx(rotation, abs=1e-6)
    assert region.side_px == pytest.approx(60 * 2.6)
    centre = np.add((300, 200), np.multiply(direction, 30))
    np.testing.assert_allclose([region.centre_x_px, region.centre_y_px], centre, atol=1e-4)


def hand(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(100, 400, (COUNT, 3)).astype(np.float32)


@given(st.integers(0, 2**32 - 1), angles, st.floats(0.3, 3), places, places)
def test_landmark_region_follows_the_hand_when_it_turns_grows_and_moves(seed, angle, scale, x, y):
    points = hand(seed)
    first = region_of_landmarks(points)
    matrix = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    moved = points.copy()
    moved[:, :2] = points[:, :2] @ matrix.T + (x, y)
    second = region_of_landmarks(moved)
    expected = matrix @ [first.centre_x_px, first.centre_y_px] + (x, y)
    np.testing.assert_allclose([second.centre_x_px, second.centre_y_px], expected, atol=0.1)
    assert second.side_px == pytest.approx(first.side_px * scale, rel=1e-3)
    turned = (second.rotation_rad - first.rotation_rad - angle + math.pi) % (2 * math.pi) - math.pi
    assert abs(turned) < 1e-3


def test_finger_tips_do_not_move_the_landmark_region():
    points = hand(0)
    moved = points.copy()
    moved[[4, 7, 8, 11, 12, 15, 16, 19, 20]] += 500
    assert region_of_landmarks(moved) == region_of_landmarks(points)


def test_crop_of_an_upright_region_is_the_picture_itself():
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    np.testing.assert_array_equal(
        crop(image, Region(150, 120, 64, 0.0), 64, cv2.BORDER_REPLICATE), image[88:152, 118:182]
    )


def test_crop_turns_what_lies_to_the_right_up():
    image = np.zeros((100, 100, 3), np.uint8)
    image[45:55, 70:90] = 255  # right of the centre
    upright = crop(image, Region(50, 50, 100, math.pi / 2), 100, cv2.BORDER_CONSTANT)
    assert upright[15:28, 47:53].min() > 200
    assert upright[40:].max() == 0


def test_crop_beyond_the_edge_is_black_or_the_edge_itself():
    image = np.full((40, 40, 3), 200, np.uint8)
    outside = Region(100, 20, 10, 0.0)
    assert crop(image, outside, 8, cv2.BORDER_CONSTANT).max() == 0
    assert crop(image, outside, 8, cv2.BORDER_REPLICATE).min() == 200


@given(regions, regions)
def test_overlap_is_symmetric_and_a_share(first, second):
    value = overlap(first, second)
    assert 0 <= value <= 1 + 1e-9
    assert value == pytest.approx(overlap(second, first))
    assert overlap(first, first) == pytest.approx(1)


def test_overlap_of_half_shifted_squares_is_a_third():
    assert overlap(Region(0, 0, 10, 0.3), Region(5, 0, 10, -1.0)) == pytest.approx(1 / 3)


def test_of_two_regions_of_one_hand_the_later_stays():
    palm, other, tracked = Region(100, 100, 50, 0), Region(300, 100, 50, 0), Region(104, 100, 50, 0.1)
    assert without_repeats([palm, other, tracked]) == [other, tracked]


@given(st.lists(regions, max_size=6))
def test_kept_regions_never_repeat_a_hand(many):
    kept = without_repeats(many)
    assert all(overlap(a, b) <= 0.5 for i, a in enumerate(kept) for b in kept[:i])
    assert not many or kept[-1] == many[-1]


def test_region_without_size_crops_to_one_colour_instead_of_failing():
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    points = np.full((COUNT, 3), 20, np.float32)
    picture = crop(image, region_of_landmarks(points), 16, cv2.BORDER_REPLICATE)
    assert (picture == image[20, 20]).all()
