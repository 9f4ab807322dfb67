"""Arm and hand as one robot: keypoints and wrist poses over time → 22 angles; the arm makes up for what fingers cannot.

In: keypoints (T, 21, 3), wrist poses, times. Out: a WholeMotion. Called by train_jobs. An Allegro's thumb is short, so
its tips close nearer to its palm than the person's do. With `make_up` the wrist is moved by what is missing between
thumb and fingers: then they meet where the person's meet, which is where the object is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from models.retarget.arm import ArmMotion, ArmRetargeter
from models.retarget.hand import HandMotion, HandRetargeter
from models.retarget.keypoints import TIPS, from_wrist
from models.retarget.motion import FloatArray, held

# Of the robot's tips: what meets in a grasp between thumb and fingers.
INDEX, MIDDLE, THUMB, WRIST = 0, 1, 3, 4


@dataclass(frozen=True, slots=True)
class WholeMotion:
    """T frames of an arm with a hand."""

    angles_rad: FloatArray  # (T, 22) six of the arm, sixteen of the hand
    arm: ArmMotion
    hand: HandMotion


class WholeRetargeter:
    """A hand on an arm. Holds no state between calls."""

    def __init__(self, hand: HandRetargeter, arm: ArmRetargeter, make_up: bool = True) -> None:
        self.hand, self.arm, self.make_up = hand, arm, make_up

    def retarget(self, keypoints_m: FloatArray, base_from_wrist: FloatArray, time_s: FloatArray) -> WholeMotion:
        """A track (T, 21, 3) with wrist poses (T, 4, 4) at times (T,). Raises what hand and arm raise."""
        hand = self.hand.retarget(keypoints_m, self.hand.side, time_s)
        poses = base_from_wrist.copy()
        if self.make_up and len(time_s):
            poses[:, :3, 3] += (poses[:, :3, :3] @ self.missing(hand.angles_rad, keypoints_m)[..., None])[..., 0]
        arm = self.arm.retarget(poses, time_s)
        return WholeMotion(np.hstack([arm.angles_rad, hand.angles_rad]), arm, hand)

    def missing(self, hand_rad: FloatArray, keypoints_m: FloatArray) -> FloatArray:
        """(T, 3) in the wrist's frame: from the robot's place between thumb and fingers to the person's, scaled.

        Where a tip was not seen, what was missing before; nothing before the first.
        """
        view = from_wrist(torch.as_tensor(keypoints_m), self.hand.side)
        wanted = self.hand.scaling * view.points_m[:, list(TIPS.values())].numpy()
        points = self.hand.solver.kinematics(torch.as_tensor(hand_rad, dtype=torch.float32)).double().numpy()
        off = _between(wanted) - _between(points[:, :WRIST] - points[:, WRIST:])
        return held(off, view.tip_seen[:, [INDEX, MIDDLE, THUMB]].all(dim=1).numpy(), np.zeros(3))


def _between(tips_m: FloatArray) -> FloatArray:
    """The place (T, 3) between the thumb's tip and those of index and middle."""
    return np.asarray((tips_m[:, THUMB] + (tips_m[:, INDEX] + tips_m[:, MIDDLE]) / 2) / 2)
