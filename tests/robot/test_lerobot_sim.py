"""LeRobot's own factory and parser find the simulated arm, and its calls work as on a real follower."""

import sys

import pytest

from robot.lerobot_sim import ReafferenceSim, ReafferenceSimConfig


@pytest.fixture
def arm(tmp_path):
    robot = ReafferenceSim(ReafferenceSimConfig(id="test", calibration_dir=tmp_path, camera=False, fps=30))
    robot.connect()
    yield robot
    if robot.is_connected:
        robot.disconnect()


def test_lerobots_factory_makes_it(tmp_path):
    from lerobot.robots.utils import make_robot_from_config

    robot = make_robot_from_config(ReafferenceSimConfig(id="test", calibration_dir=tmp_path))
    assert isinstance(robot, ReafferenceSim) and robot.is_calibrated
    assert robot.observation_features["wrist"] == (480, 640, 3)


def test_lerobots_command_line_finds_it(monkeypatch, tmp_path):
    """As `lerobot-...  --robot.discover_packages_path=robot.lerobot_sim --robot.type=reafference_sim` does."""
    from dataclasses import dataclass

    from lerobot.configs import parser
    from lerobot.robots.config import RobotConfig

    @dataclass
    class Options:
        robot: RobotConfig

    @parser.wrap()
    def tool(options: Options):
        return options.robot

    arguments = [
        "tool",
        "--robot.discover_packages_path=robot.lerobot_sim",
        "--robot.type=reafference_sim",
        "--robot.seed=4",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    assert tool() == ReafferenceSimConfig(seed=4)


def test_observation_and_action_have_the_promised_names(arm):
    observation = arm.get_observation()
    assert set(observation) == set(arm.observation_features)
    sent = arm.send_action({name: observation[name] for name in arm.action_features})
    assert set(sent) == set(arm.action_features)
    assert sent["elbow_flex.pos"] == pytest.approx(observation["elbow_flex.pos"], abs=0.5)


def test_what_was_really_sent_is_returned(arm):
    start = arm.get_observation()
    far = {name: start[name] + 90 for name in arm.action_features} | {"gripper.pos": start["gripper.pos"]}
    sent = arm.send_action(far)
    assert sent["shoulder_pan.pos"] < start["shoulder_pan.pos"] + 30, "the governor let through one tick's worth"
    nan = arm.send_action(dict.fromkeys(arm.action_features, float("nan")))
    assert all(value == value for value in nan.values()), "LeRobot passes NaN to the servos; the governor does not"


def test_it_cannot_be_used_before_connecting(tmp_path):
    from lerobot.utils.errors import DeviceNotConnectedError

    robot = ReafferenceSim(ReafferenceSimConfig(id="test", calibration_dir=tmp_path))
    with pytest.raises(DeviceNotConnectedError):
        robot.get_observation()
