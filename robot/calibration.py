"""The calibration of one real arm: encoder ticks to radians and back.

In: the JSON that `lerobot-calibrate` writes. Out: checked ranges, and the mapping between LeRobot's units and rad.
Used by so101.py. Mid-range is 0 rad, which is the zero of the published MJCF ("new calibration").
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from robot.errors import CalibrationError, complaint
from robot.records import JOINTS

TICKS_PER_TURN = 4096
RAD_PER_TICK = 2 * math.pi / TICKS_PER_TURN
# LeRobot's DEGREES mode divides by the highest tick, not by their number (motors_bus.py, _normalize).
LEROBOT_TICKS_PER_TURN = TICKS_PER_TURN - 1
# A servo that moves less than this was not moved through its range while calibrating.
LEAST_RANGE_TICKS = 200


class MotorRange(BaseModel, frozen=True, extra="forbid"):
    """One motor as LeRobot stores it."""

    id: int = Field(ge=1, le=252)
    drive_mode: int = Field(ge=0, le=1)
    homing_offset: int
    range_min: int = Field(ge=0, lt=TICKS_PER_TURN)
    range_max: int = Field(gt=0, lt=TICKS_PER_TURN)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Six checked ranges, in the order of JOINTS."""

    path: Path
    lowest: np.ndarray  # (6,) float64 ticks
    highest: np.ndarray
    gripper_low_rad: float
    gripper_high_rad: float

    def _middle(self) -> np.ndarray:
        return (self.lowest + self.highest) / 2

    def to_rad(self, values: np.ndarray, *, degrees: bool) -> np.ndarray:
        """(6,) values in LeRobot's units (degrees or ±100; gripper 0..100) to rad."""
        if degrees:
            ticks_from_middle = values / 360 * LEROBOT_TICKS_PER_TURN
        else:
            ticks_from_middle = (values + 100) / 200 * (self.highest - self.lowest) + self.lowest - self._middle()
        rad = ticks_from_middle * RAD_PER_TICK
        rad[-1] = self.gripper_low_rad + values[-1] / 100 * (self.gripper_high_rad - self.gripper_low_rad)
        return rad

    def from_rad(self, rad: np.ndarray, *, degrees: bool) -> np.ndarray:
        """The inverse of `to_rad`."""
        ticks_from_middle = rad / RAD_PER_TICK
        if degrees:
            values = ticks_from_middle / LEROBOT_TICKS_PER_TURN * 360
        else:
            values = (ticks_from_middle + self._middle() - self.lowest) / (self.highest - self.lowest) * 200 - 100
        span = self.gripper_high_rad - self.gripper_low_rad
        values[-1] = (rad[-1] - self.gripper_low_rad) / span * 100
        return values


def load_calibration(path: Path, gripper_low_rad: float, gripper_high_rad: float) -> Calibration:
    """Read and check one arm's calibration. Raises CalibrationError saying what is wrong and how to get it right."""
    if not path.is_file():
        raise CalibrationError(
            f"there is no calibration {path}; make it with "
            "`lerobot-calibrate --robot.type=so101_follower --robot.port=PORT --robot.id=NAME`"
        )
    try:
        motors = TypeAdapter(dict[str, MotorRange]).validate_python(json.loads(path.read_text()))
    except (json.JSONDecodeError, ValidationError, UnicodeDecodeError) as error:
        raise CalibrationError(
            f"calibration {path} is not what lerobot-calibrate writes: {complaint(error)}"
        ) from error
    _check(path, motors)
    ordered = [motors[name] for name in JOINTS]
    lowest = np.array([motor.range_min for motor in ordered], np.float64)
    highest = np.array([motor.range_max for motor in ordered], np.float64)
    return Calibration(path, lowest, highest, gripper_low_rad, gripper_high_rad)


def _check(path: Path, motors: dict[str, MotorRange]) -> None:
    if set(motors) != set(JOINTS):
        raise CalibrationError(f"calibration {path} has motors {sorted(motors)}, an SO-101 has {sorted(JOINTS)}")
    for number, name in enumerate(JOINTS, start=1):
        motor = motors[name]
        if motor.id != number:
            raise CalibrationError(f"calibration {path}: motor {name} has id {motor.id}, on an SO-101 it is {number}")
        if motor.drive_mode:
            raise CalibrationError(f"calibration {path}: motor {name} is inverted; calibrate with LeRobot 0.4 or newer")
        if motor.range_max - motor.range_min < LEAST_RANGE_TICKS:
            raise CalibrationError(
                f"calibration {path}: {name} spans {motor.range_max - motor.range_min} of {TICKS_PER_TURN} ticks; "
                "move every joint through its whole range while calibrating"
            )
