"""One contract for all robots: the simulated arm, the real driver on packet-level servos, and a recording."""

import numpy as np
import pytest

from robot.rate import MonotonicClock, Schedule, VirtualClock
from robot.records import JOINTS
from robot.replay import ReplayRobot, load_episode
from robot.sim import SimConfig, SimRobot
from robot.so101 import So101Config, So101Robot
from tests.robot.test_recorder import record


@pytest.fixture(params=["sim", "so101", "replay"])
def robot(request, tmp_path, pick101):
    if request.param == "sim":
        made = SimRobot(SimConfig(camera=False), VirtualClock())
    elif request.param == "so101":
        request.getfixturevalue("servos")
        path = request.getfixturevalue("calibration_file")
        made = So101Robot(So101Config(port="/dev/ttyTEST", calibration=path), MonotonicClock())
    else:
        record(tmp_path / "episode", pick101, seconds=0.3)
        made = ReplayRobot(load_episode(tmp_path / "episode"), VirtualClock())
    yield made
    made.close(release_torque=True)


def test_life_in_order(robot):
    robot.connect()
    offer = robot.arm_offer()
    assert offer.joints == JOINTS and offer.calibrated and offer.frame == "mujoco_base"
    assert robot.camera_offer() is None
    first = robot.observe()
    robot.enable()
    sent = robot.act(first.joints.position_rad)
    assert sent.shape == (6,) and sent == pytest.approx(first.joints.position_rad, abs=0.002)
    robot.close(release_torque=True)
    robot.close(release_torque=True)


def test_observations_are_finite_read_only_and_stamped(robot):
    robot.connect()
    one, two = robot.observe().joints, robot.observe().joints
    assert np.isfinite(one.position_rad).all() and one.position_rad.dtype == np.float64
    assert not one.position_rad.flags.writeable and two.measured_ns >= one.measured_ns
    with pytest.raises(ValueError, match="read-only"):
        one.position_rad[0] = 0.0


def test_an_observation_does_not_change_under_the_readers_hands(robot):
    robot.connect()
    robot.enable()
    one = robot.observe().joints
    kept = one.position_rad.copy()
    robot.act(kept + 0.05)
    robot.observe()
    assert np.array_equal(one.position_rad, kept)


def test_the_simulated_arm_goes_where_it_is_told():
    clock = VirtualClock()
    arm = SimRobot(SimConfig(camera=False), clock)
    arm.connect()
    goal = arm.observe().joints.position_rad + np.array([0.1, -0.1, 0.05, 0.0, 0.1, 0.1])
    schedule = Schedule(50, clock)
    for _ in range(60):
        schedule.next()
        arm.act(goal)
        joints = arm.observe().joints
    assert joints.position_rad == pytest.approx(goal, abs=0.02)
    assert np.abs(joints.velocity_rad_s).max() < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_is_the_same_world(seed):
    places = []
    for _ in range(2):
        clock = VirtualClock()
        arm = SimRobot(SimConfig(camera=False, seed=seed), clock)
        arm.connect()
        clock.sleep_until_ns(200_000_000)
        places.append((arm.observe().joints.position_rad.tobytes(), arm.cube_position_m().tobytes()))
    assert places[0] == places[1]


def test_the_wrist_camera_sees_cube_table_and_fingers(rendering):
    clock = VirtualClock()
    arm = SimRobot(SimConfig(), clock)
    arm.connect()
    frame = arm.observe().frame
    arm.close(release_torque=True)
    assert frame.rgb.shape == (480, 640, 3) and frame.rgb.std() > 20
    assert {2, 3, 4} <= set(np.unique(frame.class_ids)), "table, cube, static finger"
    cube = frame.class_ids == 3
    red, green, blue = frame.rgb[cube].astype(int).mean(axis=0)
    assert red > 2 * green and red > 2 * blue, "the picture is RGB and lies on its classes"
    # The cube's top is 3 cm nearer than the table around it; depth is metres along the optical axis.
    assert 0.05 < frame.depth_m[cube].min() < 0.25
    assert frame.depth_m[cube].mean() < frame.depth_m[(frame.class_ids == 2)].max()


def test_the_camera_thread_keeps_giving_new_frames(rendering):
    clock = MonotonicClock()
    arm = SimRobot(SimConfig(planes=False), clock)
    arm.connect()
    stamps = set()
    schedule = Schedule(30, clock)
    for _ in range(40):
        schedule.next()
        stamps.add(arm.observe().frame.captured_ns)
    arm.close(release_torque=True)
    assert len(stamps) > 3
