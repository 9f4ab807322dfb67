"""ur.py against pinocchio, round trips over all branches, singularities, the workspace's edge, and continuity."""

import math

import numpy as np
import pinocchio as pin
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.errors import UnknownRobot
from models.kinematics import ur
from models.kinematics.rigid import inverse as inverse_pose
from models.kinematics.rigid import rotation_about, rotation_angle


def random_angles(n, seed=0):
    return (torch.rand(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * math.pi


def misses(arm, angles, wanted):
    """Metres and radians between the poses that angles give and those wanted."""
    got = ur.forward(arm, angles)
    return (got[..., :3, 3] - wanted[..., :3, 3]).norm(dim=-1), rotation_angle(got[..., :3, :3], wanted[..., :3, :3])


def pinocchio_arm(arm):
    """The arm as a pinocchio model: joints about z, each row's constant part folded into the next placement."""
    model, parent, at = pin.Model(), 0, pin.SE3.Identity()
    lengths = (
        (arm.d1, 0, math.pi / 2), (0, arm.a2, 0), (0, arm.a3, 0), (arm.d4, 0, math.pi / 2), (arm.d5, 0, -math.pi / 2),
        (arm.d6, 0, 0),
    )  # fmt: skip
    for k, (d, a, alpha) in enumerate(lengths):
        parent = model.addJoint(parent, pin.JointModelRZ(), at, f"joint{k}")
        at = pin.SE3(pin.utils.rotate("x", alpha), np.array([a, 0, d]))
    model.addFrame(pin.Frame("flange", parent, at, pin.FrameType.OP_FRAME))
    return model


@pytest.mark.parametrize("name", ur.ARMS)
def test_forward_kinematics_equal_pinocchio(name):
    arm, model = ur.ARMS[name], pinocchio_arm(ur.ARMS[name])
    data, angles = model.createData(), random_angles(200)
    got = ur.forward(arm, angles).numpy()
    for k in range(len(angles)):
        pin.framesForwardKinematics(model, data, angles[k].numpy())
        np.testing.assert_allclose(got[k], data.oMf[model.getFrameId("flange")].homogeneous, atol=1e-12)


@pytest.mark.parametrize("poses", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ur.ARMS)
def test_every_reachable_pose_comes_back_on_every_branch(name, poses):
    arm, angles = ur.ARMS[name], random_angles(poses)
    wanted = ur.forward(arm, angles)
    found = ur.inverse(arm, wanted)
    metres, radians = misses(arm, found.angles_rad, wanted[:, None])
    assert found.reachable.all()
    reaches = found.excess_m <= ur.EDGE_M
    right = (metres < 1e-6) & (radians < 1e-6)
    assert right[reaches].double().mean() >= 0.9999
    assert right.any(-1).double().mean() >= 0.9999
    apart = ur.wrapped(found.angles_rad - angles[:, None]).abs().amax(-1)
    assert (apart.amin(-1) < 1e-5).double().mean() >= 0.9999  # the angles it was made from are among them
    assert torch.bincount(apart.argmin(-1), minlength=8).min() > poses / 10  # and every branch was the one


def test_branches_differ_and_keep_their_meaning():
    arm = ur.arm_named("ur5e")
    found = ur.inverse(arm, ur.forward(arm, torch.tensor([0.3, -1.2, 1.0, -0.8, 0.9, 0.4], dtype=torch.float64)))
    angles = found.angles_rad.reshape(2, 2, 2, 6)  # shoulder, wrist, elbow
    assert (angles[:, 0, :, 4] > 0).all() and (angles[:, 1, :, 4] < 0).all()
    assert (angles[..., 0, 2] > 0).all() and (angles[..., 1, 2] < 0).all()
    assert len({tuple(row.round(decimals=6).tolist()) for row in found.angles_rad}) == 8


@pytest.mark.parametrize(
    ("angles", "flag"),
    [([0.3, -1.0, 1.2, -0.5, 0.0, 0.7], "wrist_singular"), ([0.3, -1.0, 0.0, -0.5, 0.8, 0.7], "elbow_singular")],
)
def test_singular_poses_are_named_and_solved(angles, flag):
    arm, given_angles = ur.arm_named("ur5"), torch.tensor(angles, dtype=torch.float64)
    wanted = ur.forward(arm, given_angles)
    found = ur.inverse(arm, wanted, wrist_3_rad=given_angles[5])
    assert getattr(found, flag).any()
    near = ur.nearest(arm, found, given_angles)
    metres, radians = misses(arm, near, wanted)
    assert metres < 1e-6 and radians < 1e-6
    if flag == "wrist_singular":  # the joint that the pose leaves open was told, so all six come back
        torch.testing.assert_close(near, given_angles, atol=1e-6, rtol=0)


def test_the_shoulders_singularity_is_named():
    arm = ur.arm_named("ur5")
    # The wrist point on the inner cylinder: the arm straight up, so that it is only d4 away from the first axis.
    found = ur.inverse(arm, ur.forward(arm, torch.tensor([0.4, -math.pi / 2, 0, 0, 0.6, 0.2], dtype=torch.float64)))
    wrist_off = ur.forward(arm, torch.tensor([0.4, -math.pi / 2, 0, -math.pi / 2, 0.6, 0.2], dtype=torch.float64))
    assert not found.shoulder_singular
    assert ur.inverse(arm, wrist_off).shoulder_singular


@given(
    st.floats(0, 2 * math.pi), st.floats(-0.5, 2.0), st.floats(1.0, 3.0),
    st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: sum(v * v for v in q) > 0.05),
)  # fmt: skip
def test_unreachable_poses_are_flagged_and_missed_by_what_is_said(around, height, far, axis_angle):
    arm = ur.arm_named("ur5e")
    *axis, angle = axis_angle
    axis = torch.tensor(axis, dtype=torch.float64) + 1e-3
    wanted = torch.eye(4, dtype=torch.float64)
    wanted[:3, :3] = rotation_about(axis / axis.norm(), torch.tensor(3 * angle, dtype=torch.float64))
    wanted[:3, 3] = torch.tensor([far * math.cos(around), far * math.sin(around), height])
    found = ur.inverse(arm, wanted)
    metres, radians = misses(arm, found.angles_rad, wanted)
    torch.testing.assert_close(metres, found.excess_m, atol=1e-6, rtol=0)
    assert radians.max() < 1e-6 and bool(found.reachable) == bool(metres.min() < 1e-9)
    if far > 1.4:
        assert not found.reachable


def test_poses_inside_the_shoulder_cylinder_are_flagged():
    arm = ur.arm_named("ur5e")
    wanted = torch.eye(4, dtype=torch.float64)
    wanted[:3, 3] = torch.tensor([0.01, 0.0, 0.5])
    found = ur.inverse(arm, wanted)
    metres, radians = misses(arm, found.angles_rad, wanted)
    assert not found.reachable and radians.max() < 1e-6
    torch.testing.assert_close(metres.min(), torch.tensor(arm.d4 - 0.01, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_nearest_branch_follows_a_path_without_jumps():
    arm = ur.arm_named("ur10e")
    time = torch.linspace(0, 6, 601, dtype=torch.float64)[:, None]
    way = torch.tensor([[0.5, -1.2, 1.3, -1.0, -1.2, 3.0]]) + torch.sin(time * torch.linspace(0.5, 1.0, 6)) * 0.8
    found = ur.inverse(arm, ur.forward(arm, way))
    at, path = way[0], []
    for k in range(len(way)):
        one = ur.Inverse(*(getattr(found, name)[k] for name in ur.Inverse.__slots__))
        at = ur.nearest(arm, one, at)
        path.append(at)
    torch.testing.assert_close(torch.stack(path), way, atol=1e-6, rtol=0)  # also past π, where angles wrap


def test_gradients_flow_through_both_directions():
    arm, angles = ur.arm_named("ur3"), random_angles(3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: ur.forward(arm, q), (angles,))
    base = ur.forward(arm, angles)
    # A small turn and shift of the flange through the whole inverse and back is that turn and shift.
    assert torch.autograd.gradcheck(lambda q: ur.inverse(arm, ur.forward(arm, q)).angles_rad, (angles,), atol=1e-5)
    assert (inverse_pose(base) @ base - torch.eye(4, dtype=torch.float64)).abs().max() < 1e-12


def test_an_unknown_arm_is_refused_with_the_choices():
    with pytest.raises(UnknownRobot, match="ur3, ur5, ur10, ur3e, ur5e, ur10e"):
        ur.arm_named("ur7")
