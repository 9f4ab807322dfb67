"""rig.py: tracklets of different cameras become one object, and only when they can be."""

import numpy as np

from data_jobs.nuscenes.geometry import rotation_matrices
from data_jobs.nuscenes.rig import Tracklet, bearings, link
from data_jobs.nuscenes.synthetic_world import camera_intrinsics, camera_rotation


def tracklet(camera, start_s, end_s, azimuth, drift=0.0, class_id=0, height=0.1):
    time = np.arange(start_s, end_s, 0.1)
    n = len(time)
    return Tracklet(camera, class_id, time, azimuth + drift * time, np.full(n, 0.1), np.full(n, height))


def groups(*tracklets):
    return np.unique(link(tracklets), return_inverse=True)[1].tolist()


def test_an_object_that_leaves_one_camera_and_enters_the_next_keeps_its_id():
    first, second = tracklet(0, 0, 2, 0.3, 0.25), tracklet(1, 2.3, 4, 0.3, 0.25)
    assert groups(first, second) == [0, 0]


def test_an_object_seen_by_two_cameras_at_once_has_one_id():
    assert groups(tracklet(0, 0, 2, 0.5, 0.1), tracklet(1, 1, 3, 0.51, 0.1)) == [0, 0]


def test_other_class_other_direction_other_size_and_long_gaps_do_not_link():
    one = tracklet(0, 0, 2, 0.5)
    assert groups(one, tracklet(1, 2.1, 3, 0.5, class_id=4)) == [0, 1]
    assert groups(one, tracklet(1, 2.1, 3, 1.0)) == [0, 1]
    assert groups(one, tracklet(1, 2.1, 3, 0.5, height=0.3)) == [0, 1]
    assert groups(one, tracklet(1, 3.5, 4, 0.5)) == [0, 1]
    assert groups(one, tracklet(0, 2.1, 3, 0.5)) == [0, 1]  # same camera: that camera's tracker has decided


def test_two_tracks_of_one_camera_at_one_time_never_merge_through_a_third():
    left, right = tracklet(0, 0, 2, 0.50), tracklet(0, 0, 2, 0.53)
    between = tracklet(1, 1, 3, 0.515)
    got = groups(left, right, between)
    assert got[0] != got[1] and got[2] in got[:2]


def test_directions_wrap_around_behind_the_vehicle():
    assert groups(tracklet(3, 0, 2, np.pi - 0.01), tracklet(4, 1, 3, -np.pi + 0.01)) == [0, 0]


def test_bearings_of_neighbouring_cameras_agree_on_a_far_object():
    azimuth = np.radians(28.0)
    direction = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    got = []
    for camera in ("CAM_FRONT", "CAM_FRONT_LEFT"):
        turn, matrix = rotation_matrices(camera_rotation(camera)), camera_intrinsics(camera)
        pixel = matrix @ (turn.T @ direction)
        pixel = pixel[:2] / pixel[2]
        box = np.array([[*(pixel - 10), 20, 20]])
        got.append(bearings(box, matrix[None], turn[None])[0][0])
    np.testing.assert_allclose(got, azimuth, atol=1e-9)
