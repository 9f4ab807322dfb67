"""Pixels and joints become exactly what the policy was trained on; both profiles against numbers worked out by hand."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.arm import Arm
from robot.errors import ObservationError
from robot.networks import NetworkPerception
from robot.observation import ObservationPipeline, Planes, centre_square, normalise_disparity, policy_planes
from robot.records import Frame, Joints, Observation

JOINTS_RAD = np.array([0.07, 0.306, -0.214, 1.571, 1.571, 0.85])
VELOCITY = np.array([0.1, -0.2, 0.3, -0.4, 0.5, -0.6])


def scene(near_m=0.05, seed=0):
    """A 640×480 picture: a ramp of depth, a cube in the middle, a finger at the left edge, outside of the crop."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(0.3, 0.1, 480, dtype=np.float32)[:, None].repeat(640, 1)
    ids = np.full((480, 640), 2, np.uint8)
    ids[200:280, 300:380] = 3
    depth[200:280, 300:380] = 0.15
    ids[400:, 0:40] = 4
    depth[400:, 0:40] = near_m  # the nearest thing lies where the crop cuts it away
    ids[0:20] = 0
    ids[20:30] = 1
    rgb = rng.integers(0, 255, (480, 640, 3), np.uint8)
    return Frame(rgb, 1, depth, ids)


def observation(seed=0, shift=0.0):
    return Observation(Joints(JOINTS_RAD + shift, VELOCITY, 1), scene(seed=seed))


def pipeline(contract):
    return ObservationPipeline(contract, NetworkPerception(None, None, contract.image.disparity.depth_epsilon_m))


def test_pick101_golden(pick101):
    given, planes = pipeline(pick101).push(observation())
    assert given.image.shape == (3, 2, 84, 84) and given.image.dtype == np.float32
    assert given.low_dim.shape == (3, 18) and given.low_dim.dtype == np.float32
    # Ids: 0 unlabeled and 1 background become 0, table 1, cube 2; whole pixel values, not divided.
    assert set(np.unique(planes[0])) == {0, 1, 2}
    assert planes[0][0, 40] == 0 and planes[0][42, 42] == 2 and planes[0][60, 5] == 1
    # Disparity of the cube: range over the whole picture (nearest 0.05 m), rounded down, then cropped and averaged.
    low, high = 1 / 0.301, 1 / 0.051
    assert planes[1][42, 42] == int((1 / 0.151 - low) / (high - low) * 255)
    assert planes[1].max() < 255, "the nearest thing was cropped away after the range was taken"
    assert given.image.max() > 1.0, "the encoder divides by 255 itself"


def test_handoff_golden(handoff):
    given, planes = pipeline(handoff).push(observation())
    assert given.image.shape == (6, 84, 84) and given.low_dim is None
    assert set(np.unique(planes[0])) == {0, 1, 2, 3}
    assert given.image.max() <= 1.0
    low, high = 1 / 0.301, 1 / 0.051
    assert planes[1][42, 42] == int((1 / 0.151 - low) / (high - low + 1e-6) * 255)
    assert given.image[1, 42, 42] == np.float32(planes[1][42, 42]) / np.float32(255)


def test_the_profiles_shrink_disparity_differently(pick101, handoff):
    area = pipeline(pick101).push(observation())[1][1]
    linear = pipeline(handoff).push(observation())[1][1]
    cropped = centre_square(normalise_disparity(1 / (scene().depth_m + np.float32(1e-3)), 0.0))
    assert np.array_equal(area, cv2.resize(cropped, (84, 84), interpolation=cv2.INTER_AREA))
    assert not np.array_equal(area, linear)


def test_proprioception_is_raw_and_in_order(pick101):
    low_dim = pipeline(pick101).push(observation())[0].low_dim[-1]
    position_m, rpy_rad = Arm().tool_pose(JOINTS_RAD)
    assert low_dim[:6] == pytest.approx(JOINTS_RAD, abs=1e-6)
    assert low_dim[6:12] == pytest.approx(VELOCITY, abs=1e-6)
    assert low_dim[12:15] == pytest.approx(position_m, abs=1e-6)
    assert low_dim[15:] == pytest.approx(rpy_rad, abs=1e-6)


def test_the_stack_begins_with_copies_and_runs_oldest_first(pick101):
    pipe = pipeline(pick101)
    first = pipe.push(observation(shift=0.0))[0]
    assert np.array_equal(first.image[0], first.image[2])
    second = pipe.push(observation(shift=0.1))[0]
    assert second.low_dim[:, 0] == pytest.approx([0.07, 0.07, 0.17], abs=1e-6)
    third = pipe.push(observation(shift=0.2))[0]
    assert third.low_dim[:, 0] == pytest.approx([0.07, 0.17, 0.27], abs=1e-6)
    pipe.reset()
    assert pipe.push(observation(shift=0.3))[0].low_dim[:, 0] == pytest.approx([0.37] * 3, abs=1e-6)


def test_near_is_bright():
    disparity = 1 / np.array([[0.1, 0.2], [0.4, 0.8]], np.float32)
    plane = normalise_disparity(disparity, 0.0)
    assert plane[0, 0] == 255 and plane[1, 1] == 0 and plane[0, 0] > plane[0, 1] > plane[1, 0]


@given(st.floats(0.01, 10), st.floats(-5, 5))
def test_scale_and_shift_of_disparity_do_not_matter_much(scale, shift):
    disparity = np.linspace(1, 9, 64, dtype=np.float64).reshape(8, 8)
    plain, moved = normalise_disparity(disparity, 0.0), normalise_disparity(disparity * scale + shift, 0.0)
    assert np.abs(plain.astype(int) - moved.astype(int)).max() <= 1


def test_a_flat_picture_is_all_near_in_training_and_all_far_in_the_handoff():
    flat = np.full((4, 4), 3.0, np.float32)
    assert (normalise_disparity(flat, 0.0) == 255).all()
    assert (normalise_disparity(flat, 1e-6) == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_depth_is_refused(bad):
    disparity = np.ones((4, 4), np.float32)
    disparity[1, 1] = bad
    with pytest.raises(ObservationError, match="NaN"):
        normalise_disparity(disparity, 0.0)


def test_an_unknown_class_is_refused(pick101):
    planes = Planes(np.full((480, 640), 6, np.uint8), np.ones((480, 640), np.float32))
    with pytest.raises(ObservationError, match="class id 6"):
        policy_planes(planes, pick101.image)


def test_a_camera_without_planes_says_what_to_do(pick101):
    bare = Observation(Joints(JOINTS_RAD, VELOCITY, 1), Frame(scene().rgb, 1))
    with pytest.raises(ObservationError, match="--segmenter"):
        pipeline(pick101).push(bare)
    with pytest.raises(ObservationError, match="camera frame"):
        pipeline(pick101).push(Observation(bare.joints, None))
