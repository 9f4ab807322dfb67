"""Synthetic grasps: a person who mimes how to take an object that stands on a robot's table, as a hand track.

In: a seed. Out: an object, and keypoints with wrist poses over time: approach, close, squeeze, lift, hold. Called by
grasps.py. The person sees the robot's hand and steers the place between thumb and fingers, as wide as the robot's
hand over theirs (`scaling`), to the object. Nothing stops the miming fingers: they close further than the object is
wide, which makes the robot squeeze. Keypoints carry a millimetre of noise, the aim 4 mm, and every grasp has its own
posture, tilt and size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from train_jobs.manipulation.grasp_scene import Thing
from train_jobs.manipulation.human_hand import NUMBERS, FloatArray, keypoints

RATE_HZ = 30.0
# Ends of the phases, in seconds.
APPROACH_S, CLOSE_S, SQUEEZE_S, LIFT_S, HOLD_S = 1.0, 2.0, 2.6, 3.8, 4.8
FROM_ABOVE_M, LIFT_M = 0.12, 0.15
KEYPOINT_NOISE_M, AIM_NOISE_M = 0.001, 0.004
# Bend of index, middle, ring, little, thumb opposition, thumb bend: before and after closing.
OPEN, SHUT = (0.12, 0.12, 0.12, 0.12, 0.9, 0.1), (0.56, 0.56, 0.58, 0.6, 0.92, 0.4)
POSTURE_SPREAD = (0.02, 0.02, 0.03, 0.03, 0.03, 0.05)
THUMB_TIP, FINGER_TIPS = 4, (8, 12)


@dataclass(frozen=True, slots=True)
class Mime:
    """One grasp as a person shows it."""

    thing: Thing
    time_s: FloatArray  # (T,)
    keypoints_m: FloatArray  # (T, 21, 3) in the person's wrist frame
    base_from_wrist: FloatArray  # (T, 4, 4)


def random_thing(rng: np.random.Generator) -> Thing:
    """A box or cylinder 30 to 60 mm wide and 60 to 110 mm high, or a ball of 50 to 70 mm; 30 to 250 g."""
    kind = str(rng.choice(["box", "cylinder", "ball"]))
    half = rng.uniform([0.015, 0.015, 0.03], [0.03, 0.03, 0.055])
    if kind == "cylinder":
        half[1] = half[0]
    if kind == "ball":
        half[:] = rng.uniform(0.025, 0.035)
    place = rng.uniform([0.38, -0.15], [0.55, 0.15])
    half_m = (float(half[0]), float(half[1]), float(half[2]))
    return Thing(kind, half_m, float(rng.uniform(0.03, 0.25)), (float(place[0]), float(place[1])),
                 float(rng.uniform(-np.pi, np.pi)))  # fmt: skip


def mimed_grasp(seed: int, scaling: float) -> Mime:
    """The grasp of this seed, for a right robot hand `scaling` times as large as the person's."""
    rng = np.random.default_rng(seed)
    thing = random_thing(rng)
    time = np.arange(round(HOLD_S * RATE_HZ)) / RATE_HZ
    closing = _smooth((time - APPROACH_S) / (CLOSE_S - APPROACH_S))[:, None]
    spread = rng.normal(0, POSTURE_SPREAD)
    posture = np.zeros((len(time), NUMBERS))
    posture[:, :6] = np.clip((1 - closing) * np.array(OPEN) + closing * np.array(SHUT) + spread, 0, 1)
    posture[:, 6:] = rng.normal(0, 0.04, 4)
    points = keypoints(posture, rng.uniform(0.9, 1.1))
    middle, apart = _between_tips(points)
    touching = _touching(apart, thing, scaling)
    middle[touching:] = middle[touching]  # the wrist stays where it is once the opening is as wide as the object
    turn = _turn(apart[touching], middle[touching], rng)
    centre = scaling * middle
    aim = np.array([*thing.place_m, thing.half_m[2]]) + rng.normal(0, AIM_NOISE_M, 3)
    above = FROM_ABOVE_M * (1 - _smooth(time / APPROACH_S))
    lift = LIFT_M * _smooth((time - SQUEEZE_S) / (LIFT_S - SQUEEZE_S))
    poses = np.tile(np.eye(4), (len(time), 1, 1))
    poses[:, :3, :3] = turn
    poses[:, :3, 3] = aim - centre @ turn.T
    poses[:, 2, 3] += lift + above
    return Mime(thing, time, points + rng.normal(0, KEYPOINT_NOISE_M, points.shape), poses)


def _between_tips(points_m: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The place (T, 3) between thumb and fingers, and the way (T, 3) from the one to the others."""
    thumb, fingers = points_m[:, THUMB_TIP], points_m[:, list(FINGER_TIPS)].mean(axis=1)
    return (thumb + fingers) / 2, fingers - thumb


def _touching(apart_m: FloatArray, thing: Thing, scaling: float) -> int:
    """The first frame in which the opening is no wider than the object; the last if there is none."""
    narrow = scaling * np.linalg.norm(apart_m, axis=1) <= 2 * min(thing.half_m[:2])
    return int(np.argmax(narrow)) if narrow.any() else len(narrow) - 1


def _turn(apart: FloatArray, middle: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The hand's orientation (3, 3): thumb and fingers on two sides of the object, the palm above, with some tilt.

    The way from thumb to fingers points away from the robot, the way from the palm to the object down.
    """
    out = apart / np.linalg.norm(apart)
    down = middle - (middle @ out) * out
    down /= np.linalg.norm(down)
    hand = np.stack([out, np.cross(-down, out), -down], 1)  # columns: what becomes the base's x, y and z
    tilt = Rotation.from_rotvec([*rng.normal(0, 0.1, 2), rng.uniform(-0.7, 0.7)])
    return np.asarray(tilt.as_matrix() @ hand.T)


def _smooth(share: FloatArray) -> FloatArray:
    """Smoothstep from 0 to 1."""
    share = np.clip(share, 0, 1)
    return np.asarray(share * share * (3 - 2 * share))
