"""Motion models for association.py: a Kalman filter on image boxes, plain or turned with the ego vehicle.

In: boxes and Steps. Out: predictions. Chosen by name in track.py. Knows nothing of detections, ids or files.

State of a box: centre x, centre y, width, height (pixels) and their velocities (pixels per second). Every
noise is a share of the box's own height, and process noise grows with the time since the last frame, so
irregular frames and other frame rates need no other numbers. `ego` turns the state by the camera's rotation
between two images before it is
predicted: a turn of the vehicle moves the whole picture, and no constant-velocity model can foresee that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_jobs.nuscenes.association import Motion, Step
from data_jobs.nuscenes.geometry import FloatArray
from data_jobs.runs.errors import RunError


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


@dataclass(slots=True, eq=False)
class BoxState:
    """One track's filter."""

    mean: FloatArray  # (8,)
    covariance: FloatArray  # (8, 8)


class BoxKalman:
    """Constant velocity in the image, dt-aware, all tracks of a frame in one batch."""

    def __init__(self, noise: Noise, ego: bool) -> None:
        self.noise = noise
        self.ego = ego

    def begin(self, boxes: FloatArray) -> list[BoxState]:
        """Filters at rest on N boxes (N, 4)."""
        states = []
        for box in boxes:
            height = max(box[3], 1.0)
            spread = np.repeat([2 * self.noise.measured * height, self.noise.birth_velocity * height], 4)
            states.append(BoxState(np.concatenate([box, np.zeros(4)]), np.diag(spread**2)))
        return states

    def predict(self, states: list[BoxState], step: Step) -> FloatArray:
        """Advance by one frame; boxes (N, 4)."""
        mean, covariance = _stacked(states)
        if self.ego:
            mean, covariance = turned(mean, covariance, step.image_from_before)
        move = np.eye(8)
        move[:4, 4:] = np.eye(4) * step.dt_s
        height = np.maximum(mean[:, 3], 1.0)[:, None]
        share = np.repeat([self.noise.position, self.noise.velocity], 4) * np.sqrt(step.dt_s)
        mean = mean @ move.T
        covariance = move @ covariance @ move.T + (height * share)[:, :, None] ** 2 * np.eye(8)
        # A box that shrinks through zero would be nothing to match with.
        mean[:, 2:4] = np.maximum(mean[:, 2:4], 1.0)
        _scatter(states, mean, covariance)
        return mean[:, :4].copy()

    def update(self, states: list[BoxState], boxes: FloatArray) -> None:
        """Kalman correction with the matched boxes (N, 4)."""
        mean, covariance = _stacked(states)
        height = np.maximum(boxes[:, 3], 1.0)[:, None, None]
        innovation = covariance[:, :4, :4] + (self.noise.measured * height) ** 2 * np.eye(4)
        gain = np.linalg.solve(innovation, covariance[:, :4, :]).transpose(0, 2, 1)
        mean = mean + np.einsum("nij,nj->ni", gain, boxes - mean[:, :4])
        _scatter(states, mean, covariance - gain @ covariance[:, :4, :])


def turned(mean: FloatArray, covariance: FloatArray, homography: FloatArray) -> tuple[FloatArray, FloatArray]:
    """States (N, 8), (N, 8, 8) seen after the camera's rotation `homography` (3, 3), pixels to pixels.

    The centre goes through the homography, everything else through its derivative there: velocities turn,
    widths and heights scale. States that the turn carries behind the camera stay as they are.
    """
    point = np.concatenate([mean[:, :2], np.ones((len(mean), 1))], axis=1)
    image = point @ homography.T
    depth = image[:, 2]
    centre = image[:, :2] / np.where(np.abs(depth) > 1e-9, depth, 1.0)[:, None]
    slope = (homography[None, :2, :2] - centre[:, :, None] * homography[None, 2:, :2]) / depth[:, None, None]
    change = np.zeros((len(mean), 8, 8))
    for at in (0, 4):
        change[:, at : at + 2, at : at + 2] = slope
        change[:, at + 2, at + 2], change[:, at + 3, at + 3] = np.abs(slope[:, 0, 0]), np.abs(slope[:, 1, 1])
    new_mean = np.einsum("nij,nj->ni", change, mean)
    new_mean[:, :2] = centre
    new_covariance = change @ covariance @ change.transpose(0, 2, 1)
    ahead = depth > MIN_DEPTH_RATIO
    return (
        np.where(ahead[:, None], new_mean, mean),
        np.where(ahead[:, None, None], new_covariance, covariance),
    )


def _stacked(states: list[BoxState]) -> tuple[FloatArray, FloatArray]:
    return np.stack([s.mean for s in states]), np.stack([s.covariance for s in states])


def _scatter(states: list[BoxState], mean: FloatArray, covariance: FloatArray) -> None:
    for k, state in enumerate(states):
        state.mean, state.covariance = mean[k], covariance[k]


MOTIONS: dict[str, Callable[[], Motion]] = {
    "kalman": lambda: BoxKalman(BYTETRACK, ego=False),
    "kalman_ego": lambda: BoxKalman(TUNED, ego=True),
}


def motion_model(name: str) -> Motion:
    """A fresh motion model by name. Raises RunError that lists the names."""
    if name not in MOTIONS:
        raise RunError(f"there is no motion model {name!r}; choose one of {', '.join(sorted(MOTIONS))}")
    return MOTIONS[name]()
