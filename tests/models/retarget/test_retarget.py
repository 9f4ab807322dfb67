"""hand.py, arm.py, solver.py: against dex-retargeting's objective, limits, smoothness, and bad input."""

import numpy as np
import pytest
import torch
from dex_retargeting.optimizer import DexPilotOptimizer, VectorOptimizer
from dex_retargeting.robot_wrapper import RobotWrapper
from dex_retargeting.seq_retarget import SeqRetargeting

from models.errors import UnknownRobot, WrongHand
from models.kinematics import ur
from models.kinematics.allegro import urdf_path
from models.kinematics.rigid import rotation_angle
from models.retarget.arm import ArmRetargeter
from models.retarget.hand import HandRetargeter
from models.retarget.keypoints import from_wrist
from models.retarget.motion import Flag
from models.retarget.objective import targets
from train_jobs.manipulation.human_hand import hand_track

TIPS = ["link_15.0_tip", "link_3.0_tip", "link_7.0_tip", "link_11.0_tip"]


@pytest.fixture(scope="module")
def track():
    return hand_track(4.0, seed=3)


def peer(objective, scaling):
    robot = RobotWrapper(str(urdf_path("right")))
    names = robot.dof_joint_names
    if objective == "pinch":
        return SeqRetargeting(DexPilotOptimizer(robot, names, TIPS, "wrist", scaling=scaling))
    human = np.array([[0, 0, 0, 0], [4, 8, 12, 16]])
    return SeqRetargeting(VectorOptimizer(robot, names, ["wrist"] * 4, TIPS, human, scaling=scaling))


@pytest.mark.parametrize("objective", ["vector", "pinch"])
def test_the_objective_is_dex_retargetings_and_the_answer_no_worse(track, objective):
    ours = HandRetargeter("right", objective)
    theirs = peer(objective, ours.scaling)
    motion = ours.retarget(track.keypoints_m, "right", track.time_s, limit_speed=False)
    view = from_wrist(torch.as_tensor(track.keypoints_m, dtype=torch.float32), "right")
    goal = targets(ours.objective, view.points_m, view.tip_seen, ours.scaling)
    mine = ours.solver.cost(torch.as_tensor(motion.angles_rad, dtype=torch.float32), goal).numpy()
    order = [theirs.optimizer.robot.dof_joint_names.index(name) for name in ours.hand.tree.joints]
    origin, task = theirs.optimizer.target_link_human_indices
    costs = []
    for points, angles in zip(view.points_m.numpy(), motion.angles_rad, strict=True):
        wanted = points[task] - points[origin]
        answer = theirs.retarget(wanted)
        cost = theirs.optimizer.get_objective_function(wanted, np.zeros(0, np.float32), answer.astype(np.float32))
        placed = np.empty(16)
        placed[order] = angles
        costs.append((cost(placed, np.zeros(0)), cost(np.clip(answer, *theirs.joint_limits.T), np.zeros(0))))
    judged = np.array(costs)
    np.testing.assert_allclose(mine, judged[:, 0], rtol=1e-3, atol=1e-5)
    assert judged[:, 0].mean() <= 1.01 * judged[:, 1].mean()


def test_the_gradient_and_curvature_are_those_of_the_cost(track):
    hand = HandRetargeter("right", "pinch")
    kinematics = hand.solver.kinematics.double()
    view = from_wrist(torch.as_tensor(track.keypoints_m[:5]), "right")
    goal = targets(hand.objective, view.points_m, view.tip_seen, hand.scaling)
    hand.solver.ends, hand.solver.crossed = hand.solver.ends.double(), hand.solver.crossed.double()
    angles = torch.as_tensor(np.tile(hand.middle_rad, (5, 1))).requires_grad_()
    anchor = torch.zeros_like(angles)
    cost, gradient, curvature = hand.solver._linearise(angles.detach(), anchor, goal, hand.objective.stay)
    want = hand.solver.cost(angles, goal, anchor)
    torch.testing.assert_close(cost, want.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(want.sum(), angles)[0])
    assert torch.linalg.eigvalsh(curvature).min() > 0
    kinematics.float()


@pytest.mark.parametrize("side", ["left", "right"])
def test_hands_of_either_side_reach_their_tips_within_limits_and_speed(side):
    track = hand_track(4.0, seed=5, side=side)
    hand = HandRetargeter(side)
    motion = hand.retarget(track.keypoints_m, side, track.time_s)
    assert (motion.angles_rad >= hand.hand.lower_rad).all() and (motion.angles_rad <= hand.hand.upper_rad).all()
    speed = np.abs(np.diff(motion.angles_rad, axis=0)) / np.diff(track.time_s)[:, None]
    assert (speed <= hand.hand.speed_rad_s * (1 + 1e-6)).all()
    assert np.nanmedian(motion.tip_error_m) < 0.02


def test_a_left_hand_moves_as_the_right_one_in_a_mirror():
    right, left = (hand_track(1.0, seed=9, side=side) for side in ("right", "left"))
    flipped = right.keypoints_m * np.array([1.0, -1.0, 1.0])
    a = HandRetargeter("right").retarget(right.keypoints_m, "right", right.time_s).angles_rad
    start = HandRetargeter("left")
    b = start.retarget(flipped, "left", left.time_s).angles_rad
    sign = np.ones(16)
    sign[[0, 4, 8]] = -1
    assert np.abs(a * sign - b).max() < 1e-3


def test_where_the_hand_is_and_how_it_is_turned_does_not_matter(track):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    hand = HandRetargeter("right", "vector")
    moved = track.keypoints_m @ turn.T + np.array([0.3, -2.0, 1.0])
    a, b = (hand.retarget(points, "right", track.time_s).angles_rad for points in (track.keypoints_m, moved))
    assert np.abs(a - b).max() < 0.02


@pytest.mark.parametrize("frames", [1, 2, 3, 15, 33])
def test_tracks_of_any_length_are_retargeted(track, frames):
    motion = HandRetargeter("right").retarget(track.keypoints_m[:frames], "right", track.time_s[:frames])
    assert motion.angles_rad.shape == (frames, 16) and np.median(motion.tip_error_m) < 0.04


def test_missing_tips_and_broken_hands_are_held_and_flagged(track):
    points = track.keypoints_m[:30].copy()
    points[10, 8] = np.nan  # one tip
    points[15] = np.nan  # everything
    points[20] = 0.01  # collapsed into a point
    points[25] *= 100  # not in metres
    motion = HandRetargeter("right").retarget(points, "right", track.time_s[:30])
    assert motion.flags[10] & Flag.TIP_MISSING and np.isnan(motion.tip_error_m[10, 0])
    np.testing.assert_allclose(motion.angles_rad[10, :4], motion.angles_rad[9, :4], atol=0.25)
    for frame in (15, 20, 25):
        assert motion.flags[frame] & Flag.HELD
    assert np.isfinite(motion.angles_rad).all() and np.isnan(motion.tip_error_m[15]).all()


def test_a_track_that_jumps_is_slowed_not_followed(track):
    points = track.keypoints_m[:40].copy()
    points[20:] = hand_track(4.0, seed=11).keypoints_m[40:60]
    hand = HandRetargeter("right")
    motion = hand.retarget(points, "right", track.time_s[:40])
    assert motion.flags[20] & Flag.SLOWED
    assert (np.abs(np.diff(motion.angles_rad, axis=0)) <= hand.hand.speed_rad_s / 30 * (1 + 1e-6)).all()


def test_live_frames_follow_the_track(track):
    hand = HandRetargeter("right", "vector")
    whole = hand.retarget(track.keypoints_m, "right", track.time_s)
    at, errors = whole.angles_rad[0], []
    for k in range(1, len(track.time_s)):
        motion = hand.follow(track.keypoints_m[k], "right", 1 / 30, at)
        assert (np.abs(motion.angles_rad[0] - at) <= hand.hand.speed_rad_s / 30).all()
        at = motion.angles_rad[0]
        errors.append(motion.tip_error_m[0])
    assert np.median(errors) < 1.2 * np.nanmedian(whole.tip_error_m) + 1e-3


def test_wrong_hands_shapes_and_names_are_refused(track):
    hand = HandRetargeter("right")
    with pytest.raises(WrongHand, match="a left hand was given to a right Allegro"):
        hand.retarget(track.keypoints_m, "left", track.time_s)
    with pytest.raises(ValueError, match="must be \\(frames, 21, 3\\)"):
        hand.retarget(track.keypoints_m[:, :20], "right", track.time_s)
    with pytest.raises(ValueError, match="increasing"):
        hand.retarget(track.keypoints_m, "right", track.time_s[::-1])
    with pytest.raises(UnknownRobot, match="vector, pinch"):
        HandRetargeter("right", "magic")
    assert HandRetargeter("right").retarget(np.zeros((0, 21, 3)), "right", np.zeros(0)).angles_rad.shape == (0, 16)


def test_the_arm_puts_the_wrist_where_the_hand_was(track):
    arm = ArmRetargeter("ur5e")
    motion = arm.retarget(track.base_from_wrist, track.time_s)
    got, want = ur.forward(arm.arm, torch.as_tensor(motion.angles_rad)), torch.as_tensor(track.base_from_wrist)
    fine = motion.flags == 0
    assert fine.mean() > 0.9
    assert (got - want)[torch.as_tensor(fine), :3, 3].norm(dim=-1).max() < 1e-6
    assert rotation_angle(got[..., :3, :3], want[..., :3, :3])[torch.as_tensor(fine)].max() < 1e-6
    assert (np.abs(np.diff(motion.angles_rad, axis=0)) <= np.array(arm.arm.speed_rad_s) / 30 * (1 + 1e-6)).all()


def test_unreachable_missing_and_jumping_wrists_are_flagged(track):
    arm, poses = ArmRetargeter("ur5e"), track.base_from_wrist[:40].copy()
    poses[10:15, :3, 3] = [2.0, 0.0, 0.3]
    poses[20] = np.nan
    motion = arm.retarget(poses, track.time_s[:40], before_rad=None)
    assert (motion.flags[10:15] & Flag.UNREACHABLE).all() and (motion.miss_m[10:15] > 0.5).all()
    assert motion.flags[20] & Flag.HELD and np.isnan(motion.miss_m[20])
    assert motion.flags[10] & Flag.SLOWED and np.isfinite(motion.angles_rad).all()
    with pytest.raises(ValueError, match="\\(frames, 4, 4\\)"):
        arm.retarget(poses[:, :3], track.time_s[:40])
