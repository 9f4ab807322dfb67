"""Whatever comes in, a robot is told finite angles within limits and speed, and the frame says what was wrong."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.kinematics import ur
from models.kinematics.rigid import rotation_angle
from models.retarget.arm import ArmRetargeter
from models.retarget.hand import HandRetargeter
from models.retarget.keypoints import TIPS
from models.retarget.motion import Flag
from models.retarget.steady import steadied
from train_jobs.manipulation.human_hand import hand_track

FRAMES = 24
RIGHT = HandRetargeter("right")
TRACK = hand_track(2.0, seed=4)


def gone(points, frame, finger):
    points[frame, list(TIPS.values())[finger]] = np.nan


def infinite(points, frame, finger):
    points[frame, 5 + finger] = np.inf


def collapsed(points, frame, finger):
    points[frame] = points[frame, finger]


def line(points, frame, finger):
    points[frame] = np.linspace(0, 0.1, 21)[:, None] * np.eye(3)[finger % 3]


def giant(points, frame, finger):
    points[frame] *= 50


def shuffled(points, frame, finger):
    points[frame] = points[frame, ::-1]


def leapt(points, frame, finger):
    points[frame:, 5 + 4 * finger :] += 0.05


DAMAGES = (gone, infinite, collapsed, line, giant, shuffled, leapt)


@given(st.lists(st.tuples(st.sampled_from(DAMAGES), st.integers(0, FRAMES - 1), st.integers(0, 3)), max_size=8),
       st.booleans())  # fmt: skip
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_damage_makes_a_command_that_a_robot_cannot_follow(damages, filtered):
    points, time = TRACK.keypoints_m[:FRAMES].copy(), TRACK.time_s[:FRAMES]
    for damage, frame, finger in damages:
        damage(points, frame, finger)
    points = steadied(points, "right", time) if filtered else points
    motion = RIGHT.retarget(points, "right", time)
    assert np.isfinite(motion.angles_rad).all()
    assert (motion.angles_rad >= RIGHT.hand.lower_rad).all() and (motion.angles_rad <= RIGHT.hand.upper_rad).all()
    speed = np.abs(np.diff(motion.angles_rad, axis=0)) * 30
    assert (speed <= RIGHT.hand.speed_rad_s * (1 + 1e-6)).all()
    missing = ~np.isfinite(points).all(axis=2)
    assert (motion.flags[missing[:, list(TIPS.values())].any(axis=1)] & (Flag.TIP_MISSING | Flag.HELD)).all()
    assert (motion.flags[missing[:, [0, 5, 9, 13]].any(axis=1)] & Flag.HELD).all()


@pytest.mark.parametrize("damage", [collapsed, line, giant])
def test_what_is_no_hand_is_held_and_flagged(damage):
    points = TRACK.keypoints_m[:3].copy()
    damage(points, 1, 0)
    motion = RIGHT.retarget(points, "right", TRACK.time_s[:3])
    assert motion.flags[1] & Flag.HELD
    np.testing.assert_array_equal(motion.angles_rad[1], motion.angles_rad[0])


def test_a_track_of_nothing_but_missing_hands_stays_where_the_robot_was():
    start = RIGHT.middle_rad + 0.1
    motion = RIGHT.retarget(np.full((5, 21, 3), np.nan), "right", TRACK.time_s[:5], before_rad=start)
    np.testing.assert_allclose(motion.angles_rad, np.tile(start, (5, 1)))
    assert (motion.flags == Flag.HELD).all()


@pytest.mark.parametrize(
    "far", [(1.5, 0.2, 0.4), (0.3, -0.9, 0.8), (0.0, 0.0, 2.0), (0.05, -0.03, 1.5), (0.02, 0.0, 0.3)]
)
def test_a_wrist_out_of_reach_gets_the_closest_pose_of_its_orientation_and_says_how_far_it_misses(far):
    arm = ArmRetargeter("ur5e")
    pose = TRACK.base_from_wrist[0].copy()
    pose[:3, 3] = far
    time = np.arange(300) / 30  # long enough to arrive
    motion = arm.retarget(np.tile(pose, (300, 1, 1)), time)
    assert (motion.flags & Flag.UNREACHABLE).all() and not motion.flags[-1] & Flag.SLOWED
    reached = ur.forward(arm.arm, torch.as_tensor(motion.angles_rad[-1]))
    assert float(rotation_angle(reached[:3, :3], torch.as_tensor(pose[:3, :3]))) < 1e-6
    off = np.linalg.norm(reached[:3, 3].numpy() - pose[:3, 3])
    assert off == pytest.approx(motion.miss_m[-1], abs=1e-6) and off > 0
    # Nothing around that keeps the orientation comes closer by more than a centimetre.
    rng = np.random.default_rng(0)
    tried = np.tile(pose, (2000, 1, 1))
    tried[:, :3, 3] = reached[:3, 3].numpy() + rng.normal(0, 0.02, (2000, 3))
    found = ur.inverse(arm.arm, torch.as_tensor(tried))
    nearer = np.linalg.norm(tried[:, :3, 3] - pose[:3, 3], axis=1) < off - 0.01
    assert not (found.reachable.numpy() & nearer).any()


def test_a_live_arm_moves_at_its_speed_and_holds_what_it_does_not_know():
    arm = ArmRetargeter("ur5e")
    whole = arm.retarget(TRACK.base_from_wrist, TRACK.time_s)
    at = whole.angles_rad[0]
    for pose, wanted in zip(TRACK.base_from_wrist[1:30], whole.angles_rad[1:30], strict=True):
        motion = arm.follow(pose, 1 / 30, at)
        assert (np.abs(motion.angles_rad[0] - at) <= np.array(arm.arm.speed_rad_s) / 30).all()
        at = motion.angles_rad[0]
        np.testing.assert_allclose(at, wanted, atol=1e-6)
    held = arm.follow(np.full((4, 4), np.nan), 1 / 30, at)
    assert held.flags[0] & Flag.HELD
    np.testing.assert_array_equal(held.angles_rad[0], at)
