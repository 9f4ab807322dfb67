"""Mimed grasps retargeted to arm and hand and replayed in MuJoCo: does the robot lift the object and hold it?

In: seeds and a retargeter. Out: an outcome per grasp with the cause of a failure. Called by benchmarks/grasp_replay.py.
The robot follows its 22 angles blindly, as recorded: nothing looks at the object after the mime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from models.retarget.arm import ArmRetargeter
from models.retarget.hand import HandRetargeter
from models.retarget.head import ARM_JOINTS
from models.retarget.motion import Flag
from models.retarget.together import WholeRetargeter
from train_jobs.manipulation.grasp_scene import build
from train_jobs.manipulation.human_hand import FloatArray
from train_jobs.manipulation.mime import CLOSE_S, HOLD_S, LIFT_M, LIFT_S, SQUEEZE_S, Mime, mimed_grasp

# Physics steps between two commands: 125 Hz, as the arm's own interface.
STEPS_PER_COMMAND = 4
# The object counts as lifted at this share of the hand's way up.
LIFTED = 0.8
KNOCKED_M = 0.03
SUCCESS, UNREACHABLE, KNOCKED, NO_GRIP, SLIPPED, DROPPED = (
    "held", "out of the arm's reach", "knocked over or away", "not between thumb and finger", "slipped while lifted",
    "lost while held",
)  # fmt: skip
OUTCOMES = (SUCCESS, UNREACHABLE, KNOCKED, NO_GRIP, SLIPPED, DROPPED)

Watch = Callable[[mujoco.MjModel, mujoco.MjData], None]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of one grasp."""

    outcome: str
    kind: str  # of object
    lifted_m: float  # at the end


def right_hand(objective: str, make_up: bool, arm: str = "ur5e") -> WholeRetargeter:
    """A right Allegro on an arm."""
    return WholeRetargeter(HandRetargeter("right", objective), ArmRetargeter(arm), make_up)


def replay(mime: Mime, angles_rad: FloatArray, arm: str, watch: Watch | None = None) -> Replayed:
    """Follow angles (T, 22) in simulation; `watch` sees the world at every command."""
    model = build(arm, "right", mime.thing)
    data = mujoco.MjData(model)
    places = [model.joint(model.actuator(k).name).qposadr[0] for k in range(model.nu)]
    data.qpos[places] = angles_rad[0]
    seen = _Seen(model, data)
    while data.time < HOLD_S:
        data.ctrl[:] = _at(mime.time_s, angles_rad, data.time)
        mujoco.mj_step(model, data, STEPS_PER_COMMAND)
        seen.look()
        if watch is not None:
            watch(model, data)
    return Replayed(seen.outcome(), mime.thing.kind, seen.height_m())


def _at(times_s: FloatArray, angles_rad: FloatArray, now_s: float) -> FloatArray:
    """The angles between two frames, as a robot's controller fills them in."""
    late = int(np.searchsorted(times_s, now_s, side="right"))
    if late >= len(times_s):
        return angles_rad[-1]
    share = (now_s - times_s[late - 1]) / (times_s[late] - times_s[late - 1])
    return np.asarray((1 - share) * angles_rad[late - 1] + share * angles_rad[late])


class _Seen:
    """What happened to the object at the ends of the phases."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self._model, self._data = model, data
        self._object, self._geom = model.body("object").id, model.geom("object").id
        mujoco.mj_forward(model, data)
        self._start = data.xpos[self._object].copy()
        self._knocked, self._gripped, self._lifted = False, False, 0.0

    def height_m(self) -> float:
        """Of the object's centre above where it stood."""
        return float(self._data.xpos[self._object, 2] - self._start[2])

    def look(self) -> None:
        """Once per command."""
        time, half = self._data.time, STEPS_PER_COMMAND * self._model.opt.timestep / 2
        if abs(time - CLOSE_S) <= half:
            upright = self._data.xmat[self._object, 8] > np.cos(0.8)
            away = np.linalg.norm(self._data.xpos[self._object, :2] - self._start[:2])
            self._knocked = bool(away > KNOCKED_M or not upright)
        if abs(time - SQUEEZE_S) <= half:
            self._gripped = self._between_thumb_and_finger()
        if abs(time - LIFT_S) <= half:
            self._lifted = self.height_m()

    def outcome(self) -> str:
        """At the end: success, or the first thing that went wrong."""
        if min(self._lifted, self.height_m()) >= LIFTED * LIFT_M:
            return SUCCESS
        if self._knocked:
            return KNOCKED
        if not self._gripped:
            return NO_GRIP
        return SLIPPED if self._lifted < LIFTED * LIFT_M else DROPPED

    def _between_thumb_and_finger(self) -> bool:
        fingers = set()
        for contact in self._data.contact:
            if self._geom in contact.geom:
                other = contact.geom[0] if contact.geom[1] == self._geom else contact.geom[1]
                name = self._model.body(self._model.geom_bodyid[other]).name
                if name.startswith("joint_"):
                    fingers.add(int(name[6:].split(".")[0]) // 4)
        return 3 in fingers and len(fingers) > 1


def grasp(seed: int, robot: WholeRetargeter, watch: Watch | None = None, *, shut: bool = True) -> Replayed:
    """Mime, retarget and replay the grasp of a seed; without `shut` the fingers stay as they were at first."""
    mime = mimed_grasp(seed, robot.hand.scaling)
    motion = robot.retarget(mime.keypoints_m, mime.base_from_wrist, mime.time_s)
    if (motion.arm.flags & int(Flag.UNREACHABLE)).any():
        return Replayed(UNREACHABLE, mime.thing.kind, 0.0)
    angles = motion.angles_rad.copy()
    if not shut:
        angles[:, ARM_JOINTS:] = angles[0, ARM_JOINTS:]
    return replay(mime, angles, robot.arm.arm.name, watch)
