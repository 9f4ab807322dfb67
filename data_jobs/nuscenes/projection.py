"""3-D boxes → 2-D boxes in an image, exactly: near-plane edge clipping, silhouette ∩ image, truncation.

In: boxes in the camera frame, intrinsics, image size. Out: visible rectangles. Called by label.py,
synthetic_truth.py and other_rules.py. Knows nothing of poses, time or tables. A pinhole without distortion, as
nuScenes stores it; pixels, x right, y down, the image is [0, width] × [0, height].

The box of (silhouette ∩ image) is not the silhouette's box clipped to the image: a long truck that leaves
through a corner makes them differ by hundreds of pixels. Its extremes are met on three kinds of points, all
found in closed form: ends of silhouette edges inside the image, crossings of those edges with the image
border, and image corners that the box covers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_jobs.nuscenes.geometry import BoolArray, FloatArray, box_corners

# Nothing nearer than this is seen: nuScenes' own depth limit for corners (geometry_utils.box_in_image),
# metres.
NEAR_M = 0.1

# Corner pairs of the 12 edges, and the 4 edges around each of the 6 faces (indices into EDGES).
EDGES = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 7], [7, 4], [0, 4], [1, 5], [2, 6], [3, 7]])
FACE_EDGES = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [0, 9, 4, 8], [1, 10, 5, 9], [2, 11, 6, 10], [3, 8, 7, 11]])


@dataclass(frozen=True, slots=True)
class Projected:
    """What N boxes look like in an image. Rows of boxes that are not seen hold zeros."""

    seen: BoolArray  # (N,) some part with positive area is in front of the near plane and inside the image
    box_px: FloatArray  # (N, 4) xyxy of the part inside the image
    truncation: FloatArray  # (N,) 0..1: share of the unclipped rectangle's area that the image border cuts off


def project_points(points_camera: FloatArray, intrinsics: FloatArray) -> FloatArray:
    """Pixels (N, K, 2) of camera-frame points (N, K, 3); meaningless where z ≤ 0."""
    homogeneous = points_camera @ np.swapaxes(intrinsics, 1, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return homogeneous[..., :2] / homogeneous[..., 2:]


def may_be_seen(centre: FloatArray, radius_m: FloatArray, intrinsics: FloatArray, image_wh: FloatArray) -> BoolArray:
    """False only for boxes (N,) whose bounding sphere is surely out of the view frustum. `image_wh` is (N,
    2).

    Each side of the image spans a plane through the camera; the sphere is out when its centre is farther than
    its radius beyond one of them.
    """
    x, y, z = centre.T
    fx, fy, skew = intrinsics[:, 0, 0], intrinsics[:, 1, 1], intrinsics[:, 0, 1]
    cx, cy = intrinsics[:, 0, 2], intrinsics[:, 1, 2]
    u, v = fx * x + skew * y + cx * z, fy * y + cy * z  # pixels times depth
    width, height = image_wh.T
    slack_left = radius_m * np.sqrt(fx**2 + skew**2 + cx**2)
    slack_right = radius_m * np.sqrt(fx**2 + skew**2 + (width - cx) ** 2)
    slack_top = radius_m * np.sqrt(fy**2 + cy**2)
    slack_bottom = radius_m * np.sqrt(fy**2 + (height - cy) ** 2)
    return (
        (z > NEAR_M - radius_m)
        & (u > -slack_left)
        & (u < width * z + slack_right)
        & (v > -slack_top)
        & (v < height * z + slack_bottom)
    )


def project_boxes(
    centre: FloatArray,
    rotation: FloatArray,
    size_wlh: FloatArray,
    intrinsics: FloatArray,
    image_wh: FloatArray,
) -> Projected:
    """2-D boxes of N boxes in the camera frame: centre (N, 3), rotation (N, 3, 3), size (N, 3), intrinsics
    (N, 3, 3).

    `image_wh` is (N, 2) pixels. Boxes wholly inside the view take the short way (extremes of eight corners);
    only those that cross the image border or the near plane are clipped.
    """
    corners = box_corners(centre, rotation, size_wlh)
    pixels = project_points(corners, intrinsics)
    in_front = (corners[..., 2] >= NEAR_M).all(axis=1)
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    inside = in_front & (low >= 0).all(axis=1) & (high <= image_wh).all(axis=1)
    box_px = np.where(inside[:, None], np.concatenate([low, high], axis=1), 0.0)
    seen, truncation = inside.copy(), np.zeros(len(centre))
    apart = in_front & ((high <= 0) | (low >= image_wh)).any(axis=1)
    hard = np.flatnonzero(~inside & ~apart & (corners[..., 2] > NEAR_M).any(axis=1))
    if len(hard):
        covered = _covered_image_corners(centre[hard], rotation[hard], size_wlh[hard], intrinsics[hard], image_wh[hard])
        seen[hard], box_px[hard], truncation[hard] = _clipped(corners[hard], intrinsics[hard], image_wh[hard], covered)
    return Projected(seen=seen, box_px=box_px, truncation=truncation)


def _clipped(
    corners: FloatArray, intrinsics: FloatArray, image_wh: FloatArray, covered: BoolArray
) -> tuple[BoolArray, FloatArray, FloatArray]:
    """Seen (N,), xyxy (N, 4), truncation (N,) of boxes that cross a border. `covered` (N, 4): image corners
    inside."""
    ends, alive = _silhouette_segments(corners, intrinsics)
    low, high = _segment_extent(*_clip_to_image(ends, alive, image_wh))
    border = np.stack([np.zeros_like(image_wh), image_wh], axis=1)  # (N, 2, 2): near and far corner
    for k, (i, j) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        corner = np.stack([border[:, i, 0], border[:, j, 1]], axis=1)
        low = np.where(covered[:, k, None], np.minimum(low, corner), low)
        high = np.where(covered[:, k, None], np.maximum(high, corner), high)
    seen = np.asarray((high > low).all(axis=1))
    whole_low, whole_high = _segment_extent(ends, alive)
    whole = np.prod(np.where(seen[:, None], whole_high - whole_low, 1.0), axis=1)
    part = np.prod(np.where(seen[:, None], high - low, 0.0), axis=1)
    box_px = np.where(seen[:, None], np.concatenate([low, high], axis=1), 0.0)
    return seen, box_px, np.where(seen, 1.0 - part / np.maximum(whole, part), 0.0)


def _silhouette_segments(corners: FloatArray, intrinsics: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Projected ends (N, 18, 2, 2) and validity (N, 18) of the 12 near-clipped edges and the 6 near-plane
    cuts."""
    start, end = corners[:, EDGES[:, 0]], corners[:, EDGES[:, 1]]
    start_in, end_in = start[..., 2] >= NEAR_M, end[..., 2] >= NEAR_M
    cut = start_in != end_in
    depth = np.where(cut, end[..., 2] - start[..., 2], 1.0)
    cut_point = start + ((NEAR_M - start[..., 2]) / depth)[..., None] * (end - start)
    start, end = (
        np.where((cut & ~near)[..., None], cut_point, point) for near, point in ((start_in, start), (end_in, end))
    )
    n = len(corners)
    pixels = project_points(np.concatenate([start, end, cut_point], axis=1), intrinsics).reshape(n, 3, 12, 2)
    edges = np.stack([pixels[:, 0], pixels[:, 1]], axis=2)
    # A plane cuts a convex face twice or not at all: the first and the last cut edge of the face hold the
    # ends.
    face_cut = cut[:, FACE_EDGES]
    rows, faces = np.arange(n)[:, None], np.arange(6)[None]
    first = FACE_EDGES[faces, face_cut.argmax(axis=2)]
    last = FACE_EDGES[faces, 3 - face_cut[..., ::-1].argmax(axis=2)]
    cuts = np.stack([pixels[rows, 2, first], pixels[rows, 2, last]], axis=2)
    alive = np.concatenate([start_in | end_in, face_cut.any(axis=2)], axis=1)
    return np.concatenate([edges, cuts], axis=1), alive


def _clip_to_image(ends: FloatArray, alive: BoolArray, image_wh: FloatArray) -> tuple[FloatArray, BoolArray]:
    """The parts of segments (N, S, 2, 2) that lie in the image (Liang and Barsky 1984), and which have
    any."""
    start, step = ends[..., 0, :], ends[..., 1, :] - ends[..., 0, :]
    flat = np.abs(step) < 1e-12
    safe = np.where(flat, 1.0, step)
    with np.errstate(invalid="ignore", over="ignore"):
        enter, leave = -start / safe, (image_wh[:, None] - start) / safe
        enter, leave = np.minimum(enter, leave), np.maximum(enter, leave)
        outside = flat & ((start < 0) | (start > image_wh[:, None]))
        enter, leave = np.where(flat, 0.0, enter), np.where(flat, 1.0, leave)
        t0 = np.maximum(enter.max(axis=-1), 0.0)
        t1 = np.minimum(leave.min(axis=-1), 1.0)
        kept = alive & (t0 <= t1) & ~outside.any(axis=-1)
        parts = np.stack([start + t0[..., None] * step, start + t1[..., None] * step], axis=2)
    return np.clip(parts, 0.0, image_wh[:, None, None]), kept


def _segment_extent(ends: FloatArray, alive: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Low and high corner (N, 2) of the living segments; +inf and −inf where none lives."""
    mask = alive[..., None, None]
    low = np.where(mask, ends, np.inf).min(axis=(1, 2))
    high = np.where(mask, ends, -np.inf).max(axis=(1, 2))
    return low, high


def _covered_image_corners(
    centre: FloatArray,
    rotation: FloatArray,
    size_wlh: FloatArray,
    intrinsics: FloatArray,
    image_wh: FloatArray,
) -> BoolArray:
    """(N, 4): whether the ray through each image corner (00, W0, 0H, WH) meets the box beyond the near plane.

    Slab test in the box's own frame; the ray is scaled to unit depth, so its parameter is the depth.
    """
    width, height = image_wh.T
    zero, one = np.zeros_like(width), np.ones_like(width)
    corner_px = np.stack(
        [np.stack([u, v, one], axis=1) for u, v in ((zero, zero), (width, zero), (zero, height), (width, height))],
        axis=1,
    )
    rays = corner_px @ np.swapaxes(np.linalg.inv(intrinsics), 1, 2) @ rotation
    origin = -np.einsum("nji,nj->ni", rotation, centre)[:, None]
    half = (size_wlh[:, [1, 0, 2]] / 2)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        one_side, other_side = (-half - origin) / rays, (half - origin) / rays
    enter = np.fmin(one_side, other_side).max(axis=2)
    leave = np.fmax(one_side, other_side).min(axis=2)
    return leave >= np.maximum(enter, NEAR_M)
