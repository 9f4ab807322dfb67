"""One run from the first check to the last motor: connect, check the contract, torque on, loop, rest, close.

In: a robot, a policy, a contract, limits. Out: a report. Called by __main__.py and benchmarks. The order is the safety:
nothing has torque before everything was checked, and whatever happens afterwards ends at rest or in a held arm.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from pydantic import ValidationError

from robot.actions import make_decoder
from robot.arm import Arm
from robot.cartesian import damped_step
from robot.contract import (
    Mismatch,
    PolicyContract,
    PolicyOffer,
    arm_mismatches,
    camera_mismatches,
    policy_mismatches,
    require,
    segmenter_mismatches,
)
from robot.errors import RobotError, complaint
from robot.guards import Guards
from robot.loop import ControlLoop, LoopReport, Sink
from robot.observation import ObservationPipeline, Perception
from robot.policies import Policy
from robot.rate import Clock, Schedule
from robot.records import JOINTS, N_ARM_JOINTS
from robot.robots import Robot
from robot.safety import DeadMan, Governor, SafetyLimits
from robot.worker import Decider, InlineDecider, ThreadedDecider

LIMITS = Path(__file__).resolve().parent.parent / "configs" / "robot"
# On its way to rest the tool first rises by this much, unless it is that high already: it may stand beside an object.
LIFT_M = 0.04
HIGH_ENOUGH_M = 0.12


def load_limits(name_or_path: str) -> SafetyLimits:
    """Limits by name (configs/robot/NAME.yaml) or path. Raises RobotError."""
    path = Path(name_or_path) if name_or_path.endswith((".yaml", ".yml")) else LIMITS / f"{name_or_path}.yaml"
    try:
        return SafetyLimits.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise RobotError(f"safety limits {path} cannot be used: {complaint(error)}") from error


@dataclass(slots=True)
class Session:
    """Builds the loop around given parts. `open`, `run`, `close`; or use it as a context."""

    robot: Robot
    policy: Policy
    contract: PolicyContract
    limits: SafetyLimits
    clock: Clock
    perception: Perception | None = None
    rate_hz: float | None = None  # None = the contract's
    dry_run: bool = False
    dead_man: DeadMan | None = None
    governor: Governor = field(init=False)
    loop: ControlLoop = field(init=False)
    rest_rad: np.ndarray = field(init=False)
    offer: PolicyOffer = field(init=False)
    at_rest: bool = field(init=False, default=False)
    _decider: Decider | None = field(init=False, default=None)

    def open(self) -> None:
        """Connect, check everything, then torque on. Raises ContractError and friends with torque still off."""
        self.offer = self.policy.offer()
        self.robot.connect()
        try:
            require(self.contract, self.mismatches())
            self._require_rate()
            self.policy.warm_up()
            self._build()
            self.rest_rad = self.loop.start()
            self.at_rest = True
        except BaseException:
            self.close()
            raise

    def mismatches(self) -> list[Mismatch]:
        """Everything that does not fit, after connect."""
        found = policy_mismatches(self.contract, self.offer)
        found += arm_mismatches(self.contract, self.robot.arm_offer(), JOINTS)
        camera = self.robot.camera_offer()
        if camera is not None and self._looks:
            found += camera_mismatches(self.contract, camera)
        if self._looks and camera is None:
            found.append(Mismatch("camera", "a wrist camera", None))
        if self._looks and self.perception is not None:
            found += segmenter_mismatches(self.contract, self.perception.segmenter)
        if self._looks and self.rate_hz not in (None, self.contract.rate_hz):
            found.append(Mismatch("rate", self.contract.rate_hz, self.rate_hz))
        return found

    def run(self, seconds: float | None, stop: threading.Event, sinks: Sequence[Sink] = ()) -> LoopReport:
        """Loop until time or `stop`, then return to rest; also after an exception."""
        self.at_rest = False
        self.loop.sinks = list(sinks)
        self.loop.schedule = Schedule(self._rate_hz, self.clock)
        try:
            return self.loop.run(seconds, stop)
        finally:
            self.at_rest = self.loop.return_to_rest(self.rest_rad, self._lift())

    def close(self) -> None:
        """Torque off only at rest; then close everything. Safe to repeat."""
        self.robot.close(release_torque=self.at_rest and not self.dry_run)
        if self._decider is not None:
            self._decider.close()
        else:
            self.policy.close()

    @property
    def _rate_hz(self) -> float:
        return self.rate_hz or self.contract.rate_hz

    @property
    def _looks(self) -> bool:
        """Whether the policy takes pictures."""
        return self.offer.image_channels is not None

    def _require_rate(self) -> None:
        """Ages are judged one tick ahead: with a tick longer than a limit the arm would hold for ever."""
        limits, tick_ms = self.limits, 1e3 / self._rate_hz
        shortest_ms = min(limits.max_joint_age_ms, limits.max_action_age_ms, limits.max_frame_age_ms)
        if tick_ms >= shortest_ms:
            raise RobotError(
                f"at {self._rate_hz:g} Hz a tick lasts {tick_ms:.0f} ms, longer than the {shortest_ms:.0f} ms that the "
                f"safety limits allow a measurement to age; run faster than {1e3 / shortest_ms:.0f} Hz"
            )

    def _build(self) -> None:
        arm = Arm()
        pipeline = ObservationPipeline(self.contract, self.perception if self._looks else None)
        kind: Callable[..., Decider] = InlineDecider if self.clock.virtual else ThreadedDecider
        self._decider = kind(pipeline, self.policy, self.contract.action.size, self.clock)
        self.governor = Governor(self.limits, arm, self._rate_hz)
        schedule = Schedule(self._rate_hz, self.clock)
        camera = self.robot.camera_offer()
        guards = Guards(
            self.limits,
            schedule.period_ns,
            needs_frame=self._looks,
            noisy_camera=camera is not None and camera.noisy,
        )
        decoder = make_decoder(self.contract, arm)
        self.loop = ControlLoop(self.robot, self._decider, decoder, self.governor, guards, schedule, self.clock)
        self.loop.dead_man, self.loop.dry_run = self.dead_man, self.dry_run

    def _lift(self) -> list[np.ndarray]:
        """A pose with the tool higher, where it is low; none where it is not."""
        arm, joints = Arm(), self.loop.commanded_rad.copy()
        goal_m = arm.tool_position(joints)
        if goal_m[2] >= HIGH_ENOUGH_M:
            return []
        goal_m[2] += LIFT_M
        for _ in range(50):
            joints[:N_ARM_JOINTS] += damped_step(arm, joints, goal_m, locked=(0, 4))
            joints = arm.clamp(joints)
        return [joints]
