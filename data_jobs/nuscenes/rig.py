"""Identities across the six cameras: tracklets of different cameras that are the same object get one id.

In: per-camera tracklets of one scene, with poses and calibration. Out: a merged id for each tracklet. Called
by track.py. Knows only 2-D boxes: a box is a direction and an angular size on a sphere around the vehicle
that does not turn with it, so cameras that point apart can be compared, and the ego's turning does not count
as motion.

Two tracklets can be one object if they are of one class, lie in different cameras, and either run at the same
time with the same direction (where fields of view overlap) or follow each other within a second with the
direction that the first one's drift predicts. Links are made best first; one that would put an id twice into
a camera's frame is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_jobs.nuscenes.geometry import FloatArray
from data_jobs.nuscenes.matching import IntArray

# A hand-over takes at most this long: the overlap between neighbouring cameras is a few degrees, and at urban
# speeds an object crosses the gap in less than a second.
MAX_GAP_S = 1.0

# Directions may differ by this share of the object's angular width plus a constant for the cameras' distance
# from each other (1.7 m apart; an object 20 m away shifts by up to 5 degrees, mostly along the viewing
# direction).
WIDTH_SHARE, PARALLAX_RAD = 0.5, 0.05

# Angular heights of the same object in two cameras at nearly the same time; wider apart is another object.
MAX_HEIGHT_RATIO = 1.6

# Frames at each end of a tracklet that its drift is measured on.
END_FRAMES = 6


@dataclass(frozen=True, slots=True)
class Tracklet:
    """One camera track as directions: F frames in time order."""

    camera: int
    class_id: int
    time_s: FloatArray  # (F,)
    azimuth: FloatArray  # (F,) rad, in a frame fixed to the ground, unwrapped over time
    width: FloatArray  # (F,) rad
    height: FloatArray  # (F,) rad


def bearings(
    xywh_px: FloatArray, intrinsics: FloatArray, global_from_camera: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Azimuth, angular width and height (N,) of boxes (N, 4); intrinsics and rotations are (N, 3, 3)."""
    x, y, w, h = xywh_px.T
    ones = np.ones_like(x)
    points = np.stack([[x + w / 2, y + h / 2, ones], [x, y + h / 2, ones], [x + w, y + h / 2, ones],
                       [x + w / 2, y, ones], [x + w / 2, y + h, ones]]).transpose(2, 0, 1)  # fmt: skip
    rays = points @ np.swapaxes(np.linalg.inv(intrinsics), 1, 2) @ np.swapaxes(global_from_camera, 1, 2)
    rays /= np.linalg.norm(rays, axis=2, keepdims=True)

    def angle(i: int, j: int) -> FloatArray:
        return np.arccos(np.clip((rays[:, i] * rays[:, j]).sum(axis=1), -1, 1))

    return np.arctan2(rays[:, 0, 1], rays[:, 0, 0]), angle(1, 2), angle(3, 4)


def link(tracklets: Sequence[Tracklet]) -> IntArray:
    """Group number (N,) of each tracklet: equal numbers are one object."""
    offers = sorted(
        (cost, a, b)
        for a in range(len(tracklets))
        for b in range(a + 1, len(tracklets))
        if (cost := _distance(tracklets[a], tracklets[b])) < 1
    )
    group = np.arange(len(tracklets))
    for _, a, b in offers:
        if group[a] != group[b] and not _collide(tracklets, group, group[a], group[b]):
            group[group == group[b]] = group[a]
    return group


def _collide(tracklets: Sequence[Tracklet], group: IntArray, first: int, second: int) -> bool:
    """Whether the two groups have members of one camera that run at the same time."""
    left = [tracklets[k] for k in np.flatnonzero(group == first)]
    right = [tracklets[k] for k in np.flatnonzero(group == second)]
    return any(
        a.camera == b.camera and a.time_s[0] <= b.time_s[-1] and b.time_s[0] <= a.time_s[-1]
        for a in left
        for b in right
    )


def _distance(a: Tracklet, b: Tracklet) -> float:
    """Below 1 if the two can be one object: the largest of their differences over what is allowed."""
    if a.camera == b.camera or a.class_id != b.class_id:
        return np.inf
    if a.time_s[0] > b.time_s[0]:
        a, b = b, a
    if b.time_s[0] - a.time_s[-1] > MAX_GAP_S:
        return np.inf
    together = (b.time_s >= a.time_s[0]) & (b.time_s <= a.time_s[-1])
    if together.sum() >= 2:
        return _distance_together(a, b, together)
    return _distance_in_turn(a, b)


def _distance_together(a: Tracklet, b: Tracklet, rows: np.ndarray) -> float:
    time = b.time_s[rows]
    azimuth, width, height = (np.interp(time, a.time_s, getattr(a, name)) for name in ("azimuth", "width", "height"))
    apart = np.median(np.abs(_wrapped(b.azimuth[rows] - azimuth)))
    allowed = WIDTH_SHARE * np.median(np.maximum(width, b.width[rows])) + PARALLAX_RAD
    # Boxes are cut by the image border where cameras overlap, so only heights are compared.
    return max(apart / allowed, _height_distance(float(np.median(height)), float(np.median(b.height[rows]))))


def _distance_in_turn(a: Tracklet, b: Tracklet) -> float:
    gap_s = float(b.time_s[0] - a.time_s[-1])
    drift = 0.5 * (_drift(a, slice(-END_FRAMES, None)) + _drift(b, slice(0, END_FRAMES)))
    apart = abs(_wrapped(b.azimuth[0] - a.azimuth[-1] - drift * gap_s))
    allowed = WIDTH_SHARE * max(a.width[-1], b.width[0]) + PARALLAX_RAD
    # Waiting makes a coincidence likelier: a link over the full gap must be twice as good.
    patience = 1 + max(0.0, gap_s) / MAX_GAP_S
    return float(max(apart / allowed * patience, _height_distance(float(a.height[-1]), float(b.height[0]))))


def _height_distance(first: float, second: float) -> float:
    return float(abs(np.log(max(first, 1e-6) / max(second, 1e-6))) / np.log(MAX_HEIGHT_RATIO))


def _drift(tracklet: Tracklet, ends: slice) -> float:
    """Azimuth speed at one end, rad/s; 0 for a tracklet of one frame."""
    time, azimuth = tracklet.time_s[ends], tracklet.azimuth[ends]
    span = time[-1] - time[0]
    return float((azimuth[-1] - azimuth[0]) / span) if span > 0 else 0.0


def _wrapped(angle: FloatArray) -> FloatArray:
    return (angle + np.pi) % (2 * np.pi) - np.pi
