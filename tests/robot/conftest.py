"""Arms for the tests of the robot folder: contracts, limits, and a real driver on packet-level servos."""

import json

import pytest

from robot.contract import load_contract
from robot.session import load_limits
from tests.robot.servos import ServoBus

NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


@pytest.fixture(scope="session")
def pick101():
    return load_contract("pick101_v19")


@pytest.fixture(scope="session")
def handoff():
    return load_contract("handoff074")


@pytest.fixture(scope="session", params=["sim", "so101"])
def limits(request):
    return load_limits(request.param)


@pytest.fixture
def calibration():
    """What lerobot-calibrate writes, with ranges that differ from joint to joint."""
    ranges = [(820, 3270), (900, 3180), (850, 3060), (930, 3200), (0, 4095), (2010, 3480)]
    return {
        name: {"id": i, "drive_mode": 0, "homing_offset": 100 * i, "range_min": low, "range_max": high}
        for i, (name, (low, high)) in enumerate(zip(NAMES, ranges, strict=True), start=1)
    }


@pytest.fixture
def calibration_file(tmp_path, calibration):
    path = tmp_path / "my_arm.json"
    path.write_text(json.dumps(calibration))
    return path


@pytest.fixture
def servos(calibration, monkeypatch):
    """Six servos behind every serial port that is opened."""
    bus = ServoBus(calibration)
    monkeypatch.setattr("scservo_sdk.port_handler.serial.Serial", bus.open)
    return bus
