"""A hand around an object: the object is laid to the palm, then each finger closes until it touches.

In: a shaped hand, a solid, random numbers. Out: the posture, and where the object is in the hand's frame. Called by
synthetic.py. Nothing is simulated: a closed finger rests on the surface, by signed distance along its bones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from train_jobs.manipulation.hand_shapes import (
    FloatArray,
    Posture,
    ShapedHand,
    frames,
    joints_of,
    random_posture,
    turns,
)
from train_jobs.manipulation.solids import BALL, BOX, CYLINDER, KINDS, signed_distance

STEPS = 16
# Skin is soft: a finger closes until its bones' tube is so far inside.
PRESSED_M = 0.0015
PALM = (0, 5, 9, 13, 17)


@dataclass(frozen=True, slots=True)
class Solid:
    """An object to be held: halves as in solids.py."""

    kind: int
    half_m: tuple[float, float, float]
    rgb: tuple[float, float, float]
    stripes: float  # of its texture, how strong


def random_solid(rng: np.random.Generator) -> Solid:
    """Something that fits a hand: 3 to 8 cm thick, up to 20 cm long."""
    kind = int(rng.integers(len(KINDS)))
    thick, long = rng.uniform(0.014, 0.036, 2), rng.uniform(0.03, 0.1)
    half = {BOX: (thick[0], thick[1], long), CYLINDER: (thick[0], thick[0], long),
            BALL: (1.1 * thick[0],) * 3}[kind]  # fmt: skip
    rgb = tuple(float(value) for value in rng.uniform(0.05, 0.95, 3))
    return Solid(kind, (float(half[0]), float(half[1]), float(half[2])), (rgb[0], rgb[1], rgb[2]), float(rng.uniform()))


def distance(solid: Solid, pose: FloatArray, points_m: FloatArray) -> FloatArray:
    """Signed metres (...) of points (..., 3) in the frame that `pose` (4, 4) places the solid in."""
    local = (points_m.reshape(-1, 3) - pose[:3, 3]) @ pose[:3, :3]
    half = torch.tensor(solid.half_m, dtype=torch.float64)
    found = signed_distance(torch.tensor(solid.kind), half, torch.as_tensor(local))
    return np.asarray(found.numpy().reshape(points_m.shape[:-1]))


def grasp(hand: ShapedHand, solid: Solid, rng: np.random.Generator) -> tuple[Posture, FloatArray]:
    """A posture, and `hand_from_object` (4, 4)."""
    posture = replace(random_posture(rng), opposition=float(rng.uniform(0.6, 1)), deviation=rng.normal(0, 0.05, (5, 3)))
    pose = _at_palm(hand, solid, rng)
    closings = np.linspace(0, 1, STEPS)[:, None] * np.ones(5)
    _, places = frames(hand, turns(hand, posture, closings))
    joints = joints_of(hand, places)
    reached = np.array([_touching(hand, solid, pose, joints[:, 1 + 4 * k : 5 + 4 * k]) for k in range(5)])
    lifted = rng.random(5) < 0.12  # a finger that does not take part
    closing = np.where(lifted, reached * rng.uniform(0, 0.8, 5), reached)
    return replace(posture, closing=closing / (STEPS - 1)), pose


def _at_palm(hand: ShapedHand, solid: Solid, rng: np.random.Generator) -> FloatArray:
    """The object's long axis across the palm, its surface at the palm's skin."""
    pose = np.eye(4)
    across = Rotation.from_euler("y", 90, degrees=True)
    pose[:3, :3] = (Rotation.from_rotvec(rng.normal(0, 0.25, 3)) * across
                    * Rotation.from_euler("z", rng.uniform(-np.pi, np.pi))).as_matrix()  # fmt: skip
    _, places = frames(hand, np.broadcast_to(np.eye(3), (1, len(hand.mesh.joint_names), 3, 3)).copy())
    palm = joints_of(hand, places)[0, list(PALM)]
    middle = palm[1:].mean(axis=0) * rng.uniform(0.8, 1.1)
    pose[:3, 3] = middle + np.array([rng.normal(0, 0.008), 0, 0])
    skin_m = 1.3 * hand.radius_m
    for depth in np.arange(0.01, 0.09, 0.002):  # away from the palm until nothing of it is inside
        pose[2, 3] = middle[2] - depth
        if distance(solid, pose, palm).min() >= skin_m:
            break
    return pose


def _touching(hand: ShapedHand, solid: Solid, pose: FloatArray, bones: FloatArray) -> int:
    """The last of K closings of a finger (K, 4, 3) before it would press in too far."""
    share = np.linspace(0, 1, 5)[:, None]
    along = bones[:, :-1, None] * (1 - share) + bones[:, 1:, None] * share
    inside = distance(solid, pose, along).reshape(len(bones), -1).min(axis=1) < hand.radius_m - PRESSED_M
    return max(0, int(np.argmax(inside)) - 1) if inside.any() else len(bones) - 1
