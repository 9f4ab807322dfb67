"""The library dex-retargeting behind our own interface: one hand frame by frame, smoothed, within limits and speed.

In: keypoints (T, 21, 3) with times. Out: a LibraryMotion. Called by the egoworld operator of the same name and by
benchmarks. Serves every hand that has a URDF and fingertips; hand.py is the faster way for an Allegro.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.errors import RobotFileInvalid, UnknownRobot, WrongHand
from models.kinematics import allegro, shadow
from models.kinematics.urdf import read_urdf
from models.retarget.hand import ALLEGRO_OVER_HUMAN
from models.retarget.keypoints import KEYPOINTS, TIPS, WristView, from_wrist
from models.retarget.motion import Flag, FloatArray, check_times, held, limited

OBJECTIVES = ("vector", "pinch")
# In the order in which the library names tips.
FINGERS = ("thumb", "index", "middle", "ring", "little")
LITTLE_TIP = 20
HUMAN_TIPS = TIPS | {"little": LITTLE_TIP}

# A Shadow hand's stretched middle finger reaches 195 mm from its wrist, an average adult's 189 mm.
SHADOW_OVER_HUMAN = 1.03

# Change of the objective at which the solver ends. The library's own 1e-6 takes nearly three times as long for tips
# that are half a millimetre nearer, on an Allegro whose thumb is 28 mm off for want of reach.
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class LibraryHand:
    """One robot hand of one side, as the library needs it."""

    name: str
    side: str
    urdf: Path
    wrist: str  # link whose axes are those of models/retarget/keypoints.py
    tips: dict[str, str]  # finger → link
    over_human: float = 1.0  # its size over a person's

    def __post_init__(self) -> None:
        """Refuse what cannot be a hand."""
        unknown = sorted(set(self.tips) - set(FINGERS))
        if self.side not in ("left", "right") or unknown or not self.tips:
            raise UnknownRobot(f"{self.name}: side must be left or right, tips some of {', '.join(FINGERS)}")


def allegro_hand(side: str) -> LibraryHand:
    """The Allegro hand that this repository describes."""
    tips = dict(zip(allegro.FINGERS, allegro.TIPS, strict=True))
    return LibraryHand(f"allegro_{side}", side, allegro.urdf_path(side), "wrist", tips, ALLEGRO_OVER_HUMAN)


def shadow_hand(side: str) -> LibraryHand:
    """The Shadow hand that this repository describes, five fingers."""
    return LibraryHand(
        f"shadow_{side}", side, shadow.urdf_path(side), shadow.WRIST, shadow.tips(side), SHADOW_OVER_HUMAN
    )


# Hands that need no URDF of the user's: name → the hand of a side.
HANDS = {"allegro": allegro_hand, "shadow": shadow_hand}


@dataclass(frozen=True, slots=True)
class LibraryMotion:
    """T frames of a robot hand with J joints."""

    joints: tuple[str, ...]  # in the URDF's order
    angles_rad: FloatArray  # (T, J)
    flags: np.ndarray  # (T,) motion.Flag
    tip_error_m: FloatArray  # (T, 4) index, middle, ring, thumb; NaN where the robot has no such finger or it is unseen


class LibraryRetargeter:
    """One hand and one objective of dex-retargeting. Holds no state between calls."""

    def __init__(
        self,
        hand: LibraryHand,
        objective: str = "vector",
        scaling: float | None = None,
        smoothing: float = 0.6,
        tolerance: float = TOLERANCE,
    ) -> None:
        """`smoothing` 0..1 is the share of the new angles in each frame, 1 for none; `tolerance` ends the solver.

        `scaling` is the robot's size over the person's; None: the hand's own.
        """
        from dex_retargeting.robot_wrapper import RobotWrapper

        if objective not in OBJECTIVES:
            raise UnknownRobot(f"there is no objective {objective!r}; choose {', '.join(OBJECTIVES)}")
        self.hand, self.objective, self.smoothing = hand, objective, smoothing
        self.scaling = hand.over_human if scaling is None else scaling
        tree = read_urdf(hand.urdf)
        self.joints = tuple(tree.joints)
        self.lower_rad, self.upper_rad, self.speed_rad_s = tree.lower_rad, tree.upper_rad, tree.speed_rad_s
        self.fingers = tuple(finger for finger in FINGERS if finger in hand.tips)
        robot = RobotWrapper(str(hand.urdf))
        links = [hand.wrist, *(hand.tips[finger] for finger in self.fingers)]
        missing = sorted(set(links) - set(robot.link_names))
        if missing:
            raise RobotFileInvalid(f"{hand.urdf} has no link {missing[0]}; it has {', '.join(robot.link_names)}")
        carrier = tree.link_joint[tree.link(hand.wrist)]
        if carrier >= 0:
            raise RobotFileInvalid(
                f"{hand.urdf}: joint {tree.joints[carrier]} moves the wrist {hand.wrist}; cut it off"
            )
        self._base_from_wrist: FloatArray = tree.link_rotation[tree.link(hand.wrist)]
        self._robot, self._links = robot, [robot.get_link_index(link) for link in links]
        self._order = [list(robot.dof_joint_names).index(name) for name in self.joints]
        self._optimizer = self._built(robot, links)
        self._optimizer.opt.set_ftol_abs(tolerance)

    def _built(self, robot: Any, links: list[str]) -> Any:
        from dex_retargeting.optimizer import DexPilotOptimizer, VectorOptimizer

        if self.objective == "pinch":
            return DexPilotOptimizer(robot, robot.dof_joint_names, links[1:], links[0], scaling=self.scaling)
        tips = [HUMAN_TIPS[finger] for finger in self.fingers]
        human = np.array([[0] * len(tips), tips])
        origins = [links[0]] * len(tips)
        return VectorOptimizer(robot, robot.dof_joint_names, origins, links[1:], human, scaling=self.scaling)

    def retarget(self, keypoints_m: FloatArray, side: str, time_s: FloatArray) -> LibraryMotion:
        """A whole track (T, 21, 3) of a `side` hand at times (T,).

        Raises WrongHand for a hand of the other side, ValueError for wrong shapes or times. Frames that cannot be used
        are held and flagged.
        """
        from dex_retargeting.optimizer_utils import LPFilter
        from dex_retargeting.seq_retarget import SeqRetargeting

        if side != self.hand.side:
            raise WrongHand(f"a {side} hand was given to {self.hand.name}, which is a {self.hand.side} one")
        if keypoints_m.ndim != 3 or keypoints_m.shape[1:] != (KEYPOINTS, 3):
            raise ValueError(f"keypoints must be (frames, 21, 3), not {keypoints_m.shape}")
        check_times(time_s, len(keypoints_m))
        view = from_wrist(torch.as_tensor(keypoints_m, dtype=torch.float64), side)
        # The library knows the robot's base, whose axes need not be the wrist's.
        points, seen = view.points_m.numpy() @ self._base_from_wrist.T, view.tip_seen.numpy()
        usable = self._usable(view, keypoints_m)
        solver = SeqRetargeting(self._optimizer, lp_filter=LPFilter(self.smoothing))
        origin, task = self._optimizer.target_link_human_indices
        angles: FloatArray = np.empty((len(time_s), len(self.joints)))
        middle = (self.lower_rad + self.upper_rad) / 2
        for i in np.flatnonzero(usable):
            goal = points[i, task] - points[i, origin]
            # The library lets joints pass their limits by a milliradian.
            angles[i] = np.clip(solver.retarget(goal)[self._order], self.lower_rad, self.upper_rad)
        angles = held(angles, usable, middle)
        angles, slowed = limited(angles, time_s, self.speed_rad_s, None) if len(angles) else (angles, usable)
        flags = np.where(usable, 0, np.where(view.usable.numpy(), int(Flag.TIP_MISSING), int(Flag.HELD)))
        return LibraryMotion(self.joints, angles, flags | slowed * int(Flag.SLOWED), self._errors(angles, points, seen))

    def _usable(self, view: WristView, keypoints_m: FloatArray) -> np.ndarray:
        """Frames (T,) whose palm and every finger of the robot are there."""
        tips = [HUMAN_TIPS[finger] for finger in self.fingers]
        usable: np.ndarray = view.usable.numpy() & np.isfinite(keypoints_m[:, tips]).all(axis=(1, 2))
        return usable

    def _errors(self, angles: FloatArray, points: FloatArray, seen: np.ndarray) -> FloatArray:
        errors = np.full((len(angles), len(TIPS)), np.nan)
        unordered = np.empty(len(self.joints))
        for i, row in enumerate(angles):
            unordered[self._order] = row
            self._robot.compute_forward_kinematics(unordered)
            wrist, *tips = (self._robot.get_link_pose(link)[:3, 3] for link in self._links)
            for finger, tip in zip(self.fingers, tips, strict=True):
                if finger not in TIPS:
                    continue  # the little finger moves, but the table has no place for it
                column = list(TIPS).index(finger)
                if seen[i, column]:
                    human = self.scaling * points[i, TIPS[finger]]
                    errors[i, column] = np.linalg.norm(tip - wrist - human)
        return errors
