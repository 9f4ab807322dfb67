"""motion.py: predictions that follow, in seconds, and turn with the camera."""

import numpy as np
import pytest

from data_jobs.nuscenes import geometry
from data_jobs.nuscenes.association import Step
from data_jobs.nuscenes.motion import MOTIONS, BoxKalman, motion_maker
from data_jobs.runs.errors import RunError
from models.box_kalman import BYTETRACK, TUNED, turned

WH = (1600.0, 900.0)
K = np.array([[1266.0, 0, 800], [0, 1266, 450], [0, 0, 1]])

CAR = np.array([0])


def still(dt_s):
    return Step(dt_s, np.eye(3), WH)


@pytest.mark.parametrize("name", sorted(set(MOTIONS) - {"last_box"}))
@pytest.mark.parametrize("dt_s", [0.05, 0.5])
def test_constant_velocity_is_learned_in_pixels_per_second(name, dt_s):
    model, velocity = motion_maker(name)(), np.array([120.0, -30, 0, 0])
    (state,) = model.begin(np.array([[400.0, 300, 80, 60]]), CAR)
    for k in range(1, 40):
        truth = np.array([400.0, 300, 80, 60]) + velocity * k * dt_s
        predicted = model.predict([state], still(dt_s))[0]
        model.update([state], truth[None])
    np.testing.assert_allclose(predicted, truth, atol=2.0)
    # Irregular time: half a step further is half a step's way.
    half = model.predict([state], still(dt_s / 2))[0]
    np.testing.assert_allclose(half, truth + velocity * dt_s / 2, atol=2.0)


def rotation(yaw_rad):
    """Homography of a camera that turns left about its vertical axis."""
    turn = geometry.rotation_matrices(geometry.yaw_quaternions(yaw_rad))
    to_camera = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    return K @ to_camera @ turn.T @ to_camera.T @ np.linalg.inv(K)


def test_the_ego_turn_moves_the_prediction_with_the_picture():
    homography = rotation(0.05)
    box = np.array([[700.0, 500, 90, 60]])
    plain, ego = BoxKalman(TUNED, ego=False), BoxKalman(TUNED, ego=True)
    step = Step(0.08, homography, WH)
    stays = plain.predict(plain.begin(box, CAR), step)[0]
    goes = ego.predict(ego.begin(box, CAR), step)[0]
    point = homography @ [700, 500, 1]
    np.testing.assert_allclose(stays, box[0])
    np.testing.assert_allclose(goes[:2], point[:2] / point[2], atol=1e-9)
    assert goes[0] > 750


def test_turning_there_and_back_changes_nothing():
    rng = np.random.default_rng(0)
    mean = np.concatenate([rng.uniform(300, 600, (5, 4)), rng.normal(0, 20, (5, 4))], axis=1)
    spread = rng.normal(size=(5, 8, 8))
    covariance = spread @ spread.transpose(0, 2, 1)
    there = turned(mean, covariance, rotation(0.1))
    back = turned(*there, np.linalg.inv(rotation(0.1)))
    np.testing.assert_allclose(back[0], mean, atol=1e-6)
    np.testing.assert_allclose(back[1], covariance, atol=1e-6)


def test_covariances_stay_symmetric_and_positive():
    model = BoxKalman(BYTETRACK, ego=True)
    states = model.begin(np.array([[100.0, 100, 50, 30], [800, 500, 20, 200]]), np.array([0, 4]))
    rng = np.random.default_rng(1)
    for _ in range(200):
        boxes = model.predict(states, Step(float(rng.uniform(0.02, 0.6)), rotation(rng.normal(0, 0.02)), WH))
        if rng.random() < 0.5:
            model.update(states, boxes + rng.normal(0, 1, boxes.shape))
    for state in states:
        assert np.linalg.eigvalsh((state.covariance + state.covariance.T) / 2).min() > 0
        assert np.abs(state.covariance - state.covariance.T).max() < 1e-6 * np.abs(state.covariance).max()


def test_unknown_names_are_refused_with_the_choices():
    with pytest.raises(RunError, match="kalman, kalman_tuned, kalman_ego, trackssm"):
        motion_maker("magic")
