"""Renders labelled frames: any pose of the arm, cube and clutter anywhere, a new look every time.

In: a seed and ranges. Out: (rgb, class ids) by number: frame n of a seed is the same whoever renders it, and in
whatever order. Labels come from the renderer, by the *name* of the body behind each pixel (robot/scene.py). Used by
frames.py and evaluate.py.
"""

from __future__ import annotations

import mujoco
import numpy as np

from robot import scene
from robot.arm import Arm
from robot.cartesian import damped_step
from robot.records import N_ARM_JOINTS
from robot.rendering import WristCamera
from train_jobs.so101.look import Wardrobe, furnish
from train_jobs.so101.ranges import LookRanges

WORK_X_M, WORK_Y_M, WORK_Z_M = (0.15, 0.36), (-0.17, 0.17), (0.012, 0.24)
# Shares of frames: the cube between the fingers, near the tool, and anywhere.
HELD, NEAR = 0.25, 0.45
IK_STEPS = 25


class Studio:
    """One model, one camera, any frame."""

    def __init__(self, ranges: LookRanges, seed: int, width_px: int, height_px: int) -> None:
        self._ranges, self._seed = ranges, seed
        self.model, body_class = scene.build(furnish)
        self.data = mujoco.MjData(self.model)
        self._wardrobe = Wardrobe(self.model)
        self._camera = WristCamera(self.model, scene.CAMERA, width_px, height_px, body_class)
        self._arm = Arm()
        self._qpos, _, _ = scene.joint_addresses(self.model)

    def frame(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB and (H, W) uint8 class ids."""
        rng = np.random.default_rng([self._seed, number])
        self._pose(rng)
        self._wardrobe.dress(self.data, self._camera, self._ranges, rng)
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        self._camera.look(self.data)
        return self._camera.colour(), self._camera.depth_and_classes()[1]

    def close(self) -> None:
        """Free the renderer."""
        self._camera.close()

    def _pose(self, rng: np.random.Generator) -> None:
        kind = rng.random()
        tool_m = np.array([rng.uniform(*WORK_X_M), rng.uniform(*WORK_Y_M), WORK_Z_M[0]])
        # Low as often as high: the last centimetres decide a grasp.
        tool_m[2] += (WORK_Z_M[1] - WORK_Z_M[0]) * rng.random() ** 1.7
        opening = rng.uniform(-0.9, -0.2) if kind < HELD else rng.uniform(-1.0, 0.7)
        joints = self._reach(tool_m, rng)
        joints[-1] = self._arm.lower_rad[-1] + (opening + 1) / 2 * (self._arm.upper_rad[-1] - self._arm.lower_rad[-1])
        self.data.qpos[self._qpos] = joints
        mujoco.mj_kinematics(self.model, self.data)
        tool_m = self._arm.tool_position(joints)
        address = self.model.joint("cube").qposadr[0]
        self.data.qpos[address : address + 7] = self._cube(kind, tool_m, rng)

    def _reach(self, tool_m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        down = np.pi / 2
        joints = np.array([0.0, 0.0, 0.0, down + rng.normal(0, 0.15), down + rng.normal(0, 0.15), 0.0])
        for _ in range(IK_STEPS):
            joints[:N_ARM_JOINTS] += damped_step(self._arm, joints, tool_m, locked=(3, 4))
            joints = self._arm.clamp(joints)
        return joints

    def _cube(self, kind: float, tool_m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(7,) place and turn."""
        turn = rng.uniform(-np.pi, np.pi)
        upright = (np.cos(turn / 2), 0.0, 0.0, np.sin(turn / 2))
        if kind < HELD:
            place = tool_m + rng.normal(0, (0.006, 0.006, 0.008))
            place[2] = max(place[2], scene.CUBE_HALF_M)
        elif kind < HELD + NEAR:
            spread = 0.02 + 0.3 * tool_m[2]
            place = np.append(tool_m[:2] + rng.normal(0, spread, 2), scene.CUBE_HALF_M)
        else:
            place = np.array([rng.uniform(0.15, 0.4), rng.uniform(-0.2, 0.2), scene.CUBE_HALF_M])
        return np.array([*place, *upright])
