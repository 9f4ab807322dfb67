"""What a policy's numbers mean: decisions to joint wishes, as the contract says.

In: a new decision (used once) and the measured joints. Out: the (6,) joint target to move towards. Called by loop.py.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from robot.arm import Arm
from robot.cartesian import TRAINED, CartesianToJoints
from robot.contract import PolicyContract
from robot.records import N_JOINTS


class ActionDecoder(Protocol):
    """Keeps what one episode's decisions add up to."""

    def reset(self, joints_rad: np.ndarray) -> None:
        """Start from here; also after every hold, so that no old target is resumed."""

    def accept(self, action: np.ndarray, joints_rad: np.ndarray) -> None:
        """Take in one decision. Called exactly once for each."""

    def wish(self, joints_rad: np.ndarray) -> np.ndarray:
        """(6,) rad to move towards at this tick."""


class CartesianDecoder:
    """(dx, dy, dz, gripper) in [-1, 1]."""

    def __init__(self, contract: PolicyContract, arm: Arm) -> None:
        controller = contract.action.controller or TRAINED
        self._steps = CartesianToJoints(arm, controller, contract.action.scale)
        self._opening = 0.0

    def reset(self, joints_rad: np.ndarray) -> None:
        """Target = the tool's present place."""
        self._steps.reset(joints_rad)

    def accept(self, action: np.ndarray, joints_rad: np.ndarray) -> None:
        """Move the target, set the jaw."""
        self._steps.advance(action, joints_rad)
        self._opening = float(action[3])

    def wish(self, joints_rad: np.ndarray) -> np.ndarray:
        """One least-squares step from the measured joints."""
        return self._steps.joints(self._opening, joints_rad)


class JointDecoder:
    """Six joint steps in [-1, 1], from the measured joints at the time of the decision."""

    def __init__(self, contract: PolicyContract, arm: Arm) -> None:
        self._scale_rad = contract.action.scale
        self._arm = arm
        self._target = np.zeros(N_JOINTS)

    def reset(self, joints_rad: np.ndarray) -> None:
        """Target = here."""
        self._target = joints_rad.copy()

    def accept(self, action: np.ndarray, joints_rad: np.ndarray) -> None:
        """Target = here + step."""
        step = self._scale_rad * np.clip(action, -1.0, 1.0).astype(np.float64)
        self._target = self._arm.clamp(joints_rad + step)

    def wish(self, joints_rad: np.ndarray) -> np.ndarray:
        """The target."""
        return self._target


def make_decoder(contract: PolicyContract, arm: Arm) -> ActionDecoder:
    """The decoder of the contract's action space."""
    return (
        CartesianDecoder(contract, arm) if contract.action.space == "cartesian_delta" else JointDecoder(contract, arm)
    )
