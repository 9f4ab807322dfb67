"""Flow: a known motion is found again, and a mask is carried by it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from actors.tracker.backend import mask_iou
from actors.tracker.motion import Carrier, Grey, follow, similarity, warp


def texture(height=240, width=320, seed=0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


@pytest.mark.parametrize("angle, scale, shift", [(0, 1, (7, -4)), (5, 1.03, (3, 6)), (-4, 0.95, (-8, 2))])
def test_a_known_motion_is_found_again(angle, scale, shift):
    image = texture()
    matrix = cv2.getRotationMatrix2D((160, 120), angle, scale)
    matrix[:, 2] += shift
    moved = cv2.warpAffine(image, matrix, (320, 240), borderMode=cv2.BORDER_REFLECT)
    before, after = Grey.of(image), Grey.of(moved)
    points = before.corners(200)
    there, good = follow(before, after, points)
    assert good.mean() > 0.7
    transform, agree = similarity(points[good], there[good])
    assert agree.mean() > 0.9
    np.testing.assert_allclose(transform[:2, :2], matrix[:, :2], atol=3e-3)
    np.testing.assert_allclose(transform[:2, 2], matrix[:, 2], atol=0.6)


def test_a_large_frame_is_measured_small_and_answers_in_its_own_pixels():
    image = texture(720, 1280)
    grey = Grey.of(image)
    assert max(grey.pixels.shape) == 640
    moved = Grey.of(np.roll(image, (6, 10), axis=(0, 1)))
    points = grey.corners(100)
    there, good = follow(grey, moved, points)
    np.testing.assert_allclose(np.median((there - points)[good], axis=0), [10, 6], atol=0.5)


def test_a_mask_found_late_is_carried_to_the_newest_frame():
    image = texture()
    mask = np.zeros((240, 320), bool)
    mask[80:140, 100:180] = True
    carrier = Carrier(Grey.of(image))
    for step in range(1, 6):
        carrier.see(Grey.of(np.roll(image, (2 * step, 3 * step), axis=(0, 1))))
    carried = carrier.carry(mask)
    assert mask_iou(carried, np.roll(mask, (10, 15), axis=(0, 1))) > 0.93


def test_what_cannot_be_followed_is_not_carried():
    flat = np.full((240, 320, 3), 128, np.uint8)
    carrier = Carrier(Grey.of(flat))
    carrier.see(Grey.of(flat))
    assert carrier.carry(np.ones((240, 320), bool)) is None
    assert similarity(np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)) is None
    assert not warp(np.zeros((4, 4), bool), np.eye(3)).any()


def test_points_that_leave_the_picture_are_not_believed():
    image = texture()
    before, after = Grey.of(image), Grey.of(np.roll(image, 60, axis=1))
    points = np.array([[310.0, 120.0]], np.float32)
    _, good = follow(before, after, points)
    assert not good.any()
    assert len(follow(before, after, np.zeros((0, 2), np.float32))[1]) == 0
