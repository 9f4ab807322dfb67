"""Motion models for association.py by name: Kalman filters, and the simplest things that they must beat.

In: boxes and Steps. Out: predictions. Chosen by name in track.py. Knows nothing of detections, ids or files.

`ego` turns the state of models/box_kalman.py by the camera's rotation between two images before it is predicted: a turn
of the vehicle moves the whole picture, and no constant-velocity model can foresee that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_jobs.nuscenes.association import Motion, Step
from data_jobs.nuscenes.geometry import FloatArray
from data_jobs.nuscenes.matching import IntArray
from data_jobs.runs.errors import RunError
from models import box_kalman
from models.box_kalman import Noise


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

    def begin(self, boxes: FloatArray, class_id: IntArray) -> list[BoxState]:
        """Filters at rest on N boxes (N, 4)."""
        return [BoxState(*state) for state in zip(*box_kalman.born(boxes, self.noise), strict=True)]

    def predict(self, states: list[BoxState], step: Step) -> FloatArray:
        """Advance by one frame; boxes (N, 4)."""
        mean, covariance = _stacked(states)
        if self.ego:
            mean, covariance = box_kalman.turned(mean, covariance, step.image_from_before)
        dt_s = np.full(len(mean), step.dt_s)
        mean, covariance = box_kalman.predicted(mean, covariance, dt_s, self.noise)
        _scatter(states, mean, covariance)
        return mean[:, :4].copy()

    def update(self, states: list[BoxState], boxes: FloatArray) -> None:
        """Kalman correction with the matched boxes (N, 4)."""
        mean, covariance = _stacked(states)
        _scatter(states, *box_kalman.corrected(mean, covariance, boxes, self.noise))


@dataclass(slots=True, eq=False)
class BoxChange:
    """One track's last box and how it changed."""

    box: FloatArray  # (4,)
    speed: FloatArray  # (4,) per second, between the last two matches
    seen: FloatArray  # (4,) the last matched box
    since_s: float = 0.0  # the last match


class LastChange:
    """Constant velocity from the last two matched boxes; with `still`, the last box."""

    def __init__(self, still: bool) -> None:
        self.still = still

    def begin(self, boxes: FloatArray, class_id: IntArray) -> list[BoxChange]:
        """At rest on boxes (N, 4)."""
        return [BoxChange(box, np.zeros(4), box) for box in boxes]

    def predict(self, states: list[BoxChange], step: Step) -> FloatArray:
        """Advance by one frame; boxes (N, 4)."""
        for state in states:
            state.since_s += step.dt_s
            state.box = state.box + state.speed * step.dt_s
            state.box[2:] = np.maximum(state.box[2:], 1.0)
        return np.stack([state.box for state in states])

    def update(self, states: list[BoxChange], boxes: FloatArray) -> None:
        """Take over the matched boxes (N, 4)."""
        for state, box in zip(states, boxes, strict=True):
            if state.since_s > 0 and not self.still:
                state.speed = (box - state.seen) / state.since_s
            state.box, state.seen, state.since_s = box, box, 0.0


def _stacked(states: list[BoxState]) -> tuple[FloatArray, FloatArray]:
    return np.stack([s.mean for s in states]), np.stack([s.covariance for s in states])


def _scatter(states: list[BoxState], mean: FloatArray, covariance: FloatArray) -> None:
    for k, state in enumerate(states):
        state.mean, state.covariance = mean[k], covariance[k]


MOTIONS: dict[str, Callable[[], Motion]] = {
    "last_box": lambda: LastChange(still=True),
    "constant_velocity": lambda: LastChange(still=False),
    "kalman": lambda: BoxKalman(box_kalman.BYTETRACK, ego=False),
    "kalman_tuned": lambda: BoxKalman(box_kalman.TUNED, ego=False),
    "kalman_ego": lambda: BoxKalman(box_kalman.TUNED, ego=True),
}
LEARNED = "trackssm"


def motion_maker(name: str, weights: Path | None = None) -> Callable[[], Motion]:
    """Makes fresh motion models of one name; a network is loaded once.

    Raises RunError that lists the names, ModelError for weights that do not fit.
    """
    if name == LEARNED:
        from data_jobs.nuscenes.learned import learned_motion

        return learned_motion(weights)
    if name not in MOTIONS:
        raise RunError(f"there is no motion model {name!r}; choose one of {', '.join((*MOTIONS, LEARNED))}")
    return MOTIONS[name]
