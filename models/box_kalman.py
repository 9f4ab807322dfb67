"""A Kalman filter on image boxes, constant velocity, all boxes of a frame in one batch. NumPy, float64.

In: stacked states, times, homographies, measured boxes. Out: stacked states. Used by data_jobs/nuscenes/motion.py,
which tracks with it, and by models/trackssm, whose residual network starts from its prediction.

State of a box: centre x, centre y, width, height (pixels) and their velocities (pixels per second). Every noise is a
share of the box's own height, and process noise grows with the time since the last frame, so irregular frames and other
frame rates need no other numbers.
"""

# N boxes

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviations as shares of the box height."""

    measured: float  # of a detected box
    position: float  # added to the box per √second
    velocity: float  # added to the velocity (per second) per √second
    birth_velocity: float  # of the unknown first velocity, per second


# ByteTrack's weights (position 1/20, velocity 1/160 per frame at 30 Hz), written per second: 1/20 · √30, and
# 1/160 of the height per frame is 30/160 per second, gained √30 times a second; a newborn starts at ten times
# 1/160 per frame.
BYTETRACK = Noise(measured=0.05, position=0.274, velocity=1.027, birth_velocity=1.875)

# Chosen on the held-out split of the synthetic suite: see `benchmarks/nuscenes_tuning.py` and
# docs/nuscenes.md.
TUNED = Noise(measured=0.05, position=0.05, velocity=0.8, birth_velocity=4.0)

# Farther than this beyond the image a turned box is no longer a box (the homography folds at the horizon).
MIN_DEPTH_RATIO = 0.1


def born(boxes: FloatArray, noise: Noise) -> tuple[FloatArray, FloatArray]:
    """Means (N, 8) and covariances (N, 8, 8) of filters at rest on boxes (N, 4)."""
    height = np.maximum(boxes[:, 3], 1.0)[:, None]
    spread = np.repeat(height * [2 * noise.measured, noise.birth_velocity], 4, axis=1)
    return np.concatenate([boxes, np.zeros_like(boxes)], axis=1), spread[:, :, None] ** 2 * np.eye(8)


def predicted(
    mean: FloatArray, covariance: FloatArray, dt_s: FloatArray, noise: Noise
) -> tuple[FloatArray, FloatArray]:
    """States `dt_s` (N,) later."""
    move = np.tile(np.eye(8), (len(mean), 1, 1))
    move[:, np.arange(4), np.arange(4, 8)] = dt_s[:, None]
    height = np.maximum(mean[:, 3], 1.0)[:, None]
    share = np.repeat([noise.position, noise.velocity], 4) * np.sqrt(dt_s)[:, None]
    mean = np.einsum("nij,nj->ni", move, mean)
    covariance = move @ covariance @ move.transpose(0, 2, 1) + (height * share)[:, :, None] ** 2 * np.eye(8)
    # A box that shrinks through zero would be nothing to match with.
    mean[:, 2:4] = np.maximum(mean[:, 2:4], 1.0)
    return mean, covariance


def corrected(
    mean: FloatArray, covariance: FloatArray, boxes: FloatArray, noise: Noise
) -> tuple[FloatArray, FloatArray]:
    """States after boxes (N, 4) were measured."""
    height = np.maximum(boxes[:, 3], 1.0)[:, None, None]
    innovation = covariance[:, :4, :4] + (noise.measured * height) ** 2 * np.eye(4)
    gain = np.linalg.solve(innovation, covariance[:, :4, :]).transpose(0, 2, 1)
    mean = mean + np.einsum("nij,nj->ni", gain, boxes - mean[:, :4])
    return mean, covariance - gain @ covariance[:, :4, :]


def turned(mean: FloatArray, covariance: FloatArray, homography: FloatArray) -> tuple[FloatArray, FloatArray]:
    """States (N, 8), (N, 8, 8) seen after the camera's rotation: `homography` (3, 3) or (N, 3, 3), pixels to pixels.

    The centre goes through the homography, everything else through its derivative there: velocities turn,
    widths and heights scale. States that the turn carries behind the camera stay as they are.
    """
    centre, slope, ahead = _through(mean[:, :2], homography)
    change = np.zeros((len(mean), 8, 8))
    for at in (0, 4):
        change[:, at : at + 2, at : at + 2] = slope
        change[:, at + 2, at + 2], change[:, at + 3, at + 3] = np.abs(slope[:, 0, 0]), np.abs(slope[:, 1, 1])
    new_mean = np.einsum("nij,nj->ni", change, mean)
    new_mean[:, :2] = centre
    new_covariance = change @ covariance @ change.transpose(0, 2, 1)
    return (
        np.where(ahead[:, None], new_mean, mean),
        np.where(ahead[:, None, None], new_covariance, covariance),
    )


def turned_boxes(boxes: FloatArray, homography: FloatArray) -> FloatArray:
    """Boxes (N, 4) centre x, centre y, width, height, as `turned` moves them."""
    centre, slope, ahead = _through(boxes[:, :2], homography)
    side = boxes[:, 2:] * np.abs(np.diagonal(slope, axis1=1, axis2=2))
    return np.where(ahead[:, None], np.concatenate([centre, side], axis=1), boxes)


def _through(point: FloatArray, homography: FloatArray) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Images (N, 2) of points, the derivative there (N, 2, 2), and which stay in front of the camera."""
    matrix = np.broadcast_to(homography, (len(point), 3, 3))
    image = np.einsum("nij,nj->ni", matrix, np.concatenate([point, np.ones((len(point), 1))], axis=1))
    depth = image[:, 2]
    safe = np.where(np.abs(depth) > 1e-9, depth, 1.0)
    centre = image[:, :2] / safe[:, None]
    slope = (matrix[:, :2, :2] - centre[:, :, None] * matrix[:, 2:, :2]) / safe[:, None, None]
    return centre, slope, depth > MIN_DEPTH_RATIO
