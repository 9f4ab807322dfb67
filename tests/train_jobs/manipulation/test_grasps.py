"""grasp_scene.py, mime.py, grasps.py: the scene is our kinematics, the outcome the object's, and failures are seen."""

import mujoco
import numpy as np
import pytest
import torch

from models.kinematics import ur
from models.kinematics.allegro import TIPS, allegro
from models.retarget.keypoints import from_wrist
from train_jobs.manipulation import grasps
from train_jobs.manipulation.grasp_scene import Thing, build
from train_jobs.manipulation.grasps import NO_GRIP, SUCCESS, UNREACHABLE, grasp, right_hand
from train_jobs.manipulation.mime import LIFT_M, mimed_grasp

CYLINDER = 1  # a seed whose object is one, in the middle of the table


@pytest.fixture(scope="module")
def robot():
    return right_hand("pinch", make_up=True)


@pytest.mark.parametrize("arm, side", [("ur5e", "right"), ("ur3", "left")])
def test_the_scene_moves_as_the_kinematics_say(arm, side):
    model = build(arm, side, Thing("box", (0.02, 0.02, 0.04), 0.1, (0.5, 0.0), 0.3))
    data, hand = mujoco.MjData(model), allegro(side)
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.concatenate([rng.uniform(-3, 3, 6), rng.uniform(hand.lower_rad, hand.upper_rad)])
        data.qpos[[model.joint(model.actuator(k).name).qposadr[0] for k in range(model.nu)]] = angles
        mujoco.mj_kinematics(model, data)
        flange = ur.forward(ur.arm_named(arm), torch.as_tensor(angles[:6])).numpy()
        points = hand.kinematics((*TIPS, "wrist"))(torch.as_tensor(angles[6:])).numpy()
        tips = (points[:4] - points[4]) @ flange[:3, :3].T + flange[:3, 3]
        np.testing.assert_allclose(data.body("flange").xpos, flange[:3, 3], atol=1e-9)
        np.testing.assert_allclose([data.geom(f"tip_{k}").xpos for k in range(4)], tips, atol=1e-9)
    limits = model.jnt_range[[model.joint(name).id for name in hand.tree.joints]]
    np.testing.assert_allclose(limits, np.stack([hand.lower_rad, hand.upper_rad], 1))


def test_a_mimed_grasp_lifts_the_object_and_open_fingers_do_not(robot):
    result = grasp(CYLINDER, robot)
    assert result.outcome == SUCCESS and result.lifted_m == pytest.approx(LIFT_M, abs=0.03)
    assert grasp(CYLINDER, robot, shut=False).outcome == NO_GRIP


def test_a_grasp_out_of_reach_is_not_replayed(robot, monkeypatch):
    far = mimed_grasp(CYLINDER, robot.hand.scaling)
    far.base_from_wrist[:, 0, 3] += 2.0
    monkeypatch.setattr(grasps, "mimed_grasp", lambda seed, scaling: far)
    assert grasp(CYLINDER, robot).outcome == UNREACHABLE


def test_the_arm_makes_up_for_what_the_fingers_cannot_reach(robot):
    mime = mimed_grasp(CYLINDER, robot.hand.scaling)
    motion = robot.retarget(mime.keypoints_m, mime.base_from_wrist, mime.time_s)
    flange = ur.forward(robot.arm.arm, torch.as_tensor(motion.arm.angles_rad)).numpy()
    points = robot.hand.hand.kinematics((*TIPS, "wrist"))(torch.as_tensor(motion.hand.angles_rad)).numpy()
    tips = (points[:, :4] - points[:, 4:]) @ flange[:, :3, :3].transpose(0, 2, 1) + flange[:, None, :3, 3]
    seen = from_wrist(torch.as_tensor(mime.keypoints_m), "right").points_m.numpy()[:, [8, 12, 4]]
    person = robot.hand.scaling * seen @ mime.base_from_wrist[:, :3, :3].transpose(0, 2, 1)
    person += mime.base_from_wrist[:, None, :3, 3]
    meet = (tips[:, 3] + (tips[:, 0] + tips[:, 1]) / 2) / 2
    wanted = (person[:, 2] + (person[:, 0] + person[:, 1]) / 2) / 2
    fine = motion.arm.flags == 0
    assert fine.mean() > 0.9
    np.testing.assert_allclose(meet[fine], wanted[fine], atol=1e-5)


def test_a_mime_is_the_same_for_the_same_seed():
    first, second = mimed_grasp(3, 1.22), mimed_grasp(3, 1.22)
    np.testing.assert_array_equal(first.keypoints_m, second.keypoints_m)
    turn = first.base_from_wrist[:, :3, :3]
    np.testing.assert_allclose(turn @ turn.transpose(0, 2, 1), np.tile(np.eye(3), (len(turn), 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turn), 1.0)
