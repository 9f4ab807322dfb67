"""Policies that need no network: standing still, and a scripted pick that says it is one.

In: PolicyInput. Out: (A,) float32 actions in the contract's space. Called by worker.py. Policies with weights live in
`actors` and keep the same protocol; a policy behind a server is client.py.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from robot.arm import Arm
from robot.contract import PolicyContract, PolicyOffer
from robot.errors import PolicyError
from robot.records import PolicyInput

# Policies that drive the simulated arm only, and why.
SIM_ONLY = {
    "pretrained": "the networks that ship have seen renderings only",
    "scripted": "a real arm does not know where the cube is",
}


def refuse_real_arm(policy: str) -> None:
    """Raise PolicyError for a policy that only the simulated arm may follow."""
    if policy in SIM_ONLY:
        raise PolicyError(f"the policy {policy!r} needs the simulator: {SIM_ONLY[policy]}")


class Policy(Protocol):
    """Something that decides."""

    def offer(self) -> PolicyOffer:
        """What it takes and gives, for the contract check."""

    def warm_up(self) -> None:
        """Run once on zeros, so that the first tick is not the slowest."""

    def reset(self) -> None:
        """Start of an episode, or after a gap: forget what was."""

    def decide(self, given: PolicyInput) -> np.ndarray:
        """(A,) float32. Raises PolicyError."""

    def close(self) -> None:
        """Bounded in time, safe to repeat."""


def _free_offer(name: str, contract: PolicyContract) -> PolicyOffer:
    """The offer of a policy that takes whatever the contract says."""
    action = contract.action
    return PolicyOffer(name, action.space, action.size, action.frame, contract.low_dim_size)


class StandStill:
    """Always the zero action: the stub of the timing benchmark, and a dry run's policy."""

    def __init__(self, contract: PolicyContract) -> None:
        self._contract = contract

    def offer(self) -> PolicyOffer:
        """Fits every contract."""
        return _free_offer("stand_still", self._contract)

    def warm_up(self) -> None:
        """Nothing to warm."""

    def reset(self) -> None:
        """Nothing to forget."""

    def decide(self, given: PolicyInput) -> np.ndarray:
        """Zeros."""
        return np.zeros(self._contract.action.size, np.float32)

    def close(self) -> None:
        """Nothing to free."""


# The grasp as the training scene's own script does it (ggand0/pick-101 lift_cube.py): 5 mm above the cube's centre,
# 15 mm beside it for the fixed finger.
GRASP_OFFSET_M = np.array([0.0, -0.015, 0.005])
LIFT_M = 0.12
OPEN, CLOSED = 0.3, -0.8
ARRIVED_M = 0.006
# At 50 Hz 1.2 s from open to closed: a jaw that snaps shut shoots the cube away.
CLOSING_STEPS = 60
# The controller's target adds up and the arm lags it by two or three steps: asking for a fifth of the way, and never
# more than 5 mm a step, neither overshoots nor throws the cube off at the top.
APPROACH = 0.2
TOP_SPEED = 0.25


class ScriptedPick:
    """Not learned: reads the cube's true place from the simulator, descends, closes, lifts, holds.

    The embedded default until a trained policy ships. It cannot drive a real arm, which does not know where a cube is.
    """

    def __init__(self, contract: PolicyContract) -> None:
        self._contract = contract
        self._arm = Arm()
        self.reset()

    def offer(self) -> PolicyOffer:
        """Cartesian steps in the base frame, whatever the pictures look like."""
        return PolicyOffer("scripted", "cartesian_delta", 4, "mujoco_base", self._contract.low_dim_size)

    def warm_up(self) -> None:
        """Nothing to warm."""

    def reset(self) -> None:
        """Back to the descent."""
        self._phase = "descend"
        self._closing = 0
        self._lift_from_m = np.zeros(3)

    def decide(self, given: PolicyInput) -> np.ndarray:
        """(4,): towards the present waypoint, and the jaw."""
        cube_m = given.observation.object_position_m
        if cube_m is None:
            raise PolicyError("the scripted pick needs the simulator: a real arm does not know where the cube is")
        tool_m = self._arm.tool_position(given.observation.joints.position_rad)
        goal_m, opening = self._waypoint(cube_m, tool_m)
        step = (goal_m - tool_m) / self._contract.action.scale
        return np.append(np.clip(APPROACH * step, -TOP_SPEED, TOP_SPEED), opening).astype(np.float32)

    def close(self) -> None:
        """Nothing to free."""

    def _waypoint(self, cube_m: np.ndarray, tool_m: np.ndarray) -> tuple[np.ndarray, float]:
        if self._phase == "descend":
            goal_m = cube_m + GRASP_OFFSET_M
            if np.linalg.norm(goal_m - tool_m) < ARRIVED_M:
                self._phase = "close"
                self._lift_from_m = goal_m
            return goal_m, OPEN
        if self._phase == "close":
            self._closing += 1
            if self._closing >= CLOSING_STEPS:
                self._phase = "lift"
            return self._lift_from_m, OPEN + (CLOSED - OPEN) * self._closing / CLOSING_STEPS
        return self._lift_from_m + np.array([0.0, 0.0, LIFT_M]), CLOSED
