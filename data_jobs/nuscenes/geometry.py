"""Rigid poses and 3-D boxes: slerp, change of frame, corners, interpolation between keyframes. NumPy,
float64.

In: arrays over many boxes at once. Out: arrays. Called by scenes.py, label.py, projection.py, motion.py
and most files beside them. Knows nothing of tables, images or files. Conventions are nuScenes': quaternions are
w, x, y, z; a pose is `global_from_ego` or `ego_from_camera`; sizes are width, length, height; boxes face +x,
y left, z up; cameras look along +z, x right, y down; metres.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Corner k of a box is CORNER_SIGNS[k] × (length, width, height) / 2: the four forward corners first, as in
# nuScenes.
CORNER_SIGNS: FloatArray = np.array(
    [[1, 1, 1], [1, -1, 1], [1, -1, -1], [1, 1, -1], [-1, 1, 1], [-1, -1, 1], [-1, -1, -1], [-1, 1, -1]],
    dtype=np.float64,
)

# Above this cosine the arc is too short to divide by its sine; nuScenes' own tools switch at the same value.
NEARLY_PARALLEL = 0.9995


def rotation_matrices(quaternions: FloatArray) -> FloatArray:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4) w x y z of any non-zero length."""
    w, x, y, z = np.moveaxis(quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def yaw_quaternions(yaw_rad: npt.ArrayLike) -> FloatArray:
    """Quaternions (..., 4) w x y z of turns about +z by `yaw_rad` (...)."""
    half = np.asarray(yaw_rad, dtype=np.float64) / 2
    zero = np.zeros_like(half)
    return np.stack([np.cos(half), zero, zero, np.sin(half)], axis=-1)


def slerp(first: FloatArray, second: FloatArray, fraction: FloatArray) -> FloatArray:
    """Unit quaternions (N, 4) at `fraction` (N,) of the shorter arc from `first` to `second`, both (N, 4).

    Spherical linear interpolation (Shoemake 1985); normalised linear interpolation where the arc is tiny.
    """
    first = first / np.linalg.norm(first, axis=1, keepdims=True)
    second = second / np.linalg.norm(second, axis=1, keepdims=True)
    cosine = np.einsum("nk,nk->n", first, second)
    first = np.where(cosine < 0, -1.0, 1.0)[:, None] * first
    cosine = np.abs(cosine)
    curved = cosine <= NEARLY_PARALLEL
    angle = np.arccos(np.where(curved, cosine, 0.0))
    sine = np.sin(angle)
    weight_first = np.where(curved, np.sin((1 - fraction) * angle) / sine, 1 - fraction)
    weight_second = np.where(curved, np.sin(fraction * angle) / sine, fraction)
    result = weight_first[:, None] * first + weight_second[:, None] * second
    return result / np.linalg.norm(result, axis=1, keepdims=True)


def lerp(first: FloatArray, second: FloatArray, fraction: FloatArray) -> FloatArray:
    """Straight-line interpolation of (N, K) arrays at `fraction` (N,); exact at 0 and 1, and goes on
    outside."""
    return (1 - fraction)[:, None] * first + fraction[:, None] * second


def camera_from_global(
    ego_origin: FloatArray,
    global_from_ego: FloatArray,
    camera_origin: FloatArray,
    ego_from_camera: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Rotation (N, 3, 3) and translation (N, 3) that take global points to the camera: p_camera = R p + t.

    Raises nothing; poses must be proper rotations. Global coordinates are kilometres from the map origin, so
    the two offsets are joined before they meet a point: t = −R_ce (R_eg o_e + o_c) keeps 1e-10 m in float64.
    """
    global_from_camera = global_from_ego @ ego_from_camera
    origin = ego_origin + np.einsum("nij,nj->ni", global_from_ego, camera_origin)
    rotation = np.swapaxes(global_from_camera, 1, 2)
    return rotation, -np.einsum("nij,nj->ni", rotation, origin)


def box_corners(centre: FloatArray, rotation: FloatArray, size_wlh: FloatArray) -> FloatArray:
    """Corners (N, 8, 3) of boxes with centre (N, 3), rotation (N, 3, 3) and size (N, 3) width, length,
    height."""
    half_lwh = size_wlh[:, [1, 0, 2]] / 2
    offsets = CORNER_SIGNS[None] * half_lwh[:, None]
    return centre[:, None] + offsets @ np.swapaxes(rotation, 1, 2)


def time_fraction(
    time: npt.NDArray[np.int64], before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]
) -> FloatArray:
    """Where integer instants `time` (N,) lie between `before` (0) and `after` (1); differences are taken
    exactly."""
    return (time - before).astype(np.float64) / (after - before).astype(np.float64)
