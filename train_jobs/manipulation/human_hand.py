"""Synthetic human hands in motion: 21 keypoints from joint angles, and tracks between everyday postures.

In: a seed. Out: keypoints (T, 21, 3) in metres in MediaPipe's order, and wrist poses. Called by stage3.py and by the
retargeting benchmarks. Bone lengths are those of an average adult hand (after Buchholz et al. 1992: phalanges as
shares of hand length), scaled per hand; postures are open, fist, hook, tip and tripod pinch, point, and mixtures.
Synthetic: results on it are not results on people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# Knuckles of index, middle, ring, little in the wrist's frame (z to the middle knuckle, x out of the palm, y to the
# thumb's side of a right hand), then the three phalanges of each.
KNUCKLES_M = np.array([[0.0, 0.024, 0.088], [0.0, 0.0, 0.09], [0.0, -0.021, 0.083], [-0.002, -0.04, 0.075]])
PHALANGES_M = np.array([[0.043, 0.026, 0.020], [0.048, 0.030, 0.021], [0.044, 0.028, 0.021], [0.034, 0.021, 0.018]])
THUMB_BASE_M, THUMB_BONES_M = np.array([0.014, 0.025, 0.03]), np.array([0.045, 0.034, 0.027])
THUMB_OPEN, THUMB_OPPOSED = np.array([0.35, 0.75, 0.55]), np.array([0.80, 0.05, 0.60])
THUMB_CURL_TOWARDS = np.array([0.35, -0.75, 0.55])

# Per posture: bend of index, middle, ring, little (shares of the full range), thumb opposition and thumb bend.
POSTURES = {
    "open": (0.05, 0.05, 0.05, 0.05, 0.0, 0.05),
    "fist": (0.95, 0.95, 0.95, 0.95, 0.8, 0.8),
    "hook": (0.6, 0.6, 0.6, 0.6, 0.1, 0.2),
    "tip pinch": (0.52, 0.2, 0.15, 0.1, 0.85, 0.45),
    "tripod": (0.5, 0.52, 0.2, 0.15, 0.95, 0.42),
    "point": (0.05, 0.9, 0.9, 0.9, 0.7, 0.7),
    "half": (0.4, 0.4, 0.4, 0.4, 0.5, 0.3),
}
# Full bend of knuckle, middle and end joint.
BEND_RAD = np.array([1.5, 1.75, 1.2])
SPREAD_RAD = np.array([0.12, 0.0, -0.12, -0.22])
# From one posture to the next.
POSTURE_S = 0.9
NUMBERS = 6 + 4  # a posture, and the four fingers' sideways angles


@dataclass(frozen=True, slots=True)
class HandTrack:
    """A hand in motion."""

    time_s: FloatArray  # (T,)
    keypoints_m: FloatArray  # (T, 21, 3) in the wrist's frame
    base_from_wrist: FloatArray  # (T, 4, 4) in a robot's base frame, within a UR5's reach


def keypoints(posture: FloatArray, size: float = 1.0, side: str = "right") -> FloatArray:
    """Postures (T, 10) → keypoints (T, 21, 3) in metres in the wrist's frame."""
    points = np.zeros((len(posture), 21, 3))
    for finger in range(4):
        bend = posture[:, finger, None] * BEND_RAD
        tilt = posture[:, 6 + finger] + SPREAD_RAD[finger] * (1 - posture[:, finger])
        at = np.broadcast_to(KNUCKLES_M[finger], (len(posture), 3))
        points[:, 5 + 4 * finger] = at
        for bone in range(3):
            angle = bend[:, : bone + 1].sum(axis=1)
            flat = np.cos(angle)
            direction = np.stack([np.sin(angle), flat * np.sin(tilt), flat * np.cos(tilt)], 1)
            at = at + PHALANGES_M[finger, bone] * direction
            points[:, 6 + 4 * finger + bone] = at
    points[:, 1:5] = _thumb(posture)
    points *= size
    return points if side == "right" else points * np.array([1.0, -1.0, 1.0])


def _thumb(posture: FloatArray) -> FloatArray:
    """Four points (T, 4, 3) of a right thumb."""
    share = posture[:, 4, None]
    along = _unit((1 - share) * THUMB_OPEN + share * THUMB_OPPOSED)
    towards = THUMB_CURL_TOWARDS - (along @ THUMB_CURL_TOWARDS)[:, None] * along
    towards = _unit(towards)
    at = np.broadcast_to(THUMB_BASE_M, along.shape)
    points = [at]
    for bone, length in enumerate(THUMB_BONES_M):
        angle = (posture[:, 5] * 0.9 * bone)[:, None]
        at = at + length * (np.cos(angle) * along + np.sin(angle) * towards)
        points.append(at)
    return np.stack(points, 1)


def hand_track(seconds: float, seed: int, side: str = "right", rate_hz: float = 30.0) -> HandTrack:
    """A track between random postures and places, smooth, with a millimetre of noise on every keypoint."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    named = np.array(list(POSTURES.values()))
    knots = int(np.ceil(seconds / POSTURE_S)) + 2
    mix = rng.dirichlet(np.full(len(named), 0.15), knots) @ named
    sideways = rng.normal(0, 0.06, (knots, 4))
    posture = _between(np.concatenate([mix, sideways], 1), time / POSTURE_S)
    posture[:, :6] = np.clip(posture[:, :6] + rng.normal(0, 0.004, (len(time), 6)), 0, 1)
    points = keypoints(posture, rng.uniform(0.85, 1.15), side)
    wrist = _between(_wrist_knots(rng, int(np.ceil(seconds / 1.5)) + 2), time / 1.5)
    return HandTrack(time, points + rng.normal(0, 0.001, points.shape), _poses(wrist))


def _wrist_knots(rng: np.random.Generator, knots: int) -> FloatArray:
    """Places in front of the robot and rotation vectors about a hand that points down, (K, 6)."""
    place = rng.uniform([0.25, -0.3, 0.05], [0.55, 0.3, 0.4], (knots, 3))
    return np.concatenate([place, rng.normal(0, 0.25, (knots, 3))], 1)


def _poses(wrist: FloatArray) -> FloatArray:
    from scipy.spatial.transform import Rotation

    down = Rotation.from_euler("y", np.pi)  # the wrist's z, towards the finger tips, points down
    poses = np.tile(np.eye(4), (len(wrist), 1, 1))
    poses[:, :3, :3] = (Rotation.from_rotvec(wrist[:, 3:]) * down).as_matrix()
    poses[:, :3, 3] = wrist[:, :3]
    return poses


def _between(knots: FloatArray, at: FloatArray) -> FloatArray:
    """Smoothstep between rows of knots (K, N) at places (T,)."""
    low = np.floor(at).astype(int)
    share = (at - low)[:, None]
    share = share * share * (3 - 2 * share)
    return np.asarray(knots[low] * (1 - share) + knots[low + 1] * share)


def _unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
