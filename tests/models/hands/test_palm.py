"""Decoding and merging of palm detections on made-up network outputs whose right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.hands.anchors import anchor_centres
from models.hands.palm import PalmDetector, decode, weighted_nms


def test_decoding_adds_the_anchor_and_halves_the_size():
    anchors = anchor_centres()
    logits = np.full(2016, -200, np.float32)
    logits[1000] = 3.0
    boxes = np.zeros((2016, 18), np.float32)
    boxes[1000] = [19.2, -9.6, 38.4, 57.6, *([1.92, 3.84] * 7)]
    scores, values = decode(logits, boxes, anchors)
    x, y = anchors[1000]
    assert scores == pytest.approx([1 / (1 + np.exp(-3))])
    np.testing.assert_allclose(
        values[0, :4], [x + 0.1 - 0.1, y - 0.05 - 0.15, x + 0.1 + 0.1, y - 0.05 + 0.15], atol=1e-6
    )
    np.testing.assert_allclose(values[0, 4:].reshape(7, 2), np.tile([x + 0.01, y + 0.02], (7, 1)), atol=1e-6)


def test_decoding_survives_extreme_logits_without_a_warning():
    logits = np.array([1e30, -1e30, 0.0, -0.01], np.float32)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        scores, _ = decode(logits, np.zeros((4, 18), np.float32), np.zeros((4, 2), np.float32))
    np.testing.assert_allclose(scores, [1.0, 0.5])


def box(x: float, y: float, size: float, keypoint: float = 0.0) -> list[float]:
    return [x, y, x + size, y + size, *([keypoint] * 14)]


def test_overlapping_rows_become_one_palm_weighted_by_score():
    scores = np.array([0.6, 0.9, 0.8])
    values = np.array([box(0.11, 0.1, 0.2, 0.3), box(0.1, 0.1, 0.2, 0.6), box(0.7, 0.7, 0.2)])
    (first, merged), (second, alone) = weighted_nms(scores, values)
    assert (first, second) == (0.9, 0.8)
    assert merged[0] == pytest.approx((0.6 * 0.11 + 0.9 * 0.1) / 1.5)
    assert merged[4] == pytest.approx((0.6 * 0.3 + 0.9 * 0.6) / 1.5)
    np.testing.assert_allclose(alone, values[2])


def test_rows_that_overlap_by_less_than_three_tenths_stay_two_palms():
    # Two unit squares shifted by s overlap by (1 - s) / (1 + s): 0.29 at s = 0.55, 0.33 at s = 0.5.
    apart = weighted_nms(np.array([0.9, 0.8]), np.array([box(0, 0, 1), box(0.55, 0, 1)]))
    together = weighted_nms(np.array([0.9, 0.8]), np.array([box(0, 0, 1), box(0.5, 0, 1)]))
    assert (len(apart), len(together)) == (2, 1)


@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_palms_come_best_first_and_inside_the_hull_of_the_rows(seed, count):
    rng = np.random.default_rng(seed)
    values = np.array([box(*rng.uniform(0, 0.8, 2), rng.uniform(0.05, 0.2)) for _ in range(count)]).reshape(count, 18)
    palms = weighted_nms(rng.uniform(0.5, 1, count), values)
    scores = [score for score, _ in palms]
    assert scores == sorted(scores, reverse=True)
    assert bool(palms) == bool(count)
    for _, row in palms:
        assert (row[:4] >= values[:, :4].min(axis=0) - 1e-9).all()
        assert (row[:4] <= values[:, :4].max(axis=0) + 1e-9).all()


def test_boxes_without_area_do_not_hang_the_merging():
    assert len(weighted_nms(np.array([0.9, 0.8]), np.array([box(0.5, 0.5, 0.0), box(0.5, 0.5, 0.0)]))) == 1


def test_nothing_is_found_in_a_grey_picture(weights):
    detector = PalmDetector(weights("palm_detection_lite"))
    assert detector(np.full((120, 200, 3), 128, np.uint8)) == []
