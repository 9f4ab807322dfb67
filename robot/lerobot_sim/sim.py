"""LeRobot plug-in: our simulated arm as a robot of LeRobot's own tools.

In: LeRobot's calls. Out: joints in degrees (gripper 0..100) and the wrist picture, as a real follower gives them.
Loaded by LeRobot itself, for example
`lerobot-teleoperate --robot.discover_packages_path=robot.lerobot_sim --robot.type=reafference_sim ...`.
Every command passes our safety governor; what was really sent is returned, as LeRobot's contract asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from lerobot.robots.config import RobotConfig
from lerobot.robots.robot import Robot
from lerobot.utils.decorators import check_if_already_connected, check_if_not_connected

from robot.arm import Arm
from robot.calibration import LEROBOT_TICKS_PER_TURN, TICKS_PER_TURN
from robot.rate import MonotonicClock
from robot.records import JOINTS
from robot.safety import Governor
from robot.session import load_limits
from robot.sim import SimConfig, SimRobot

# What one radian is in LeRobot's degrees: it divides by the highest tick, the encoder by their number.
DEGREES_PER_RAD = 180 / np.pi * TICKS_PER_TURN / LEROBOT_TICKS_PER_TURN


@RobotConfig.register_subclass("reafference_sim")
@dataclass
class ReafferenceSimConfig(RobotConfig):
    """Options of the simulated arm on LeRobot's command line."""

    fps: int = 30  # of the calls to send_action; the governor's limits per step follow from it
    seed: int = 0
    camera: bool = True
    width: int = 640
    height: int = 480


class ReafferenceSim(Robot):
    """LeRobot's Robot over SimRobot, in real time."""

    config_class = ReafferenceSimConfig
    name = "reafference_sim"

    def __init__(self, config: ReafferenceSimConfig) -> None:
        super().__init__(config)
        self.config = config
        self._arm = Arm()
        self._sim: SimRobot | None = None
        self._governor = Governor(load_limits("sim"), self._arm, config.fps)
        self.cameras: dict[str, Any] = {}  # the picture comes with the joints; LeRobot has no device to open

    @cached_property
    def observation_features(self) -> dict[str, Any]:
        """Six joints, and the wrist picture."""
        picture = {"wrist": (self.config.height, self.config.width, 3)} if self.config.camera else {}
        return {**self.action_features, **picture}

    @cached_property
    def action_features(self) -> dict[str, type]:
        """Six joint targets."""
        return {f"{name}.pos": float for name in JOINTS}

    @property
    def is_connected(self) -> bool:
        """Between connect and disconnect."""
        return self._sim is not None

    @property
    def is_calibrated(self) -> bool:
        """A simulated arm always is."""
        return True

    @check_if_already_connected
    def connect(self, calibrate: bool = True) -> None:
        """Reset the scene."""
        config = self.config
        scene = SimConfig(
            seed=config.seed,
            camera=config.camera,
            planes=False,
            width_px=config.width,
            height_px=config.height,
            camera_fps=config.fps,
        )
        sim = SimRobot(scene, MonotonicClock())
        sim.connect()
        self._governor.start(sim.observe().joints.position_rad)
        self._sim = sim

    def calibrate(self) -> None:
        """Nothing to calibrate."""

    def configure(self) -> None:
        """Nothing to configure."""

    @check_if_not_connected
    def get_observation(self) -> dict[str, Any]:
        """LeRobot's units."""
        assert self._sim is not None
        observation = self._sim.observe()
        values: dict[str, Any] = self._named(observation.joints.position_rad)
        if observation.frame is not None:
            values["wrist"] = np.array(observation.frame.rgb)
        return values

    @check_if_not_connected
    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Through the governor; returns what was sent."""
        assert self._sim is not None
        wish = self._radians(np.array([action[f"{name}.pos"] for name in JOINTS], np.float64))
        return self._named(self._sim.act(self._governor.limit(wish).target_rad))

    @check_if_not_connected
    def disconnect(self) -> None:
        """Close the camera."""
        assert self._sim is not None
        self._sim.close(release_torque=True)
        self._sim = None

    def _named(self, joints_rad: np.ndarray) -> dict[str, Any]:
        values = joints_rad * DEGREES_PER_RAD
        low, high = self._arm.lower_rad[-1], self._arm.upper_rad[-1]
        values[-1] = (joints_rad[-1] - low) / (high - low) * 100
        return {f"{name}.pos": float(value) for name, value in zip(JOINTS, values, strict=True)}

    def _radians(self, values: np.ndarray) -> np.ndarray:
        joints_rad = values / DEGREES_PER_RAD
        low, high = self._arm.lower_rad[-1], self._arm.upper_rad[-1]
        joints_rad[-1] = low + values[-1] / 100 * (high - low)
        return joints_rad
