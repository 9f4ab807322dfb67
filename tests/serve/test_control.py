"""The arm behind the service: what Start runs where nobody names a policy, and what a real arm is not given."""

import pytest

from robot.errors import RobotError
from serve.control import Controller
from serve.schemas import StartRequest
from serve.settings import ControlSettings


def test_start_runs_the_networks_that_ship(rendering):
    session = Controller(ControlSettings())._opened(StartRequest().policy, seed=0)
    try:
        assert session.offer.name == "so101_lift.safetensors" and session.contract.name == "so101_lift"
        assert session.perception.segmenter.run == "so101_seg_sim"
        assert session.robot.config.planes, "the policy looks at depth, too"
    finally:
        session.close()


def test_the_panels_picture_is_small_where_nobody_else_looks(rendering):
    session = Controller(ControlSettings())._opened("scripted", seed=0)
    session.close()
    assert (session.robot.config.width_px, session.robot.config.height_px) == (320, 240)


@pytest.mark.parametrize("policy", ["pretrained", "scripted"])
def test_a_real_arm_is_given_nothing_that_was_made_for_the_simulator(policy):
    with pytest.raises(RobotError, match="needs the simulator"):
        Controller(ControlSettings(robot="so101"))._opened(policy, seed=0)
