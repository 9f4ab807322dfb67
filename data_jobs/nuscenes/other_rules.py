"""Two older rules for a 2-D box, kept to be measured against: the devkit's hull and the fine-tuning recipe's
min/max.

In: corners in the camera frame. Out: rectangles and who gets one. Called by label.py (`linear2d`, `seed`);
the hull by tests only, which hold projection.py against it. Sources: nuscenes-devkit 1.2.0 `box_in_image` and
`get_2d_boxes` (behaviour, not code), and the recipe of Andream1912/BotSort-vs-TrackSSM-on-Nuscenes. Both lose
boxes that straddle the camera plane.
"""

from __future__ import annotations

import numpy as np

from data_jobs.nuscenes.geometry import BoolArray, FloatArray
from data_jobs.nuscenes.projection import NEAR_M, project_points

PAIRS = np.array([(i, j) for i in range(8) for j in range(i + 1, 8)])


def corners_visible(corners: FloatArray, intrinsics: FloatArray, image_wh: FloatArray) -> tuple[BoolArray, BoolArray]:
    """(all, any) corner (N,) inside the image deeper than 1 m; False for both unless all corners pass 0.1
    m."""
    pixels = project_points(corners, intrinsics)
    inside = ((pixels > 0) & (pixels < image_wh[:, None])).all(axis=2) & (corners[..., 2] > 1.0)
    in_front = (corners[..., 2] > NEAR_M).all(axis=1)
    return np.asarray(in_front & inside.all(axis=1)), np.asarray(in_front & inside.any(axis=1))


def minmax_boxes(
    centre: FloatArray, corners: FloatArray, intrinsics: FloatArray, image_wh: FloatArray
) -> tuple[BoolArray, FloatArray]:
    """Valid (N,) and xyxy (N, 4): extremes of all eight projected corners, clamped to the image, at least 1 ×
    1 px."""
    pixels = project_points(corners, intrinsics)
    low = np.clip(pixels.min(axis=1), 0, None)
    high = np.minimum(pixels.max(axis=1), image_wh)
    _, visible = corners_visible(corners, intrinsics, image_wh)
    valid = visible & (centre[:, 2] >= NEAR_M) & (high - low >= 1).all(axis=1)
    return valid, np.where(valid[:, None], np.concatenate([low, high], axis=1), 0.0)


def hull_boxes(corners: FloatArray, intrinsics: FloatArray, image_wh: FloatArray) -> tuple[BoolArray, FloatArray]:
    """Valid (N,) and xyxy (N, 4) of (convex hull of the corners with z > 0) ∩ image: the devkit's 2-D export
    rule.

    Every pair of corners is taken as a segment: all lie in the hull and the hull's edges are among them, so
    their parts inside the image, with the image corners inside the hull, have the extremes of the
    intersection.
    """
    ahead = corners[..., 2] > 0
    pixels = np.where(ahead[..., None], project_points(corners, intrinsics), 0.0)
    alive = ahead[:, PAIRS[:, 0]] & ahead[:, PAIRS[:, 1]]
    start, end = pixels[:, PAIRS[:, 0]], pixels[:, PAIRS[:, 1]]
    points, kept = _parts_inside(start, end, alive, image_wh)
    border, held = _image_corners_in_hull(pixels, ahead, image_wh)
    points, kept = np.concatenate([points, border], axis=1), np.concatenate([kept, held], axis=1)
    low = np.where(kept[..., None], points, np.inf).min(axis=1)
    high = np.where(kept[..., None], points, -np.inf).max(axis=1)
    valid = np.asarray((high > low).all(axis=1))
    return valid, np.where(valid[:, None], np.concatenate([low, high], axis=1), 0.0)


def _parts_inside(
    start: FloatArray, end: FloatArray, alive: BoolArray, image_wh: FloatArray
) -> tuple[FloatArray, BoolArray]:
    """Both ends (N, 2S, 2) of the parts of segments inside the image, and which exist (N, 2S)."""
    step = end - start
    safe = np.where(step == 0, 1e-300, step)
    with np.errstate(over="ignore"):
        sides = np.stack([-start / safe, (image_wh[:, None] - start) / safe])
    t0 = np.maximum(sides.min(axis=0).max(axis=-1), 0.0)
    t1 = np.minimum(sides.max(axis=0).min(axis=-1), 1.0)
    kept = alive & (t0 <= t1)
    t0, t1 = np.where(kept, t0, 0.0), np.where(kept, t1, 0.0)
    parts = np.concatenate([start + t0[..., None] * step, start + t1[..., None] * step], axis=1)
    return parts, np.concatenate([kept, kept], axis=1)


def _image_corners_in_hull(pixels: FloatArray, ahead: BoolArray, image_wh: FloatArray) -> tuple[FloatArray, BoolArray]:
    """The four image corners (N, 4, 2) and whether the hull holds them (N, 4): no gap of π in the directions
    to it."""
    corner = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])[None] * image_wh[:, None]
    offset = pixels[:, None] - corner[:, :, None]
    angle = np.arctan2(offset[..., 1], offset[..., 0])
    # A corner of the box that does not count takes the direction of one that does; a box without any holds
    # nothing.
    first = np.asarray(ahead.argmax(axis=1))
    stand_in = np.take_along_axis(angle, first[:, None, None], axis=2)
    angle = np.sort(np.where(ahead[:, None], angle, stand_in), axis=2)
    gap = np.diff(np.concatenate([angle, angle[..., :1] + 2 * np.pi], axis=2), axis=2).max(axis=2)
    return corner.astype(np.float64), (gap < np.pi) & np.asarray(ahead.any(axis=1))[:, None]
