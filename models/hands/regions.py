"""Rotated squares around hands: from a palm, from the last landmarks, and which of them are the same hand.

In: points in image pixels. Out: Regions in image pixels. Called by tracker.py (and landmarks.py, for the
crop). Knows nothing of models. Rotation is clockwise as seen (y points down); 0 = fingers up. Follows
MediaPipe's rect_transformation, detections_to_rects, hand_landmarks_to_rect and association calculators.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

WRIST, MIDDLE_BASE_OF_PALM = 0, 2  # of the palm detector's seven keypoints
# A palm's box grown to hold the whole hand (palm_detection_detection_to_roi.pbtxt).
PALM_SCALE, PALM_SHIFT_UP = 2.6, 0.5
# The landmarks' box grown to hold the hand in the next frame too (hand_landmark_landmarks_to_roi.pbtxt).
HAND_SCALE, HAND_SHIFT_UP = 2.0, 0.1
# Wrist, thumb and the two lower joints of each finger: steadier from frame to frame than finger tips.
STEADY_LANDMARKS = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]
INDEX_BASE, MIDDLE_BASE, RING_BASE = 5, 9, 13
SAME_HAND_IOU = 0.5  # min_similarity_threshold of the graph's AssociationNormRectCalculator


@dataclass(frozen=True, slots=True)
class Region:
    """A square of the image, turned so that the hand in it stands upright."""

    centre_x_px: float
    centre_y_px: float
    side_px: float
    rotation_rad: float

    def image_from_unit(self) -> np.ndarray:
        """(2, 3) float64: from places in the square, (0, 0) top left, (1, 1) bottom right, to the image."""
        along = self.side_px * math.cos(self.rotation_rad)
        across = self.side_px * math.sin(self.rotation_rad)
        x = self.centre_x_px - 0.5 * along + 0.5 * across
        y = self.centre_y_px - 0.5 * across - 0.5 * along
        return np.array([[along, -across, x], [across, along, y]])


def crop(image: np.ndarray, region: Region, size_px: int, border: int) -> np.ndarray:
    """The region as an upright (size_px, size_px, 3) uint8 picture, bilinear; `border` is OpenCV's mode.

    A pixel's corner maps to a pixel's corner (no half-pixel shift), as in
    image_to_tensor_converter_opencv.cc. It warps by perspective as that file does: the affine warp rounds
    its weights differently, which moves landmarks by up to 1 % of a hand where this stays below 0.03 %.
    """
    image_from_crop = np.vstack([region.image_from_unit(), [0.0, 0.0, 1.0]])
    image_from_crop[:2, :2] /= size_px
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(image, image_from_crop, (size_px, size_px), flags=flags, borderMode=border)


def region_of_palm(box_px: np.ndarray, keypoints_px: np.ndarray) -> Region:
    """The hand's region from a palm: `box_px` (4,) xyxy and `keypoints_px` (7, 2)."""
    wrist, middle = keypoints_px[WRIST], keypoints_px[MIDDLE_BASE_OF_PALM]
    width, height = float(box_px[2] - box_px[0]), float(box_px[3] - box_px[1])
    centre = (float(box_px[0]) + width / 2, float(box_px[1]) + height / 2)
    return _grown(centre, width, height, _upright(wrist, middle), PALM_SCALE, PALM_SHIFT_UP)


def region_of_landmarks(landmarks_px: np.ndarray) -> Region:
    """The region to look in next, from `landmarks_px` (21, 2 or more) of this frame."""
    sides = (landmarks_px[INDEX_BASE, :2] + landmarks_px[RING_BASE, :2]) / 2
    rotation = _upright(landmarks_px[WRIST, :2], (sides + landmarks_px[MIDDLE_BASE, :2]) / 2)
    points = landmarks_px[STEADY_LANDMARKS, :2].astype(np.float64)
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    cos, sin = math.cos(rotation), math.sin(rotation)
    image_from_upright = np.array([[cos, -sin], [sin, cos]])
    upright = (points - middle) @ image_from_upright
    low, high = upright.min(axis=0), upright.max(axis=0)
    x, y = middle + image_from_upright @ ((low + high) / 2)
    width, height = high - low
    return _grown((float(x), float(y)), float(width), float(height), rotation, HAND_SCALE, HAND_SHIFT_UP)


def without_repeats(regions: list[Region]) -> list[Region]:
    """One region per hand: of two that overlap, the later in the list stays."""
    kept: list[Region] = []
    for region in regions:
        kept = [other for other in kept if overlap(region, other) <= SAME_HAND_IOU]
        kept.append(region)
    return kept


def overlap(first: Region, second: Region) -> float:
    """Intersection over union of two regions, their rotation ignored as in MediaPipe's CalculateIou."""
    shared = 1.0
    for axis in ("centre_x_px", "centre_y_px"):
        a, b = getattr(first, axis), getattr(second, axis)
        high = min(a + first.side_px / 2, b + second.side_px / 2)
        shared *= max(0.0, high - max(a - first.side_px / 2, b - second.side_px / 2))
    union = first.side_px**2 + second.side_px**2 - shared
    return shared / union if union > 0 else 0.0


def _upright(wrist: np.ndarray, middle: np.ndarray) -> float:
    """Rotation, in −π..π, of a square in which wrist → middle finger's base points up."""
    angle = math.pi / 2 - math.atan2(-float(middle[1] - wrist[1]), float(middle[0] - wrist[0]))
    return angle - 2 * math.pi * math.floor((angle + math.pi) / (2 * math.pi))


def _grown(
    centre: tuple[float, float], width: float, height: float, rotation: float, scale: float, shift_up: float
) -> Region:
    """A box moved towards the fingers by a share of its height, made square on its long side and scaled."""
    x = centre[0] + height * shift_up * math.sin(rotation)
    y = centre[1] - height * shift_up * math.cos(rotation)
    return Region(x, y, max(width, height) * scale, rotation)
