"""Cartesian steps of a policy to joint targets: damped least squares on the tool position.

In: actions (dx, dy, dz, gripper) in [-1, 1] and the measured joints. Out: (6,) joint targets in rad. Called by the
loop's action decoder. Two controllers, because the public policy was trained under one and deployed under another
(measured difference: one 20 mm step in x moves 19 mm in the first, 11.5 mm and 5 mm upwards in the second).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from robot.arm import Arm
from robot.records import N_ARM_JOINTS

Box = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]

# lambda of the damped least squares, and the largest change of a joint asked for in one step: both as in
# ggand0/pick-101 src/controllers/ik_controller.py, under which the public policies were trained.
DAMPING = 0.1
MAX_STEP_RAD = 0.5


class CartesianController(BaseModel, frozen=True, extra="forbid"):
    """How Cartesian steps become joint targets."""

    kind: Literal["accumulating", "from_current"] = Field(
        description="accumulating: steps add to a persistent target (training); from_current: to the measured tool"
    )
    gain: float = Field(gt=0, le=1, description="share of the least-squares step that is taken")
    locked_joints: tuple[int, ...] = Field(default=(), description="arm joints (0..4) that are kept where they are")
    target_box_m: Box = Field(
        default=((0.1, 0.5), (-0.3, 0.3), (0.01, 0.4)), description="the target is clipped to this box"
    )


# Training: ggand0/pick-101 src/envs/lift_cube.py. Deployment: ggand0/hil-serl-so101 scripts/rl_inference_seg_depth.py.
TRAINED = CartesianController(kind="accumulating", gain=0.5)
DEPLOYED = CartesianController(kind="from_current", gain=1.0, locked_joints=(3, 4))


def damped_step(arm: Arm, joints_rad: np.ndarray, target_m: np.ndarray, locked: tuple[int, ...]) -> np.ndarray:
    """(5,) rad towards the target: (JᵀJ + λ²I)⁻¹ Jᵀ e over the free joints, each at most MAX_STEP_RAD."""
    free = [joint for joint in range(N_ARM_JOINTS) if joint not in locked]
    jacobian = arm.jacobian(joints_rad)[:, free]
    error_m = target_m - arm.tool_position(joints_rad)
    normal = jacobian.T @ jacobian + DAMPING**2 * np.eye(len(free))
    step = np.zeros(N_ARM_JOINTS)
    step[free] = np.clip(np.linalg.solve(normal, jacobian.T @ error_m), -MAX_STEP_RAD, MAX_STEP_RAD)
    return step


def gripper_rad(arm: Arm, opening: float) -> float:
    """The gripper angle for an opening of -1 (closed) .. 1 (open)."""
    low, high = arm.lower_rad[-1], arm.upper_rad[-1]
    return float(low + (np.clip(opening, -1.0, 1.0) + 1.0) / 2.0 * (high - low))


@dataclass(slots=True)
class CartesianToJoints:
    """Keeps the target of one episode. `reset` at its start; one `joints` per control step."""

    arm: Arm
    controller: CartesianController
    scale_m: float = 0.02
    target_m: np.ndarray = field(init=False, default_factory=lambda: np.full(3, np.nan))

    def reset(self, joints_rad: np.ndarray) -> None:
        """Start the persistent target at the tool's present place."""
        self.target_m = self.arm.tool_position(joints_rad)

    def advance(self, action: np.ndarray, joints_rad: np.ndarray) -> None:
        """Take one action (4,) into the target."""
        if self.controller.kind == "from_current" or np.isnan(self.target_m).any():
            self.target_m = self.arm.tool_position(joints_rad)
        low, high = np.array(self.controller.target_box_m).T
        step_m = self.scale_m * np.clip(action[:3], -1.0, 1.0).astype(np.float64)
        self.target_m = np.clip(self.target_m + step_m, low, high)

    def joints(self, opening: float, joints_rad: np.ndarray) -> np.ndarray:
        """(6,) joint targets towards the present Cartesian target."""
        step = damped_step(self.arm, joints_rad, self.target_m, self.controller.locked_joints)
        target = np.append(joints_rad[:N_ARM_JOINTS] + self.controller.gain * step, gripper_rad(self.arm, opening))
        return self.arm.clamp(target)
