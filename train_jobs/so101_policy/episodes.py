"""Where an episode starts: the cube anywhere in reach, the arm anywhere over the table, both by the episode's number.

In: a seed and a number. Out: a Start. Used by world.py. Unlike the public training, which starts 3 cm above a cube that
lies within 2 cm of one spot, nothing here is near the cube on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robot import scene
from robot.arm import Arm
from robot.cartesian import gripper_rad
from robot.errors import ConnectionFailed
from robot.records import N_ARM_JOINTS
from robot.sim import start_pose

CUBE_X_M, CUBE_Y_M = (0.19, 0.33), (-0.13, 0.13)
TOOL_X_M, TOOL_Y_M, TOOL_Z_M = (0.17, 0.32), (-0.13, 0.13), (0.07, 0.20)
OPENING = (-0.6, 0.6)
WRIST_RAD = 0.12  # spread of wrist flexion and roll about straight down


@dataclass(frozen=True, slots=True)
class Start:
    """How an episode begins."""

    cube_m: np.ndarray  # (3,) centre
    cube_turn_rad: float
    joints_rad: np.ndarray  # (6,)
    distance_m: float  # from the tool to the cube


def draw(arm: Arm, rng: np.random.Generator) -> Start:
    """A start that is in reach."""
    cube_m = np.array([rng.uniform(*CUBE_X_M), rng.uniform(*CUBE_Y_M), scene.CUBE_HALF_M])
    turn = rng.uniform(-np.pi / 4, np.pi / 4)
    while True:
        tool_m = np.array([rng.uniform(*TOOL_X_M), rng.uniform(*TOOL_Y_M), rng.uniform(*TOOL_Z_M)])
        try:
            joints = start_pose(arm, tool_m)
        except ConnectionFailed:
            continue
        joints[3:N_ARM_JOINTS] += rng.uniform(-WRIST_RAD, WRIST_RAD, 2)
        joints[-1] = gripper_rad(arm, rng.uniform(*OPENING))
        joints = arm.clamp(joints)
        distance_m = float(np.linalg.norm(arm.tool_position(joints) - cube_m))
        return Start(cube_m, float(turn), joints, distance_m)
