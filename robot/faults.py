"""Faults on purpose: wrappers that break a robot, a policy or a clock at a chosen instant.

In: a healthy part and the name of a fault. Out: the same protocol, broken from `at_ns` on. Used by tests, by the fault
matrix in docs/robot.md, and by `python -m robot --fault NAME` in simulation.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from robot.contract import ArmOffer, CameraOffer, PolicyOffer
from robot.errors import CommandError, ObservationError
from robot.policies import Policy
from robot.rate import Clock
from robot.records import Frame, Joints, Observation, PolicyInput
from robot.robots import Robot

ROBOT_FAULTS = ("camera_freeze", "camera_repeat", "black_frame", "dropped_packet", "bus_error", "nan_joint")
POLICY_FAULTS = ("policy_exception", "policy_nan", "policy_stall")
CLOCK_FAULTS = ("clock_jump", "clock_back")
# What is expected of each: the reason that the loop must give.
EXPECTED_REASON = {
    "camera_freeze": "camera_stale",
    "camera_repeat": "camera_frozen",
    "black_frame": "black_frame",
    "dropped_packet": "observation_failed",
    "bus_error": "observation_failed",
    "nan_joint": "joint_not_finite",
    "policy_exception": "policy_exception",
    "policy_nan": "policy_answer",
    "policy_stall": "decision_late",
    "clock_jump": "clock_jump",
    "clock_back": "clock_jump",
}
STALL_S = 0.5


class FaultyRobot:
    """Robot protocol around another robot."""

    def __init__(self, robot: Robot, fault: str, at_ns: int, clock: Clock) -> None:
        if fault not in ROBOT_FAULTS:
            raise ValueError(f"unknown robot fault {fault!r}; choose one of {', '.join(ROBOT_FAULTS)}")
        self._robot, self._fault, self.at_ns, self._clock = robot, fault, at_ns, clock
        self._frozen: Frame | None = None
        self._dropped = False

    def connect(self) -> None:
        """As the robot."""
        self._robot.connect()

    def arm_offer(self) -> ArmOffer:
        """As the robot."""
        return self._robot.arm_offer()

    def camera_offer(self) -> CameraOffer | None:
        """As the robot; for camera_repeat it claims to be noisy, as every real camera is."""
        offer = self._robot.camera_offer()
        if offer is not None and self._fault == "camera_repeat":
            return dataclasses.replace(offer, noisy=True)
        return offer

    def enable(self) -> None:
        """As the robot."""
        self._robot.enable()

    def observe(self) -> Observation:
        """Broken from `at_ns` on."""
        observation = self._robot.observe()
        if self._clock.now_ns() < self.at_ns:
            self._frozen = observation.frame
            return observation
        if self._fault == "bus_error" or (self._fault == "dropped_packet" and not self._dropped):
            self._dropped = True
            raise ObservationError(f"injected {self._fault}")
        return dataclasses.replace(observation, joints=self._joints(observation), frame=self._frame(observation))

    def act(self, target_rad: np.ndarray) -> np.ndarray:
        """As the robot, but a dead bus takes no commands either."""
        if self._fault == "bus_error" and self._clock.now_ns() >= self.at_ns:
            raise CommandError("injected bus_error")
        return self._robot.act(target_rad)

    def close(self, *, release_torque: bool) -> None:
        """As the robot."""
        self._robot.close(release_torque=release_torque)

    def _joints(self, observation: Observation) -> Joints:
        if self._fault != "nan_joint":
            return observation.joints
        position = np.array(observation.joints.position_rad)
        position[2] = np.nan
        return dataclasses.replace(observation.joints, position_rad=position)

    def _frame(self, observation: Observation) -> Frame | None:
        frame = observation.frame
        if frame is None or self._frozen is None:
            return frame
        if self._fault == "camera_freeze":
            return self._frozen
        if self._fault == "camera_repeat":
            return dataclasses.replace(self._frozen, captured_ns=frame.captured_ns)
        if self._fault == "black_frame":
            return dataclasses.replace(frame, rgb=np.zeros_like(frame.rgb))
        return frame


class FaultyPolicy:
    """Policy protocol around another policy."""

    def __init__(self, policy: Policy, fault: str, at_ns: int, clock: Clock) -> None:
        if fault not in POLICY_FAULTS:
            raise ValueError(f"unknown policy fault {fault!r}; choose one of {', '.join(POLICY_FAULTS)}")
        self._policy, self._fault, self.at_ns, self._clock = policy, fault, at_ns, clock

    def offer(self) -> PolicyOffer:
        """As the policy."""
        return self._policy.offer()

    def warm_up(self) -> None:
        """As the policy."""
        self._policy.warm_up()

    def reset(self) -> None:
        """As the policy."""
        self._policy.reset()

    def decide(self, given: PolicyInput) -> np.ndarray:
        """Broken from `at_ns` on."""
        action = self._policy.decide(given)
        if self._clock.now_ns() < self.at_ns:
            return action
        if self._fault == "policy_exception":
            raise RuntimeError("injected policy_exception")
        if self._fault == "policy_nan":
            return np.full_like(action, np.nan)
        time.sleep(STALL_S)
        return action

    def close(self) -> None:
        """As the policy."""
        self._policy.close()


class FaultyClock:
    """Clock protocol that leaps an hour ahead, or back, once."""

    def __init__(self, clock: Clock, fault: str, at_ns: int) -> None:
        if fault not in CLOCK_FAULTS:
            raise ValueError(f"unknown clock fault {fault!r}; choose one of {', '.join(CLOCK_FAULTS)}")
        self._clock, self.at_ns = clock, at_ns
        self._leap_ns = 3_600_000_000_000 * (1 if fault == "clock_jump" else -1)

    @property
    def virtual(self) -> bool:
        """As the clock."""
        return self._clock.virtual

    def now_ns(self) -> int:
        """Leaps at `at_ns`."""
        now_ns = self._clock.now_ns()
        return now_ns if now_ns < self.at_ns else now_ns + self._leap_ns

    def sleep_until_ns(self, instant_ns: int) -> None:
        """Wait as long as it looked when the wait began."""
        wait_ns = instant_ns - self.now_ns()
        self._clock.sleep_until_ns(self._clock.now_ns() + max(0, wait_ns))
