"""Palm detector: an image to palms, best first.

In: (H, W, 3) uint8 RGB. Out: Palms in image pixels. Called by tracker.py. Knows nothing of hands beyond the
palm. Follows palm_detection_cpu.pbtxt, tensors_to_detections_calculator.cc and
non_max_suppression_calculator.cc (WEIGHTED).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.hands.anchors import ANCHOR_COUNT, INPUT_SIZE_PX, anchor_centres
from models.hands.regions import Region, crop
from models.litert import LiteRtModel

KEYPOINTS = 7
VALUES = 4 + 2 * KEYPOINTS  # per anchor: box centre x, y, width, height, then the keypoints
# A score of 0.5 (min_score_thresh) before the sigmoid. MediaPipe clips at 100 first, to no effect.
MIN_LOGIT = 0.0
SAME_PALM_IOU = 0.3  # min_suppression_threshold


@dataclass(frozen=True, slots=True)
class Palm:
    """One palm in one image."""

    score: float  # 0..1
    box_px: np.ndarray  # (4,) float32 xyxy
    keypoints_px: (
        np.ndarray
    )  # (7, 2) float32: 0 wrist, 1 index base, 2 middle base, 3 ring base, 4 little base, 5-6 thumb


class PalmDetector:
    """The 192-pixel palm detector with its decoding."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load the .tflite file. Raises UnexpectedModel when it is another model."""
        shapes = {"boxes": (1, ANCHOR_COUNT, VALUES), "scores": (1, ANCHOR_COUNT, 1)}
        self._model = LiteRtModel(path, (1, INPUT_SIZE_PX, INPUT_SIZE_PX, 3), shapes, threads)
        self._anchors = anchor_centres()

    def __call__(self, image: np.ndarray) -> list[Palm]:
        """Palms of (H, W, 3) uint8 RGB, highest score first, one per hand."""
        height, width = image.shape[:2]
        # The whole image, centred in a square with black bars.
        square = Region(width / 2, height / 2, float(max(height, width)), 0.0)
        picture = crop(image, square, INPUT_SIZE_PX, cv2.BORDER_CONSTANT)
        out = self._model(np.multiply(picture, np.float32(1 / 255), dtype=np.float32)[None])
        scores, values = decode(out["scores"][0, :, 0], out["boxes"][0], self._anchors)
        image_from_unit = square.image_from_unit()
        return [_palm(score, row, image_from_unit) for score, row in weighted_nms(scores, values)]


def decode(logits: np.ndarray, boxes: np.ndarray, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that pass MIN_LOGIT: scores (n,) and values (n, 18), xyxy then keypoints, as shares of the input.

    logits (N,), boxes (N, 18) in input pixels relative to anchors (N, 2).
    """
    rows = np.flatnonzero(logits >= MIN_LOGIT)
    scores = 1 / (1 + np.exp(-logits[rows]))
    points = boxes[rows].reshape(-1, VALUES // 2, 2) / np.float32(INPUT_SIZE_PX)
    centre, size = points[:, 0] + anchors[rows], points[:, 1]
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    keypoints = (points[:, 2:] + anchors[rows, None]).reshape(-1, 2 * KEYPOINTS)
    return scores, np.concatenate([corners, keypoints], axis=1)


def weighted_nms(scores: np.ndarray, values: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """(score, values) of each palm: its best row's score, the score-weighted mean of the rows that overlap.

    Averaging steadies the box where plain suppression would jump between neighbours (BlazeFace,
    arXiv:1907.05047).
    """
    palms: list[tuple[float, np.ndarray]] = []
    left = np.argsort(-scores, kind="stable")
    while left.size:
        same = _iou(values[left[0]], values[left]) > SAME_PALM_IOU
        group = left[same]
        if not group.size:  # a box without area overlaps nothing, not even itself
            palms.append((float(scores[left[0]]), values[left[0]]))
            break
        palms.append((float(scores[left[0]]), np.average(values[group], axis=0, weights=scores[group])))
        left = left[~same]
    return palms


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:4], others[:, 2:4])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(others[:, 2:4] - others[:, :2], axis=1)
    union = np.prod(box[2:4] - box[:2]) + areas - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _palm(score: float, row: np.ndarray, image_from_unit: np.ndarray) -> Palm:
    points = row.reshape(-1, 2) @ image_from_unit[:, :2].T + image_from_unit[:, 2]
    return Palm(score, points[:2].reshape(4).astype(np.float32), points[2:].astype(np.float32))
