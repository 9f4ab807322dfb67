"""Cartesian steps move the arm as the published measurements say, in training and as deployed."""

import mujoco
import numpy as np
import pytest

from robot import scene
from robot.arm import Arm, roll_pitch_yaw
from robot.cartesian import DEPLOYED, TRAINED, CartesianToJoints, damped_step, gripper_rad

STEPS_PER_CONTROL = 10  # 2 ms each: 50 Hz


@pytest.fixture
def arm():
    return Arm()


class Plant:
    """The arm's chain with its servos, meshes left out, as the response was measured."""

    def __init__(self, arm):
        self.model = arm.model
        self.model.opt.timestep = scene.TIMESTEP_S
        self.model.actuator_forcerange[:] = (-scene.SERVO_TORQUE_N_M, scene.SERVO_TORQUE_N_M)
        self.data = mujoco.MjData(self.model)

    def step(self, control, count):
        self.data.ctrl[:] = control
        mujoco.mj_step(self.model, self.data, count)

    @property
    def joints(self):
        return self.data.qpos.copy()


def start(arm):
    """The episode start of the training scene: wrist down, tool above the cube, reached by servos."""
    plant = Plant(arm)
    plant.data.qpos[3:5] = plant.data.ctrl[3:5] = np.pi / 2
    mujoco.mj_forward(plant.model, plant.data)
    plant.step(plant.data.ctrl.copy(), 50)
    above_m = np.array([0.25, -0.015, 0.05])
    seen = plant.joints
    for _ in range(100):
        joints = plant.joints
        # The original reads its kinematics one physics step late: mj_step moves the joints after it has placed them.
        joints[:5] += 0.5 * damped_step(arm, seen, above_m, locked=(3, 4))
        joints[5] = gripper_rad(arm, 0.3)
        seen = plant.joints
        plant.step(joints, 1)
    return plant


def test_training_response_to_one_20_mm_step(arm):
    plant = start(arm)
    control = CartesianToJoints(arm, TRAINED)
    control.reset(plant.joints)
    from_m = arm.tool_position(plant.joints)
    control.advance(np.array([1.0, 0, 0, 0.3]), plant.joints)
    moved_mm = []
    for _ in range(6):
        plant.step(control.joints(0.3, plant.joints), STEPS_PER_CONTROL)
        moved_mm.append((arm.tool_position(plant.joints) - from_m)[0] * 1e3)
    # The published table; the plant's contact settings and servo torque are not published with it.
    assert np.array(moved_mm)[[0, 1, 2, 3, 5]] == pytest.approx([4.4, 12.5, 16.6, 18.2, 19.4], abs=0.5)


@pytest.mark.parametrize("axis, moved_mm", [(0, (11.5, 0.4, 4.8)), (1, (-0.3, 16.3, -0.3)), (2, (4.1, -0.3, 14.0))])
def test_deployed_response_to_one_20_mm_step(arm, axis, moved_mm):
    joints = start(arm).joints
    control = CartesianToJoints(arm, DEPLOYED)
    control.reset(joints)
    action = np.zeros(4)
    action[axis] = 1.0
    control.advance(action, joints)
    target = control.joints(0.0, joints)
    assert (arm.tool_position(target) - arm.tool_position(joints)) * 1e3 == pytest.approx(moved_mm, abs=0.1)
    assert np.array_equal(target[3:5], joints[3:5]), "the deployed loop locks the wrist"


def test_the_training_target_accumulates_and_stays_in_its_box(arm):
    joints = start(arm).joints
    control = CartesianToJoints(arm, TRAINED)
    control.reset(joints)
    for _ in range(100):
        control.advance(np.array([1.0, 1.0, -1.0, 0.0]), joints)
    assert control.target_m == pytest.approx([0.5, 0.3, 0.01])


@pytest.mark.parametrize("asked", [3.0, -3.0])
def test_an_action_beyond_one_moves_the_target_no_further_than_one(arm, asked):
    control, joints = CartesianToJoints(arm, TRAINED), start(arm).joints
    control.reset(joints)
    from_m = control.target_m.copy()
    control.advance(np.array([asked, 0, 0, 0]), joints)
    assert control.target_m - from_m == pytest.approx([np.sign(asked) * control.scale_m, 0, 0], abs=1e-12)


def test_the_deployed_target_does_not_accumulate(arm):
    joints = start(arm).joints
    control = CartesianToJoints(arm, DEPLOYED)
    for _ in range(5):
        control.advance(np.array([0.0, 1.0, 0.0, 0.0]), joints)
    assert (control.target_m - arm.tool_position(joints))[1] == pytest.approx(0.02)


def test_deployed_the_wrist_keeps_its_bend_and_roll(arm):
    control, joints = CartesianToJoints(arm, DEPLOYED), start(arm).joints
    control.reset(joints)
    control.advance(np.array([1.0, 1.0, -1.0, 0.3]), joints)
    target = control.joints(0.3, joints)
    assert np.array_equal(target[3:5], joints[3:5])
    assert (target[:3] != joints[:3]).all()


def test_the_gripper_covers_its_whole_range(arm):
    assert gripper_rad(arm, -1) == pytest.approx(-0.17453, abs=1e-4)
    assert gripper_rad(arm, 1) == pytest.approx(1.74533, abs=1e-4)
    assert gripper_rad(arm, 7.0) == gripper_rad(arm, 1)


def test_the_jacobian_is_the_derivative(arm):
    joints = np.array([0.2, 0.1, -0.3, 1.0, 0.5, 0.2])
    jacobian = arm.jacobian(joints)
    for joint in range(5):
        step = np.zeros(6)
        step[joint] = 1e-6
        slope = (arm.tool_position(joints + step) - arm.tool_position(joints - step)) / 2e-6
        assert jacobian[:, joint] == pytest.approx(slope, abs=1e-6)


def test_roll_pitch_yaw_builds_the_rotation_again():
    rng = np.random.default_rng(0)
    for _ in range(50):
        roll, pitch, yaw = rng.uniform(-1.5, 1.5, 3)
        (cr, sr), (cp, sp), (cy, sy) = [(np.cos(a), np.sin(a)) for a in (roll, pitch, yaw)]
        rz = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        ry = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
        rx = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
        assert roll_pitch_yaw(rz @ ry @ rx) == pytest.approx([roll, pitch, yaw])


def test_straight_up_has_yaw_zero():
    assert roll_pitch_yaw(np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]))[2] == 0.0
