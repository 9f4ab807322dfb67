"""The real arm's driver on servos at packet level: LeRobot's robot, its bus and the vendor SDK run as they are."""

import json
import math

import numpy as np
import pytest

from robot.calibration import load_calibration
from robot.errors import CalibrationError, ConnectionFailed, ObservationError
from robot.rate import MonotonicClock
from robot.records import JOINTS
from robot.so101 import So101Config, So101Robot
from tests.robot.servos import GOAL_AT, POSITION_AT, SYNC_READ, TORQUE_AT, WRITE


@pytest.fixture(params=[True, False], ids=["degrees", "percent"])
def arm(request, servos, calibration_file):
    robot = So101Robot(
        So101Config(port="/dev/ttyTEST", calibration=calibration_file, use_degrees=request.param), MonotonicClock()
    )
    yield robot
    robot.close(release_torque=False)


def test_joints_are_read_in_radians_around_mid_range(arm, servos, calibration):
    arm.connect()
    for number, name in enumerate(JOINTS, start=1):
        middle = (calibration[name]["range_min"] + calibration[name]["range_max"]) / 2
        servos.servos[number].put(POSITION_AT, int(middle) + 300)
    measured = arm.observe().joints.position_rad
    expected = [
        (int(m := (c["range_min"] + c["range_max"]) / 2) + 300 - m) * 2 * math.pi / 4096 for c in calibration.values()
    ]
    assert measured[:5] == pytest.approx(expected[:5], abs=1e-9)
    span = calibration["gripper"]["range_max"] - calibration["gripper"]["range_min"]
    opening = (servos.servos[6].get(POSITION_AT) - calibration["gripper"]["range_min"]) / span
    assert measured[5] == pytest.approx(-0.17453 + opening * (1.74533 + 0.17453), abs=1e-4)


def test_targets_arrive_at_the_servos_within_one_tick(arm, servos, calibration):
    arm.connect()
    arm.enable()
    target = np.array([0.3, -0.4, 0.5, 1.2, -1.0, 0.7])
    arm.act(target)
    address, goals = servos.sync_writes[-1]
    assert address == GOAL_AT
    for number, (name, rad) in enumerate(zip(JOINTS[:5], target, strict=False), start=1):
        middle = (calibration[name]["range_min"] + calibration[name]["range_max"]) / 2
        assert abs(goals[number] - (middle + rad / (2 * math.pi) * 4096)) <= 1.0
    assert arm.observe().joints.position_rad == pytest.approx(target, abs=2 * math.pi / 4096 * 1.5)


def test_nothing_has_torque_before_enable_and_the_first_goal_is_the_present_pose(arm, servos):
    arm.connect()
    arm.observe()
    assert not any(servo.memory[TORQUE_AT] for servo in servos.servos.values())
    before = {n: s.get(POSITION_AT) for n, s in servos.servos.items()}
    arm.enable()
    assert all(servo.memory[TORQUE_AT] for servo in servos.servos.values())
    assert {n: s.get(POSITION_AT) for n, s in servos.servos.items()} == before
    assert servos.sync_writes[0] == (GOAL_AT, before)


@pytest.mark.parametrize("release", [True, False])
def test_torque_goes_off_only_when_the_arm_rests(arm, servos, release):
    arm.connect()
    arm.enable()
    arm.close(release_torque=release)
    assert [bool(s.memory[TORQUE_AT]) for s in servos.servos.values()] == [not release] * 6
    assert servos.opened == 0
    arm.close(release_torque=release)  # twice is fine


def test_a_servo_with_a_latched_overload_does_not_keep_the_port_open(arm, servos):
    arm.connect()
    arm.enable()
    servos.error_bits = 32
    arm.close(release_torque=True)
    assert servos.opened == 0


@pytest.mark.parametrize(
    "break_it", [lambda s: s.drop.update({SYNC_READ: 1}), lambda s: s.corrupt.update({SYNC_READ: 1})]
)
def test_a_lost_or_damaged_packet_is_one_missing_observation(arm, servos, break_it):
    arm.connect()
    break_it(servos)
    with pytest.raises(ObservationError, match="joints"):
        arm.observe()
    assert np.isfinite(arm.observe().joints.position_rad).all()


def test_velocity_counts_real_time(arm, servos):
    arm.connect()
    first = arm.observe().joints
    servos.servos[1].put(POSITION_AT, servos.servos[1].get(POSITION_AT) + 100)
    second = arm.observe().joints
    seconds = (second.measured_ns - first.measured_ns) / 1e9
    assert second.velocity_rad_s[0] == pytest.approx((second.position_rad - first.position_rad)[0] / seconds)


def test_an_arm_without_power_is_told_as_one(arm, servos):
    servos.powered = False
    with pytest.raises(ConnectionFailed, match="power supply"):
        arm.connect()


def test_a_missing_motor_is_named(arm, servos):
    del servos.servos[4]
    with pytest.raises(ConnectionFailed, match=r"not all six motors.* 4 "):
        arm.connect()


def test_a_busy_port_is_told_as_one(arm, servos):
    servos.busy = True
    with pytest.raises(ConnectionFailed, match="busy"):
        arm.connect()


def test_motors_that_hold_another_calibration_are_refused_without_a_prompt(arm, servos):
    servos.servos[2].put(9, 1000)
    with pytest.raises(CalibrationError, match="another calibration"):
        arm.connect()
    assert servos.opened == 0
    assert not [w for w in servos.writes if w[1] == TORQUE_AT]


def test_power_lost_while_moving_is_told_within_a_packet_timeout(arm, servos):
    arm.connect()
    arm.enable()
    servos.powered = False
    with pytest.raises(ObservationError):
        arm.observe()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("gripper"), "motors"),
        (lambda c: c["elbow_flex"].update(id=9), "id 9"),
        (lambda c: c["elbow_flex"].update(range_max=c["elbow_flex"]["range_min"] + 5), "spans 5"),
        (lambda c: c["elbow_flex"].update(drive_mode=1), "inverted"),
        (lambda c: c["elbow_flex"].update(speed=1), "lerobot-calibrate"),
        (lambda c: c["elbow_flex"].update(range_min=-3), "lerobot-calibrate"),
    ],
)
def test_a_wrong_calibration_is_refused_by_name(tmp_path, calibration, change, message):
    change(calibration)
    path = tmp_path / "arm.json"
    path.write_text(json.dumps(calibration))
    with pytest.raises(CalibrationError, match=message):
        load_calibration(path, -0.17, 1.74)


def test_a_missing_calibration_says_how_to_make_one(tmp_path):
    with pytest.raises(CalibrationError, match="lerobot-calibrate"):
        load_calibration(tmp_path / "none.json", -0.17, 1.74)


@pytest.mark.parametrize("degrees", [True, False])
def test_units_survive_the_way_there_and_back(calibration_file, degrees):
    calibration = load_calibration(calibration_file, -0.17453, 1.74533)
    rad = np.array([0.1, -0.7, 1.2, 0.0, -2.0, 0.4])
    there = calibration.from_rad(rad.copy(), degrees=degrees)
    assert calibration.to_rad(there.copy(), degrees=degrees) == pytest.approx(rad, abs=1e-12)


def test_writes_have_gone_through_lerobots_gains(arm, servos):
    arm.connect()
    arm.enable()
    written = {(number, address) for number, address, _ in servos.writes}
    assert {(n, 21) for n in range(1, 7)} <= written, "position gain of every motor (LeRobot's configure)"
    assert (6, 36) in written, "the gripper's overload limit"
    assert servos.drop[WRITE] == 0
