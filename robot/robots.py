"""The protocol that every robot keeps, real or not. Implemented by sim.py, so101.py, replay.py and faults.py.

Order of life: connect (torque stays off) → offers are checked against the contract → enable → observe/act per tick
→ close. One thread calls everything; `close` is bounded in time and safe to repeat.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from robot.contract import ArmOffer, CameraOffer
from robot.records import Observation


class Robot(Protocol):
    """An arm with six position-controlled joints and at most one wrist camera."""

    def connect(self) -> None:
        """Reach arm and camera without torque. Raises ConnectionFailed or CalibrationError."""

    def arm_offer(self) -> ArmOffer:
        """What the arm says of itself; after connect."""

    def camera_offer(self) -> CameraOffer | None:
        """What the camera really delivers, None without one; after connect."""

    def enable(self) -> None:
        """Torque on, holding the present pose."""

    def observe(self) -> Observation:
        """Joints of now and the newest frame, without waiting for one. Raises ObservationError."""

    def act(self, target_rad: np.ndarray) -> np.ndarray:
        """Command (6,) joint targets; returns what was really sent. Raises CommandError."""

    def close(self, *, release_torque: bool) -> None:
        """Let go of arm and camera; torque goes off only when asked to."""
