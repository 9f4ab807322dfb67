"""HandFollower: real pictures to joints within limits and speed, the same for the same, bad input in one sentence."""

import pickle

import cv2
import numpy as np
import pytest
import torch

from actors.hand_follower import HandFollower, _camera_from_wrist
from actors.hand_records import HandRig
from actors.messages import Hand
from models.kinematics.rigid import rotation_angle
from models.retarget.keypoints import from_wrist
from models.retarget.motion import Flag
from train_jobs.manipulation.human_hand import hand_track

STEP_NS = 33_000_000
CAMERA = (600.0, 600.0, 320.0, 240.0)
# A camera a metre above the table in front of the robot, looking down.
ABOVE = (0.0, -1.0, 0.0, 0.45, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 1.0)
RIG = HandRig("right", "ur5e", CAMERA, ABOVE)


@pytest.fixture(scope="module")
def follower(weights):
    made = HandFollower("lite")
    for name in ("palm_detection_lite", "hand_landmark_lite"):
        weights(name)
    made.load()
    made.warm_up()
    yield made
    made.close()


@pytest.fixture(scope="module")
def pictures(follower, shared_dir):
    """Real pictures that show a right hand."""
    files = sorted((shared_dir / "data" / "hands" / "frames").glob("*.jpg"))
    blobs = [file.read_bytes() for file in files]
    return [blob for blob in blobs if follower.follow(blob, 1, HandRig("right"))[0].seen][:3]


def test_real_pictures_become_joints_within_limits_and_speed(follower, pictures):
    state, before = None, None
    robot = follower._hands["right"].hand
    for k in range(6):
        command, state = follower.follow(pictures[k // 2], (k + 1) * STEP_NS, RIG, state)
        assert command.seen and command.hand_rad.shape == (16,) and command.arm_rad.shape == (6,)
        assert (command.hand_rad >= robot.lower_rad).all() and (command.hand_rad <= robot.upper_rad).all()
        if before is not None:
            moved = np.abs(command.hand_rad - before.hand_rad)
            assert (moved <= robot.speed_rad_s * STEP_NS / 1e9 * (1 + 1e-9)).all()
            assert (np.abs(command.arm_rad - before.arm_rad) <= np.pi * STEP_NS / 1e9 * (1 + 1e-9)).all()
        before = command


def test_the_same_call_gives_the_same_answer_wherever_the_state_has_been(follower, pictures):
    first, state = follower.follow(pictures[0], STEP_NS, RIG)
    travelled = pickle.loads(pickle.dumps(state))
    one, two = (follower.follow(pictures[0], 2 * STEP_NS, RIG, s)[0] for s in (state, travelled))
    np.testing.assert_array_equal(one.hand_rad, two.hand_rad)
    np.testing.assert_array_equal(one.arm_rad, two.arm_rad)
    assert np.abs(first.hand_rad - one.hand_rad).max() > 0


def test_a_picture_without_the_hand_holds_and_says_so(follower, pictures):
    command, state = follower.follow(pictures[0], STEP_NS, RIG)
    empty = np.zeros((240, 320, 3), np.uint8)
    held, _ = follower.follow(empty, 2 * STEP_NS, RIG, state)
    assert not held.seen and held.flags & Flag.HELD
    np.testing.assert_array_equal(held.hand_rad, command.hand_rad)
    np.testing.assert_array_equal(held.arm_rad, command.arm_rad)


@pytest.mark.parametrize(
    "rig, reason",
    [
        (("both",), "side is left or right"),
        (("left", "ur5e"), "an arm needs intrinsics"),
        (("left", "ur5e", (0.0, 600.0, 1.0, 1.0), ABOVE), "focal lengths above 0"),
        (("left", "ur5e", CAMERA, (float("nan"),) * 16), "finite"),
        (("left", "ur5e", CAMERA, (2.0,) * 16), "no rigid transform"),
        (("left", "ur5e", CAMERA[:3], ABOVE), "4 numbers"),
    ],
)
def test_a_rig_that_cannot_be_is_refused(rig, reason):
    with pytest.raises(ValueError, match=reason):
        HandRig(*rig)


def test_bad_pictures_times_and_arms_are_refused(follower, pictures):
    _, state = follower.follow(pictures[0], STEP_NS, RIG)
    with pytest.raises(ValueError, match="no picture"):
        follower.follow(b"no jpeg", 2 * STEP_NS, RIG, state)
    with pytest.raises(ValueError, match="captured_ns rises"):
        follower.follow(pictures[0], STEP_NS, RIG, state)
    with pytest.raises(ValueError, match="there is no arm 'kuka'"):
        follower.joints(HandRig("left", "kuka", CAMERA, ABOVE))
    assert follower.joints(RIG)[0] == "joint_0.0"


def test_the_wrists_place_is_found_from_a_hand_of_known_size():
    track = hand_track(1.0, seed=1)
    metric = track.keypoints_m[0] - track.keypoints_m[0].mean(axis=0)
    turn = cv2.Rodrigues(np.array([0.3, -0.5, 0.2]))[0]
    seen = metric @ turn.T + np.array([0.05, -0.02, 0.6])
    fx, fy, cx, cy = CAMERA
    pixels = seen[:, :2] / seen[:, 2:] * (fx, fy) + (cx, cy)
    hand = Hand("right", 1.0, 1.0, np.hstack([pixels, seen[:, 2:]]), metric, np.zeros(4))
    pose = _camera_from_wrist(hand, RIG)
    want = from_wrist(torch.as_tensor(seen), "right").rotation
    np.testing.assert_allclose(pose[:3, 3], seen[0], atol=1e-4)
    assert float(rotation_angle(torch.as_tensor(pose[:3, :3]), want)) < 1e-3
